"""Fragments, consecutive transitions of every row and the root after them, collected in the calling process.

:func:`~torchrl.collectors.rollout` is the loop around it, in this process or others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from numbers import Integral
from typing import NamedTuple

import torch
from tensordict import TensorDict

from torchrl.collectors.checks import require_arguments
from torchrl.collectors.local import LocalSource, TrajectoryIds
from torchrl.collectors.loop import allocate, collect, contiguous_copy
from torchrl.collectors.placement import PlacedPolicy
from torchrl.devices import find_device
from torchrl.envs import SerialEnv
from torchrl.envs.base import Env
from torchrl.envs.driving import leave_env
from torchrl.envs.simulators import GymSimulator, Simulator
from torchrl.envs.stepping import another_layout
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.modules.randomness import keep_module_state, keep_randomness
from torchrl.modules.training_layers import acting_mode


class Fragment(NamedTuple):
    """Consecutive transitions of every row, and the root that follows them.

    >>> from torchrl.collectors import rollout
    >>> fragment = next(rollout(env, actor, n_steps=5))
    >>> fragment.batch.shape, fragment.last["observation"].shape
    (torch.Size([2, 5]), torch.Size([2, 4]))

    Attributes:
        batch: the transitions, ``[*B, T]``, as a :class:`Collector` gives them. Recurrent state at step 0 is what the
            policy began with.
        last: the root after the last step, ``[*B]``, with the entries that the policy writes on it, for example the
            value to bootstrap with. The environment is not stepped with it; the next fragment begins there.
    """

    batch: TensorDict
    last: TensorDict


class FragmentSource(LocalSource):
    """Collect fragments of ``n_steps`` steps, one after another; episodes go on from fragment to fragment.

    >>> both = FragmentSource(env, actor, n_steps=5).collect()
    >>> both["batch"].shape, torch.equal(both["batch", "next", "observation"][0, -1], both["last", "observation"][0])
    (torch.Size([2, 5]), True)

    Args:
        envs: an environment ``[*B]``; or a list of B gymnasium environments or simulators, or callables that build
            them; or one such callable. From a list comes a batch ``[B]``.
        policy: maps a root to the same root with ``action``, for example a module that reads ``root["observation"]``
            and writes ``root["action"]``; None acts at random. Actions are sampled unless an outer
            :func:`set_exploration_type` says otherwise; dropout and batch norms act in eval mode. Every fragment acts
            with the present weights.
        n_steps: steps per fragment, T.
        sticky: a row whose episode ends inside a fragment is frozen (:meth:`Env.freeze_`) to the fragment's end and
            begins a new episode with the next one. ``("collector", "mask")`` is false on its frozen steps, so a row
            holds steps of one episode only, :func:`torchrl.data.lengths_of` of them. Where the environment cannot
            freeze a row, the row is stepped further, and masked all the same.
        seed: seeds the environments, and the actions if ``policy`` is None; None leaves them as they are. A policy
            draws from its own generators, or from torch's global stream, which is not seeded here.
        device: where a copy of the policy acts, brought up to date before each fragment, and where fragments are handed
            out; None uses the policy itself, and the device of the environment.

    Raises:
        EnvError: the environments cannot be put into one batch, something else steps them, or ``sticky`` with rows that
            only restart together.
        ConfigError: ``envs`` or ``policy`` is of another type, or ``n_steps`` is no positive number.
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
        env = envs if isinstance(envs, Env) else batch_of(envs, self._built)
        require_arguments("rollout", env, policy)
        self.n_steps = n_steps
        self.sticky = sticky
        self.device = None if device is None else find_device(device)
        self.trajectories = TrajectoryIds(env.batch_size, env.device)
        self._batch: TensorDict | None = None
        if sticky and not env.restarts_rows:
            expected = "an environment whose rows can be restarted one by one"
            raise EnvError(explain("rollout, sticky", expected=expected, got=repr(env), hint="Leave sticky out."))
        super().__init__("rollout", env, policy, device=device, seed=seed)

    @torch.no_grad()
    def collect(self) -> TensorDict:
        """Collect the next fragment.

        Returns:
            ``[*B]`` with the entries ``"batch"``, ``[*B, T]``, and ``"last"``, ``[*B]``; see :class:`Fragment`.

        Raises:
            SpecError: a transition does not have the layout of the first, or the first does not fit the specs.
            NonFiniteError: a reward or observation is NaN or infinite.
        """
        root = self._take_root()
        root = self.env.reset() if root is None else root
        self._refresh()
        with acting_mode(self._layers), self._acting():
            root, mask = self._collect_sticky(root) if self.sticky else (self._collect(root), None)
            batch = contiguous_copy(self._batch)
            self._require_sound(batch)
            last = self._ask(root)
        self._keep_root(root)
        batch.set("collector", self._facts(batch, mask))
        fragment = TensorDict({"batch": batch, "last": last}, batch_size=self.env.batch_size)
        return fragment if self.device is None else fragment.to(self.device)

    def reset(self) -> None:
        """Restart every environment before the next fragment."""
        self._root = None

    def update_policy_weights_(self) -> None:
        """Add 1 to ``policy_version``; nothing else is needed, as every fragment acts with the present weights."""
        self.policy_version += 1

    def close(self) -> None:
        """Close the environments that this source has built, not those it was given; may be called twice."""
        for simulator in self._built:
            simulator.close()
        leave_env(self.env, self)

    def _recorded_names(self) -> Collection[str] | None:
        return None if self._batch is None else self._batch.keys()

    def _collect(self, root: TensorDict) -> TensorDict:
        """Record ``n_steps`` steps into the batch, from ``root`` on; return the root after the last step."""
        num_checked = self._num_checked()
        for index in range(num_checked):
            _, root = self._record_checked_step(root, index)
        return collect(self.env, self._act, root, self._writers[num_checked:])

    def _collect_sticky(self, root: TensorDict) -> tuple[TensorDict, torch.Tensor]:
        """Record ``n_steps`` steps, freezing rows whose episode ends; return the next root and a mask, ``[*B, T]``."""
        num_checked, env = self._num_checked(), self.env
        waiting = torch.zeros(env.batch_size, dtype=torch.bool, device=env.device)
        is_valid = []
        for index in range(self.n_steps):
            if index < num_checked:
                transition, root = self._record_checked_step(root, index)
            else:
                transition, root = env.step_and_reset(self._act(root))
                if not self._writers[index].update_(transition):
                    raise another_layout("rollout", transition, self._writers[index].views)
            is_valid.append(~waiting)
            ended = transition.get("next").get("done").squeeze(-1) & ~waiting
            if index < self.n_steps - 1 and bool(ended.any()):
                waiting = waiting | ended
                if env.can_freeze:
                    env.freeze_(ended)
                else:
                    env.ignore_(waiting)
        if not self._writers[-1].fits(transition):
            raise another_layout("rollout", transition, self._writers[-1].views)
        if bool(waiting.any()):
            env.ignore_(None)
            root = env.reset(waiting, root=root)
        return root, torch.stack(is_valid, -1)

    def _num_checked(self) -> int:
        return min(self.n_steps, 2 if self._batch is None else 1)  # the second shows what is carried

    def _make_writers(self, transition: TensorDict) -> None:
        self._batch, self._writers = allocate(transition, self.n_steps)

    def _ask(self, root: TensorDict) -> TensorDict:
        """Return a copy of the root with what the policy writes; the policy's generators and buffers stay unchanged."""
        asked = self._act.copy if isinstance(self._act, PlacedPolicy) else self._act
        with keep_randomness(asked), keep_module_state(asked):
            return self._act(root.clone()).exclude("next").clone()

    def _facts(self, batch: TensorDict, mask: torch.Tensor | None) -> TensorDict:
        """Return trajectory ids, policy version and, where there is one, the mask of a batch, ``[*B, T]`` each."""
        starts = batch.get("is_init").squeeze(-1)
        facts = {} if mask is None else {"mask": mask}
        starts = starts if mask is None else starts & mask
        facts["policy_version"] = torch.full(batch.batch_size, self.policy_version, device=starts.device)
        facts["traj_ids"] = self.trajectories.of(starts)
        return TensorDict(facts, batch_size=batch.batch_size)


def batch_of(envs: Callable | Sequence, built: list[Simulator]) -> SerialEnv:
    """Join environments, or callables that build them, in one env ``[B]``; append those it builds to ``built``.

    Raises:
        ConfigError: something else, an empty list, or one environment twice.
    """
    envs = [envs] if callable(envs) else envs
    is_list = isinstance(envs, Sequence) and not isinstance(envs, str) and len(envs) > 0
    if not is_list or any(isinstance(env, str) for env in envs):
        hint = "GymEnv(name, num_envs=8) makes an environment of a task's name."
        expected = "an Env, a list of gymnasium environments, or callables that make them"
        raise ConfigError(explain("rollout", expected=expected, got=repr(envs), hint=hint))
    seen: dict[int, int] = {}
    for index, env in enumerate(envs):
        if not callable(env) and seen.setdefault(id(env), index) != index:
            got = f"the same one at {seen[id(env)]} and {index}"
            raise ConfigError(explain("rollout", expected="an environment of its own for every row", got=got))
    return SerialEnv([partial(_simulator, env, built) for env in envs])


def _simulator(env: object, built: list[Simulator]) -> Simulator:
    made = env() if callable(env) else env
    simulator = made if isinstance(made, (Simulator, Env)) else GymSimulator(made)
    if callable(env):
        built.append(simulator)
    return simulator
