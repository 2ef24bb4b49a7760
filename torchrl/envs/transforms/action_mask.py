"""Transforms for environments that observe a mask of legal actions, true = legal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from tensordict import TensorDict
from torch.nn.functional import pad

from torchrl.data.specs import Binary, Categorical, Composite, MultiCategorical, MultiOneHot, TensorSpec
from torchrl.data.specs.base import first_true
from torchrl.data.specs.masks import as_bools
from torchrl.envs.base import action_of
from torchrl.envs.transforms.action import ActionTransform, choices_per_entry
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.envs.transforms.leaves import require_leaves, set_leaf
from torchrl.envs.transforms.randomness import RandomTransform
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key, as_path


class ActionMask(Transform):
    """Declare which observation is the mask of legal actions, and refuse a step with an illegal action.

    Random actions are then drawn among the legal ones; a policy reads the mask by its ``mask_key``. The mask stays an
    observation, as bool. Each action is checked against the mask of the root that the policy acted on. So a mask that
    allows nothing is an error only where a policy acts on it, not at the end of an episode.

    >>> chess = EnvSpecs((), torch.device("cpu"), Composite({"legal": Binary((3,))}), Categorical(3), env.reward_spec)
    >>> mask = ActionMask("legal")
    >>> mask.read_specs(chess)
    >>> mask.action_mask_key(None)
    'legal'

    Args:
        mask_key: an observation, true = legal, bool or 0 and 1 of any dtype: for an index ``[*B]`` or a one-hot vector
            ``[*B, n]`` it is ``[*B, n]``; for several choices at once their masks one after the other,
            ``[*B, n_1 + ... + n_A]``.

    Raises:
        KeyMissing: when wrapping: there is no such observation.
        SpecError: when wrapping: the mask has another shape, or actions are not discrete; at a step: an action is
            illegal, a row allows none, or an entry of the mask is neither 0 nor 1.
        ConfigError: when wrapping: the environment has another mask already.
    """

    def __init__(self, mask_key: Key = "action_mask") -> None:
        super().__init__()
        self.mask_key = mask_key
        self._mask: torch.Tensor | None = None  # of the root to act on

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the mask and check its shape against the actions."""
        super().read_specs(env)
        (self.mask_key,) = require_leaves("ActionMask", env.observation_spec, [self.mask_key])
        named = env.action_mask_key
        if named is not None and as_path(named) != as_path(self.mask_key):
            expected = f"the mask that the environment names, {named!r}"
            raise ConfigError(explain("ActionMask", expected=expected, got=repr(self.mask_key)))
        self._batch_size = env.batch_size
        self._action = env.action_spec
        self._choices = _choices_of(env.action_spec, len(env.batch_size))
        leaf = env.observation_spec[self.mask_key]
        self._is_bool = leaf.dtype is torch.bool
        if leaf.shape != self._choices.mask_shape:
            expected = f"a bool mask of shape {[*self._choices.mask_shape]} in {self.mask_key!r}"
            hint = "It goes before transforms that change the number of actions."
            raise SpecError(explain("ActionMask", expected=expected, got=leaf, hint=hint))

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Store the next root's mask, to check the next action, and convert the mask to bool."""
        self._remember(root)
        if not self._is_bool:
            set_leaf(next_, self.mask_key, self._mask)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Store the root's mask, to check the next action, and convert the mask to bool."""
        self._remember(root)

    def _remember(self, root: TensorDict) -> None:
        self._mask = root.get(self.mask_key)
        if not self._is_bool:
            self._mask = as_bools(f"ActionMask, {self.mask_key!r}", self._mask)
            set_leaf(root, self.mask_key, self._mask)

    def observation_spec(self, spec: Composite) -> Composite:
        if self._is_bool:
            return spec
        shape = self._choices.mask_shape
        return spec.clone().set(self.mask_key, Binary(shape, torch.bool, spec[self.mask_key].device))

    def inverse(self, inputs: TensorDict) -> None:
        """Refuse an action that the last root's mask does not allow; do not change the action."""
        if self._mask is None or torch.compiler.is_compiling():  # never reset: the environment refuses the step
            return
        legal = self._choices.chosen(action_of(inputs)) & self._mask
        if int(torch.count_nonzero(legal)) != self._choices.num:
            raise self._illegal(action_of(inputs), legal)

    def action_mask_key(self, key: Key | None) -> Key:
        return self.mask_key

    def _illegal(self, action: torch.Tensor, legal: torch.Tensor) -> SpecError:
        self._action.assert_form(action, "action")
        num_legal = legal.reshape(*self._batch_size, -1).sum(-1)
        row = first_true(num_legal != self._choices.num // num_legal.numel())
        where = f" in row {list(row)}" if row else ""
        mask, sent = self._mask[row], action[row].tolist()
        if not all(bool(part.any(-1).all()) for part in mask.split(self._choices.nvec, -1)):
            hint = "Where nothing is legal, the episode should have ended."
            got = f"the mask {mask.int().tolist()}"
            return SpecError(explain("ActionMask", expected=f"some legal action{where}", got=got, hint=hint))
        hint = f"Give the policy the mask: mask_key={self.mask_key!r}."
        got = f"{sent} under the mask {mask.int().tolist()}"
        return SpecError(explain("ActionMask", expected=f"a legal action{where}", got=got, hint=hint))


class DiscreteActionProjection(RandomTransform, ActionTransform):
    """Let a policy of ``max_n`` actions act in an env with fewer: actions that the env lacks are replaced at random.

    Use it for one policy in several environments. An action that the environment lacks is replaced by one drawn
    uniformly, among the legal ones if the environment has a mask (see :class:`ActionMask`, which goes before). The
    policy sees that mask extended to ``[*B, max_n]`` by false for the missing actions; a policy that obeys the mask
    never needs a replacement.

    >>> TransformedEnv(env, DiscreteActionProjection(18)).action_spec.n, env.action_spec.n
    (18, 2)

    Args:
        max_n: number of actions of the policy, at least that of the environment.

    Raises:
        SpecError: when wrapping: the environment's actions are no single index, or more than ``max_n``; at a step: an
            action is not from 0 to ``max_n - 1``, or one must be replaced in a row that allows none.
    """

    def __init__(self, max_n: int) -> None:
        super().__init__()
        self.max_n = max_n
        self._mask: torch.Tensor | None = None

    def read_specs(self, env: EnvSpecs) -> None:
        """Read how many actions the environment below has."""
        super().read_specs(env)
        spec = env.action_spec
        if not isinstance(spec, Categorical) or spec.dtype is torch.bool or spec.n > self.max_n:
            expected = f"actions below that are an index, of at most {self.max_n} choices"
            raise SpecError(explain("DiscreteActionProjection", expected=expected, got=spec))
        self._below = spec
        self._above = Categorical(self.max_n, spec.shape, spec.dtype, spec.device)
        self._mask_key = env.action_mask_key

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        """Return the action where the environment has it, else a random legal one, ``[*B]``."""
        if torch.compiler.is_compiling() and self._mask_key is not None:
            return action  # a graph cannot depend on values, and its policy obeys the mask
        self._above.assert_form(action, "action")
        if torch.equal(action, action.clamp(0, self._below.n - 1)):
            return action
        self._above.assert_contains(action, "action")
        drawn = self._below.rand(generator=self.generator, mask=self._mask)
        return torch.where(action < self._below.n, action, drawn)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Store the next root's mask as it was, and extend it to ``max_n`` actions in the outcome and in the root."""
        if self._mask_key is not None:
            self._widen(next_)
            self._mask = self._widen(root)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Store the root's mask, and extend it to ``max_n`` actions in the root."""
        if self._mask_key is not None:
            self._mask = self._widen(root)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec of ``max_n`` choices."""
        return self._above

    def observation_spec(self, spec: Composite) -> Composite:
        if self._mask_key is None:
            return spec
        shape = (*self._above.shape, self.max_n)
        return spec.clone().set(self._mask_key, Binary(shape, torch.bool, self._above.device))

    def _widen(self, tensordict: TensorDict) -> torch.Tensor:
        """Extend the mask in a TensorDict to ``max_n`` actions, and return the old mask."""
        mask = as_bools("DiscreteActionProjection", tensordict.get(self._mask_key))
        set_leaf(tensordict, self._mask_key, pad(mask, (0, self.max_n - self._below.n)))
        return mask


@dataclass(frozen=True)
class _Choices:
    """Describe how actions of a spec relate to a mask of legal choices.

    Attributes:
        mask_shape: ``[*B, n]``.
        nvec: numbers of choices of the groups that are side by side on the mask's last dimension.
        num: how many choices an action contains, in all rows together.
        chosen: a function from an action to the mask entries that it chooses, bool ``[*B, n]``.
    """

    mask_shape: torch.Size
    nvec: list[int]
    num: int
    chosen: Callable[[torch.Tensor], torch.Tensor]


def _choices_of(spec: TensorSpec, batch_dims: int) -> _Choices:
    """Return the description of a discrete action spec for masks.

    Raises:
        SpecError: the actions are not discrete.
    """
    batch_size = spec.shape[:batch_dims]
    if isinstance(spec, Categorical):
        choice = torch.arange(spec.n, device=spec.device)
        shape = torch.Size((*spec.shape, spec.n))
        return _Choices(shape, [spec.n], spec.shape.numel(), lambda action: action.unsqueeze(-1) == choice)
    if isinstance(spec, MultiCategorical):
        nvec = choices_per_entry(spec, batch_dims)
        choice = torch.cat([torch.arange(n, device=spec.device) for n in nvec])
        entry = torch.repeat_interleave(torch.tensor(nvec, device=spec.device))
        shape, flat = torch.Size((*batch_size, sum(nvec))), (*batch_size, len(nvec))
        return _Choices(
            shape, nvec, spec.shape.numel(), lambda action: action.reshape(flat).index_select(-1, entry) == choice
        )
    if isinstance(spec, MultiOneHot):
        num = spec.shape[:-1].numel() * len(spec.nvec)
        return _Choices(spec.shape, list(spec.nvec), num, partial(_find_choices, spec.nvec))
    raise SpecError(explain("ActionMask", expected="actions below that are choices", got=spec))


def _find_choices(nvec: Sequence[int], action: torch.Tensor) -> torch.Tensor:
    """Return the mask entries that one-hot actions choose, bool ``[*B, n]``; none of a group without exactly one 1."""
    parts = action.bool().split(nvec, -1)
    return torch.cat([part & (part.sum(-1, keepdim=True) == 1) for part in parts], -1)
