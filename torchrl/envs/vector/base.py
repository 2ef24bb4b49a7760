"""The base of envs over simulators: an Env whose tensors are views of numpy buffers, which a worker fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from gymnasium import Space
from tensordict import TensorDict, TensorDictBase

from torchrl.data.specs import Composite
from torchrl.envs.base import Env, ResetOptions, action_of
from torchrl.envs.conversions import spec_from_space
from torchrl.envs.env_state import copy_options
from torchrl.envs.simulators.offsets import count_from_zero
from torchrl.envs.vector.actions import action_reader
from torchrl.envs.vector.buffers import StepBuffers, allocate
from torchrl.envs.vector.worker import Worker
from torchrl.errors import EnvError, SpecError, explain
from torchrl.unchecked import new_tensordict, put, shallow

VIEWS = ("_read", "_next", "_roots", "_nested_keys")  # of the memory of the worker; made anew in a copy


class WorkerEnv(Env):
    """Base of envs whose simulators a worker steps; their tensors are views of the buffers that the worker writes.

    Args:
        make_worker: builds the worker, which steps the simulators and writes into the given buffers.
        observation_space: of one simulator.
        action_space: of one simulator.
        batch_size: ``[num_envs]``, or ``[]`` for one row.
        buffers: existing memory to write to; None allocates it, see :func:`~torchrl.envs.vector.buffers.allocate`.

    Raises:
        EnvError: an observation has a name that the environment uses itself.
        SpecError: a space without a matching spec, or one whose choices do not start at 0.
    """

    def __init__(
        self,
        make_worker: Callable[[StepBuffers], Worker],
        *,
        observation_space: Space,
        action_space: Space,
        batch_size: Sequence[int],
        buffers: StepBuffers | None = None,
    ) -> None:
        for name, space in (("observation_space", observation_space), ("action_space", action_space)):
            if count_from_zero(space)[1] is not None:
                hint = "GymSimulator(env) presents such a space as one that does."
                expected = f"an {name} whose choices start at 0"
                raise SpecError(explain(type(self).__name__, expected=expected, got=space, hint=hint))
        observation = spec_from_space(observation_space, batch_size)
        if not isinstance(observation, Composite):
            observation = Composite({"observation": observation}, shape=batch_size)
        action = spec_from_space(action_space, batch_size)
        super().__init__(batch_size=batch_size, observation_spec=observation, action_spec=action)
        buffers = allocate(observation_space, self.batch_size.numel()) if buffers is None else buffers
        self._worker = make_worker(buffers)
        self._action_space = action_space
        self._make_views(buffers)

    def _make_views(self, buffers: StepBuffers) -> None:
        self._read = action_reader(self._action_space, self.action_spec)
        self._next = self._view(buffers.next)
        self._roots = tuple(self._view(root) for root in buffers.roots)
        self._nested_keys = _nested_keys(self._next)

    def __getstate__(self) -> dict:
        """Return the attributes for a copy (``deepcopy``, ``pickle``), which gets its own memory and simulators.

        The copy must be reset before it steps.

        Raises:
            EnvError: the simulators cannot be copied.
        """
        return {name: value for name, value in vars(self).items() if name not in VIEWS}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._make_views(self._worker.buffers)

    def _view(self, tree: dict) -> TensorDict:
        """Wrap numpy buffers in a TensorDict over the same memory; for batch size ``[]`` without the row dimension."""
        rows = {}
        for key, value in tree.items():
            if isinstance(value, dict):
                rows[key] = self._view(value)
            else:
                rows[key] = torch.from_numpy(value) if self.batch_size else torch.from_numpy(value)[0]
        return new_tensordict(rows, self.batch_size)

    def _root(self) -> TensorDict:
        return _new_containers(self._roots[self._worker.turn], self._nested_keys)

    def step_rows(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        ended = self._worker.advance(self._read(action_of(tensordict)))
        return _new_containers(self._next, self._nested_keys), self._root(), ended

    def reset_rows(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        rows = range(self.batch_size.numel()) if mask is None else np.flatnonzero(mask.numpy())
        rows = rows.tolist() if mask is not None and not self._worker.takes_arrays else rows
        if isinstance(options, list):
            options = [copy_options(options[row]) for row in rows]
        self._worker.restart(rows, None if seeds is None else [seeds[row] for row in rows], options)
        return self._root()

    @property
    def can_freeze(self) -> bool:
        """Whether the worker can freeze single rows; see :attr:`Env.can_freeze`."""
        return type(self._worker).freeze is not Worker.freeze

    def freeze_rows(self, mask: torch.Tensor) -> None:
        self._worker.freeze(np.flatnonzero(mask.numpy()).tolist())

    def require_seeds(self) -> None:
        self._worker.require_ability("seeds")

    def require_options(self, options: list[dict]) -> None:
        self._worker.require_ability("options")

    def state_dict(self) -> dict:
        """Return the state of every simulator, the current root, and which rows are frozen.

        Raises:
            EnvError: a simulator's state cannot be saved.
        """
        return {"worker": self._worker.get_state(), "generator": self.shared.generator.get_state()}

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore :meth:`state_dict`, and return a copy of the root to act on."""
        self.shared.num_moves += 1
        self._worker.set_state(state["worker"])
        self.shared.generator.set_state(state["generator"])
        self.shared.pending_seed = None
        return self._root().clone()

    def render(self) -> torch.Tensor:
        """Return a picture of every simulator's present state, uint8 ``[*B, H, W, 3]``.

        Raises:
            EnvError: a simulator cannot draw itself, or their pictures differ in size.
            MissingExtraError: a package that draws is not installed.
        """
        frames = [np.asarray(frame) for frame in self._worker.render()]
        for index, frame in enumerate(frames):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != (*frames[0].shape[:2], 3):
                got = f"{frame.dtype} {list(frame.shape)} in row {index}"
                expected = f"uint8 {[*frames[0].shape[:2], 3]}" if frames[0].ndim == 3 else "uint8 [H, W, 3]"
                raise EnvError(explain("render", expected=f"a picture, {expected}, of every row", got=got))
        return torch.from_numpy(np.stack(frames)).reshape(*self.batch_size, *frames[0].shape)

    def close(self) -> None:
        """Close the simulators."""
        self._worker.close()


def _new_containers(views: TensorDict, nested_keys: Sequence[str]) -> TensorDict:
    """Return new TensorDicts over the same tensors, so that entries a policy adds are gone at the next step."""
    fresh = shallow(views)
    for key in nested_keys:
        inner = views.get(key)
        put(fresh, key, _new_containers(inner, _nested_keys(inner)))
    return fresh


def _nested_keys(views: TensorDict) -> list[str]:
    return [key for key, value in views.items() if isinstance(value, TensorDict)]
