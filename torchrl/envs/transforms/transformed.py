"""An env that applies a transform to the env below it."""

from __future__ import annotations

import copy

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.envs.arguments import ResetOptions
from torchrl.envs.base import Env
from torchrl.envs.driving import require_undriven
from torchrl.envs.env_simulator import EnvSimulator
from torchrl.envs.env_state import CarriedState
from torchrl.envs.transforms.base import EnvSpecs, Transform, fill_empty_, join_states, specs_above
from torchrl.envs.transforms.compose import require_transform
from torchrl.envs.vector.building import RESERVED
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.seeding import named_seeds
from torchrl.shapes import expand_right
from torchrl.unchecked import put, shallow


class TransformedEnv(Env):
    """Apply a transform to an env's observations, rewards and actions; only the new env may be used from then on.

    The transition's ``action`` is the policy's own; the one that the simulator received is not recorded.
    ``episode_return`` sums the rewards before the transform. A seed gives the same episodes as without the transform.

    >>> from torchrl.envs.transforms import RewardScaling
    >>> doubled = TransformedEnv(env, RewardScaling(scale=2.0))
    >>> doubled.rollout(1)["next", "reward"].flatten(), doubled.rollout(1)["next", "episode_return"].flatten()
    (tensor([2., 2.]), tensor([1., 1.]))

    Args:
        env: the environment below, ``[*B]``.
        transform: the transform; join several by :class:`Compose`.

    Raises:
        EnvError: ``env`` is no environment, or something steps it already, such as a collector.
        ConfigError: ``transform`` is no transform, or belongs to another environment, or its initial state has an entry
            that an observation or another transform's state has.
        KeyMissing: the environment has no observation that the transform reads.
    """

    def __init__(self, env: Env, transform: Transform) -> None:
        if not isinstance(env, Env):
            hint = "A simulator becomes one by SerialEnv(make_simulator, num_envs)."
            raise EnvError(explain("TransformedEnv", expected="an Env", got=type(env).__name__, hint=hint))
        require_transform("TransformedEnv", transform)
        require_undriven("TransformedEnv", env)
        transform.read_specs(env)
        seen = specs_above(transform, env)
        self.env = env
        super().__init__(
            batch_size=env.batch_size,
            observation_spec=seen.observation_spec,
            action_spec=seen.action_spec,
            reward_spec=seen.reward_spec,
            device=seen.device,
        )
        self.transform = transform
        for part in transform.parts():
            part.record_attributes()
        self.action_mask_key = seen.action_mask_key
        self.shared = env.shared
        below = env.carried
        primed = _checked_state(join_states(below.primed, transform.initial_state()), seen)
        self.carried = CarriedState(self.batch_size, primed)
        if below.agent_info is not None or below.env_info is not None:  # from now on they are set, and used, out here
            self.set_info_(agent_info=below.agent_info, env_info=below.env_info)
        self._may_end = transform.ends_episodes
        self._waiting: torch.Tensor | None = None  # [*B, 1], where a transform may have ended what goes on below
        self._frozen: torch.Tensor | None = None  # [*B, 1], rows that wait (freeze_)
        self._ignored: torch.Tensor | None = None  # [*B], rows that are stepped on for nothing (ignore_)
        env.is_wrapped = True
        self._is_elsewhere = seen.device != env.device
        self._stream = "transform" + "+" * _depth(env)  # of the seeds; each transform around another has its own

    @property
    def step_limit(self) -> float:
        """The step limit of the simulators below; one that a transform such as ``StepCounter`` sets does not count."""
        return self.env.step_limit

    @property
    def task(self) -> str:
        """The id of the task of the environment below; empty where it is not known."""
        return self.env.task

    @property
    def learning_wrapper(self) -> str:
        """Class name of the learning wrapper below, empty without one; transforms do not count."""
        return self.env.learning_wrapper

    def driven_things(self) -> list:
        """List what stepping this env steps: the same as the environment below does; see :meth:`Env.driven_things`."""
        return self.env.driven_things()

    @property
    def simulators(self) -> list:
        """The simulators, one per row, where the environment below has them."""
        return self.env.simulators

    @property
    def transforms(self) -> list[Transform]:
        """All transforms, the nearest to the simulators first; see :attr:`Env.transforms`."""
        return [*self.env.transforms, *self.transform.parts()]

    def step_rows(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        if self._waiting is not None:
            raise self._not_restarted()
        inputs = shallow(tensordict)  # the policy's action stays in its own container
        if self._frozen is None:
            next_, root, ended = self._step_through(inputs)
        else:
            with self.transform.keep_memory(self._frozen.squeeze(-1)):
                next_, root, ended = self._step_through(inputs)
            self._repeat(tensordict, next_, root)
        if self._may_end:
            done = next_.get("done")
            ended = bool(done.any())
            self._waiting = done.clone() if ended else None
        return next_, root, ended

    def _step_through(self, inputs: TensorDict) -> tuple[TensorDict, TensorDict, bool]:
        self.transform.inverse(inputs)
        next_, root, ended = self.env.step_rows(inputs)
        self.transform.step(next_, root)
        return next_, root, ended

    def _repeat(self, before: TensorDictBase, next_: TensorDict, root: TensorDict) -> None:
        """Set frozen rows of a step to the observations of the root before it, reward 0 and no flags.

        Only the outermost env sets observations, since the root before the step has those of all its transforms.
        """
        for key, _ in self.observation_spec.leaves() if not self.is_wrapped else ():
            value, seen = next_.get(key), before.get(key, None)
            if seen is None:  # a caller that steps by hand may send the action alone
                continue
            value = torch.where(expand_right(self._frozen.squeeze(-1), value), seen, value)
            next_.set(key, value)
            root.set(key, value)
        put(next_, "reward", next_.get("reward").masked_fill(self._frozen, 0))
        _clear_flags(next_, self._frozen)

    def _set_frozen(self, rows: torch.Tensor | None) -> None:
        """Store which rows are frozen, bool ``[*B, 1]``."""
        self._frozen = None if rows is None or not bool(rows.any()) else rows
        self._tell_waiting()

    def ignore_(self, mask: torch.Tensor | None) -> None:
        """Let transforms learn nothing from the rows of ``mask``, until another mask or a reset of all rows.

        See :meth:`Env.ignore_`; None clears it.
        """
        self.env.ignore_(None if mask is None else mask.to(self.env.device))
        self._ignored = mask
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        """Tell the transforms which rows are frozen or ignored, so that they learn nothing from them."""
        waiting = None if self._frozen is None else self._frozen.squeeze(-1)
        if self._ignored is not None:
            waiting = self._ignored if waiting is None else waiting | self._ignored
        self.transform.set_waiting(waiting)

    def reset_rows(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        if seeds is not None and seeds[0] is not None and mask is None:
            self.transform.set_seed(named_seeds(seeds[0], self._stream)[self._stream])
        below = mask.to(self.env.device) if self._is_elsewhere and mask is not None else mask
        root = self.env.reset_rows(below, seeds=seeds, options=options)
        if mask is None and self._ignored is not None:
            self.ignore_(None)
        if self._frozen is not None:  # before the transforms see the first observations of those rows
            self._set_frozen(None if mask is None else self._frozen & ~mask.unsqueeze(-1))
        self.transform.reset(root, mask)
        if self._waiting is not None:
            waiting = None if mask is None else self._waiting & ~mask.unsqueeze(-1)
            self._waiting = None if waiting is None or not bool(waiting.any()) else waiting
        return root

    def freeze_rows(self, mask: torch.Tensor) -> None:
        self.env.freeze_rows(mask.to(self.env.device))
        rows = mask.unsqueeze(-1)
        if self._waiting is not None:
            waiting = self._waiting & ~rows
            self._waiting = waiting if bool(waiting.any()) else None
        self._set_frozen(rows.clone() if self._frozen is None else self._frozen | rows)

    @property
    def restarts_rows(self) -> bool:
        """Whether single rows below can be restarted where they did not end."""
        return self.env.restarts_rows

    @property
    def seeds_rows(self) -> bool:
        """Whether single rows below can be restarted from seeds of their own; see :attr:`Env.seeds_rows`."""
        return self.env.seeds_rows

    @property
    def can_freeze(self) -> bool:
        """Whether the wrapped env can freeze single rows; see :attr:`Env.can_freeze`."""
        return self.env.can_freeze

    def require_seeds(self) -> None:
        self.env.require_seeds()

    def require_options(self, options: list[dict]) -> None:
        self.env.require_options(options)

    def as_simulator(self) -> EnvSimulator:
        """Raise an error, always: transforms must be put around the batch, not around one of its rows.

        Raises:
            EnvError: always.
        """
        raise EnvError(
            explain(
                "as_simulator",
                expected="a factory of simulators (one world in numpy)",
                got="one that returns TransformedEnv",
                hint="Transforms wrap the batch: TransformedEnv(SerialEnv(make_simulator, num_envs), transform).",
            )
        )

    def _not_restarted(self) -> EnvError:
        """Return the error for a step with rows that a transform has ended and that were not reset."""
        rows = self._waiting.squeeze(-1).nonzero().tolist()
        hint = "Call reset(mask) for them first, or use step_and_reset."
        expected = "every row inside an episode"
        return EnvError(explain("step", expected=expected, got=f"rows {rows} that have ended", hint=hint))

    def state_dict(self) -> dict:
        """Return the state of the environment below and of the transform, with its memory of each row.

        A policy's recurrent state is not part of it: save the root, too, as collectors do.

        Raises:
            EnvError: a simulator's state cannot be saved.
        """
        transform = copy.deepcopy(dict(self.transform.state_dict()))
        frozen = None if self._frozen is None else self._frozen.clone()
        return {"env": self.env.state_dict(), "transform": transform, "frozen": frozen}

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore :meth:`state_dict`, and return a copy of the root to act on."""
        root = self.env.load_state_dict(state["env"])
        fill_empty_(self.transform, state["transform"])
        self.transform.load_state_dict(state["transform"])
        self.shared.pending_seed = None
        self._waiting = None
        self._set_frozen(None if state["frozen"] is None else state["frozen"].to(self.device, copy=True))
        self.transform.reset(root, torch.zeros(self.batch_size, dtype=torch.bool, device=self.device))
        return root

    def render(self) -> torch.Tensor:
        """Return a picture of every row below; see :meth:`Env.render`."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment below."""
        self.env.close()

    def __repr__(self) -> str:
        return f"TransformedEnv({self.env!r}, {self.transform!r})"


def _checked_state(state: TensorDict | None, seen: EnvSpecs) -> TensorDict | None:
    """Return a policy's initial state on the policy's device; refuse entries that are observations as well."""
    if state is None:
        return None
    taken = [key for key in state.keys() if key in seen.observation_spec or key in RESERVED]
    if taken:
        expected = f"a policy's state beside the observations {list(seen.observation_spec.keys())}"
        hint = "Give it another key, or a level of its own."
        raise ConfigError(explain("TransformedEnv", expected=expected, got=f"{taken}", hint=hint))
    return state.to(seen.device)


def _clear_flags(next_: TensorDict, rows: torch.Tensor) -> None:
    """Set ``terminated``, ``truncated`` and ``done`` to false on ``rows``, bool ``[*B, 1]``."""
    for key in ("terminated", "truncated", "done"):
        next_.set(key, next_.get(key) & ~rows)


def _depth(env: Env) -> int:
    """Return how many :class:`TransformedEnv` are nested."""
    return 1 + _depth(env.env) if isinstance(env, TransformedEnv) else 0
