"""Transforms that rename observations or leave some out. No value changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tensordict import TensorDict
from torch import Tensor

from torchrl.data.specs import Composite
from torchrl.envs.base import Env
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.envs.transforms.leaves import is_below, leaves_at, require_free, topmost_emptied, without
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key, as_key, as_path, key_list
from torchrl.unchecked import put


class _KeyTransform(Transform):
    """Edit which keys a container has; by itself, delete some.

    A subclass sets ``_gone`` when wrapping: what to delete, leaves or levels.
    """

    _gone: tuple[Key, ...]

    def edit(self, tensordict: TensorDict) -> None:
        """Edit one container."""
        for key in self._gone:
            del tensordict[key]

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Edit both containers."""
        self.edit(next_)
        self.edit(root)

    def reset(self, root: TensorDict, mask: Tensor | None) -> None:
        """Edit the root."""
        self.edit(root)

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec without the keys that go."""
        return without(spec, self._gone)

    def action_mask_key(self, key: Key | None) -> Key | None:
        """Return the mask's key, or None if the mask goes: then nothing above knows which actions are legal."""
        return None if key is None or is_below(key, self._gone) else key


class Exclude(_KeyTransform):
    """Leave out some observations, with the levels that become empty.

    If the mask of legal actions goes, random acting does not honour it any more.

    >>> chain = Compose(StepCounter(), LastAction(), Exclude(["observation"]))
    >>> list(TransformedEnv(env, chain).observation_spec.keys())
    ['step_count', 'last_action']

    Args:
        keys: which, each a key or a tuple of keys; a level stands for all below it.

    Raises:
        ConfigError: ``keys`` is empty.
        KeyMissing: when wrapping: there is no such observation.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        super().__init__()
        who = type(self).__name__
        if not keys:
            raise ConfigError(explain(who, expected="a list of at least one key", got=repr(keys)))
        self.keys = tuple(key_list(who, keys))

    def read_specs(self, env: Env | EnvSpecs) -> None:
        """Find the observations."""
        super().read_specs(env)
        spec = env.observation_spec
        self._gone = topmost_emptied(spec, self.leaving(spec, leaves_at(type(self).__name__, spec, self.keys)))

    def leaving(self, spec: Composite, named: Sequence[Key]) -> Sequence[Key]:
        """Return the observations to leave out, given those named by ``keys``."""
        return named


class Select(Exclude):
    """Leave out all observations but some; as :class:`Exclude`, whose opposite it is.

    >>> chain = Compose(StepCounter(), LastAction(), Select(["observation"]))
    >>> list(TransformedEnv(env, chain).observation_spec.keys())
    ['observation']

    Args:
        keys: which stay, each a key or a tuple of keys; a level stands for all below it.
    """

    def leaving(self, spec: Composite, named: Sequence[Key]) -> Sequence[Key]:
        return [key for key, _ in spec.leaves() if key not in named]


class Rename(_KeyTransform):
    """Rename observations: ``Rename({"pixels": "observation", ("body", "left"): ("arms", "left")})``.

    All move at once, so keys can be swapped. Levels that become empty go.

    >>> list(TransformedEnv(env, Rename({"observation": "state"})).observation_spec.keys())
    ['state']

    Args:
        new_keys: the new key by the old one, each a key or a tuple of keys; a level moves with all below it.

    Raises:
        ConfigError: ``new_keys`` is empty; when wrapping: a new key would cover an observation that stays, another new
            key, or a name of the environment such as ``reward``.
        KeyMissing: when wrapping: there is no such observation.
    """

    def __init__(self, new_keys: Mapping[Key, Key]) -> None:
        super().__init__()
        if not isinstance(new_keys, Mapping) or not new_keys:
            expected = "at least one pair {old key: new key}"
            raise ConfigError(explain("Rename", expected=expected, got=repr(new_keys)))
        self.new_keys = dict(new_keys)

    def read_specs(self, env: Env | EnvSpecs) -> None:
        """Find the observations, and check that their new keys are free."""
        super().read_specs(env)
        spec = env.observation_spec
        moves = [move for old, new in self.new_keys.items() for move in _moves(spec, old, new)]
        self._moves = dict(moves)
        if len(self._moves) < len(moves):
            expected = "each observation under one of the old keys"
            raise ConfigError(explain("Rename", expected=expected, got=list(self.new_keys)))
        self._gone = topmost_emptied(spec, list(self._moves))
        taken = without(spec, self._gone)
        for old, new in self._moves.items():
            require_free("Rename", taken, new)
            taken.set(new, spec[old])

    def edit(self, tensordict: TensorDict) -> None:
        """Move the entries of one container."""
        values = [tensordict.get(old) for old in self._moves]
        super().edit(tensordict)
        for new, value in zip(self._moves.values(), values, strict=True):
            if isinstance(new, str):
                put(tensordict, new, value)
            else:
                tensordict.set(new, value)  # makes the levels it lacks

    def action_mask_key(self, key: Key | None) -> Key | None:
        """Return the mask's new key."""
        return None if key is None else self._moves.get(as_key(as_path(key)), key)

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec with the leaves in their new places."""
        renamed = super().observation_spec(spec)
        for old, new in self._moves.items():
            renamed.set(new, spec[old])
        return renamed


def _moves(spec: Composite, old: Key, new: Key) -> list[tuple[Key, Key]]:
    """List the leaves that move with a key, and where to."""
    depth = len(as_path(old))
    return [(leaf, as_key((*as_path(new), *as_path(leaf)[depth:]))) for leaf in leaves_at("Rename", spec, [old])]
