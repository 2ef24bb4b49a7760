"""The contract of a transform, and the chain of several. Not any one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data.batch_functions import StepEditor
from torchrl.data.specs import Composite, TensorSpec
from torchrl.envs.base import Env
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key
from torchrl.misspelling import is_used_in, refuse_misspelt
from torchrl.seeding import child_seeds


@dataclass(frozen=True)
class EnvSpecs:
    """What a transform may know of the environment below it; an :class:`Env` has the same attributes.

    >>> specs = EnvSpecs(env.batch_size, env.device, env.observation_spec, env.action_spec, env.reward_spec)
    >>> specs.action_mask_key, specs.step_limit
    (None, inf)

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
    "attach": "read_specs",
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

    >>> class Negate(Transform):
    ...     def step(self, next_, root):
    ...         next_["reward"] = -next_["reward"]
    >>> TransformedEnv(env, Negate()).rollout(3)["next", "reward"].sum()
    tensor(-6.)

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
        self._has_env = False
        self._attributes: dict[str, str] = {}  # plain ones, as they were when an env was wrapped
        self._memory: dict[str, int | None] = {}  # at which dimension the rows begin, by name

    def read_specs(self, env: Env | EnvSpecs) -> None:
        """Read the specs of the environment below; called once, before anything else.

        Raises:
            ConfigError: the transform already belongs to an environment.
        """
        if self._has_env:
            raise ConfigError(
                explain(
                    type(self).__name__,
                    expected="a transform of its own for every environment",
                    got="one that already belongs to an environment or a chain",
                    hint="Build another with the same arguments.",
                )
            )
        self._has_env = True

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

    def learns_later(self) -> bool:
        """Answer whether a buffer, no memory, holds nothing yet: its shape is that of the first data."""
        return any(
            value is None and name not in getattr(module, "_memory", ())
            for module in self.modules()
            for name, value in module._buffers.items()
        )

    def learned_state_dict(self) -> dict[str, torch.Tensor]:
        """Copy what the transform has learned."""
        return {name: value.detach().clone() for name, value in self.learned_tensors().items()}

    @torch.no_grad()
    def load_learned_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Write :meth:`learned_state_dict` into the transform, in place, so that tensors stay where they are shared."""
        fill_empty_(self, state)
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

    >>> chain = Compose(RewardScaling(2.0), RewardClipping(-1.5, 1.5))
    >>> TransformedEnv(env, chain).rollout(1)["next", "reward"].flatten()  # of 1, 1
    tensor([1.5000, 1.5000])

    Args:
        transforms: any number of transforms, each of its own.
    """

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        for transform in transforms:
            require_transform("Compose", transform)
        self.transforms = nn.ModuleList(transforms)
        self._chain = transforms  # walking a ModuleList takes longer than a step of most transforms
        self._inverse_chain = transforms[::-1]
        self._devices: list[torch.device] | None = None  # where each gets its mask; None where all do in one place
        self.ends_episodes = any(transform.ends_episodes for transform in transforms)

    def read_specs(self, env: Env | EnvSpecs) -> None:
        """Let each transform read the specs of the environment as seen through those before it.

        Raises:
            ConfigError: two of them name the same initial state.
        """
        super().read_specs(env)
        devices = []
        for transform in self._chain:
            transform.read_specs(env)
            devices.append(env.device)
            env = specs_above(transform, env)
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
        return reduce(join_states, (transform.initial_state() for transform in self._chain), None)

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec of what the policy sees; see :meth:`Transform.observation_spec`."""
        return reduce(lambda spec, transform: transform.observation_spec(spec), self._chain, spec)

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of the reward; see :meth:`Transform.reward_spec`."""
        return reduce(lambda spec, transform: transform.reward_spec(spec), self._chain, spec)

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of what the policy may send; see :meth:`Transform.action_spec`."""
        return reduce(lambda spec, transform: transform.action_spec(spec), self._chain, spec)

    def action_mask_key(self, key: Key | None) -> Key | None:
        """Return the key of the mask of legal actions; see :meth:`Transform.action_mask_key`."""
        return reduce(lambda key, transform: transform.action_mask_key(key), self._chain, key)

    def device(self, device: torch.device) -> torch.device:
        """Return the device of what the policy sees; see :meth:`Transform.device`."""
        return reduce(lambda device, transform: transform.device(device), self._chain, device)

    def __len__(self) -> int:
        return len(self._chain)

    def __getitem__(self, index: int) -> Transform:
        return self._chain[index]

    def __iter__(self) -> Iterator[Transform]:
        return iter(self._chain)


def specs_above(transform: Transform, env: Env | EnvSpecs) -> EnvSpecs:
    """Describe an environment as it looks through a transform that has read its specs."""
    return EnvSpecs(
        batch_size=env.batch_size,
        device=transform.device(env.device),
        observation_spec=transform.observation_spec(env.observation_spec),
        action_spec=transform.action_spec(env.action_spec),
        reward_spec=transform.reward_spec(env.reward_spec),
        action_mask_key=transform.action_mask_key(env.action_mask_key),
        step_limit=env.step_limit,
    )


def fill_empty_(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put copies of tensors, by their name in a state dict, where a module has buffers that hold nothing yet."""
    owners = dict(module.named_modules())
    for path, value in state.items():
        owner, _, name = path.rpartition(".")
        places = owners[owner]._buffers if owner in owners else {}
        if name in places and places[name] is None:
            places[name] = value.clone()


def join_states(one: TensorDict | None, other: TensorDict | None) -> TensorDict | None:
    """Join two initial states, which may share levels but no entries."""
    if one is None or other is None:
        return other if one is None else one
    keys, others = (set(state.keys(include_nested=True, leaves_only=True)) for state in (one, other))
    if keys & others:
        hint = "Give each its own keys."
        raise ConfigError(explain("initial state", expected="every key once", got=f"{keys & others} twice", hint=hint))
    return one.clone().update(other)


def require_transform(who: str, transform: object) -> None:
    """Refuse what is no transform.

    Raises:
        ConfigError: saying how several become one, where it is a list.
    """
    if not isinstance(transform, Transform):
        hint = "Several go into Compose(*transforms)." if isinstance(transform, (list, tuple)) else ""
        raise ConfigError(explain(who, expected="a Transform", got=repr(transform), hint=hint))
