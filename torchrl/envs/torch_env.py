"""The base class of envs written in torch: two functions of tensors start and step all rows at once."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.counts import is_count
from torchrl.data.specs import Composite, TensorSpec
from torchrl.envs.base import Env, ResetOptions, action_of
from torchrl.envs.vector.building import RESERVED
from torchrl.errors import ConfigError, EnvError, KeyMissing, SpecError, explain
from torchrl.seeding import named_seeds
from torchrl.shapes import expand_right


class TorchEnv(Env):
    """Base of envs in torch whose whole state is a TensorDict; a subclass writes :meth:`start` and :meth:`dynamics`.

    Both methods keep no state: ``dynamics`` may be called from any state, for planning or to differentiate through.
    This class keeps the present state, counts steps, restarts rows, and sets ``terminated``, ``truncated`` and
    ``is_init``. The entries of the state are observations, except those in ``hidden``, which are not shown.

    >>> from torchrl.data.specs import Bounded, Categorical
    >>> class Countdown(TorchEnv):
    ...     def start(self, generator):
    ...         return TensorDict({"left": torch.full((*self.batch_size, 1), 3.0)}, self.batch_size)
    ...     def dynamics(self, state, action):
    ...         left = state["left"] - action.unsqueeze(-1)
    ...         return TensorDict({"left": left}, self.batch_size), -torch.ones_like(left), left <= 0
    >>> observed = Composite({"left": Bounded(-1.0, 3.0, (2, 1))}, [2])
    >>> env = Countdown(batch_size=[2], observation_spec=observed, action_spec=Categorical(2, [2]))
    >>> env.step(env.reset().set("action", torch.tensor([0, 1])))["next", "left"].tolist()
    [[3.0], [2.0]]

    Args:
        batch_size: ``[*B]``.
        observation_spec: of the state, leaves ``[*B, ...]``.
        action_spec: ``[*B]`` or ``[*B, A]``.
        reward_spec: ``[*B, 1]``; unbounded if None.
        max_episode_steps: steps after which an episode is truncated; None never does.
        hidden: names of the state's further entries, ``[*B, ...]``, which no root and no transition shows.
        device: where the state lives.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive.
        EnvError: an entry of the state has a name that the environment uses itself, or one name has two.
    """

    def __init__(
        self,
        *,
        batch_size: Sequence[int],
        observation_spec: Composite,
        action_spec: TensorSpec,
        reward_spec: TensorSpec | None = None,
        max_episode_steps: int | None = None,
        hidden: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            observation_spec=observation_spec,
            action_spec=action_spec,
            reward_spec=reward_spec,
            device=device,
        )
        who = type(self).__name__
        observed = list(observation_spec.keys())
        taken = [key for key in (*observed, *hidden) if key in RESERVED] + [key for key in hidden if key in observed]
        if taken:
            expected = "entries of the state under names of their own, which the environment does not use itself"
            hint = "Rename them in the observation_spec, or in hidden."
            raise EnvError(explain(who, expected=expected, got=taken, hint=hint))
        if max_episode_steps is not None and not is_count(max_episode_steps):
            raise ConfigError(explain(who, expected="max_episode_steps of at least 1 or None", got=max_episode_steps))
        self.max_episode_steps = max_episode_steps
        self.step_limit = math.inf if max_episode_steps is None else max_episode_steps
        self._hidden = list(hidden)
        self._entries = [*observed, *hidden]
        self._random = torch.Generator(self.device).manual_seed(0)  # of the starts; random actions have their own
        self._root: TensorDict | None = None
        self._frozen: torch.Tensor | None = None  # [*B, 1], rows that wait for a reset
        self._has_ended = torch.ones((*self.batch_size, 1), dtype=torch.bool, device=self.device)

    @abstractmethod
    def start(self, generator: torch.Generator) -> TensorDict:
        """Return start states for all rows, ``[*B]``; the caller uses them only for rows that restart.

        Args:
            generator: the one source of randomness, on the environment's device.
        """

    @abstractmethod
    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Return every row's next state, ``[*B]``, its reward and whether it is terminated (bool), both ``[*B, 1]``.

        Args:
            state: ``[*B]``, not to be written to.
            action: of ``action_spec``.
        """

    def reset_rows(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        if seeds is not None:
            if seeds[0] is None:
                expected = "a seed of the first row, from which the starts of all rows are drawn"
                raise ConfigError(explain(f"{type(self).__name__}.reset", expected=expected, got=seeds))
            self._random.manual_seed(named_seeds(seeds[0], "starts")["starts"])
        if self._root is None and mask is not None and not bool(mask.all()):
            expected = "a first reset of all rows"
            raise EnvError(explain(type(self).__name__, expected=expected, got="one of some rows"))
        rows = torch.ones(self.batch_size, dtype=torch.bool, device=self.device) if mask is None else mask
        rows = rows.unsqueeze(-1)
        fresh = self._fresh_root()
        self._root = fresh if self._root is None else _where(rows, fresh, self._root)
        self._has_ended = self._has_ended & ~rows
        self._set_frozen(None if self._frozen is None else self._frozen & ~rows)
        return _new_containers(self._shown(self._root))

    def step_rows(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        action = action_of(tensordict)
        who = type(self).__name__
        if bool(self._has_ended.any()):
            got = f"rows {self._has_ended.squeeze(-1).nonzero().tolist()} that have ended or never started"
            hint = "Call reset(mask) for them first, or use step_and_reset."
            raise EnvError(explain(f"{who}.step", expected="every row inside an episode", got=got, hint=hint))
        if isinstance(action, torch.Tensor) and action.shape != self.action_spec.shape:
            expected = f"an action of shape {list(self.action_spec.shape)}"
            raise SpecError(explain(f"{who}.step", expected=expected, got=list(action.shape)))
        if isinstance(action, torch.Tensor) and action.dtype is not self.action_spec.dtype:
            expected = f"an action of dtype {self.action_spec.dtype}"
            raise SpecError(explain(f"{who}.step", expected=expected, got=action.dtype))
        result = self.dynamics(self._root.select(*self._entries), action)
        if not isinstance(result, tuple) or len(result) != 3:
            got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            raise EnvError(explain(f"{who}.dynamics", expected="(state, reward, terminated)", got=got))
        state, reward, terminated = result
        self._require_form(state, reward, terminated)
        goes_on: int | torch.Tensor = 1
        if self._frozen is not None:
            goes_on = ~self._frozen
            state = _where(self._frozen, self._root.select(*self._entries), state.select(*self._entries))
            reward, terminated = reward.masked_fill(self._frozen, 0), terminated & goes_on
        outcome = state.select(*self._entries)
        outcome.set("reward", reward)
        outcome.set("terminated", terminated)
        outcome.set("episode_return", self._root["episode_return"] + reward.detach().float())
        outcome.set("episode_length", length := self._root["episode_length"] + goes_on)
        limit = self.max_episode_steps
        truncated = torch.zeros_like(terminated) if limit is None else length >= limit
        outcome.set("truncated", truncated if self._frozen is None else truncated & goes_on)
        outcome.set("done", outcome["terminated"] | outcome["truncated"])
        self._has_ended = outcome["done"]
        self._root = outcome.exclude("reward", "terminated", "truncated", "done")
        self._root.set("is_init", torch.zeros_like(terminated))
        return self._shown(outcome), _new_containers(self._shown(self._root)), bool(self._has_ended.any())

    def freeze_rows(self, mask: torch.Tensor) -> None:
        if self._root is None:
            raise EnvError(explain(f"{type(self).__name__}.freeze_", expected="a first reset", got="none"))
        rows = mask.unsqueeze(-1)
        self._set_frozen(rows.clone() if self._frozen is None else self._frozen | rows)
        self._has_ended = self._has_ended & ~rows

    @property
    def seeds_rows(self) -> bool:
        """False: single rows cannot be seeded, since all rows draw their start states from one generator."""
        return False

    def _shown(self, tensordict: TensorDict) -> TensorDict:
        return tensordict.exclude(*self._hidden) if self._hidden else tensordict

    def _set_frozen(self, rows: torch.Tensor | None) -> None:
        self._frozen = None if rows is None or not bool(rows.any()) else rows

    def _fresh_root(self) -> TensorDict:
        state = self.start(self._random)
        self._require_state(f"{type(self).__name__}.start", state)
        root = state.select(*self._entries)
        shape = (*self.batch_size, 1)
        root.set("is_init", torch.ones(shape, dtype=torch.bool, device=self.device))
        root.set("episode_return", torch.zeros(shape, device=self.device))
        root.set("episode_length", torch.zeros(shape, dtype=torch.int64, device=self.device))
        return root

    def _require_form(self, state: TensorDict, reward: torch.Tensor, terminated: torch.Tensor) -> None:
        """Refuse results of :meth:`dynamics` of wrong shapes, and flags that are not bool."""
        who, shape = f"{type(self).__name__}.dynamics", (*self.batch_size, 1)
        self._require_state(who, state)
        for name, value in (("reward", reward), ("terminated", terminated)):
            if not isinstance(value, torch.Tensor) or value.shape != shape:
                got = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
                hint = "One column is missing: .unsqueeze(-1)." if got == f"shape {list(self.batch_size)}" else ""
                raise EnvError(explain(who, expected=f"{name} of shape {list(shape)}", got=got, hint=hint))
        if terminated.dtype is not torch.bool:
            raise EnvError(explain(who, expected="terminated of dtype torch.bool", got=terminated.dtype))

    def _require_state(self, who: str, state: TensorDict) -> None:
        if not isinstance(state, TensorDictBase) or state.batch_size != self.batch_size:
            got = list(state.batch_size) if isinstance(state, TensorDictBase) else type(state).__name__
            expected = f"a TensorDict of batch size {list(self.batch_size)}"
            raise EnvError(explain(who, expected=expected, got=got))
        missing = [key for key in self._entries if state.get(key, None) is None]
        if missing:
            hint = "Every entry of the observation_spec and every name in hidden is state and has to come back."
            got = f"none under {missing}"
            raise KeyMissing(explain(who, expected=f"the keys {self._entries}", got=got, hint=hint))
        surplus = [key for key in state.keys() if key not in self._entries]
        if surplus:
            hint = "State that is to be kept goes into the observation_spec, or, unseen by policies, into hidden=[...]."
            raise EnvError(explain(who, expected=f"the keys {self._entries}", got=f"{surplus} too", hint=hint))

    def state_dict(self) -> dict:
        """Return the state of every row and of the random generators."""
        return {
            "root": None if self._root is None else self._root.clone().to_dict(),
            "has_ended": self._has_ended.clone(),
            "frozen": None if self._frozen is None else self._frozen.clone(),
            "random": self._random.get_state(),
            "generator": self.shared.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore :meth:`state_dict`, and return the root to act on, as a copy.

        Raises:
            EnvError: the state was saved before the first reset.
        """
        if state["root"] is None:
            raise EnvError(explain(type(self).__name__, expected="a state with a root", got="one before any reset"))
        self.shared.num_moves += 1
        self._root = TensorDict(state["root"], batch_size=self.batch_size, device=self.device).clone()
        self._has_ended = state["has_ended"].clone()
        self._frozen = None if state["frozen"] is None else state["frozen"].clone()
        self._random.set_state(state["random"])
        self.shared.generator.set_state(state["generator"])
        self.shared.pending_seed = None
        return self._shown(self._root).clone()


def _where(rows: torch.Tensor, fresh: TensorDict, old: TensorDict) -> TensorDict:
    """Return a new TensorDict with the rows of ``fresh`` where ``rows`` is true, and of ``old`` elsewhere."""
    return fresh.apply(lambda new, now: torch.where(expand_right(rows, new), new, now), old)


def _new_containers(tensordict: TensorDict) -> TensorDict:
    """Return a copy with new TensorDicts at every level and the same tensors, so that callers may add entries."""
    return tensordict.apply(lambda leaf: leaf)
