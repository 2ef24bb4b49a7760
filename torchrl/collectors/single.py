"""The collector of one process: an environment, a policy, and batches of transitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.collectors.checks import (
    act_checked,
    postprocessed,
    random_policy,
    require_arguments,
    require_choices,
    require_finite,
    require_specs,
    steps_of,
)
from torchrl.collectors.continuation import capture_env, restore_or_seed, was_moved
from torchrl.collectors.loop import allocate, collect, contiguous_copy
from torchrl.collectors.placement import PlacedPolicy, acting_layers, place_policy
from torchrl.collectors.slots import set_info, trajectory_ids
from torchrl.data.batch_functions import BatchFunction, require_batch_function
from torchrl.envs.base import Env
from torchrl.envs.driving import leave_env, take_env
from torchrl.envs.learned import Learned, joined
from torchrl.envs.stepping import require_same_layout
from torchrl.modules import ExplorationType, exploration_type, set_exploration_type
from torchrl.modules.training_layers import acting_mode
from torchrl.unchecked import Row


class Collector:
    """Collect batches ``[*B, T]`` of consecutive transitions; episodes go on from batch to batch.

    Beside the transition's keys a batch holds ``("collector", "traj_ids")``, ``[*B, T]`` int64, unique over the whole
    run, and
    ``("collector", "policy_version")``, ``[*B, T]`` int64: how often the weights had been updated when the row was
    collected. A batch that is handed out is the receiver's own.

    Args:
        env: the environment, ``[*B]``.
        policy: maps a root to the same root with ``action``; None acts at random. Actions are sampled unless an outer
            :func:`set_exploration_type` says otherwise; dropout and batch norms act in eval mode.
        frames_per_batch: rows per batch, a multiple of the number of environments.
        total_frames: stop iterating after this many frames, rounded up to whole batches; -1 never stops.
        device: where a copy of the policy acts; None uses the policy itself where it is.
        storage_device: where batches are handed out; None leaves them on the environment's device.
        seed: seeds the environment, and the actions if ``policy`` is None; None leaves it as it is. A policy draws from
            its own generators, or from torch's global stream, which is not seeded here.
        postproc: applied to every batch before it is handed out.

    Raises:
        EnvError: ``env`` is no environment, or something else steps it, such as an evaluator.
        ConfigError: ``frames_per_batch`` is not a positive multiple of the number of environments, ``total_frames`` no
            number of frames, or ``policy`` cannot be called.
    """

    def __init__(
        self,
        env: Env,
        policy: Callable | None = None,
        *,
        frames_per_batch: int,
        total_frames: int = -1,
        device: torch.device | str | None = None,
        storage_device: torch.device | str | None = None,
        seed: int | None = None,
        postproc: BatchFunction | None = None,
    ) -> None:
        require_arguments("Collector", env, policy, total_frames)
        self.env = env
        self.policy = random_policy(env, seed) if policy is None else policy
        self.frames_per_batch = frames_per_batch
        self.total_frames = total_frames
        self.storage_device = None if storage_device is None else torch.device(storage_device)
        require_batch_function("Collector, postproc", postproc)
        self.postproc = postproc
        self.frames = 0
        self.policy_version = 0
        self._act = place_policy(self.policy, device, env.device)
        self._layers = acting_layers(self._act)
        self._seed = seed
        self._num_steps = steps_of(frames_per_batch, env.batch_size.numel())
        self._root: TensorDict | None = None
        self._batch: TensorDict | None = None
        self._rows: list[Row] = []
        self._traj_ids = torch.full(env.batch_size, -1, dtype=torch.int64, device=env.device)
        self.num_trajectories = 0
        self._num_moves = 0  # of the environment, when it stood where the root says
        take_env("Collector", env, self)
        if seed is not None:
            env.set_seed(seed)

    def __iter__(self) -> Iterator[TensorDict]:
        """Yield batches until ``total_frames`` were collected."""
        while self.total_frames < 0 or self.frames < self.total_frames:
            yield self.collect()

    @torch.no_grad()
    def collect(self) -> TensorDict:
        """Collect and return the next batch, ``[*B, T]``.

        Raises:
            SpecError: a transition does not have the layout of the first, or the first does not fit the specs.
            NonFiniteError: a reward or observation is NaN or infinite.
        """
        root, self._root = self._root, None  # an exception leaves none: new episodes start, nothing is joined wrongly
        if root is None or was_moved("Collector", self.env, self._num_moves):
            root = self.env.reset()
        kind = exploration_type()
        with acting_mode(self._layers), set_exploration_type(ExplorationType.RANDOM if kind is None else kind):
            num_checked = min(self._num_steps, 1 if self.frames else 2)  # the second shows what is carried
            for index in range(num_checked):
                root = self._checked_step(root, index)
            root = collect(self.env, self._act, root, self._rows[num_checked:])
        batch = contiguous_copy(self._batch)
        require_finite(batch, self.env)
        require_choices(batch.get("action"), self.env.action_spec, len(self.env.batch_size))
        self._root, self._num_moves = root, self.env.num_moves
        self.frames += self.frames_per_batch
        batch.set("collector", self._facts(batch))
        if self.storage_device is not None:
            batch = batch.to(self.storage_device)
        return postprocessed(self.postproc, batch)

    def reset(self) -> None:
        """Restart every environment before the next batch; new trajectories begin."""
        self._root, self._num_moves = self.env.reset(), self.env.num_moves

    def set_info(self, *, agent_info: TensorDictBase | None = None, env_info: TensorDictBase | None = None) -> None:
        """Set parameters of each row, before the first batch or between batches; see :meth:`Env.set_info_`.

        ``agent_info`` holds from the next step on, also in the middle of episodes; ``env_info`` from each row's next
        restart on. They are the caller's to keep: a state that is loaded goes on with them if they are set before.

        Raises:
            ConfigError: something that batches did not hold from the first on.
            SpecError: another batch size, or another form than before.
        """
        held = None if self._batch is None else self._batch.keys()
        set_info("Collector", self.env, self._root, held, agent_info=agent_info, env_info=env_info)

    def update_policy_weights_(self) -> None:
        """Let the next batch act with the policy's present weights, and count one more version."""
        if isinstance(self._act, PlacedPolicy):
            self._act.refresh()
        self.policy_version += 1

    def learned_states(self) -> list[Learned]:
        """Copy what the environment's transforms have learned, see :meth:`Env.learned_state_dict`; a list of one."""
        return [self.env.learned_state_dict()]

    def load_learned_states(self, states: Sequence[Learned], *, for_acting: bool = False) -> None:
        """Take over what the transforms of one environment or several have learned, all of them joined.

        Args:
            states: of a collector's :meth:`learned_states`.
            for_acting: see :meth:`Env.load_learned_state_dict`.
        """
        self.env.load_learned_state_dict(joined(self.env.transforms, states), for_acting=for_acting)

    def state_dict(self) -> dict:
        """Capture counters, the environment (where it can be captured) and the root to continue from.

        ``env`` is None, with the reason in ``env_error``, where a simulator's state cannot be captured.
        """
        if self._root is not None and was_moved("Collector", self.env, self._num_moves):
            self._root = None
        state = {
            "frames": self.frames,
            "policy_version": self.policy_version,
            "traj_ids": self._traj_ids.clone(),
            "num_trajectories": self.num_trajectories,
            "root": None,
            **capture_env(self.env),
        }
        if state["env"] is not None and self._root is not None:
            state["root"] = self._root.clone().to_dict()
        return state

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; where the environment was not captured, new episodes start, with a warning."""
        self.frames = state["frames"]
        self.policy_version = state["policy_version"]
        self._traj_ids = state["traj_ids"].to(self.env.device, copy=True)
        self.num_trajectories = state["num_trajectories"]
        if isinstance(self._act, PlacedPolicy):
            self._act.refresh()
        continues = restore_or_seed(self.env, state, self._seed)
        self._num_moves = self.env.num_moves
        self._root = TensorDict(state["root"], batch_size=self.env.batch_size) if continues else None

    def shutdown(self) -> None:
        """Close the environment, which others may take then; may be called twice."""
        self.env.close()
        leave_env(self.env, self)

    def _checked_step(self, root: TensorDict, index: int) -> TensorDict:
        """Fill one row with a transition that was held against the rows' layout; return the next root."""
        acted = act_checked(self._act, root, self.env, is_first=self._batch is None)
        transition, root = self.env.step_and_reset(acted)
        if self._batch is None:
            require_specs("Collector", transition, self.env)
            self._batch, self._rows = allocate(transition, self._num_steps)
        require_same_layout("Collector", transition, self._rows[index].views)
        self._rows[index].update_(transition)
        return root

    def _facts(self, batch: TensorDict) -> TensorDict:
        """Trajectory ids and policy version of a batch, ``[*B, T]`` each."""
        starts = batch.get("is_init").squeeze(-1)
        ids = trajectory_ids(starts, self._traj_ids, self.num_trajectories)
        self._traj_ids = ids[..., -1].clone()
        self.num_trajectories += int(starts.sum())
        version = torch.full_like(ids, self.policy_version)
        return TensorDict({"traj_ids": ids, "policy_version": version}, batch_size=batch.batch_size)
