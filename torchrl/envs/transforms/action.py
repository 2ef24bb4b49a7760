"""Transforms on the way down: what the policy sends becomes what the simulator receives."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, TensorSpec, Unbounded
from torchrl.envs.base import Env, action_of
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.errors import SpecError, explain
from torchrl.unchecked import put


class ActionTransform(Transform):
    """Replace the action on its way down by a function of it. The transition keeps the policy's own.

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
        raise NotImplementedError

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec of what the policy may send, given what the environment below takes."""
        raise NotImplementedError

    def inverse(self, inputs: TensorDict) -> None:
        """Replace the action."""
        put(inputs, "action", self.forward(action_of(inputs)))

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of what the policy may send."""
        return self.transform_spec(spec)


class BoundedActionTransform(ActionTransform):
    """An action transform that knows the bounds of the actions below."""

    needs_finite = False

    def read_specs(self, env: Env | EnvSpecs) -> None:
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
        """Refuse an action that the bounds would broadcast to another shape."""
        if action.shape != self._low.shape or action.dtype is not self._low.dtype:
            Unbounded(self._low.shape, self._low.dtype, self._low.device).assert_form(action, "action")


class ActionScaling(BoundedActionTransform):
    """Let the policy act in ``[-1, 1]``; the simulator receives ``[low, high]``.

    Actions outside are scaled alike and not clipped; :class:`ActionClip` after it in the chain clips them.

    >>> pendulum = TransformedEnv(GymEnv("Pendulum-v1"), ActionScaling())  # takes a torque from -2 to 2
    >>> pendulum.transform(torch.tensor([0.5]))
    tensor([1.])

    Raises:
        SpecError: when wrapping: the environment's actions are not bounded on both sides; at a step: the
            policy's action has another shape or dtype.
    """

    needs_finite = True

    def read_specs(self, env: Env | EnvSpecs) -> None:
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
