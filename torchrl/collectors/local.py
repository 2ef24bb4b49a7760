"""Bases of the collectors that step an env in the calling process: they keep the env, the policy and the next root.

Subclasses decide which steps make a batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from torchrl.collectors.checks import (
    act_and_check,
    postprocess,
    random_policy,
    require_choices,
    require_finite,
    require_specs,
)
from torchrl.collectors.placement import PlacedPolicy, acting_layers, place_policy
from torchrl.data.batch_functions import BatchFunction, require_batch_function
from torchrl.envs.base import Env
from torchrl.envs.driving import leave_env, take_env
from torchrl.envs.learned import Learned, join_learned
from torchrl.envs.stepping import require_same_layout
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.modules import ExplorationType, exploration_type, set_exploration_type
from torchrl.seeding import named_seeds
from torchrl.unchecked import StepWriter


class LocalSource:
    """Base class that steps an env with a policy in this process; nothing else may step that env.

    Args:
        who: names the collector in messages.
        env: the environment, ``[*B]``.
        policy: maps a root to the same root with ``action``; None acts at random.
        device: where a copy of the policy acts; None uses the policy itself where it is.
        seed: seeds the environment, and the actions if ``policy`` is None; None leaves it as it is.
        compile: let ``policy`` act by one compiled graph, see :class:`GraphPolicy`.

    Attributes:
        policy_version: how often the weights have been updated.
        device: where a copy of the policy acts; None where the policy itself does.
        compile: whether the policy acts by one compiled graph.

    Raises:
        EnvError: something else steps the environment.
    """

    def __init__(
        self,
        who: str,
        env: Env,
        policy: Callable | None,
        *,
        device: torch.device | str | None,
        seed: int | None,
        compile: bool = False,
    ) -> None:
        self.env = env
        self.policy = random_policy(env, seed) if policy is None else policy
        self._own_actions = self.policy.generator if policy is None else None  # draws that are the collector's state
        self.policy_version = 0
        self.device, self.compile = device, compile
        self._who = who
        self._act = place_policy(self.policy, device, env.device, compile=compile and policy is not None)
        self._layers = acting_layers(self._act)
        self._seed = seed
        self._writers: Sequence[StepWriter] = []  # where the steps of a batch are recorded
        self._root: TensorDict | None = None  # None: all rows begin new episodes
        self._num_moves = 0  # of the environment, when it stood where the root says
        take_env(who, env, self)
        if seed is not None:
            env.set_seed(seed)

    def set_info(self, *, agent_info: TensorDictBase | None = None, env_info: TensorDictBase | None = None) -> None:
        """Set parameters of each row, before the first batch or between batches; see :meth:`Env.set_info_`.

        ``agent_info`` holds from the next step on, also in the middle of episodes; ``env_info`` from each row's next
        restart on. :meth:`state_dict` does not save them: set them again before loading a state.

        Raises:
            ConfigError: names that were not set before the first batch, so that batches have no entries for them.
            SpecError: another batch size, or other keys, shapes or dtypes than before.
        """
        held = self._recorded_names()
        if held is not None:
            names = list(agent_info.keys()) if isinstance(agent_info, TensorDictBase) else []
            names += [] if env_info is None else ["env_info"]
            new = [name for name in names if name not in held]
            if new:
                hint = "Set it before the first batch; other values may follow."
                expected = "parameters that batches hold from the first on"
                raise ConfigError(explain(f"{self._who}.set_info", expected=expected, got=f"{new}", hint=hint))
        self.env.set_info_(agent_info=agent_info, env_info=env_info)
        if self._root is not None:
            self.env.apply_info_(self._root)

    def update_policy_weights_(self) -> None:
        """Let the next batch act with the policy's present weights, and count one more version."""
        self._refresh()
        self.policy_version += 1

    def _recorded_names(self) -> Collection[str] | None:
        """Return the top-level keys that batches hold; None before the first step."""
        raise NotImplementedError

    def _make_writers(self, transition: TensorDict) -> None:
        """Make the memory to record steps in, with the keys, shapes and dtypes of the first transition."""
        raise NotImplementedError

    def _record_checked_step(self, root: TensorDict, index: int) -> tuple[TensorDict, TensorDict]:
        """Step once with all checks, and record the transition as step ``index``; return it and the next root."""
        is_first = not self._writers
        acted = act_and_check(self._act, root, self.env, is_first=is_first)
        transition, root = self.env.step_and_reset(acted)
        if is_first:
            require_specs(self._who, transition, self.env)
            self._make_writers(transition)
        require_same_layout(self._who, transition, self._writers[index].views)
        self._writers[index].update_(transition)
        return transition, root

    def _refresh(self) -> None:
        """Copy the policy's present weights into the copy that acts on another device, if there is one."""
        if isinstance(self._act, PlacedPolicy):
            self._act.refresh()

    def _take_root(self) -> TensorDict | None:
        """Take out and return the root that the next batch starts from; None if all rows must begin new episodes.

        The root is gone until :meth:`_keep_root`. So if collecting raises, the next batch begins new episodes instead
        of joining steps that do not follow each other.
        """
        root, self._root = self._root, None
        return None if root is None or self._was_moved() else root

    def _was_moved(self) -> bool:
        """Answer whether somebody else stepped or reset the env since the last batch; if so, warn about it."""
        if self.env.num_moves == self._num_moves:
            return False
        warnings.warn(
            f"{self._who}: its environment was reset or stepped by hand since the last batch, so all rows begin new "
            "episodes. Build another environment to look at.",
            stacklevel=5,
        )
        return True

    def _keep_root(self, root: TensorDict | None) -> None:
        """Store the root of the env's present state; the next batch starts from it."""
        self._root, self._num_moves = root, self.env.num_moves

    def _acting(self) -> set_exploration_type:
        """Return a context in which actions are sampled, or chosen as an outer :func:`set_exploration_type` says."""
        kind = exploration_type()
        return set_exploration_type(ExplorationType.RANDOM if kind is None else kind)

    def _require_sound(self, batch: TensorDict) -> None:
        """Refuse a batch ``[*B, T]`` with a NaN or infinite number, or with a discrete action out of range."""
        require_finite(batch, self.env)
        require_choices(batch.get("action"), self.env.action_spec, len(self.env.batch_size))


class LocalCollector(LocalSource):
    """Base class of collectors in this process: yield batches until ``total_frames``, save and restore the state.

    Args:
        who: see :class:`LocalSource`, as are ``env``, ``policy``, ``device``, ``seed`` and ``compile``.
        total_frames: stop iterating after this many frames, rounded up to whole batches; -1 never stops.
        storage_device: the device of the batches that are returned; None leaves them on the environment's device.
        postproc: a function that is applied to every batch before it is returned.

    Attributes:
        frames: frames delivered so far.

    Raises:
        EnvError: something else steps the environment.
        ConfigError: ``postproc`` is no function of a batch.
    """

    def __init__(
        self,
        who: str,
        env: Env,
        policy: Callable | None,
        *,
        total_frames: int,
        device: torch.device | str | None,
        storage_device: torch.device | str | None,
        seed: int | None,
        postproc: BatchFunction | None,
        compile: bool,
    ) -> None:
        require_batch_function(f"{who}, postproc", postproc)
        self.total_frames = total_frames
        self.storage_device = None if storage_device is None else torch.device(storage_device)
        self.postproc = postproc
        self.frames = 0
        super().__init__(who, env, policy, device=device, seed=seed, compile=compile)

    def __iter__(self) -> Iterator[TensorDict]:
        """Yield batches until ``total_frames`` were collected."""
        while self.total_frames < 0 or self.frames < self.total_frames:
            yield self.collect()

    def collect(self) -> TensorDict:
        """Collect and return the next batch."""
        raise NotImplementedError

    def learned_states(self) -> list[Learned]:
        """Copy the statistics that the env's transforms learned (:meth:`Env.learned_state_dict`) into a list of one."""
        return [self.env.learned_state_dict()]

    def load_learned_states(self, states: Sequence[Learned], *, for_acting: bool = False) -> None:
        """Join the statistics that transforms of one or more envs have learned, and load the result into this env's.

        Args:
            states: of a collector's :meth:`learned_states`.
            for_acting: see :meth:`Env.load_learned_state_dict`.
        """
        self.env.load_learned_state_dict(join_learned(self.env.transforms, states), for_acting=for_acting)

    def state_dict(self) -> dict:
        """Return counters, the environment's state and the root that the next batch starts from.

        With it the statistics of transforms, and the stream of the actions if there is no policy but a seed. Nothing of
        a policy: neither weights nor random generators.

        ``env`` is None, with the reason in ``env_error``, where a simulator's state cannot be captured.
        """
        if self._root is not None and self._was_moved():
            self._root = None
        learned = self.env.learned_state_dict()
        try:
            env, reason = self.env.state_dict(), ""
        except EnvError as error:
            env, reason = None, str(error)
        root = None if env is None or self._root is None else self._root.clone().to_dict()
        state = {"frames": self.frames, "policy_version": self.policy_version, "root": root}
        state["actions"] = None if self._own_actions is None else self._own_actions.get_state()
        return state | {"learned": learned, "env": env, "env_error": reason}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; where the environment was not captured, new episodes start, with a warning."""
        self.frames, self.policy_version = state["frames"], state["policy_version"]
        self._root = None
        self._refresh()
        if self._own_actions is not None and state.get("actions") is not None:  # an earlier version kept none
            self._own_actions.set_state(state["actions"])
        self.env.load_learned_state_dict(state["learned"])
        if state["env"] is None:
            warnings.warn(f"New episodes start after loading: {state['env_error']}", stacklevel=3)
            if self._seed is not None:  # not the episodes that the run began with
                stream = f"resumed at {state['frames']}"
                self.env.set_seed(named_seeds(self._seed, stream)[stream])
        elif (
            state["root"] is not None or state["frames"]
        ):  # where nothing had begun, the seed waits for the first reset
            self.env.load_state_dict(state["env"])
        root = None if state["env"] is None else state["root"]
        self._keep_root(None if root is None else TensorDict(root, batch_size=self.env.batch_size))

    def shutdown(self) -> None:
        """Close the environment; another collector may use it then. May be called twice."""
        self.env.close()
        leave_env(self.env, self)

    def _hand_out(self, batch: TensorDict) -> TensorDictBase:
        if self.storage_device is not None:
            batch = batch.to(self.storage_device)
        return postprocess(self.postproc, batch)


class TrajectoryIds:
    """Number trajectories over the whole run, within a batch in the order of rows, then of time.

    >>> ids = TrajectoryIds(torch.Size([2]), "cpu")
    >>> ids.of(torch.tensor([[True, False, True], [True, False, False]]))
    tensor([[0, 0, 1],
            [2, 2, 2]])
    >>> ids.of(torch.tensor([[False, True], [False, False]]))
    tensor([[1, 3],
            [2, 2]])

    Attributes:
        num_begun: how many trajectories have begun.
        current: the trajectory that each row is in, int64 ``[*B]``; -1 for none.
    """

    def __init__(self, batch_size: torch.Size, device: torch.device | str) -> None:
        self.num_begun = 0
        self.current = torch.full(batch_size, -1, dtype=torch.int64, device=device)

    def of(self, starts: Tensor) -> Tensor:
        """Return the trajectory number of each step of the next batch, int64 ``[*B, T]``.

        Args:
            starts: where a trajectory begins, bool ``[*B, T]``.
        """
        rank = starts.reshape(-1).cumsum(0).reshape(starts.shape) + (self.num_begun - 1)
        ids = torch.where(starts, rank, -1)
        ids[..., 0] = torch.maximum(ids[..., 0], self.current)
        ids = ids.cummax(-1).values
        self.current = ids[..., -1].clone()
        self.num_begun += int(starts.sum())
        return ids
