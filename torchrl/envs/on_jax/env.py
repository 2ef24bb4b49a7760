"""Envs over worlds in jax: all rows stepped by one compiled call, their arrays seen by torch without a copy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict, TensorDictBase

from torchrl.counts import is_count
from torchrl.data.specs import Composite
from torchrl.envs.base import Env, ResetOptions, action_of
from torchrl.envs.conversions import spec_from_space
from torchrl.envs.on_jax.programs import action_dtype, compiled
from torchrl.envs.on_jax.world import JaxWorld
from torchrl.envs.vector.building import RESERVED
from torchrl.errors import ConfigError, EnvError, SpecError, explain
from torchrl.unchecked import new_tensordict

# Pickled tensors of these dtypes cannot be read again (torch 2.13), so a state holds the same bits as signed numbers.
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
ACTIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class JaxEnv(Env):
    """A batch of copies of one world in jax: batched by ``vmap``, compiled whole, only rows that ended restarted.

    Arrays become tensors by dlpack, without a copy, so a tensor of this env is jax's memory: read it, do not write to
    it. ``float64`` is not among the dtypes unless jax was told so. Observations are described by shape and dtype alone:
    floats are unbounded, whatever the world declares. Every row has a random key of its own,
    ``jax.random.PRNGKey(seed)`` after ``reset(seed=...)``.

    The first step and the first restart compile, which takes from a tenth of a second to minutes. A process that has
    used jax runs threads of jax: start workers from it by ``fork`` no more (the collectors of this package do not).

    >>> env = JaxEnv(jax_world("gymnax", "CartPole-v1"), num_envs=4096)  # doctest: +SKIP
    >>> env.rollout(20)["next", "reward"].shape  # doctest: +SKIP
    torch.Size([4096, 20, 1])

    Args:
        world: the functions of one row, see :class:`JaxWorld`; of libraries by :func:`jax_world`.
        num_envs: batch size ``[num_envs]``; None gives one row with batch size ``[]``.
        device: ``"cpu"`` or ``"cuda"``: where jax computes, and where the tensors are.

    Raises:
        ConfigError: ``num_envs``, or the world's ``max_episode_steps``, is not positive.
        EnvError: the two functions do not fit each other, or an observation has a name that the env uses itself.
        MissingExtraError: jax is not installed.
        SpecError: actions of a kind that arrays cannot hold, or a dtype that torch lacks.
    """

    def __init__(self, world: JaxWorld, num_envs: int | None = None, *, device: torch.device | str = "cpu") -> None:
        if not isinstance(world, JaxWorld):
            hint = "Write JaxEnv(JaxWorld(reset, step, action_space=...), num_envs)."
            raise EnvError(explain("JaxEnv", expected="a JaxWorld", got=type(world).__name__, hint=hint))
        for name, value in (("num_envs", num_envs), ("max_episode_steps", world.max_episode_steps)):
            if value is not None and not is_count(value):
                raise ConfigError(explain("JaxEnv", expected=f"{name} of at least 1 or None", got=value))
        if not isinstance(world.action_space, ACTIONS):
            expected = "an action_space that is a Box, Discrete, MultiDiscrete or MultiBinary"
            raise SpecError(explain("JaxWorld", expected=expected, got=world.action_space))
        shape, device = () if num_envs is None else (num_envs,), torch.device(device)
        self._programs = compiled(world, num_envs or 1, device.type)
        observation = spec_from_space(_space_of(self._programs.blank.observation), shape)
        taken = [key for key in observation.keys() if key in RESERVED]
        if taken:
            expected = "observations under names that the env does not use itself"
            raise EnvError(explain("JaxWorld", expected=expected, got=taken))
        super().__init__(
            batch_size=shape,
            observation_spec=observation.to(device),
            action_spec=spec_from_space(world.action_space, shape).to(device),
            device=device,
        )
        self.action_mask_key, self.task = world.action_mask_key, world.task
        self.step_limit = math.inf if world.max_episode_steps is None else world.max_episode_steps
        self._action_dtype = torch.float32 if action_dtype(world.action_space).kind == "f" else torch.int32
        self._rows = self._programs.new_rows()
        column = torch.zeros((*shape, 1), dtype=torch.bool, device=device)
        self._not_first, self._has_ended = column, ~column  # [*B, 1]; rows that ended or never started
        self._waits, self._has_frozen, self._has_started = True, False, False  # ``_waits``: whether a row has ended
        self._frozen = torch.zeros(shape, dtype=torch.bool, device=device)

    def step_rows(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        if self._waits:
            got = f"rows {self._has_ended.reshape(-1).nonzero().flatten().tolist()} that have ended or never started"
            hint = "Call reset(mask) for them first, or use step_and_reset."
            raise EnvError(explain("JaxEnv.step", expected="every row inside an episode", got=got, hint=hint))
        action = self._sent(action_of(tensordict))
        if self._has_frozen:
            self._rows, outcome = self._programs.step_some(self._rows, action, self._given(self._frozen))
        else:
            self._rows, outcome = self._programs.step(self._rows, action)
        root = self._seen()
        next_ = _copy(root)
        next_["reward"] = self._tensor(outcome.reward)
        flags = torch.from_dlpack(outcome.flags)
        for name, flag in zip(("terminated", "truncated", "done"), flags, strict=True):
            next_[name] = flag if self.batch_size else flag[0]
        root["is_init"] = self._not_first
        self._set_ended(next_["done"])
        return self._wrapped(next_), self._wrapped(root), self._waits

    def reset_rows(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        if options:
            expected = "no options, since a world in jax starts from a key alone"
            raise EnvError(explain("JaxEnv.reset", expected=expected, got=options))
        if mask is None:
            mask = torch.ones(self.batch_size, dtype=torch.bool, device=self.device)
        elif not self._has_started and not bool(mask.all()):
            raise EnvError(explain("JaxEnv.reset", expected="a first reset of all rows", got="one of some rows"))
        if seeds is not None:
            restarted = mask.reshape(-1).tolist()
            seeds = [seed if own else None for seed, own in zip(seeds, restarted, strict=True)]
            self._rows = self._programs.seed(self._rows, seeds)
        places, count = self._programs.places(mask.reshape(-1).cpu().numpy())
        self._rows = self._programs.restart(self._rows, places, count)
        self._has_started = True
        self._set_ended(self._has_ended & ~mask.unsqueeze(-1))
        if self._has_frozen:
            self._set_frozen(self._frozen & ~mask)
        return self._root()

    def freeze_rows(self, mask: torch.Tensor) -> None:
        if not self._has_started:
            raise EnvError(explain("JaxEnv.freeze_", expected="a first reset", got="none"))
        self._set_frozen(self._frozen | mask)
        self._set_ended(self._has_ended & ~mask.unsqueeze(-1))

    def state_dict(self) -> dict:
        """Return the state of every row, its random key included, and of the generator of actions."""
        return {
            "rows": [_signed(torch.from_dlpack(leaf)).clone() for leaf in self._programs.save(self._rows)],
            "has_started": self._has_started,
            "has_ended": self._has_ended.clone(),
            "frozen": self._frozen.clone(),
            "generator": self.shared.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore :meth:`state_dict`, and return the root to act on, as a copy.

        Raises:
            EnvError: the state was saved before the first reset, or is one of another world or number of rows.
        """
        if not state["has_started"]:
            raise EnvError(explain("JaxEnv", expected="a state with a root", got="one before any reset"))
        self._rows = self._programs.load([self._programs.take(leaf.clone()) for leaf in state["rows"]])
        self.shared.num_moves += 1
        self._has_started = True
        self._set_ended(state["has_ended"].clone())
        self._set_frozen(state["frozen"].clone())
        self.shared.generator.set_state(state["generator"])
        self.shared.pending_seed = None
        return self._root().clone()

    # ---- between torch and jax ---------------------------------------------------------------------------------------

    def _sent(self, action: torch.Tensor) -> Any:
        """Check the action, and return it as an array with the row dimension."""
        spec = self.action_spec
        if not isinstance(action, torch.Tensor) or action.shape != spec.shape or action.dtype is not spec.dtype:
            is_tensor = isinstance(action, torch.Tensor)
            got = f"{action.dtype} of shape {list(action.shape)}" if is_tensor else type(action).__name__
            expected = f"an action of {spec.dtype} and shape {list(spec.shape)}"
            raise SpecError(explain("JaxEnv.step", expected=expected, got=got))
        return self._given(action.detach().to(self._action_dtype))

    def _given(self, tensor: torch.Tensor) -> Any:
        """Return a tensor as a program of jax takes it, with the row dimension, which a tensor of one row lacks."""
        tensor = tensor if self.batch_size else tensor.unsqueeze(0)
        return self._programs.take(tensor.contiguous())

    def _tensor(self, array: Any) -> torch.Tensor:
        tensor = torch.from_dlpack(array)
        return tensor if self.batch_size else tensor[0]

    def _seen(self) -> dict:
        """Return observations and statistics of all rows as a dict of tensors, in new dicts at every level."""
        rows = self._programs.wait(self._rows)
        entries = self._observed(rows.observation, self.observation_spec)
        entries["episode_return"] = self._tensor(rows.total)
        entries["episode_length"] = self._tensor(rows.length).long()
        return entries

    def _observed(self, observation: dict, spec: Composite) -> dict:
        entries = {}
        for key, part in spec.items():
            if isinstance(part, Composite):
                entries[key] = self._observed(observation[key], part)
            else:
                tensor = self._tensor(observation[key])
                entries[key] = tensor if tensor.dtype is part.dtype else tensor.to(part.dtype)
        return entries

    def _root(self) -> TensorDict:
        entries = self._seen()
        entries["is_init"] = entries["episode_length"] == 0
        return self._wrapped(entries)

    def _wrapped(self, entries: dict) -> TensorDict:
        for key, part in entries.items():
            if isinstance(part, dict):
                entries[key] = self._wrapped(part)
        return new_tensordict(entries, self.batch_size)

    def _set_ended(self, rows: torch.Tensor) -> None:
        self._has_ended, self._waits = rows, bool(rows.any())

    def _set_frozen(self, rows: torch.Tensor) -> None:
        self._frozen, self._has_frozen = rows, bool(rows.any())


def _signed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(SIGNED.get(tensor.dtype, tensor.dtype))


def _copy(entries: dict) -> dict:
    """Return new dicts at every level with the same tensors."""
    return {key: _copy(part) if isinstance(part, dict) else part for key, part in entries.items()}


def _space_of(observation: dict) -> spaces.Dict:
    """Return the space of one row from the shapes and dtypes of all, ``[B, ...]``: bounded by the dtype alone.

    Raises:
        SpecError: torch or numpy has no such dtype.
    """
    parts = {}
    for key, part in observation.items():
        if isinstance(part, dict):
            parts[key] = _space_of(part)
            continue
        kind, shape = np.dtype(part.dtype), part.shape[1:]
        if kind.kind not in "biuf":
            expected = "observations of bool, whole or floating-point numbers"
            raise SpecError(explain(f"JaxWorld, observation {key!r}", expected=expected, got=kind))
        low, high = (-np.inf, np.inf) if kind.kind == "f" else (0, 1)
        if kind.kind in "iu":
            low, high = np.iinfo(kind).min, np.iinfo(kind).max
        parts[key] = spaces.Box(low, high, shape, kind)
    return spaces.Dict(list(parts.items()))
