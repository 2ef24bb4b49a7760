"""The base class of envs written in torch: two functions of tensors start and step all rows at once."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.counts import is_count
from torchrl.data.specs import Composite, TensorSpec
from torchrl.envs.base import Env, ResetOptions, action_of
from torchrl.envs.row_random import RowRandom, keys_of, later_keys
from torchrl.envs.vector.building import RESERVED
from torchrl.errors import ConfigError, EnvError, KeyMissing, SpecError, explain
from torchrl.shapes import expand_right
from torchrl.unchecked import new_tensordict, peek, put, shallow


class TorchEnv(Env):
    """Base of envs in torch whose whole state is a TensorDict; a subclass writes :meth:`start` and :meth:`dynamics`.

    Both methods keep no state: ``dynamics`` may be called from any state, for planning or to differentiate through.
    This class keeps the present state, counts steps, restarts rows, and sets ``terminated``, ``truncated`` and
    ``is_init``. The entries of the state are observations, except those in ``hidden``, which are not shown.

    Rows have streams of random numbers of their own: the starts of a row depend on its seed alone, not on how many
    rows there are nor when they end, and ``SerialEnv`` of one-row copies has the same ones. ``start`` is called for
    the rows that restart, not for those that go on.

    >>> from torchrl.data.specs import Bounded, Categorical
    >>> class Countdown(TorchEnv):
    ...     def start(self, random):
    ...         return TensorDict({"left": 3.0 + random.randint(2, 1)}, random.batch_size)  # 3 or 4
    ...     def dynamics(self, state, action):
    ...         left = state["left"] - action.unsqueeze(-1)
    ...         return TensorDict({"left": left}, self.batch_size), -torch.ones_like(left), left <= 0
    >>> observed = Composite({"left": Bounded(-1.0, 4.0, (2, 1))}, [2])
    >>> env = Countdown(batch_size=[2], observation_spec=observed, action_spec=Categorical(2, [2]))
    >>> env.step(env.reset(seed=3).set("action", torch.tensor([0, 1])))["next", "left"].tolist()
    [[4.0], [2.0]]

    Args:
        batch_size: ``[*B]``.
        observation_spec: of the state, leaves ``[*B, ...]``.
        action_spec: ``[*B]`` or ``[*B, A]``.
        reward_spec: ``[*B, 1]``; unbounded if None.
        max_episode_steps: steps after which an episode is truncated; None never does.
        hidden: names of the state's further entries, ``[*B, ...]``, which no root and no transition shows.
        device: where the state lives.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive; or ``start`` takes a generator, as it did before.
        EnvError: an entry of the state has a name that the environment uses itself, or one name has two.
    """

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a misspelt method, see :class:`Env`, and a ``start`` that takes a generator for all rows."""
        super().__init_subclass__(**options)
        start = vars(cls).get("start")
        if inspect.isfunction(start) and "generator" in inspect.signature(start).parameters:
            hint = (
                "It is given a RowRandom: write random.rand(2) for torch.rand((*self.batch_size, 2), "
                "generator=generator), and random.batch_size for self.batch_size, since only some rows may restart."
            )
            expected = "start(self, random)"
            raise ConfigError(explain(cls.__name__, expected=expected, got="start(self, generator)", hint=hint))

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
        self._keys = keys_of(
            range(self.batch_size.numel()), self.device
        )  # of the starts; random actions have their own
        self._root: TensorDict | None = None
        self._frozen: torch.Tensor | None = None  # [*B, 1], rows that wait for a reset
        self._has_ended = torch.ones((*self.batch_size, 1), dtype=torch.bool, device=self.device)
        self._any_ended: bool | None = True  # None: look at has_ended

    @abstractmethod
    def start(self, random: RowRandom) -> TensorDict:
        """Return start states for the rows that restart, a TensorDict of ``random.batch_size``.

        Args:
            random: the one source of randomness, with a stream for each of these rows; its batch size is ``[*B]`` where
                all rows restart, else ``[n]``, the n rows that do, numbered in ``random.rows``.
        """

    @abstractmethod
    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[torch.Tensor | TensorDict, ...]:
        """Return every row's next state, ``[*B]``, its reward and whether it is terminated (bool), both ``[*B, 1]``.

        A world that truncates by itself returns a fourth value: whether it is truncated, bool ``[*B, 1]``. The limit
        of ``max_episode_steps`` truncates in any case.

        Args:
            state: ``[*B]``, not to be written to.
            action: of ``action_spec``.
        """

    def reset_rows(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        rows = None if mask is None else mask.reshape(-1).nonzero().squeeze(-1)
        if rows is not None and len(rows) == self.batch_size.numel():
            rows = None
        if rows is not None and self._root is None:
            expected = "a first reset of all rows"
            raise EnvError(explain(type(self).__name__, expected=expected, got="one of some rows"))
        if seeds is not None:
            self._seed_rows(seeds, rows)
        if rows is None:
            self._restart_all()
        elif len(rows):
            self._restart(rows, mask.unsqueeze(-1))
        return self._shown(self._root)

    def step_rows(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        action = action_of(tensordict)
        self._require_step(action)
        state, reward, terminated, truncated = self._after(action)
        goes_on: int | torch.Tensor = 1
        if self._frozen is not None:
            goes_on = ~self._frozen
            state = _where(self._frozen, self._root.select(*self._entries), state.select(*self._entries))
            reward, terminated = reward.masked_fill(self._frozen, 0), terminated & goes_on
        before = self._root
        length = peek(before, "episode_length") + goes_on
        if self.max_episode_steps is not None:
            is_over = length >= self.max_episode_steps
            truncated = is_over if truncated is None else truncated | is_over
        elif truncated is None:
            truncated = torch.zeros_like(terminated)
        truncated = truncated if self._frozen is None else truncated & goes_on
        entries = {key: peek(state, key) for key in self._entries}
        episode = {"episode_return": peek(before, "episode_return") + reward.detach().float(), "episode_length": length}
        self._root = new_tensordict({**entries, **episode, "is_init": torch.zeros_like(terminated)}, self.batch_size)
        self._has_ended = done = terminated | truncated
        self._any_ended = bool(done.any())
        flags = {"truncated": truncated, "done": done}
        outcome = new_tensordict(
            {**entries, "reward": reward, "terminated": terminated, **episode, **flags}, self.batch_size
        )
        return self._shown(outcome), self._shown(self._root), self._any_ended

    def freeze_rows(self, mask: torch.Tensor) -> None:
        if self._root is None:
            raise EnvError(explain(f"{type(self).__name__}.freeze_", expected="a first reset", got="none"))
        rows = mask.unsqueeze(-1)
        self._set_frozen(rows.clone() if self._frozen is None else self._frozen | rows)
        self._has_ended, self._any_ended = self._has_ended & ~rows, None

    def _shown(self, tensordict: TensorDict) -> TensorDict:
        """Return new containers at every level with the same tensors, without hidden ones: callers may add entries."""
        entries = {key: _renewed(value) for key, value in tensordict.items() if key not in self._hidden}
        return new_tensordict(entries, self.batch_size)

    def _set_frozen(self, rows: torch.Tensor | None) -> None:
        self._frozen = None if rows is None or not bool(rows.any()) else rows

    def _seed_rows(self, seeds: list[int | None], rows: torch.Tensor | None) -> None:
        """Begin new streams on rows (indices ``[n]``; None: all) from one seed for each row of the batch, or None."""
        chosen = range(len(seeds)) if rows is None else rows.tolist()
        chosen = [row for row in chosen if seeds[row] is not None]
        keys = keys_of([seeds[row] for row in chosen], self.device)
        index = torch.tensor(chosen, dtype=torch.int64, device=self.device)
        self._keys = self._keys.index_copy(0, index, keys)

    def _restart_all(self) -> None:
        self._keys = later_keys(self._keys)
        root = self._start(RowRandom(key=self._keys.reshape(self.batch_size))).select(*self._entries)
        shape = (*self.batch_size, 1)
        root.set("is_init", torch.ones(shape, dtype=torch.bool, device=self.device))
        root.set("episode_return", torch.zeros(shape, device=self.device))
        root.set("episode_length", torch.zeros(shape, dtype=torch.int64, device=self.device))
        self._root, self._frozen = root, None
        self._has_ended, self._any_ended = torch.zeros_like(root["is_init"]), False

    def _restart(self, rows: torch.Tensor, mask: torch.Tensor) -> None:
        """Restart some rows: their indices ``[n]``, and their mask ``[*B, 1]``; what was handed out is not written."""
        keys = later_keys(self._keys[rows])
        self._keys = self._keys.index_copy(0, rows, keys)
        state = self._start(RowRandom(key=keys, rows=rows))
        root = shallow(self._root)
        for key in self._entries:
            put(root, key, self._put_rows(peek(root, key), peek(state, key), rows))
        for key, value in (("is_init", True), ("episode_return", 0), ("episode_length", 0)):
            put(root, key, peek(root, key).masked_fill(mask, value))
        self._root = root
        self._has_ended, self._any_ended = self._has_ended.masked_fill(mask, False), None
        if self._frozen is not None:
            self._set_frozen(self._frozen.masked_fill(mask, False))

    def _start(self, random: RowRandom) -> TensorDict:
        state = self.start(random)
        self._require_state(f"{type(self).__name__}.start", state, random.batch_size)
        return state

    def _put_rows(
        self, now: torch.Tensor | TensorDict, fresh: torch.Tensor | TensorDict, rows: torch.Tensor
    ) -> torch.Tensor | TensorDict:
        """Return a new entry of the state, ``[*B, ...]``, whose ``rows`` are those of a fresh one, ``[n, ...]``."""
        if isinstance(now, TensorDictBase):
            return now.apply(lambda leaf, new: self._put_rows(leaf, new, rows), fresh, batch_size=now.batch_size)
        inner = now.shape[len(self.batch_size) :]
        if fresh.dtype is not now.dtype or fresh.shape[1:] != inner:
            expected = f"the dtypes and shapes that dynamics returns, here {now.dtype} of {list(inner)} in a row"
            got = f"{fresh.dtype} of {list(fresh.shape[1:])}"
            raise EnvError(explain(f"{type(self).__name__}.start", expected=expected, got=got))
        return now.reshape(-1, *inner).index_copy(0, rows, fresh).reshape(now.shape)

    def _require_step(self, action: torch.Tensor | TensorDictBase) -> None:
        """Refuse a step where a row has ended, and an action of another shape or dtype."""
        who = f"{type(self).__name__}.step"
        if self._any_ended is None:
            self._any_ended = bool(self._has_ended.any())
        if self._any_ended:
            got = f"rows {self._has_ended.squeeze(-1).nonzero().tolist()} that have ended or never started"
            hint = "Call reset(mask) for them first, or use step_and_reset."
            raise EnvError(explain(who, expected="every row inside an episode", got=got, hint=hint))
        if not isinstance(action, torch.Tensor):
            return
        if action.shape != self.action_spec.shape:
            expected = f"an action of shape {list(self.action_spec.shape)}"
            raise SpecError(explain(who, expected=expected, got=list(action.shape)))
        if action.dtype is not self.action_spec.dtype:
            expected = f"an action of dtype {self.action_spec.dtype}"
            raise SpecError(explain(who, expected=expected, got=action.dtype))

    def _after(
        self, action: torch.Tensor | TensorDictBase
    ) -> tuple[TensorDict, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Ask :meth:`dynamics`, and refuse results of wrong shapes and flags that are not bool; None: it tells none."""
        who, shape = f"{type(self).__name__}.dynamics", (*self.batch_size, 1)
        before = new_tensordict({key: peek(self._root, key) for key in self._entries}, self.batch_size)
        result = self.dynamics(before, action)
        if not isinstance(result, tuple) or len(result) not in (3, 4):
            got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            expected = "(state, reward, terminated) or (state, reward, terminated, truncated)"
            raise EnvError(explain(who, expected=expected, got=got))
        state, *others = result
        self._require_state(who, state, self.batch_size)
        for name, value in zip(("reward", "terminated", "truncated"), others, strict=False):
            if not isinstance(value, torch.Tensor) or value.shape != shape:
                got = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
                hint = "One column is missing: .unsqueeze(-1)." if got == f"shape {list(self.batch_size)}" else ""
                raise EnvError(explain(who, expected=f"{name} of shape {list(shape)}", got=got, hint=hint))
            if name != "reward" and value.dtype is not torch.bool:
                raise EnvError(explain(who, expected=f"{name} of dtype torch.bool", got=value.dtype))
        return state, *others, *(() if len(others) == 3 else (None,))

    def _require_state(self, who: str, state: TensorDict, batch_size: torch.Size) -> None:
        if not isinstance(state, TensorDictBase) or state.batch_size != batch_size:
            got = list(state.batch_size) if isinstance(state, TensorDictBase) else type(state).__name__
            expected = f"a TensorDict of batch size {list(batch_size)}"
            is_all = batch_size != self.batch_size and got == list(self.batch_size)
            hint = "Only these rows restart: write random.batch_size for self.batch_size." if is_all else ""
            raise EnvError(explain(who, expected=expected, got=got, hint=hint))
        missing = [key for key in self._entries if peek(state, key) is None]
        if missing:
            hint = "Every entry of the observation_spec and every name in hidden is state and has to come back."
            got = f"none under {missing}"
            raise KeyMissing(explain(who, expected=f"the keys {self._entries}", got=got, hint=hint))
        surplus = [key for key in state.keys() if key not in self._entries]
        if surplus:
            hint = "State that is to be kept goes into the observation_spec, or, unseen by policies, into hidden=[...]."
            raise EnvError(explain(who, expected=f"the keys {self._entries}", got=f"{surplus} too", hint=hint))

    def state_dict(self) -> dict:
        """Return the state of every row, of its stream and of the generator of random actions."""
        return {
            "root": None if self._root is None else self._root.clone().to_dict(),
            "has_ended": self._has_ended.clone(),
            "frozen": None if self._frozen is None else self._frozen.clone(),
            "keys": self._keys.clone(),
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
        self._has_ended, self._any_ended = state["has_ended"].clone(), None
        self._frozen = None if state["frozen"] is None else state["frozen"].clone()
        self._keys = state["keys"].clone()
        self.shared.generator.set_state(state["generator"])
        self.shared.pending_seed = None
        return self._shown(self._root).clone()


def _where(rows: torch.Tensor, fresh: TensorDict, old: TensorDict) -> TensorDict:
    """Return a new TensorDict with the rows of ``fresh`` where ``rows`` is true, and of ``old`` elsewhere."""
    return fresh.apply(lambda new, now: torch.where(expand_right(rows, new), new, now), old)


def _renewed(value: torch.Tensor | TensorDict) -> torch.Tensor | TensorDict:
    """Return a tensor as it is, and a TensorDict as a copy with the same tensors and new TensorDicts at every level."""
    return value.apply(lambda leaf: leaf) if isinstance(value, TensorDictBase) else value
