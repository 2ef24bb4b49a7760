"""Transforms that change the policy's action on its way to the simulator: scale, clip, discretise, or read one-hot."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Categorical, MultiCategorical, MultiOneHot, OneHot, TensorSpec, Unbounded
from torchrl.envs.base import action_of
from torchrl.envs.transforms.base import EnvSpecs, Transform, unwritten
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.unchecked import put


class ActionTransform(Transform):
    """Base of transforms that change the action for the environment below; the transition keeps the policy's own.

    A subclass writes :meth:`forward` and :meth:`transform_spec`.

    >>> class Flip(ActionTransform):
    ...     def forward(self, action):
    ...         return 1 - action
    ...     def transform_spec(self, leaf):
    ...         return leaf
    >>> TransformedEnv(env, Flip()).transform(torch.tensor([0, 1]))
    tensor([1, 0])
    """

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        """Return the action for the environment below, ``[*B]`` or ``[*B, A]``; ``action`` must not be written to."""
        raise unwritten(self, "forward")

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec of the policy's actions, given a leaf of the action spec of the environment below."""
        raise unwritten(self, "transform_spec")

    def inverse(self, inputs: TensorDict) -> None:
        """Replace the action for the environment below by :meth:`forward` of it."""
        put(inputs, "action", self.forward(action_of(inputs)))

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        return self.transform_spec(spec)


class BoundedActionTransform(ActionTransform):
    """Base of action transforms that read the bounds of the environment's actions, and refuse unbounded ones."""

    needs_finite = False

    def read_specs(self, env: EnvSpecs) -> None:
        """Read the bounds.

        Raises:
            SpecError: the environment's actions have none.
        """
        super().read_specs(env)
        spec = env.action_spec
        is_continuous = isinstance(spec, Bounded) and spec.dtype.is_floating_point
        if not is_continuous or (self.needs_finite and not bool((spec.low.isfinite() & spec.high.isfinite()).all())):
            expected = f"bounded, continuous actions {'with finite bounds ' if self.needs_finite else ''}below"
            raise SpecError(explain(type(self).__name__, expected=expected, got=spec))
        # No buffers: the bounds belong to the environment, and there is nothing to save.
        self._low, self._high = spec.low, spec.high

    def _require_form(self, action: torch.Tensor) -> None:
        """Refuse an action of another shape than the bounds have, since they would broadcast."""
        if torch.compiler.is_compiling():  # there are as many rows as there are
            return
        if action.shape != self._low.shape or action.dtype is not self._low.dtype:
            Unbounded(self._low.shape, self._low.dtype, self._low.device).assert_form(action, "action")


class ActionScaling(BoundedActionTransform):
    """Scale the policy's actions from ``[-1, 1]`` to the ``[low, high]`` that the simulator takes.

    Actions outside are scaled alike and not clipped; :class:`ActionClip` after it in the chain clips them.

    >>> pendulum = TransformedEnv(GymEnv("Pendulum-v1"), ActionScaling())  # takes a torque from -2 to 2
    >>> pendulum.transform(torch.tensor([0.5]))
    tensor([1.])

    Raises:
        SpecError: when wrapping: the environment's actions are not bounded on both sides; at a step: the
            policy's action has another shape or dtype.
    """

    needs_finite = True

    def read_specs(self, env: EnvSpecs) -> None:
        """Read the bounds."""
        super().read_specs(env)
        self._half = self._low.new_tensor(0.5)

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        """Return ``low + (action + 1) / 2 · (high - low)``, ``[*B, A]``."""
        self._require_form(action)
        # lerp meets both ends exactly: the result never leaves the bounds by a rounding error.
        return torch.lerp(self._low, self._high, torch.add(self._half, action, alpha=0.5))

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return bounds of -1 and 1."""
        return Bounded(-1.0, 1.0, leaf.shape, leaf.dtype, leaf.device)


class ActionClip(BoundedActionTransform):
    """Clip the action to the bounds, for the simulator only: the policy's action and its log-prob stay unclipped.

    >>> pendulum = TransformedEnv(GymEnv("Pendulum-v1"), ActionClip())  # takes a torque from -2 to 2
    >>> pendulum.transform(torch.tensor([5.0]))
    tensor([2.])

    Raises:
        SpecError: when wrapping: the environment's actions are not bounded; at a step: the
            policy's action has another shape or dtype.
    """

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        """Return the action inside the bounds, ``[*B, A]``."""
        self._require_form(action)
        return torch.clamp(action, self._low, self._high)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return a spec without bounds."""
        return Unbounded(leaf.shape, leaf.dtype, leaf.device)


# An action lies at the share (choice + shift) / (number of choices - less) of the way from low to high.
SHARES = {"low": (0.0, 0), "centre": (0.5, 0), "high": (1.0, 0), "ends": (0.0, 1)}


class ActionDiscretizer(BoundedActionTransform):
    """Replace a bounded, continuous action by a discrete choice among several fixed numbers in each dimension.

    The range from ``low`` to ``high`` of a dimension is cut into n intervals of one width. Choice i stands for a number
    in interval i, which the environment receives. For ``[-1, 1]`` in 4 intervals, the four numbers are

    - ``at="low"``, its lower end: -1, -0.5, 0, 0.5;
    - ``at="centre"``: -0.75, -0.25, 0.25, 0.75;
    - ``at="high"``, its upper end: -0.5, 0, 0.5, 1;
    - ``at="ends"``, ``low + i (high - low) / (n - 1)``, so that both bounds are reached: -1, -1/3, 1/3, 1.

    An action of one dimension, ``[*B]`` or ``[*B, 1]``, becomes a ``Categorical`` ``[*B]``; one of several dimensions,
    ``[*B, A]``, becomes a ``MultiCategorical`` ``[*B, A]``.

    >>> pendulum = TransformedEnv(GymEnv("Pendulum-v1"), ActionDiscretizer(5, at="ends"))  # -2, -1, 0, 1, 2
    >>> pendulum.action_spec.n, pendulum.transform(torch.tensor(3))
    (5, tensor([1.]))

    Args:
        num_intervals: how many in each dimension: a number, or one per dimension, ``[A]``.
        at: where in its interval the number is, see above.

    Raises:
        ConfigError: an unknown ``at``, or too few intervals.
        SpecError: when wrapping: the environment's actions are not bounded on both sides, or have other dimensions; at
            a step: the policy's action is out of range or no integer.
    """

    needs_finite = True

    def __init__(self, num_intervals: int | Sequence[int], *, at: str = "centre") -> None:
        super().__init__()
        if at not in SHARES:
            raise ConfigError(explain("ActionDiscretizer", expected=f"at in {list(SHARES)}", got=repr(at)))
        self.at = at
        self._shift, self._less = SHARES[at]
        self._num = torch.as_tensor(num_intervals)
        least = 1 + self._less
        if self._num.is_floating_point() or not bool((self._num >= least).all()):
            expected = f"whole numbers of intervals, at least {least}"
            raise ConfigError(explain("ActionDiscretizer", expected=expected, got=num_intervals))

    def read_specs(self, env: EnvSpecs) -> None:
        """Read the bounds, and compute the number that each choice stands for."""
        super().read_specs(env)
        spec = env.action_spec
        features = spec.shape[len(env.batch_size) :]
        if self._num.ndim and self._num.shape != features:
            got = f"{self._num.tolist()} intervals for actions of shape {[*features]}"
            raise SpecError(explain("ActionDiscretizer", expected="one number per dimension", got=got))
        num = self._num.to(spec.device).expand(features)
        if features.numel() == 1:
            self._choice = Categorical(int(num), env.batch_size, device=spec.device)
        else:
            self._choice = MultiCategorical(num, spec.shape, device=spec.device)
        # Compared with every action: a single number where the action has one dimension, in any shape.
        self._last = num.max() - 1 if features.numel() == 1 else num - 1
        self._first = torch.zeros_like(self._last)
        self._divisor = (num - self._less).to(spec.dtype)
        self._batch_dims, self._features = len(env.batch_size), features

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        """Return the number that each choice stands for, ``[*B, A]``."""
        if not torch.compiler.is_compiling():  # a graph cannot depend on values
            self._require_choice(action)
        batch = action.shape[: self._batch_dims]
        share = (action.reshape((*batch, *self._features)) + self._shift).to(self._low.dtype) / self._divisor
        return torch.lerp(self._low, self._high, share)  # meets both ends exactly

    def _require_choice(self, action: torch.Tensor) -> None:
        choice = self._choice
        has_form = action.shape == choice.shape and action.dtype is choice.dtype
        if not (has_form and torch.equal(action, action.clamp(self._first, self._last))):
            choice.assert_contains(action, "action")

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec of the choices, int64."""
        return self._choice


class OneHotAction(ActionTransform):
    """Let the policy send one-hot vectors; the environment receives the index.

    A ``Categorical`` ``[*B]`` becomes a ``OneHot`` ``[*B, n]``; a ``MultiCategorical`` ``[*B, A]`` becomes a
    ``MultiOneHot`` ``[*B, n_1 + ... + n_A]``. A mask of legal actions needs no change.

    >>> TransformedEnv(env, OneHotAction()).transform(torch.tensor([[0, 1], [1, 0]]))
    tensor([1, 0])

    Args:
        dtype: of the policy's vectors.

    Raises:
        SpecError: when wrapping: the environment's actions are no indices; at a step: the policy's action is not
            one-hot, such as an index.
    """

    def __init__(self, *, dtype: torch.dtype = torch.int64) -> None:
        super().__init__()
        self.dtype = dtype

    def read_specs(self, env: EnvSpecs) -> None:
        """Read how many choices there are."""
        super().read_specs(env)
        self._index = env.action_spec
        self._one_hot = self._one_hot_spec(env.action_spec, len(env.batch_size))
        self._num_choices = self._index.shape.numel()
        self._batch_dims = len(env.batch_size)
        self._features = self._index.shape[self._batch_dims :]

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        """Return the index of each 1, ``[*B]`` or ``[*B, A]``."""
        if not torch.compiler.is_compiling():  # a graph has any number of rows, and cannot depend on values
            self._one_hot.assert_form(action, "action")
        largest, index = zip(*(part.max(-1) for part in action.split(self._one_hot.nvec, -1)), strict=True)
        if not torch.compiler.is_compiling():
            self._require_one_hot(action, largest)
        index = torch.stack(index, -1).reshape((*action.shape[: self._batch_dims], *self._features))
        return index.to(self._index.dtype)

    def _require_one_hot(self, action: torch.Tensor, largest: Sequence[torch.Tensor]) -> None:
        # A 1 in every group, and as many entries other than 0 as groups: one-hot, for a third of a full check.
        if int(torch.count_nonzero(action)) != self._num_choices or not all(bool((top == 1).all()) for top in largest):
            self._one_hot.assert_contains(action, "action")

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return self._one_hot

    def _one_hot_spec(self, spec: TensorSpec, batch_dims: int) -> MultiOneHot:
        if isinstance(spec, Categorical):
            return OneHot(spec.n, (*spec.shape, spec.n), self.dtype, spec.device)
        if isinstance(spec, MultiCategorical):
            nvec = choices_per_entry(spec, batch_dims)
            return MultiOneHot(nvec, (*spec.shape[:batch_dims], sum(nvec)), self.dtype, spec.device)
        raise SpecError(explain("OneHotAction", expected="actions below that are indices of choices", got=spec))


def choices_per_entry(spec: MultiCategorical, batch_dims: int) -> list[int]:
    """List how many choices each entry of a row's action has, in row-major order.

    Raises:
        SpecError: the rows differ.
    """
    rows = spec.nvec.reshape(-1, spec.shape[batch_dims:].numel())
    if not bool((rows == rows[0]).all()):
        raise SpecError(explain("action_spec", expected="the same choices in every row", got=rows.tolist()))
    return rows[0].tolist()
