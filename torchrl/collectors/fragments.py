"""Fragments: consecutive transitions of some slots and the root that follows, from a source that knows no process.

:func:`~torchrl.collectors.rollout` is the loop around it, in this process or others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.collectors.checks import (
    act_checked,
    random_policy,
    require_arguments,
    require_choices,
    require_finite,
    require_specs,
)
from torchrl.collectors.continuation import was_moved
from torchrl.collectors.loop import allocate, collect, contiguous_copy
from torchrl.collectors.placement import PlacedPolicy, acting_layers, place_policy
from torchrl.collectors.slots import freeze_rows, set_info, trajectory_ids
from torchrl.devices import checked_device
from torchrl.envs import SerialEnv
from torchrl.envs.base import Env
from torchrl.envs.driving import leave_env, take_env
from torchrl.envs.simulators import GymSimulator, Simulator
from torchrl.envs.stepping import another_layout, require_same_layout
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.modules import ExplorationType, exploration_type, set_exploration_type
from torchrl.modules.randomness import kept_randomness, kept_state
from torchrl.modules.training_layers import acting_mode
from torchrl.unchecked import Row


class Fragment(NamedTuple):
    """Consecutive transitions of every slot, and the root that follows them.

    Attributes:
        batch: the transitions, ``[*B, T]``, as a :class:`Collector` gives them. Recurrent state at step 0 is what the
            policy began with.
        last: the root after the last step, ``[*B]``, with what the policy writes when it is asked about it without
            acting: the value to bootstrap with, for example. The next fragment begins there.
    """

    batch: TensorDict
    last: TensorDict


class FragmentSource:
    """Collect fragments of ``n_steps`` steps, one after another; episodes go on from fragment to fragment.

    Args:
        envs: an environment ``[*B]``; or a list of B gymnasium environments or simulators, or callables that build
            them; or one such callable. From a list comes a batch ``[B]``.
        policy: maps a root to the same root with ``action``, for example a module that reads ``root["observation"]``
            and writes ``root["action"]``; None acts at random. Actions are sampled unless an outer
            :func:`set_exploration_type` says otherwise; dropout and batch norms act in eval mode. Every fragment acts
            with the present weights.
        n_steps: steps per fragment, T.
        sticky: an episode that ends before the last step of a fragment is the slot's last one there: the slot waits
            (:meth:`Env.freeze_`) and begins a new episode with the next fragment. ``("collector", "mask")`` is false
            while it waits, so that each row is a stretch of one episode whose length :func:`torchrl.data.lengths_of`
            tells. Where the environment cannot let a slot wait, it is stepped on, and masked all the same.
        seed: seeds the environments, and the actions if ``policy`` is None; None leaves them as they are. A policy
            draws from its own generators, or from torch's global stream, which is not seeded here.
        device: where a copy of the policy acts, brought up to date before each fragment, and where fragments are handed
            out; None uses the policy itself, and the device of the environment.

    Raises:
        EnvError: the environments cannot be put into one batch, something else steps them, or ``sticky`` with rows that
            only restart together.
        ConfigError: ``envs`` or ``policy`` is none of the above, or ``n_steps`` is no positive number.
    """

    def __init__(
        self,
        envs: Env | Callable | Sequence,
        policy: Callable | None = None,
        *,
        n_steps: int,
        sticky: bool = False,
        seed: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not isinstance(n_steps, Integral) or n_steps < 1:
            raise ConfigError(explain("n_steps", expected="a whole number of at least 1", got=n_steps))
        self._built: list[Simulator] = []
        self.env = envs if isinstance(envs, Env) else batch_of(envs, self._built)
        require_arguments("rollout", self.env, policy)
        self.policy = random_policy(self.env, seed) if policy is None else policy
        self.n_steps = n_steps
        self.sticky = sticky
        self.device = None if device is None else checked_device(device)
        self._act = place_policy(self.policy, device, self.env.device)
        self._layers = acting_layers(self._act)
        self._root: TensorDict | None = None
        self._batch: TensorDict | None = None
        self._rows: list[Row] = []
        self.policy_version = 0
        self._traj_ids = torch.full(self.env.batch_size, -1, dtype=torch.int64, device=self.env.device)
        self.num_trajectories = 0
        if sticky and not self.env.restarts_rows:
            expected = "an environment whose rows can be restarted one by one"
            raise EnvError(explain("rollout, sticky", expected=expected, got=repr(self.env), hint="Leave sticky out."))
        self._num_moves = 0
        take_env("rollout", self.env, self)
        if seed is not None:
            self.env.set_seed(seed)

    @torch.no_grad()
    def collect(self) -> TensorDict:
        """Collect the next fragment.

        Returns:
            ``[*B]`` with the entries ``"batch"``, ``[*B, T]``, and ``"last"``, ``[*B]``; see :class:`Fragment`.

        Raises:
            SpecError: a transition does not have the layout of the first, or the first does not fit the specs.
            NonFiniteError: a reward or observation is NaN or infinite.
        """
        root, self._root = self._root, None  # an exception leaves none: new episodes start, nothing is joined wrongly
        if root is None or was_moved("rollout", self.env, self._num_moves):
            root = self.env.reset()
        if isinstance(self._act, PlacedPolicy):
            self._act.refresh()
        kind = exploration_type()
        with acting_mode(self._layers), set_exploration_type(ExplorationType.RANDOM if kind is None else kind):
            root, mask = self._collect_sticky(root) if self.sticky else (self._collect(root), None)
            batch = contiguous_copy(self._batch)
            require_finite(batch, self.env)
            require_choices(batch.get("action"), self.env.action_spec, len(self.env.batch_size))
            last = self._ask(root)
        self._root, self._num_moves = root, self.env.num_moves
        batch.set("collector", self._facts(batch, mask))
        fragment = TensorDict({"batch": batch, "last": last}, batch_size=self.env.batch_size)
        return fragment if self.device is None else fragment.to(self.device)

    def reset(self) -> None:
        """Restart every environment before the next fragment."""
        self._root = None

    def set_info(self, *, agent_info: TensorDictBase | None = None, env_info: TensorDictBase | None = None) -> None:
        """Change the parameters of the slots, ``[*B]``, see :meth:`Env.set_info_`.

        ``agent_info`` holds from the next fragment on; ``env_info`` from a slot's next restart.

        Raises:
            ConfigError: something that fragments did not hold from the first on.
            SpecError: another batch size, or another form than before.
        """
        held = None if self._batch is None else self._batch.keys()
        set_info("rollout", self.env, self._root, held, agent_info=agent_info, env_info=env_info)

    def update_policy_weights_(self) -> None:
        """Count one more version; every fragment acts with the policy's present weights in any case."""
        self.policy_version += 1

    def close(self) -> None:
        """Close the environments that were built here; may be called twice."""
        for simulator in self._built:
            simulator.close()
        leave_env(self.env, self)

    def _collect(self, root: TensorDict) -> TensorDict:
        """Fill the rows; return the root to go on from."""
        num_checked = self._num_checked()
        for index in range(num_checked):
            _, root = self._checked_step(root, index)
        return collect(self.env, self._act, root, self._rows[num_checked:])

    def _collect_sticky(self, root: TensorDict) -> tuple[TensorDict, torch.Tensor]:
        """Fill the rows, letting slots wait whose episode is over; return the root to go on from and the mask."""
        num_checked, env = self._num_checked(), self.env
        waiting = torch.zeros(env.batch_size, dtype=torch.bool, device=env.device)
        is_valid = []
        for index in range(self.n_steps):
            if index < num_checked:
                transition, root = self._checked_step(root, index)
            else:
                transition, root = env.step_and_reset(self._act(root))
                if not self._rows[index].update_(transition):
                    raise another_layout("rollout", transition, self._rows[index].views)
            is_valid.append(~waiting)
            ended = transition.get("next").get("done").squeeze(-1) & ~waiting
            if index < self.n_steps - 1 and bool(ended.any()):
                waiting = waiting | ended
                if not freeze_rows(env, ended):
                    env.ignore_(waiting)
        if not self._rows[-1].fits(transition):
            raise another_layout("rollout", transition, self._rows[-1].views)
        if bool(waiting.any()):
            env.ignore_(None)
            root = env.reset(waiting, root=root)
        return root, torch.stack(is_valid, -1)

    def _num_checked(self) -> int:
        return min(self.n_steps, 2 if self._batch is None else 1)  # the second shows what is carried

    def _checked_step(self, root: TensorDict, index: int) -> tuple[TensorDict, TensorDict]:
        """Fill one row with a transition that was held against the rows' layout; return it and the next root."""
        acted = act_checked(self._act, root, self.env, is_first=self._batch is None)
        transition, root = self.env.step_and_reset(acted)
        if self._batch is None:
            require_specs("rollout", transition, self.env)
            self._batch, self._rows = allocate(transition, self.n_steps)
        require_same_layout("rollout", transition, self._rows[index].views)
        self._rows[index].update_(transition)
        return transition, root

    def _ask(self, root: TensorDict) -> TensorDict:
        """Return a copy of the root with what the policy writes on it, and put back its streams and counters."""
        asked = self._act.copy if isinstance(self._act, PlacedPolicy) else self._act
        with kept_randomness(asked), kept_state(asked):
            return self._act(root.clone()).exclude("next").clone()

    def _facts(self, batch: TensorDict, mask: torch.Tensor | None) -> TensorDict:
        """Trajectory ids, policy version and, if sticky, mask of a batch, ``[*B, T]`` each."""
        starts = batch.get("is_init").squeeze(-1)
        facts = {} if mask is None else {"mask": mask}
        starts = starts if mask is None else starts & mask
        facts["policy_version"] = torch.full(batch.batch_size, self.policy_version, device=starts.device)
        facts["traj_ids"] = trajectory_ids(starts, self._traj_ids, self.num_trajectories)
        self._traj_ids = facts["traj_ids"][..., -1].clone()
        self.num_trajectories += int(starts.sum())
        return TensorDict(facts, batch_size=batch.batch_size)


def batch_of(envs: Callable | Sequence, built: list[Simulator]) -> SerialEnv:
    """Put environments, or what builds them, into one batch; note in ``built`` what was built here."""
    envs = [envs] if callable(envs) else envs
    if isinstance(envs, str) or not isinstance(envs, Sequence) or not envs:
        hint = "GymEnv(name, num_envs=8) makes an environment of a task's name."
        expected = "an Env, a list of gymnasium environments, or callables that make them"
        raise ConfigError(explain("rollout", expected=expected, got=repr(envs), hint=hint))
    seen: dict[int, int] = {}
    for index, env in enumerate(envs):
        if not callable(env) and seen.setdefault(id(env), index) != index:
            got = f"the same one at {seen[id(env)]} and {index}"
            raise ConfigError(explain("rollout", expected="an environment of its own for every slot", got=got))
    return SerialEnv([partial(_simulator, env, built) for env in envs])


def _simulator(env: object, built: list[Simulator]) -> Simulator:
    made = env() if callable(env) else env
    simulator = made if isinstance(made, (Simulator, Env)) else GymSimulator(made)
    if callable(env):
        built.append(simulator)
    return simulator
