"""An env around a world of the convention of Isaac Lab and rsl_rl: a batch in torch that restarts rows inside step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.data.specs import Binary, Composite, TensorSpec, Unbounded
from torchrl.envs.base import Env, ResetOptions, action_of
from torchrl.envs.conversions import spec_from_space
from torchrl.envs.vector.building import RESERVED
from torchrl.errors import ConfigError, EnvError, SpecError, explain
from torchrl.seeding import join_seeds
from torchrl.shapes import expand_right
from torchrl.unchecked import new_tensordict

FINAL, TIME_OUTS = "final_obs", "time_outs"  # keys of the world's extras
POLICIES = ("told", "previous", "terminated")


class IsaacEnv(Env):
    """Wrap a world of Isaac Lab's or rsl_rl's convention as an env ``[num_envs]``, without a copy of its tensors.

    Such a world, on any device, has ``num_envs`` and ``step(actions)``, which restarts rows that ended and returns
    their first new observations: ``(observations, rewards, terminated, time_outs, extras)``, as Isaac Lab 3.0's
    ``ManagerBasedRLEnv`` and ``DirectRLEnv``, or ``(observations, rewards, dones, extras)`` with
    ``extras["time_outs"]``, as rsl_rl 5.5's ``VecEnv``, mjlab and Genesis. ``observations`` is a dict or TensorDict of
    tensors ``[num_envs, ...]``, also of groups of them, or one tensor, which becomes ``observation``.

    The true last observation of rows that ended is ``extras["final_obs"]``, of all rows, which Isaac Lab tells where
    its configuration has ``compute_final_obs=True``. Worlds that do not tell it lose it: what ``step`` returns belongs
    to the next episode, and a value of it is no value of the one that ended. Then ``last_observation`` says what to do:

    - ``"told"``: raise an error at the first ending without it.
    - ``"previous"``: take the observation before the step for it, as rsl_rl's PPO does. A time limit bootstraps from
      there, one step early, which is close where one step changes little.
    - ``"terminated"``: take the same, and report time-outs as terminations, so that nothing bootstraps. Learners then
      take the time limit for the world's end.

    >>> class World:  # counts to three and begins again
    ...     num_envs, device, num_actions = 2, "cpu", 1
    ...     def reset(self):
    ...         self.count = torch.zeros(2, 1)
    ...         return {"policy": self.count}, {}
    ...     def step(self, actions):
    ...         last = self.count + 1
    ...         over = last[:, 0] == 3
    ...         self.count = last.masked_fill(over.unsqueeze(-1), 0.0)
    ...         return {"policy": self.count}, last[:, 0], over, over & False, {"final_obs": {"policy": last}}
    >>> batch = IsaacEnv(World()).rollout(4)
    >>> batch["next", "policy"][0].flatten().tolist(), batch["policy"][0].flatten().tolist()
    ([1.0, 2.0, 3.0, 1.0], [0.0, 1.0, 2.0, 0.0])

    Args:
        world: as above; closing the env closes it. Where it has neither ``reset`` nor was stepped before, its
            ``get_observations()`` begins the first episodes. It is asked for observations once, for their layout.
        last_observation: what ``next`` holds where a row ended and the world does not tell.
        finite_horizon: the world tells no ``time_outs``, since running out of time is part of its task.
        action_spec: ``[num_envs]`` or ``[num_envs, A]``; None: from ``single_action_space``, else unbounded floats, as
            many as ``num_actions``.
        observation_spec: None: unbounded, of the layout of the world's observations.

    Raises:
        EnvError: the world has not what is needed, or an observation has a name that the environment uses itself.
        ConfigError: ``last_observation`` is none of the three.
    """

    def __init__(
        self,
        world: Any,
        *,
        last_observation: Literal["told", "previous", "terminated"] = "told",
        finite_horizon: bool = False,
        action_spec: TensorSpec | None = None,
        observation_spec: Composite | None = None,
    ) -> None:
        if last_observation not in POLICIES:
            expected = f"last_observation to be one of {', '.join(POLICIES)}"
            raise ConfigError(explain("IsaacEnv", expected=expected, got=repr(last_observation)))
        for name in ("num_envs", "step"):
            if not hasattr(world, name):
                hint = "A gymnasium.vector.VectorEnv goes into GymVectorEnv, a gymnasium.Env into GymEnv."
                expected = f"a world with {name}, as of Isaac Lab or rsl_rl"
                raise EnvError(explain("IsaacEnv", expected=expected, got=type(world).__name__, hint=hint))
        self.world, self.last_observation, self.finite_horizon = world, last_observation, finite_horizon
        self._resets = inspect.signature(world.reset).parameters if hasattr(world, "reset") else {}
        self._batch = torch.Size([world.num_envs])
        self._was_stepped = False
        first = self._observed(self._reset_world(None), "reset")
        device = next(iter(first.values(True, True))).device
        super().__init__(
            batch_size=self._batch,
            observation_spec=_spec_of(first) if observation_spec is None else observation_spec,
            action_spec=_action_spec(world, device) if action_spec is None else action_spec,
            device=device,
        )
        taken = [key for key in first.keys() if key in RESERVED]
        if taken:
            expected = "observations under names that the environment does not use itself"
            raise EnvError(explain("IsaacEnv", expected=expected, got=taken, hint="Rename the group in the world."))
        self._root: TensorDict | None = None
        self._has_ended = torch.ones((*self._batch, 1), dtype=torch.bool, device=device)
        self._fresh: TensorDict | None = None  # first observations of the rows that ended in the last step

    def reset_rows(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        rows = torch.ones(self._batch, dtype=torch.bool, device=self.device) if mask is None else mask
        rows, is_all = rows.unsqueeze(-1), mask is None or bool(mask.all())
        if self._root is None and not is_all:
            raise EnvError(explain("IsaacEnv", expected="a first reset of all rows", got="one of some rows"))
        if seeds is None and self._fresh is not None and not bool((rows & ~self._has_ended).any()):
            fresh = self._fresh  # the world has restarted these rows by itself
        elif is_all:
            fresh = self._observed(self._reset_world(None if seeds is None else join_seeds(seeds)), "reset")
        elif self.restarts_rows and seeds is None:
            fresh = self._observed(self.world.reset(env_ids=mask.nonzero().squeeze(-1)), "reset")
        else:
            expected = "resets of all rows, or of those that ended in the last step and were restarted by the world"
            got = "one of other rows" if seeds is None else "seeds for some rows, where one seed is for all"
            raise EnvError(explain("IsaacEnv.reset", expected=expected, got=got))
        self._restart(fresh, rows, is_all)
        return _containers(self._root)

    def step_rows(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        action = action_of(tensordict)
        self._require_step(action)
        before, self._was_stepped = self._root, True
        seen, reward, terminated, truncated, extras = self._results(self.world.step(action))
        if any(new.numel() and new.data_ptr() == before.get(key).data_ptr() for key, new in seen.items(True, True)):
            expected = "new tensors from step"
            hint = "The root that was acted on is gone by now: let the world return clones of its observations."
            raise EnvError(
                explain("IsaacEnv", expected=expected, got="those of the step before, written over", hint=hint)
            )
        done = terminated | truncated
        ended = bool(done.any())
        last = self._last(seen, before, done, extras) if ended else seen
        if self.last_observation == "terminated" and extras.get(FINAL) is None:
            terminated, truncated = done, torch.zeros_like(done)
        episode = {"episode_return": before["episode_return"] + reward, "episode_length": before["episode_length"] + 1}
        flags = {"reward": reward, "terminated": terminated, "truncated": truncated, "done": done}
        self._has_ended, self._fresh = done, seen if ended else None
        self._root = new_tensordict({**last, **episode, "is_init": torch.zeros_like(done)}, self._batch)
        return _containers(new_tensordict({**last, **flags, **episode}, self._batch)), _containers(self._root), ended

    def require_seeds(self) -> None:
        """Refuse seeds for a world that takes none, by ``reset(seed=...)`` or ``seed(...)``."""
        if "seed" not in self._resets and not callable(getattr(self.world, "seed", None)):
            expected = "a world that can be seeded, by reset(seed=...) or seed(...)"
            raise EnvError(explain("IsaacEnv", expected=expected, got=type(self.world).__name__))

    @property
    def restarts_rows(self) -> bool:
        """Whether the world restarts rows that did not end: its ``reset`` takes ``env_ids``."""
        return "env_ids" in self._resets

    @property
    def seeds_rows(self) -> bool:
        """False: one seed is for all rows."""
        return False

    def state_dict(self) -> dict:
        """Refuse: these worlds tell no state.

        Raises:
            EnvError: always.
        """
        hint = "A run that is continued from a checkpoint will start new episodes here."
        raise EnvError(explain("IsaacEnv", expected="a state to save", got="a world without one", hint=hint))

    def driven_things(self) -> list:
        """List what stepping this env steps: itself and the world; see :meth:`Env.driven_things`."""
        return [self, self.world]

    def close(self) -> None:
        """Close the world, if it can be closed."""
        getattr(self.world, "close", lambda: None)()

    def _reset_world(self, seed: int | None) -> object:
        if seed is not None and "seed" not in self._resets:
            self.require_seeds()
            self.world.seed(seed)
        if hasattr(self.world, "reset"):
            return self.world.reset(**({} if seed is None or "seed" not in self._resets else {"seed": seed}))
        if self._was_stepped or not hasattr(self.world, "get_observations"):
            expected = "a world with reset(), or one that was not stepped yet, with get_observations()"
            raise EnvError(explain("IsaacEnv.reset", expected=expected, got=type(self.world).__name__))
        return self.world.get_observations()

    def _restart(self, fresh: TensorDict, rows: torch.Tensor, is_all: bool) -> None:
        """Set the root where some rows, ``[*B, 1]``, begin an episode with what ``fresh`` shows."""
        if is_all:
            self._fresh = None
            zero = torch.zeros((*self._batch, 1), device=self.device)
            episode = {"episode_return": zero, "episode_length": zero.long(), "is_init": torch.ones_like(rows)}
            self._root = new_tensordict({**fresh, **episode}, self._batch)
        else:
            seen = _where(rows, fresh, self._root.select(*fresh.keys()))
            episode = {key: self._root[key].masked_fill(rows, 0) for key in ("episode_return", "episode_length")}
            self._root = new_tensordict({**seen, **episode, "is_init": self._root["is_init"] | rows}, self._batch)
        self._has_ended = self._has_ended & ~rows

    def _require_step(self, action: torch.Tensor) -> None:
        if bool(self._has_ended.any()):
            got = f"rows {self._has_ended.squeeze(-1).nonzero().flatten().tolist()} that have ended or never started"
            hint = "Call reset(mask) for them first, or use step_and_reset."
            raise EnvError(explain("IsaacEnv.step", expected="every row inside an episode", got=got, hint=hint))
        if action.shape != self.action_spec.shape:
            expected = f"an action of shape {list(self.action_spec.shape)}"
            raise SpecError(explain("IsaacEnv.step", expected=expected, got=list(action.shape)))

    def _results(self, results: tuple) -> tuple[TensorDict, torch.Tensor, torch.Tensor, torch.Tensor, Mapping]:
        """Bring what the world's ``step`` returned to one form: flags and rewards ``[num_envs, 1]``."""
        if not isinstance(results, tuple) or len(results) not in (4, 5):
            expected = (
                "(observations, rewards, terminated, time_outs, extras) or (observations, rewards, dones, extras)"
            )
            got = f"{len(results)} values" if isinstance(results, tuple) else type(results).__name__
            raise EnvError(explain(f"{type(self.world).__name__}.step", expected=expected, got=got))
        seen, reward, ended, *told, extras = results
        ended = self._column(ended, "terminated" if told else "dones") != 0
        if told:
            terminated, truncated = ended, self._column(told[0], TIME_OUTS) != 0
        elif TIME_OUTS in extras:
            truncated = ended & (self._column(extras[TIME_OUTS], TIME_OUTS) != 0)
            terminated = ended & ~truncated
        elif self.finite_horizon or not bool(ended.any()):
            terminated, truncated = ended, torch.zeros_like(ended)
        else:
            hint = "Nothing tells a time limit from an end. If the time is part of the task: finite_horizon=True."
            expected = f'extras["{TIME_OUTS}"] where a row is done'
            raise EnvError(explain(type(self.world).__name__, expected=expected, got=list(extras), hint=hint))
        reward = self._column(reward, "rewards").float()
        return self._observed(seen, "step"), reward, terminated, truncated, extras

    def _column(self, value: torch.Tensor, name: str) -> torch.Tensor:
        if not isinstance(value, torch.Tensor) or value.numel() != self._batch.numel():
            got = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            expected = f"{name} as a tensor of shape {list(self._batch)}"
            raise EnvError(explain(f"{type(self.world).__name__}.step", expected=expected, got=got))
        return value.reshape(*self._batch, 1)

    def _last(self, seen: TensorDict, before: TensorDict, done: torch.Tensor, extras: Mapping) -> TensorDict:
        """Return the true successors where they are told, and else what ``last_observation`` says."""
        if extras.get(FINAL) is not None:
            return _where(done, self._observed(extras[FINAL], f"extras[{FINAL!r}]"), seen)
        if self.last_observation == "told":
            hint = (
                "Isaac Lab tells it with compute_final_obs=True in its configuration. Of a world that cannot, the "
                'last observation is lost; last_observation="previous" or "terminated" says what is taken instead.'
            )
            expected = f'extras["{FINAL}"] where a row ended, since step() shows the next episode'
            raise EnvError(explain(type(self.world).__name__, expected=expected, got=list(extras), hint=hint))
        return _where(done, before.select(*seen.keys()), seen)

    def _observed(self, result: object, where: str) -> TensorDict:
        """Return new containers of the world's observations, without the extras that may come with them."""
        seen = result[0] if isinstance(result, tuple) else result
        seen = {"observation": seen} if isinstance(seen, torch.Tensor) else seen
        if not isinstance(seen, (Mapping, TensorDictBase)) or not len(seen.keys()):
            expected = "observations as a dict or TensorDict of tensors, or a tensor"
            raise EnvError(explain(f"{type(self.world).__name__}.{where}", expected=expected, got=type(seen).__name__))
        return self._group(seen, where)

    def _group(self, group: Mapping, where: str) -> TensorDict:
        entries = {}
        for key, value in group.items():
            if isinstance(value, (Mapping, TensorDictBase)):
                entries[key] = self._group(value, where)
            elif isinstance(value, torch.Tensor) and value.shape[:1] == self._batch:
                entries[key] = value
            else:
                expected = f"{key!r} as a tensor of shape {[*self._batch, '...']}"
                got = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                raise EnvError(explain(f"{type(self.world).__name__}.{where}", expected=expected, got=got))
        return new_tensordict(entries, self._batch)


def _spec_of(group: TensorDict) -> Composite:
    specs = {}
    for key, value in group.items():
        if isinstance(value, TensorDictBase):
            specs[key] = _spec_of(value)
        elif value.dtype is torch.bool:
            specs[key] = Binary(value.shape, torch.bool, device=value.device)
        else:
            specs[key] = Unbounded(value.shape, value.dtype, device=value.device)
    return Composite(specs, shape=group.batch_size)


def _action_spec(world: Any, device: torch.device) -> TensorSpec:
    space = getattr(world, "single_action_space", None)
    if space is not None:
        return spec_from_space(space, [world.num_envs]).to(device)
    if not hasattr(world, "num_actions"):
        hint = "Pass action_spec=..., [num_envs, A]."
        expected = "a world with single_action_space or num_actions"
        raise EnvError(explain("IsaacEnv", expected=expected, got=type(world).__name__, hint=hint))
    return Unbounded((world.num_envs, world.num_actions), device=device)


def _where(rows: torch.Tensor, one: TensorDict, other: TensorDict) -> TensorDict:
    """Return the entries of ``one`` where ``rows`` is true, ``[*B, 1]``, and of ``other`` elsewhere."""
    return other.apply(lambda no, yes: torch.where(expand_right(rows, yes), yes, no), one)


def _containers(tensordict: TensorDict) -> TensorDict:
    """Return new TensorDicts at every level with the same tensors, so that callers may add entries."""
    return tensordict.apply(lambda leaf: leaf)
