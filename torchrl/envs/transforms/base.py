"""The base class of transforms, and the class by which they see the specs of the environment below."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data.batch_functions import StepEditor
from torchrl.data.specs import Composite, TensorSpec
from torchrl.envs.transforms.attributes import plain_numbers
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key
from torchrl.misspelling import is_used_in, refuse_misspelt


@dataclass(frozen=True)
class EnvSpecs:
    """Hold the specs of the environment below a transform; an :class:`Env` has the same attributes.

    >>> specs = EnvSpecs(env.batch_size, env.device, env.observation_spec, env.action_spec, env.reward_spec)
    >>> specs.action_mask_key, specs.step_limit
    (None, inf)

    Attributes:
        batch_size: ``[*B]``.
        device: where the environment's tensors live.
        observation_spec: of its observations, leaves ``[*B, ...]``.
        action_spec: of the actions that it takes, ``[*B]`` or ``[*B, A]``.
        reward_spec: ``[*B, 1]``.
        action_mask_key: the observation that says which choices are legal, or None.
        step_limit: the number of steps after which the simulators truncate every episode; infinity for none.
        task: the id of the task of all rows; empty where it is not known.
    """

    batch_size: torch.Size
    device: torch.device
    observation_spec: Composite
    action_spec: TensorSpec
    reward_spec: TensorSpec
    action_mask_key: Key | None = None
    step_limit: float = math.inf
    task: str = ""


# What these methods are called in the wrappers and transforms of other libraries, for the error.
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


_OWN = frozenset(("waiting", "memory_dims", "_attributes", "_has_env"))


class Transform(StepEditor):
    """Base of transforms, which change observations, rewards or actions between policy and env; changes nothing itself.

    Every step passes a transform twice, and each direction has methods for the specs::

        policy          action               root, next
                           |                     ^
        transform       inverse              step, reset
                        action_spec          observation_spec, reward_spec
                           v                     |
        environment     what it receives     observations, reward, flags

    A transform belongs to one environment. Its methods edit the given TensorDicts in place. They must not write into
    the tensors, which other code may hold, but set new ones.

    What a transform *learns*, such as running statistics, must be in buffers. They are saved and loaded apart from the
    simulators' states, copied to evaluations and to restarted workers, and do not change after ``eval()``. What it
    *remembers* of each row's episode, such as the last frames, must be in buffers made by :meth:`register_memory`.
    They do not change on frozen rows (:meth:`Env.freeze_`).

    >>> class Negate(Transform):
    ...     def step(self, next_, root):
    ...         next_["reward"] = -next_["reward"]
    >>> TransformedEnv(env, Negate()).rollout(3)["next", "reward"].sum()
    tensor(-6.)

    Attributes:
        ends_episodes: whether :meth:`step` may set the flags of an ending; read once, when the environment is wrapped.
        changes_reward_only: whether observations and actions are the same without it.
        waiting: bool ``[*B]``, true on rows that are frozen or ignored, from which nothing must be learned. None where
            there are no such rows.
        memory_dims: the dimension at which ``*B`` begins in each buffer of :meth:`register_memory`, by name.
        merge_learned: a static method from the ``learned_state_dict()`` of several transforms in equal environments,
            such as those of worker processes, to one merged dict; None where they cannot be merged.
    """

    ends_episodes = False
    changes_reward_only = False
    waiting: torch.Tensor | None = None
    merge_learned: Callable[[Sequence[dict[str, torch.Tensor]]], dict[str, torch.Tensor]] | None = None

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a subclass with a method that nothing calls: a misspelt one, or a ``forward`` that no base calls."""
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
        self._attributes: dict[str, str] = {}  # plain ones when the transform wrapped its env
        self.memory_dims: dict[str, int | None] = {}

    def read_specs(self, env: EnvSpecs) -> None:
        """Read the specs of the environment below, and prepare; called once, before all other methods.

        Raises:
            ConfigError: the transform already belongs to an environment.
        """
        if "memory_dims" not in vars(self):
            hint = "Call super().__init__() first in its __init__."
            got = "one without it"
            raise ConfigError(explain(type(self).__name__, expected="a transform that is set up", got=got, hint=hint))
        if self._has_env:
            raise ConfigError(
                explain(
                    type(self).__name__,
                    expected="a new transform for every environment",
                    got="one that already belongs to an environment or a chain",
                    hint="Build another with the same arguments.",
                )
            )
        self._has_env = True

    def register_memory(self, name: str, value: torch.Tensor | None, *, batch_dim: int | None = 0) -> None:
        """Register a buffer for memory of each row's episode (not for learned statistics: ``register_buffer``).

        Args:
            name: of the attribute.
            value: ``[*B, ...]``; None until the batch size is known.
            batch_dim: the dimension at which ``*B`` begins; None where all rows share the value.
        """
        self.register_buffer(name, value)
        self.memory_dims[name] = batch_dim

    @contextmanager
    def keep_memory(self, rows: torch.Tensor) -> Iterator[None]:
        """Undo, when a ``with`` block ends, its changes of the memory of frozen rows, ``rows`` bool ``[*B]``.

        The env enters it around a step with frozen rows; what was learned is not undone, nor a step that raises.
        """
        kept = [
            (module, name, batch_dim, module._buffers[name].clone())  # a copy: transforms may write into their own
            for module in self.modules()
            for name, batch_dim in _memory_dims(module).items()
            if batch_dim is not None
        ]
        yield
        for module, name, batch_dim, before in kept:
            after = module._buffers[name]
            waits = rows.to(after.device).reshape(*rows.shape, *[1] * (after.ndim - batch_dim - rows.ndim))
            module._buffers[name] = torch.where(waits, before, after)

    def record_attributes(self) -> None:
        """Store the numbers in plain attributes of a user's transform, for :meth:`changed_attributes`.

        :class:`TransformedEnv` calls it when it wraps an env.
        """
        self._attributes = plain_numbers(self, skip=_OWN)

    def changed_attributes(self) -> list[str]:
        """List the plain attributes whose numbers have changed since the transform wrapped its env.

        They are not saved with the learned tensors, of which a warning tells; attributes of this package's transforms
        are not looked at.
        """
        now = plain_numbers(self, skip=_OWN)
        return [name for name, value in self._attributes.items() if now.get(name) != value]

    def learned_tensors(self) -> dict[str, torch.Tensor]:
        """Return the learned tensors by name, not copied: all saved buffers except memory of rows."""
        remembered = set()
        for path, module in self.named_modules():
            names = (*_memory_dims(module), "_extra_state")
            remembered.update(f"{path}.{name}" if path else name for name in names)
        state = self.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if name not in remembered}

    def learns_later(self) -> bool:
        """Answer whether a buffer for learned tensors is still None, because the first data decide its shape."""
        return any(
            value is None and name not in _memory_dims(module)
            for module in self.modules()
            for name, value in module._buffers.items()
        )

    def learned_state_dict(self) -> dict[str, torch.Tensor]:
        """Return copies of the tensors that the transform has learned, by name."""
        return {name: value.detach().clone() for name, value in self.learned_tensors().items()}

    @torch.no_grad()
    def load_learned_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Overwrite the learned tensors, in place, with what :meth:`learned_state_dict` returned; nothing is checked.

        :meth:`Env.load_learned_state_dict` checks names and shapes first.
        """
        fill_empty_(self, state)
        for name, value in self.learned_tensors().items():
            value.copy_(state[name])

    def has_learned(self) -> bool:
        """Answer whether the transform has learned enough to be used in eval mode; True by default.

        An evaluation that is given no learned states asks, and refuses a transform that has not.
        """
        return True

    @property
    def remembers(self) -> bool:
        """Whether what a row shows depends on earlier steps of its episode: whether there is memory of rows."""
        return bool(self.memory_dims)

    def for_row(self, env: EnvSpecs) -> Self:
        """Return a copy in eval mode, with what this one learned, for an env of one row.

        A policy that is handed over takes it along. Inside a graph it meets batches ``[N]`` of any size, so shapes must
        come from the values, not from the specs.

        >>> row = EnvSpecs((1,), env.device, env.observation_spec[:1], env.action_spec[:1], env.reward_spec[:1])
        >>> one = TransformedEnv(env, FrameStack(2)).transform.for_row(row)
        >>> one.reset(root := TensorDict({"observation": torch.ones(1, 4)}, [1]), None)
        >>> root["observation"].shape
        torch.Size([1, 8])

        Args:
            env: the specs of one row of the environment below, batch size ``[1]``.
        """
        other = copy.deepcopy(self)
        other._has_env = False
        other.to(env.device).read_specs(env)
        return other.eval()

    def parts(self) -> list[Transform]:
        """List the transforms that this one consists of, the nearest to the environment first; by default itself."""
        return [self]

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Edit the outcome of a step and the next root, in place.

        Args:
            next_: the outcome, ``[*B]``: true successor observations, reward and flags.
            root: the next root, ``[*B]``, with the same observations as ``next_``; rows that ended are reset after
                this call, see :meth:`reset`.
        """

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Edit the root after a reset of some rows, in place.

        Args:
            root: the root of all rows, ``[*B]``, with untransformed observations on every row.
            mask: bool ``[*B]``, true on rows that restarted, whose memory must be cleared; None means all rows. False
                everywhere after a state was loaded.
        """

    def inverse(self, inputs: TensorDict) -> None:
        """Edit the policy's action, and its other entries, before the environment below gets them.

        Args:
            inputs: a new container, ``[*B]``, with the policy's ``action`` and its other entries.
        """

    def set_waiting(self, rows: torch.Tensor | None) -> None:
        """Set :attr:`waiting`: the rows from which nothing must be learned from now on; the env calls it.

        A subclass that learns must itself leave these rows out.
        """
        self.waiting = rows

    def set_seed(self, seed: int) -> None:
        """Seed the transform's random generator, if it has one; called before a reset of all rows with a seed."""

    def initial_state(self) -> TensorDict | None:
        """Return a policy's state at the start of an episode, such as recurrent state, ``[*B]``; None without one.

        The policy reads these entries in the root and writes their new values under ``next``; the environment copies
        them into the next root. An entry that the policy does not write keeps its value. They are no observations: no
        transform sees them.
        """
        return None

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec of the transformed observations, given that of the environment below."""
        return spec

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of the transformed reward, given that of the environment below."""
        return spec

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of the policy's actions, given that of the environment below."""
        return spec

    def action_mask_key(self, key: Key | None) -> Key | None:
        """Return the policy's key of the mask of legal actions, given its key in the env below; None without a mask."""
        return key

    def device(self, device: torch.device) -> torch.device:
        """Return the device of the transformed entries, given that of the environment below."""
        return device


def unwritten(part: object, method: str) -> NotImplementedError:
    """Return the error for a method that a subclass has to write and has not."""
    return NotImplementedError(f"{type(part).__name__} lacks a method that its base leaves to it: write `{method}`.")


def _memory_dims(module: nn.Module) -> dict[str, int | None]:
    return module.memory_dims if isinstance(module, Transform) else {}


def specs_above(transform: Transform, env: EnvSpecs) -> EnvSpecs:
    """Return the specs of an environment with a transform around it, which has read the env's specs already."""
    return EnvSpecs(
        batch_size=env.batch_size,
        device=transform.device(env.device),
        observation_spec=transform.observation_spec(env.observation_spec),
        action_spec=transform.action_spec(env.action_spec),
        reward_spec=transform.reward_spec(env.reward_spec),
        action_mask_key=transform.action_mask_key(env.action_mask_key),
        step_limit=env.step_limit,
        task=env.task,
    )


def fill_empty_(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Set buffers of a module that are still None to copies of a state dict's tensors of the same names."""
    owners = dict(module.named_modules())
    for path, value in state.items():
        owner, _, name = path.rpartition(".")
        places = owners[owner]._buffers if owner in owners else {}
        if name in places and places[name] is None:
            places[name] = value.clone()


def join_states(one: TensorDict | None, other: TensorDict | None) -> TensorDict | None:
    """Merge two initial states of a policy into one; they may share nested levels but no entries; None is empty.

    Raises:
        ConfigError: both have an entry of the same name.
    """
    if one is None or other is None:
        return other if one is None else one
    keys, others = (set(state.keys(include_nested=True, leaves_only=True)) for state in (one, other))
    if keys & others:
        hint = "Give each its own keys."
        raise ConfigError(explain("initial state", expected="every key once", got=f"{keys & others} twice", hint=hint))
    return one.clone().update(other)
