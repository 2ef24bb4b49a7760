"""The environment contract: a batch of worlds that speaks TensorDict. Not a simulator: that is one world in numpy."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.counts import is_count
from torchrl.data.specs import Composite, TensorSpec, Unbounded
from torchrl.data.specs.fitting import first_act, require_fit
from torchrl.envs.env_simulator import EnvSimulator
from torchrl.envs.learned import Learned, learned_state, load_learned_
from torchrl.envs.row_info import checked_info, options_of, put_info_
from torchrl.envs.stepping import carry_written, keep_missing, keep_state, require_same_layout, with_unwritten
from torchrl.envs.vector.building import RESERVED
from torchrl.errors import ConfigError, EnvError, KeyMissing, SpecError, explain
from torchrl.keys import Key
from torchrl.misspelling import refuse_misspelt
from torchrl.seeding import child_seeds, joined_seed
from torchrl.unchecked import peek, put

if TYPE_CHECKING:
    from torchrl.envs.transforms.base import Transform

Seed = int | Sequence[int] | None
ResetOptions = dict | list[dict] | None  # for all rows alike, or one dict for each row of the batch


OWN_NAMES = {  # what stands here for what environments have elsewhere
    "observation_space": "observation_spec",
    "single_observation_space": "observation_spec",
    "action_space": "action_spec",
    "single_action_space": "action_spec",
    "num_envs": "batch_size",
    "seed": "set_seed",
}


# What subclasses write beside public names, and what such methods are called elsewhere.
_WRITTEN = ("_reset", "_advance", "_freeze", "_require_options", "_require_seeds")
_SEEDS = "_reset, which is given the seeds"
_ELSEWHERE = {"_step": "_advance", "_set_seed": _SEEDS, "seed": _SEEDS}


class Env(ABC):
    """A batch of worlds.

    A *root* at time t holds the observations, ``is_init`` and running ``episode_return`` and ``episode_length``; the
    policy adds ``action``. A *transition* is a root with ``"next"``: the true successor observations (also at an
    ending), ``reward``,
    ``terminated``, ``truncated``, ``done``, all ``[*B, 1]`` but the observations. The next root carries every key of
    ``next`` but reward and flags; on rows that ended it holds the observation after the reset.

    Subclasses write :meth:`_reset` and :meth:`_advance`.

    Args:
        batch_size: shape ``[*B]`` of the batch of worlds.
        observation_spec: what the policy sees, leaves ``[*B, ...]``.
        action_spec: what the policy sends, ``[*B]`` or ``[*B, A]``, or a ``Composite``.
        reward_spec: ``[*B, 1]``; unbounded if None.
        device: where its tensors live.

    Attributes:
        action_mask_key: the observation that says which choices are legal, bool ``[*B, n]``, true = legal; None where
            all are. Whatever acts at random honours it.
        step_limit: the steps after which the worlds truncate every episode by themselves, the least of all rows;
            infinity where they do not, or cannot tell.
        num_moves: how often it was reset, stepped, frozen or given a state. A collector compares it with its own
            count, to see whether other code moved the environment.
    """

    action_mask_key: Key | None = None
    # What a fresh episode starts from beside the observations, [*B]: what transforms name (Transform.initial_state),
    # and what was set for each row.
    _initial_state: TensorDict | None = None
    _primed: TensorDict | None = None
    _agent_info: TensorDict | None = None
    _env_info: TensorDict | None = None
    _row_options: list[dict] | None = None  # env_info, row by row
    num_moves = 0
    step_limit: float = math.inf

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a name that nobody would call; see :func:`~torchrl.misspelling.refuse_misspelt`."""
        super().__init_subclass__(**options)
        refuse_misspelt(cls, also=_WRITTEN, synonyms=_ELSEWHERE)

    def __init__(
        self,
        *,
        batch_size: Sequence[int],
        observation_spec: Composite,
        action_spec: TensorSpec,
        reward_spec: TensorSpec | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batch_size = torch.Size(batch_size)
        self.device = torch.device(device)
        _require_specs(type(self).__name__, self.batch_size, observation_spec, action_spec, reward_spec)
        self.observation_spec = observation_spec
        self.action_spec = action_spec
        self.reward_spec = Unbounded((*self.batch_size, 1)) if reward_spec is None else reward_spec
        self._generator = torch.Generator().manual_seed(0)
        self._pending_seed: Seed = None

    @abstractmethod
    def _reset(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        """Restart the rows of ``mask`` (``[*B]`` bool; None: all); return the whole root in a fresh container.

        ``options`` is a list, of one dict per row, only where :meth:`_require_options` takes them.
        """

    @abstractmethod
    def _advance(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        """Step every row; return ``(next, root, any ended)``. In the root, rows that ended wait for :meth:`_reset`.

        Both containers are fresh at every level, since transforms and carried policy state edit them; their tensors may
        be views.
        """

    def reset(
        self,
        mask: torch.Tensor | None = None,
        *,
        seed: Seed = None,
        options: dict | None = None,
        root: TensorDictBase | None = None,
    ) -> TensorDict:
        """Restart all rows, or those of ``mask``, and return the root to act on.

        The root holds what the environment writes, and the values that a policy's state starts from where a transform
        names them. State that a policy carries goes on in the other rows if ``root`` is given.

        Args:
            mask: bool ``[*B]`` or ``[*B, 1]``, true where a row restarts; None restarts all.
            seed: one integer, from which each row's seed is derived, or a sequence with one seed per row; None goes on
                with each row's stream.
            options: passed to the simulators' ``reset``; they win over entries of ``env_info``, see :meth:`set_info_`.
            root: the root there was to act on, ``[*B]``. What only it holds is kept on rows that go on; on rows that
                restart it becomes its initial value, or zero.

        Returns:
            The root, ``[*B]``, the caller's own.

        Raises:
            ConfigError: rows would go on with a policy's state that was not given, or ``root`` is a transition.
        """
        initial = self._initial_state
        if mask is not None:
            mask = self._checked_mask("reset", mask)
            if root is None and initial is not None:
                hint = "Write reset(mask, root=root) with the root there was to act on."
                expected = "the root that holds the state of the rows that go on"
                raise ConfigError(explain("reset of some rows", expected=expected, got="none", hint=hint))
        if root is not None and "next" in root.keys():
            hint = "The root follows it: step_and_reset returns both."
            raise ConfigError(explain("reset", expected="a root to act on", got="a transition", hint=hint))
        if mask is None:  # a seed that was set waits for a reset of all rows; one given here replaces it
            pending, self._pending_seed = self._pending_seed, None
            seed = pending if seed is None else seed
        self.num_moves += 1
        rows = self._row_options
        if rows is not None:
            options = [{**row, **options} for row in rows] if options else rows
        fresh = self._reset(mask, seeds=self._row_seeds(seed), options=options).clone()
        if root is not None:
            restarted = torch.ones(self.batch_size, dtype=torch.bool, device=self.device) if mask is None else mask
            keep_state(fresh, root, restarted, initial)
        elif initial is not None:
            keep_missing(fresh, initial.clone())
        return fresh

    def step(self, tensordict: TensorDictBase) -> TensorDict:
        """Step every row and return the transition, the caller's own; ended rows must be reset before the next step.

        Args:
            tensordict: ``[*B]`` with ``action``, and whatever the policy wrote; it stays as it is.
        """
        _require_tensordict(type(self).__name__, tensordict)
        self.num_moves += 1
        transition, _, _ = self._transition(tensordict.copy())
        return transition.clone()

    def step_and_reset(self, tensordict: TensorDictBase) -> tuple[TensorDictBase, TensorDict]:
        """Step every row, restart those that ended, and return ``(transition, next_root)``.

        The hot path: both are views that the environment writes again (the root two calls later, ``next`` in the next
        call). Copy what you keep. ``tensordict`` becomes the transition: it gains the entry ``"next"``.
        """
        if type(tensordict) is not TensorDict:
            _require_tensordict(type(self).__name__, tensordict)
        self.num_moves += 1
        transition, root, ended = self._transition(tensordict)
        if not ended:
            return transition, root
        outcome = peek(transition, "next")
        fresh = self._reset(peek(outcome, "done").squeeze(-1), seeds=None, options=self._row_options)
        keep_missing(fresh, root)
        return transition, fresh

    def _transition(self, tensordict: TensorDictBase) -> tuple[TensorDictBase, TensorDict, bool]:
        written = peek(tensordict, "next")
        initial = self._initial_state
        if initial is not None:
            written = with_unwritten(written, tensordict, initial)
        next_, root, ended = self._advance(tensordict)
        if written is not None:
            carry_written(written, next_, root, initial)
        put(tensordict, "next", next_)
        return tensordict, root, ended

    @torch.no_grad()
    def rollout(self, num_steps: int, policy: Callable | None = None, *, stop_when_done: bool = False) -> TensorDict:
        """Reset, then act for ``num_steps`` steps, restarting rows that end.

        Args:
            num_steps: at most this many steps.
            policy: maps a root to a root with ``action``; None acts at random from ``action_spec``.
            stop_when_done: stop as soon as every row has ended once.

        Returns:
            The transitions, ``[*B, T]``, the caller's own.

        Raises:
            SpecError: the policy does not fit the action spec; it names what does. Or a transition has not the keys,
                shapes, dtypes and devices of the first.
        """
        if not is_count(num_steps):
            raise ConfigError(explain("rollout", expected="num_steps of at least 1", got=num_steps))
        policy = self._act_at_random if policy is None else policy
        root = self.reset()
        steps = []
        has_ended = torch.zeros((*self.batch_size, 1), dtype=torch.bool, device=self.device)
        for step in range(num_steps):
            num_dims = len(self.batch_size)
            acted = policy(root) if step else first_act(policy, root, self.action_spec, num_dims)
            if step == 0:
                require_fit(policy, action_of(acted), acted, self.action_spec, len(self.batch_size))
            transition, root = self.step_and_reset(acted)
            steps.append(transition.clone())
            require_same_layout("rollout", steps[-1], steps[0])
            has_ended |= steps[-1]["next", "done"]
            if stop_when_done and bool(has_ended.all()):
                break
        return torch.stack(steps, dim=len(self.batch_size))

    def set_seed(self, seed: int | Sequence[int | None]) -> None:
        """Seed every row's stream; takes effect at the next :meth:`reset` of all rows.

        Args:
            seed: one integer, from which each row's seed is derived, or a sequence with one seed (or None) per row.

        Raises:
            ConfigError: a seed is no non-negative integer. SpecError: not one per row.
            EnvError: the worlds cannot be seeded.
        """
        self._require_seeds()
        if isinstance(seed, (Sequence, np.ndarray)) and not isinstance(seed, str):
            seed = self._row_seeds(seed)  # refuses a bad seed here, not at the reset
            single = joined_seed(seed)
        else:
            child_seeds(seed, 1)
            seed = single = int(seed)
        self._generator.manual_seed(single % 2**64)  # it takes no larger ones
        self._pending_seed = seed

    def freeze_(self, mask: torch.Tensor) -> None:
        """Let rows wait where they are until ``reset(mask)`` restarts them; their worlds are not stepped.

        In further steps such a row repeats its last observation with reward 0 and no flags, and its statistics stay;
        one that had ended waits for no reset any more. What a policy and transforms make of it goes on. Rows after
        that are no data: a collector marks them in ``("collector", "mask")``.

        Args:
            mask: bool ``[*B]`` or ``[*B, 1]``, true where a row shall wait; others stay as they are.

        Raises:
            EnvError: the worlds cannot wait one by one.
            SpecError: the mask does not fit.
        """
        mask = self._checked_mask("freeze_", mask)
        self.num_moves += 1
        self._freeze(mask)

    def ignore_(self, mask: torch.Tensor | None) -> None:  # noqa: B027 - without transforms nothing is learned
        """Let transforms learn nothing from rows whose steps nobody keeps: where rows cannot wait, they are stepped on.

        Args:
            mask: bool ``[*B]``, true on those rows; it replaces the one before. None, or a reset of all rows, ends it.
        """

    def set_info_(self, *, agent_info: TensorDictBase | None = None, env_info: TensorDictBase | None = None) -> None:
        """Set parameters of each row, for the policy and for the world; None leaves what was set before.

        Both are recorded with the data and carried like a policy's state (see :meth:`Transform.initial_state`): they
        are no observations, and no transform sees them. New values appear on a row when it restarts;
        :meth:`apply_info_` writes those of the policy into a root at once.

        Args:
            agent_info: ``[*B]``; its entries reach the policy as keys of the root, under the names that they have here.
            env_info: ``[*B]``; row k reaches the world of row k at each reset as entries of its ``options``: a leaf
                ``[*B]`` as a Python number, others as numpy arrays. Recorded under ``("env_info", key)``.

        Raises:
            SpecError: no TensorDict, another batch size, or another form than before.
            ConfigError: a name that is taken: by an observation, a policy's state, or the environment itself.
            EnvError: ``env_info`` for worlds whose resets take no options, or not one by one.
        """
        infos = {}
        for name, info in (("agent_info", agent_info), ("env_info", env_info)):
            before = getattr(self, f"_{name}")
            infos[name] = before
            if info is not None:
                infos[name] = checked_info(name, info, before, batch_size=self.batch_size, device=self.device)
        agent, world = infos["agent_info"], infos["env_info"]
        self._require_free("agent_info", () if agent is None else agent.keys(), RESERVED)
        self._require_free("env_info", () if world is None else ("env_info",), ())
        options = None if world is None else options_of(world, self.batch_size)
        if env_info is not None:
            self._require_options(options)
        self._agent_info, self._env_info, self._row_options = agent, world, options
        state = {} if self._primed is None else dict(self._primed.items())
        state.update({} if agent is None else dict(agent.items()), **({} if world is None else {"env_info": world}))
        self._initial_state = TensorDict(state, batch_size=self.batch_size) if state else None

    def apply_info_(self, root: TensorDictBase) -> None:
        """Write the present ``agent_info`` into a root there is to act on, on all rows: it changes in mid-episode.

        Args:
            root: ``[*B]``.

        Raises:
            SpecError: the root has another batch size.
        """
        if not isinstance(root, TensorDictBase) or root.batch_size != self.batch_size:
            got = list(root.batch_size) if isinstance(root, TensorDictBase) else type(root).__name__
            expected = f"a root of batch size {list(self.batch_size)}"
            raise SpecError(explain("apply_info_", expected=expected, got=got))
        if self._agent_info is not None:
            put_info_(root, self._agent_info)

    def as_simulator(self) -> EnvSimulator:
        """Present this environment, of batch size ``[]``, as a simulator: one world in numpy.

        So a factory of one can be put into :class:`SerialEnv` and its like. The simulator takes it over.

        Raises:
            EnvError: it is a batch, or seen through transforms.
        """
        if self.batch_size:
            expected = "an environment of batch size [], one world"
            hint = "It is a batch already, and can be used as it is."
            who = f"{type(self).__name__}.as_simulator"
            raise EnvError(explain(who, expected=expected, got=f"one of {list(self.batch_size)}", hint=hint))
        return EnvSimulator(self)

    def render(self) -> torch.Tensor:
        """Return a picture of every world as it stands, uint8 ``[*B, H, W, 3]``.

        Raises:
            EnvError: the environment cannot draw itself.
        """
        raise EnvError(explain(type(self).__name__, expected="worlds that can draw themselves", got="no render()"))

    @property
    def learning_wrapper(self) -> str:
        """Name of the wrapper by which the worlds learn from what they show; empty for none that can be seen."""
        return ""

    @property
    def transforms(self) -> Sequence[Transform]:
        """The transforms between the worlds and the policy, the nearest to the worlds first."""
        return []

    def learned_state_dict(self) -> Learned:
        """Copy what the transforms have learned, also where the worlds cannot be captured.

        Hand it to another environment with the same transforms, of any number of rows:
        ``other.load_learned_state_dict(env.learned_state_dict())``.
        """
        return learned_state(self.transforms)

    def load_learned_state_dict(self, state: Learned, *, for_acting: bool = False) -> None:
        """Write :meth:`learned_state_dict` into the transforms.

        Args:
            state: what transforms like these have learned.
            for_acting: take only what a policy sees with; what was learned of rewards stays as it is.

        Raises:
            SpecError: other transforms learned it, or its tensors have other names or shapes; nothing is changed.
        """
        load_learned_(self.transforms, state, for_acting=for_acting)

    def state_dict(self) -> dict:
        """Capture what a continuation needs. Subclasses add to it, or say that they cannot."""
        return {}

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore :meth:`state_dict` and return the root to act on."""
        raise NotImplementedError(f"{type(self).__name__} cannot restore a state.")

    def driven_things(self) -> list:
        """List what moves when this environment is stepped, and may also be stepped by another; see ``take_env``."""
        return [self]

    def close(self) -> None:  # noqa: B027 - most environments hold nothing
        """Release what the environment holds; may be called twice."""

    @property
    def restarts_rows(self) -> bool:
        """Whether single rows can be restarted where they did not end: ``reset(mask)``."""
        return True

    @property
    def seeds_rows(self) -> bool:
        """Whether single rows can be restarted from seeds of their own: ``reset(mask, seed=[...])``."""
        return self.restarts_rows

    @property
    def can_freeze(self) -> bool:
        """Whether rows can wait one by one, see :meth:`freeze_`."""
        return type(self)._freeze is not Env._freeze

    def _require_seeds(self) -> None:  # noqa: B027 - most worlds can be seeded
        """Refuse where a reset with seeds would fail."""

    def _freeze(self, mask: torch.Tensor) -> None:
        """Let the rows of ``mask``, bool ``[*B]``, wait until :meth:`_reset` restarts them; see :meth:`freeze_`."""
        got = "one that steps all rows together"
        raise EnvError(explain(type(self).__name__, expected="an Env whose rows can wait one by one", got=got))

    def _require_options(self, options: list[dict]) -> None:
        """Refuse options of the resets, one dict for each row; those that can be given are taken by :meth:`_reset`."""
        expected = "worlds whose resets take options"
        raise EnvError(explain("set_info_, env_info", expected=expected, got=type(self).__name__))

    def _require_free(self, what: str, names: Iterable[str], reserved: Sequence[str]) -> None:
        """Refuse names of parameters that something else has."""
        primed = () if self._primed is None else self._primed.keys()
        taken = [name for name in names if name in self.observation_spec or name in primed or name in reserved]
        if taken:
            hint = "Give it another key, or a level of its own."
            expected = "names beside those of observations, of a policy's state and of the environment itself"
            raise ConfigError(explain(f"set_info_, {what}", expected=expected, got=taken, hint=hint))

    def _act_at_random(self, root: TensorDict) -> TensorDict:
        spec = self.action_spec.to("cpu")  # one stream, whatever the device
        if self.action_mask_key is None:
            action = spec.rand(generator=self._generator)
        else:
            action = spec.rand(generator=self._generator, mask=root[self.action_mask_key].cpu())
        put(root, "action", action.to(self.device))
        return root

    def _row_seeds(self, seed: Seed) -> list[int] | None:
        if seed is None:
            return None
        rows = self.batch_size.numel()
        if not isinstance(seed, (Integral, Iterable)):
            expected = f"an integer, or a list of {rows} of them"
            raise ConfigError(explain("reset, seed", expected=expected, got=repr(seed)))
        seeds = child_seeds(seed, rows) if isinstance(seed, Integral) else list(seed)
        if len(seeds) != rows:
            raise SpecError(explain("reset", expected=f"one seed per row, {rows} of them", got=f"{len(seeds)} seeds"))
        for row, one in enumerate(seeds):
            if one is not None and (isinstance(one, bool) or not isinstance(one, Integral) or one < 0):
                raise ConfigError(explain(f"the seed of row {row}", expected="a non-negative integer", got=repr(one)))
        return [None if one is None else int(one) for one in seeds]

    def _checked_mask(self, who: str, mask: torch.Tensor) -> torch.Tensor:
        if not isinstance(mask, torch.Tensor):
            hint = f"A seed is given by its name: reset(seed={mask!r})." if isinstance(mask, Integral) else ""
            expected = f"a bool mask of shape {list(self.batch_size)}, or None for all rows"
            raise SpecError(explain(who, expected=expected, got=repr(mask), hint=hint))
        if mask.dtype is not torch.bool or mask.shape not in (self.batch_size, (*self.batch_size, 1)):
            raise SpecError(
                explain(
                    who,
                    expected=f"a bool mask of shape {list(self.batch_size)} or {[*self.batch_size, 1]}",
                    got=f"{mask.dtype} of shape {list(mask.shape)}",
                )
            )
        return mask.reshape(self.batch_size).to(self.device)

    def __getattr__(self, name: str) -> object:
        if name in ("batch_size", "device", "observation_spec", "action_spec", "_generator", "_pending_seed"):
            hint = "Call super().__init__(batch_size=..., observation_spec=..., action_spec=...) in its __init__."
            expected = "an Env that was initialised"
            raise EnvError(explain(type(self).__name__, expected=expected, got=f"one without {name!r}", hint=hint))
        further = getattr(super(), "__getattr__", None)  # an Env may be a module, too
        if further is None:
            hint = f". It is a batch of worlds: see {OWN_NAMES[name]}." if name in OWN_NAMES else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")
        return further(name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_size={list(self.batch_size)}, action_spec={self.action_spec})"


def _require_specs(
    who: str, batch_size: torch.Size, observation: Composite, action: TensorSpec, reward: TensorSpec | None
) -> None:
    """Refuse specs of another kind or batch size where they are given, not where they are first used."""
    if not isinstance(observation, Composite):
        hint = 'Name the observation: Composite({"observation": spec}, shape=batch_size).'
        expected = "a Composite as observation_spec"
        raise SpecError(explain(who, expected=expected, got=type(observation).__name__, hint=hint))
    if observation.shape != batch_size:
        expected = f"an observation_spec of shape {list(batch_size)}, the batch_size"
        raise SpecError(explain(who, expected=expected, got=list(observation.shape)))
    for name, spec in (("action_spec", action), ("reward_spec", reward)):
        if spec is None and name == "reward_spec":
            continue
        if not isinstance(spec, TensorSpec):
            raise SpecError(explain(who, expected=f"a spec as {name}", got=type(spec).__name__))
        if spec.shape[: len(batch_size)] != batch_size:
            expected = f"a shape that starts with {list(batch_size)}, the batch_size"
            raise SpecError(explain(f"{who}, {name}", expected=expected, got=list(spec.shape), hint="Expand it."))


def _require_tensordict(who: str, given: object) -> None:
    if isinstance(given, TensorDictBase):
        return
    hint = 'Write env.step(root.set("action", action)), where root is what reset() or the step before returned.'
    raise SpecError(
        explain(f"{who}.step", expected="a TensorDict with the action", got=type(given).__name__, hint=hint)
    )


def action_of(tensordict: TensorDictBase) -> torch.Tensor | TensorDictBase:
    """Read the action the policy wrote; a TensorDict where ``action_spec`` is a ``Composite``.

    Raises:
        KeyMissing: there is none.
    """
    action = peek(tensordict, "action")
    if action is None:
        raise KeyMissing(
            explain(
                "step",
                expected="a TensorDict with the key 'action'",
                got=f"the keys {sorted(map(str, tensordict.keys()))}",
                hint="The policy must write 'action' and return the TensorDict it was given.",
            )
        )
    return action
