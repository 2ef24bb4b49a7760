"""The contract of a transform, the chain of several, and the environment seen through one. Not any one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.data.batch_functions import StepEditor
from torchrl.data.specs import Composite, TensorSpec
from torchrl.data.specs.composite import Key
from torchrl.envs.base import Env, ResetOptions, Seed
from torchrl.envs.driving import require_undriven
from torchrl.envs.env_simulator import EnvSimulator
from torchrl.envs.vector.building import RESERVED
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.misspelling import is_used_in, refuse_misspelt
from torchrl.seeding import child_seeds, named_seeds
from torchrl.shapes import expand_right
from torchrl.unchecked import put, shallow


@dataclass(frozen=True)
class EnvSpecs:
    """What a transform may know of the environment below it; an :class:`Env` has the same attributes.

    Attributes:
        batch_size: ``[*B]``.
        device: where the environment's tensors live.
        observation_spec: what comes from below, leaves ``[*B, ...]``.
        action_spec: what goes down, ``[*B]`` or ``[*B, A]``.
        reward_spec: ``[*B, 1]``.
        action_mask_key: the observation that says which choices are legal, or None.
        step_limit: the steps after which the worlds truncate every episode by themselves; infinity for none.
    """

    batch_size: torch.Size
    device: torch.device
    observation_spec: Composite
    action_spec: TensorSpec
    reward_spec: TensorSpec
    action_mask_key: Key | None = None
    step_limit: float = math.inf


# What such methods are called in wrappers and transforms elsewhere.
_ELSEWHERE = {
    "_step": "step",
    "_reset": "reset",
    "_call": "step",
    "_apply_transform": "step",
    "_inv_call": "inverse",
    "inv": "inverse",
    "observation": "step",
    "reward": "step",
    "action": "inverse",
    "transform_observation_spec": "observation_spec",
    "transform_reward_spec": "reward_spec",
    "transform_action_spec": "action_spec",
}


class Transform(StepEditor):
    """Change what the policy sees, what the simulator receives, or both. The default changes nothing.

    Each of the two directions has a twin for specs. A transform belongs to one environment.

    What it *learns* is in buffers. It is saved and loaded apart from the worlds, handed on to evaluations and to
    restarted workers, and ``eval()`` freezes it. What it *remembers* of each row is in buffers that
    :meth:`register_memory` makes: it belongs to where the worlds stand, and stays as it is on rows that wait.

    The containers it is given are fresh, down to the last level, and are edited in place. The tensors in them belong to
    others and are never written to: set new ones.

    Attributes:
        ends_episodes: whether :meth:`step` may set the flags of an ending; read once, when the environment is wrapped.
        changes_reward_only: whether a policy sees the same without it.
        waiting: bool ``[*B]``, true on rows that wait (:meth:`Env.freeze_`), which are no data: nothing is learned from
            them. None where no row waits.
        merge_learned: a static method that joins the ``learned_state_dict()`` of several environments that are built
            alike, such as those of collecting processes; None where there is no telling how.
    """

    ends_episodes = False
    changes_reward_only = False
    waiting: torch.Tensor | None = None
    merge_learned: Callable[[Sequence[dict[str, torch.Tensor]]], dict[str, torch.Tensor]] | None = None

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a method that nobody would call: a misspelt one, and a ``forward`` that no base uses."""
        super().__init_subclass__(**options)
        refuse_misspelt(cls, synonyms=_ELSEWHERE)
        own = cls.__mro__[: -len(Transform.__mro__)]
        if "forward" in vars(cls) and not any(is_used_in(base, "forward") for base in own):
            hint = "Write step and reset, or derive from ObservationTransform, RewardTransform or ActionTransform."
            got = "a forward, which nobody would call"
            raise ConfigError(explain(cls.__name__, expected="names of Transform", got=got, hint=hint))

    def __init__(self) -> None:
        super().__init__()
        self._is_attached = False
        self._memory: dict[str, int | None] = {}  # at which dimension the rows begin, by name

    def attach(self, env: Env | EnvSpecs) -> None:
        """Read the specs of the environment below; called once, before anything else.

        Raises:
            ConfigError: the transform already belongs to an environment.
        """
        if self._is_attached:
            raise ConfigError(
                explain(
                    type(self).__name__,
                    expected="a transform of its own for every environment",
                    got="one that already belongs to an environment or a chain",
                    hint="Build another with the same arguments.",
                )
            )
        self._is_attached = True

    def register_memory(self, name: str, value: torch.Tensor | None, *, batch_dim: int | None = 0) -> None:
        """Register a buffer for what is remembered of each row.

        Args:
            name: of the attribute.
            value: ``[*B, ...]``; None until the batch size is known.
            batch_dim: the dimension at which ``*B`` begins; None where all rows share what is remembered.
        """
        self.register_buffer(name, value)
        self._memory[name] = batch_dim

    def learned_tensors(self) -> dict[str, torch.Tensor]:
        """Return what the transform has learned, the tensors themselves: all that it saves but its memory."""
        remembered = set()
        for path, module in self.named_modules():
            names = [*(module._memory if isinstance(module, Transform) else ()), "_extra_state"]
            remembered.update(f"{path}.{name}" if path else name for name in names)
        state = self.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if name not in remembered}

    def learned_state_dict(self) -> dict[str, torch.Tensor]:
        """Copy what the transform has learned."""
        return {name: value.detach().clone() for name, value in self.learned_tensors().items()}

    @torch.no_grad()
    def load_learned_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Write :meth:`learned_state_dict` into the transform, in place, so that tensors stay where they are shared."""
        for name, value in self.learned_tensors().items():
            value.copy_(state[name])

    def has_learned(self) -> bool:
        """Answer whether the transform can do its work without learning any more."""
        return True

    def parts(self) -> list[Transform]:
        """List the transforms this one consists of, the nearest to the environment first."""
        return [self]

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Edit the outcome of a step and the root after it.

        Args:
            next_: the outcome, ``[*B]``: true successor observations, reward and flags.
            root: the root to act on next, ``[*B]``, with the same observations as ``next_``; rows that ended wait for
                :meth:`reset`.
        """

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Edit a root of which some rows have just restarted.

        Args:
            root: the whole root, ``[*B]``, untransformed on every row.
            mask: bool ``[*B]``, true on rows that restarted: only their memory starts anew; None is all rows.
                False everywhere when a state was loaded.
        """

    def inverse(self, inputs: TensorDict) -> None:
        """Edit what the policy sends, on its way to the environment below.

        Args:
            inputs: a container of ours, ``[*B]``, with the policy's ``action`` and whatever else it holds.
        """

    def set_waiting(self, rows: torch.Tensor | None) -> None:
        """Note which rows wait from now on; see :attr:`waiting`."""
        self.waiting = rows

    def set_seed(self, seed: int) -> None:
        """Seed what the transform draws; called before a reset of all rows that is given a seed."""

    def initial_state(self) -> TensorDict | None:
        """Return what a policy's state starts from in a fresh episode, ``[*B]``; None for none.

        The policy reads these entries in the root and writes their successors under ``next``; what it does not write
        stays as it was. The environment carries them. They are no observations: no transform sees them.
        """
        return None

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec of what the policy sees, given the spec of what comes from below."""
        return spec

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of the reward, given that from below."""
        return spec

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of what the policy may send, given what the environment below takes."""
        return spec

    def action_mask_key(self, key: Key | None) -> Key | None:
        """Return the observation that holds the mask of legal actions, given the one that holds it below."""
        return key

    def device(self, device: torch.device) -> torch.device:
        """Return the device of what the policy sees, given the device below."""
        return device


class Compose(Transform):
    """Chain transforms, the first nearest to the environment. What the policy sends passes them in reverse order.

    Args:
        transforms: any number of transforms, each of its own.
    """

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        for transform in transforms:
            _require_transform("Compose", transform)
        self.transforms = nn.ModuleList(transforms)
        self._chain = transforms  # walking a ModuleList takes longer than a step of most transforms
        self._inverse_chain = transforms[::-1]
        self._devices: list[torch.device] | None = None  # where each gets its mask; None where all do in one place
        self.ends_episodes = any(transform.ends_episodes for transform in transforms)

    def attach(self, env: Env | EnvSpecs) -> None:
        """Attach each transform to the environment as seen through those before it.

        Raises:
            ConfigError: two of them name the same initial state.
        """
        super().attach(env)
        devices = []
        for transform in self._chain:
            transform.attach(env)
            devices.append(env.device)
            env = seen_through(transform, env)
        self._devices = devices if any(device != env.device for device in devices) else None
        self.initial_state()

    def parts(self) -> list[Transform]:
        """List the transforms of the chain; see :meth:`Transform.parts`."""
        return [part for transform in self._chain for part in transform.parts()]

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Edit with every transform in turn; see :meth:`Transform.step`."""
        for transform in self._chain:
            transform.step(next_, root)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Edit with every transform in turn; see :meth:`Transform.reset`."""
        if self._devices is None or mask is None:
            for transform in self._chain:
                transform.reset(root, mask)
            return
        for transform, device in zip(self._chain, self._devices, strict=True):
            transform.reset(root, mask.to(device))

    def inverse(self, inputs: TensorDict) -> None:
        """Edit with every transform, the last one first; see :meth:`Transform.inverse`."""
        for transform in self._inverse_chain:
            transform.inverse(inputs)

    def set_waiting(self, rows: torch.Tensor | None) -> None:
        """Tell every transform, where its tensors are; see :meth:`Transform.set_waiting`."""
        super().set_waiting(rows)
        for transform, device in zip(self._chain, self._devices or [None] * len(self), strict=True):
            transform.set_waiting(rows if rows is None or device is None else rows.to(device))

    def set_seed(self, seed: int) -> None:
        """Give every transform a seed of its own; see :meth:`Transform.set_seed`."""
        for transform, child in zip(self._chain, child_seeds(seed, len(self._chain)), strict=True):
            transform.set_seed(child)

    def initial_state(self) -> TensorDict | None:
        """Return that of all transforms together; see :meth:`Transform.initial_state`."""
        state = None
        for transform in self._chain:
            state = _joined(state, transform.initial_state())
        return state

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec of what the policy sees; see :meth:`Transform.observation_spec`."""
        for transform in self._chain:
            spec = transform.observation_spec(spec)
        return spec

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of the reward; see :meth:`Transform.reward_spec`."""
        for transform in self._chain:
            spec = transform.reward_spec(spec)
        return spec

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of what the policy may send; see :meth:`Transform.action_spec`."""
        for transform in self._chain:
            spec = transform.action_spec(spec)
        return spec

    def action_mask_key(self, key: Key | None) -> Key | None:
        """Return the key of the mask of legal actions; see :meth:`Transform.action_mask_key`."""
        for transform in self._chain:
            key = transform.action_mask_key(key)
        return key

    def device(self, device: torch.device) -> torch.device:
        """Return the device of what the policy sees; see :meth:`Transform.device`."""
        for transform in self._chain:
            device = transform.device(device)
        return device

    def __len__(self) -> int:
        return len(self._chain)

    def __getitem__(self, index: int) -> Transform:
        return self._chain[index]

    def __iter__(self) -> Iterator[Transform]:
        return iter(self._chain)


class TransformedEnv(Env):
    """An environment seen through a transform; it takes the environment over.

    The transition's ``action`` is the policy's own; what the simulator received is not recorded. ``episode_return`` is
    counted below and stays raw. Seeds mean the same with and without the transform.

    Args:
        env: the environment below, ``[*B]``.
        transform: what it is seen through; several go into a :class:`Compose`.

    Raises:
        EnvError: ``env`` is no environment, or something steps it already, such as a collector.
        ConfigError: ``transform`` is no transform, or belongs to another environment, or names as a policy's state what
            is an observation or another's state.
        KeyMissing: the environment has no observation that the transform reads.
    """

    def __init__(self, env: Env, transform: Transform) -> None:
        if not isinstance(env, Env):
            hint = "A simulator becomes one by SerialEnv(make_simulator, num_envs)."
            raise EnvError(explain("TransformedEnv", expected="an Env", got=type(env).__name__, hint=hint))
        _require_transform("TransformedEnv", transform)
        require_undriven("TransformedEnv", env)
        transform.attach(env)
        seen = seen_through(transform, env)
        self.env = env
        waiting = env._pending_seed
        super().__init__(
            batch_size=env.batch_size,
            observation_spec=seen.observation_spec,
            action_spec=seen.action_spec,
            reward_spec=seen.reward_spec,
            device=seen.device,
        )
        self.transform = transform
        self.action_mask_key = seen.action_mask_key
        # One stream of random actions and one seed that waits for a reset, whether or not there is a transform.
        self._generator = env._generator
        self._pending_seed = waiting
        self._primed = _checked_state(_joined(env._primed, transform.initial_state()), seen)
        self._initial_state = self._primed
        if env._agent_info is not None or env._env_info is not None:  # from now on it is set, and used, out here
            self.set_info_(agent_info=env._agent_info, env_info=env._env_info)
        self._may_end = transform.ends_episodes
        self._waiting: torch.Tensor | None = None  # [*B, 1], where a transform may have ended what goes on below
        self._frozen: torch.Tensor | None = None  # [*B, 1], rows that wait (freeze_)
        self._ignored: torch.Tensor | None = None  # [*B], rows that are stepped on for nothing (ignore_)
        self._is_elsewhere = seen.device != env.device
        self._stream = "transform" + "+" * _depth(env)  # of the seeds; each transform around another has its own

    @property
    def _pending_seed(self) -> Seed:
        return self.env._pending_seed

    @_pending_seed.setter
    def _pending_seed(self, seed: Seed) -> None:
        self.env._pending_seed = seed

    @property
    def num_moves(self) -> int:
        """See :class:`Env`; it is counted below, where several may wrap one environment."""
        return self.env.num_moves

    @num_moves.setter
    def num_moves(self, num_moves: int) -> None:
        self.env.num_moves = num_moves

    @property
    def step_limit(self) -> float:
        """See :class:`Env`."""
        return self.env.step_limit

    def driven_things(self) -> list:
        """List those of the environment below; see :meth:`Env.driven_things`."""
        return self.env.driven_things()

    @property
    def simulators(self) -> list:
        """The worlds, one per slot, where the environment below has them."""
        return self.env.simulators

    @property
    def transforms(self) -> list[Transform]:
        """All transforms, the nearest to the worlds first; see :attr:`Env.transforms`."""
        return [*self.env.transforms, *self.transform.parts()]

    def _advance(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        if self._waiting is not None:
            raise self._not_restarted()
        inputs = shallow(tensordict)  # the policy's action stays in its own container
        if self._frozen is None:
            next_, root, ended = self._advance_through(inputs)
        else:
            with self._remembered(self._frozen.squeeze(-1)):
                next_, root, ended = self._advance_through(inputs)
            self._repeat(tensordict, next_, root)
        if self._may_end:
            done = next_.get("done")
            ended = bool(done.any())
            self._waiting = done.clone() if ended else None
        return next_, root, ended

    def _advance_through(self, inputs: TensorDict) -> tuple[TensorDict, TensorDict, bool]:
        self.transform.inverse(inputs)
        next_, root, ended = self.env._advance(inputs)
        self.transform.step(next_, root)
        return next_, root, ended

    @contextmanager
    def _remembered(self, rows: torch.Tensor) -> Iterator[None]:
        """Put back what transforms remember of some rows, bool ``[*B]``."""
        kept = []
        for part in self.transform.parts():
            for module in [module for module in part.modules() if isinstance(module, Transform)]:
                for name, batch_dim in module._memory.items():
                    if batch_dim is not None:  # a copy: transforms may write into their own
                        kept.append((module, name, batch_dim, module._buffers[name].clone()))
        yield
        for module, name, batch_dim, before in kept:
            after = module._buffers[name]
            waits = rows.to(after.device).reshape(*rows.shape, *[1] * (after.ndim - batch_dim - rows.ndim))
            module._buffers[name] = torch.where(waits, before, after)

    def _repeat(self, before: TensorDictBase, next_: TensorDict, root: TensorDict) -> None:
        """Let rows that wait show once more what was acted on, with reward 0 and no flags."""
        for key, _ in self.observation_spec.leaves():
            value, seen = next_.get(key), before.get(key, None)
            if seen is None:  # whoever steps by hand may send the action alone
                continue
            value = torch.where(expand_right(self._frozen.squeeze(-1), value), seen, value)
            next_.set(key, value)
            root.set(key, value)
        put(next_, "reward", next_.get("reward").masked_fill(self._frozen, 0))
        _clear_flags(next_, self._frozen)

    def _set_frozen(self, rows: torch.Tensor | None) -> None:
        """Note the rows that wait, bool ``[*B, 1]``."""
        self._frozen = None if rows is None or not bool(rows.any()) else rows
        self._tell_waiting()

    def ignore_(self, mask: torch.Tensor | None) -> None:
        """Let transforms learn nothing from some rows; see :meth:`Env.ignore_`."""
        self.env.ignore_(None if mask is None else mask.to(self.env.device))
        self._ignored = mask
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        """Tell the transforms from which rows there is nothing to learn."""
        waiting = None if self._frozen is None else self._frozen.squeeze(-1)
        if self._ignored is not None:
            waiting = self._ignored if waiting is None else waiting | self._ignored
        self.transform.set_waiting(waiting)

    def _reset(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        if seeds is not None and seeds[0] is not None and mask is None:
            self.transform.set_seed(named_seeds(seeds[0], self._stream)[self._stream])
        below = mask.to(self.env.device) if self._is_elsewhere and mask is not None else mask
        root = self.env._reset(below, seeds=seeds, options=options)
        if mask is None and self._ignored is not None:
            self.ignore_(None)
        if self._frozen is not None:  # before the transforms see the first observations of those rows
            self._set_frozen(None if mask is None else self._frozen & ~mask.unsqueeze(-1))
        self.transform.reset(root, mask)
        if self._waiting is not None:
            waiting = None if mask is None else self._waiting & ~mask.unsqueeze(-1)
            self._waiting = None if waiting is None or not bool(waiting.any()) else waiting
        return root

    def _freeze(self, mask: torch.Tensor) -> None:
        self.env._freeze(mask.to(self.env.device))
        rows = mask.unsqueeze(-1)
        if self._waiting is not None:
            waiting = self._waiting & ~rows
            self._waiting = waiting if bool(waiting.any()) else None
        self._set_frozen(rows.clone() if self._frozen is None else self._frozen | rows)

    @property
    def restarts_rows(self) -> bool:
        """Whether single rows below can be restarted; see :attr:`Env.restarts_rows`."""
        return self.env.restarts_rows

    @property
    def seeds_rows(self) -> bool:
        """Whether single rows below can be restarted from seeds of their own; see :attr:`Env.seeds_rows`."""
        return self.env.seeds_rows

    @property
    def can_freeze(self) -> bool:
        """Whether rows below can wait one by one; see :attr:`Env.can_freeze`."""
        return self.env.can_freeze

    def _require_seeds(self) -> None:
        self.env._require_seeds()

    def _require_options(self, options: list[dict]) -> None:
        self.env._require_options(options)

    def as_simulator(self) -> EnvSimulator:
        """Refuse: transforms wrap the batch, never the worlds in it.

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
        """Say what an environment below would say, had it ended these rows itself."""
        rows = self._waiting.squeeze(-1).nonzero().tolist()
        hint = "Call reset(mask) for them first, or use step_and_reset."
        expected = "every row inside an episode"
        return EnvError(explain("step", expected=expected, got=f"rows {rows} that have ended", hint=hint))

    def state_dict(self) -> dict:
        """Capture the environment and the transform, with what the transform remembers of each row.

        State that a policy carries is not the environment's: save the root beside it, as collectors do.

        Raises:
            EnvError: a simulator's state cannot be captured.
        """
        transform = {name: value.clone() for name, value in self.transform.state_dict().items()}
        frozen = None if self._frozen is None else self._frozen.clone()
        return {"env": self.env.state_dict(), "transform": transform, "frozen": frozen}

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore :meth:`state_dict` and return the root to act on, the caller's own."""
        root = self.env.load_state_dict(state["env"])
        self.transform.load_state_dict(state["transform"])
        self._pending_seed = None
        self._waiting = None
        self._set_frozen(None if state["frozen"] is None else state["frozen"].to(self.device, copy=True))
        self.transform.reset(root, torch.zeros(self.batch_size, dtype=torch.bool, device=self.device))
        return root

    def render(self) -> torch.Tensor:
        """Return a picture of every world below; see :meth:`Env.render`."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment below."""
        self.env.close()

    def __repr__(self) -> str:
        return f"TransformedEnv({self.env!r}, {self.transform!r})"


def seen_through(transform: Transform, env: Env | EnvSpecs) -> EnvSpecs:
    """Describe an environment as it looks through a transform that is attached to it."""
    return EnvSpecs(
        batch_size=env.batch_size,
        device=transform.device(env.device),
        observation_spec=transform.observation_spec(env.observation_spec),
        action_spec=transform.action_spec(env.action_spec),
        reward_spec=transform.reward_spec(env.reward_spec),
        action_mask_key=transform.action_mask_key(env.action_mask_key),
        step_limit=env.step_limit,
    )


def _joined(one: TensorDict | None, other: TensorDict | None) -> TensorDict | None:
    """Join two initial states, which may share levels but no entries."""
    if one is None or other is None:
        return other if one is None else one
    keys, others = (set(state.keys(include_nested=True, leaves_only=True)) for state in (one, other))
    if keys & others:
        hint = "Give each its own keys."
        raise ConfigError(explain("initial state", expected="every key once", got=f"{keys & others} twice", hint=hint))
    return one.clone().update(other)


def _checked_state(state: TensorDict | None, seen: EnvSpecs) -> TensorDict | None:
    """Return an initial state on the device of what the policy sees; refuse one that is among the observations."""
    if state is None:
        return None
    taken = [key for key in state.keys() if key in seen.observation_spec or key in RESERVED]
    if taken:
        expected = f"a policy's state beside the observations {list(seen.observation_spec.keys())}"
        hint = "Give it another key, or a level of its own."
        raise ConfigError(explain("TransformedEnv", expected=expected, got=f"{taken}", hint=hint))
    return state.to(seen.device)


def _clear_flags(next_: TensorDict, rows: torch.Tensor) -> None:
    """Take the flags of an ending from some rows, bool ``[*B, 1]``."""
    for key in ("terminated", "truncated", "done"):
        next_.set(key, next_.get(key) & ~rows)


def _depth(env: Env) -> int:
    """Count the transformed environments one inside the other."""
    return 1 + _depth(env.env) if isinstance(env, TransformedEnv) else 0


def _require_transform(who: str, transform: object) -> None:
    if not isinstance(transform, Transform):
        hint = "Several go into Compose(*transforms)." if isinstance(transform, (list, tuple)) else ""
        raise ConfigError(explain(who, expected="a Transform", got=repr(transform), hint=hint))
