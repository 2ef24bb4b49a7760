"""Wrappers that make a deterministic policy explore: ε-greedy choices, and noise on continuous actions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from torchrl.data.specs import Bounded
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.keys import Key
from torchrl.modules.distributions.base import draw
from torchrl.modules.exploration import AnnealedExploration, require_spec
from torchrl.modules.families import require_drawn
from torchrl.modules.memory import PRIMER_LINE
from torchrl.modules.operator import accept_tensors, read, write
from torchrl.shapes import expand_right

if TYPE_CHECKING:
    from torchrl.data.specs import TensorSpec


class _SpecExploration(AnnealedExploration):
    """Base of explorers that draw or bound actions by an action spec, which must fit the environment's."""

    action_spec: TensorSpec

    def require_fit(self, action_spec: TensorSpec, tensordict: TensorDictBase) -> None:
        """Raise if the policy does not fit one row's ``action_spec``, or exploration would give actions outside of it.

        Raises:
            SpecError: naming what would fit.
        """
        if hasattr(self.module, "require_fit"):
            self.module.require_fit(action_spec, tensordict)
        require_drawn(type(self).__name__, self.action_spec, action_spec, self.action_key)


class EGreedy(_SpecExploration):
    """Replace the policy's action by a uniformly drawn legal action with probability ε, which :meth:`step` anneals.

    >>> policy = EGreedy(QValueActor(MLP(4, 2)), env.action_spec, num_frames=10_000)
    >>> policy(env.reset())["action"].shape, policy.strength.item()
    (torch.Size([2]), 1.0)

    Sutton and Barto, "Reinforcement Learning" (2018), section 2.2; annealed as in Mnih et al., "Human-level control
    through deep reinforcement learning" (2015). Each row draws for itself. ``strength`` is ε. It explores under the
    exploration types ``RANDOM`` and None alone, and ε stays at ``start`` unless ``step(frames)`` is called, see
    :class:`AnnealedExploration`.

    Args:
        module: the policy, such as a :class:`QValueActor`.
        action_spec: ``env.action_spec``, or that of one row, ``env.action_spec[0]``, for any batch dimensions.
        start: ε before the first frame.
        end: ε from ``num_frames`` on.
        num_frames: frames from start to end, counted over all environments.
        mask_key: the observation that says which actions are legal, ``env.action_mask_key``; None allows all.
        generator: source of the exploration; None uses torch's global one.

    Raises:
        ConfigError: as :class:`AnnealedExploration`, or an ε is no probability.
        KeyMissing: from a call, there is no mask.
    """

    def __init__(
        self,
        module: TensorDictModuleBase,
        action_spec: TensorSpec,
        *,
        start: float = 1.0,
        end: float = 0.05,
        num_frames: int,
        mask_key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(module, start=start, end=end, num_frames=num_frames, generator=generator)
        if not (0 <= start <= 1 and 0 <= end <= 1):
            raise ConfigError(explain("EGreedy", expected="ε between 0 and 1", got=f"start={start}, end={end}"))
        require_spec("EGreedy", action_spec)
        if mask_key is not None and mask_key not in self.in_keys:
            self.in_keys = [*self.in_keys, mask_key]
        self.action_spec = action_spec
        self.mask_key = mask_key

    def explore(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Replace, in each row with probability ε, the policy's action by a uniformly drawn legal action."""
        (action,) = read(tensordict, (self.action_key,), "EGreedy")
        is_row = action.ndim > self.action_spec.ndim
        batch = action.shape[: action.ndim - self.action_spec.ndim] if is_row else tensordict.batch_size
        chance = draw(torch.Tensor.uniform_, torch.empty(batch, device=action.device), self.generator)
        random = self._random(tensordict, batch if is_row else (), action.device)
        explores = expand_right(chance < self.strength, action)
        write(tensordict, self.action_key, torch.where(explores, random, action))
        return tensordict

    def _random(self, tensordict: TensorDictBase, batch: tuple[int, ...], device: torch.device) -> torch.Tensor:
        home = device if self.generator is None else self.generator.device
        spec = self.action_spec if self.action_spec.device in (None, home) else self.action_spec.to(home)
        mask = None
        if self.mask_key is not None:
            mask = read(tensordict, (self.mask_key,), "EGreedy")[0].to(home)
        return spec.rand(batch, generator=self.generator, mask=mask).to(device)


class _ActionNoise(_SpecExploration):
    """Base of explorers that add noise to continuous actions, in units of half their range, and clamp them to it."""

    def __init__(
        self,
        module: TensorDictModuleBase,
        action_spec: TensorSpec,
        *,
        start: float = 0.1,
        end: float = 0.1,
        num_frames: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(module, start=start, end=end, num_frames=num_frames, generator=generator)
        low, high = action_bounds(type(self).__name__, action_spec)
        if start < 0 or end < 0:
            got = f"start={start}, end={end}"
            raise ConfigError(explain(type(self).__name__, expected="strengths of at least 0", got=got))
        self.action_spec = action_spec
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def _move_action(self, tensordict: TensorDictBase, action: torch.Tensor, noise: torch.Tensor) -> None:
        half_width = (self.high - self.low) / 2
        moved = action + self.strength * half_width * noise
        write(tensordict, self.action_key, moved.clamp(self.low, self.high).to(action.dtype))

    def _draw_noise(self, tensordict: TensorDictBase) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the policy's action, and standard normal noise of its shape and dtype."""
        (action,) = read(tensordict, (self.action_key,), type(self).__name__)
        return action, draw(torch.Tensor.normal_, action, self.generator)


class AdditiveGaussian(_ActionNoise):
    """Add Gaussian noise, independent from step to step, to a policy's actions, and clip them to their bounds.

    >>> policy = AdditiveGaussian(Actor(MLP(4, 3)), Bounded(-1.0, 1.0, [3]))
    >>> policy(env.reset())["action"].abs().amax() <= 1
    tensor(True)

    Fujimoto, van Hoof and Meger, "Addressing Function Approximation Error in Actor-Critic Methods" (2018),
    https://arxiv.org/abs/1802.09477, section 6.1, where the standard deviation is 0.1 of actions in [-1, 1].
    ``strength`` is the standard deviation, as a share of half the range of the action. Noise is added under the
    exploration types ``RANDOM`` and None alone, and ``strength`` stays at ``start`` unless ``step(frames)`` is called,
    see :class:`AnnealedExploration`.

    Args:
        module: the policy, such as an :class:`Actor`.
        action_spec: ``env.action_spec``, or that of one row, with finite bounds.
        start: standard deviation before the first frame.
        end: standard deviation from ``num_frames`` on.
        num_frames: frames from start to end, counted over all environments.
        generator: source of the noise; None uses torch's global one.

    Raises:
        ConfigError: as :class:`AnnealedExploration`, or a strength is negative.
        SpecError: the action has no finite bounds.
    """

    def explore(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Add Gaussian noise to the action, and clip the action to its bounds."""
        action, noise = self._draw_noise(tensordict)
        self._move_action(tensordict, action, noise)
        return tensordict


class OrnsteinUhlenbeck(_ActionNoise):
    """Add to each row's actions noise that drifts, the Ornstein-Uhlenbeck process ``x ← x - θ x dt + σ √dt ε``.

    >>> policy = OrnsteinUhlenbeck(Actor(MLP(4, 3)), Bounded(-1.0, 1.0, [3]), num_frames=10_000)
    >>> root = policy(env.reset().set("ou_noise", torch.zeros(2, 3)))
    >>> root["next", "ou_noise"].shape
    torch.Size([2, 3])

    Uhlenbeck and Ornstein, "On the Theory of the Brownian Motion" (1930); Lillicrap et al., "Continuous control with
    deep reinforcement learning" (2016), https://arxiv.org/abs/1509.02971, section 7, with θ = 0.15 and σ = 0.2. The
    action plus ``strength`` · x, in units of half its range, is clamped to its bounds.

    x is read under ``state_key`` and moved first: the new x is added to the action, and written under
    ``("next", state_key)``. The environment passes it on to the next step, and starts every episode with zero, if
    ``TensorDictPrimer(policy.initial_state())`` is among its transforms. Under another exploration type than ``RANDOM``
    and None nothing is added, and x is neither read nor written. ``strength`` stays at ``start`` unless
    ``step(frames)`` is called, see :class:`AnnealedExploration`.

    Args:
        module: the policy, such as an :class:`Actor`.
        action_spec: ``env.action_spec``, or that of one row, with finite bounds.
        start: strength before the first frame.
        end: strength from ``num_frames`` on.
        num_frames: frames from start to end, counted over all environments.
        theta: θ, how fast the noise returns to zero.
        sigma: σ, how much is added in a unit of time.
        dt: length of a step.
        state_key: where x is.
        generator: source of ε; None uses torch's global one.

    Raises:
        ConfigError: as :class:`AnnealedExploration`, or a number is out of its range.
        SpecError: the action has no finite bounds.
        KeyMissing: from a call, there is no x.
    """

    def __init__(
        self,
        module: TensorDictModuleBase,
        action_spec: TensorSpec,
        *,
        start: float = 1.0,
        end: float = 0.1,
        num_frames: int,
        theta: float = 0.15,
        sigma: float = 0.2,
        dt: float = 1e-2,
        state_key: str = "ou_noise",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(module, action_spec, start=start, end=end, num_frames=num_frames, generator=generator)
        if not (theta >= 0 and sigma >= 0 and dt > 0 and theta * dt <= 1):
            got = f"theta={theta}, sigma={sigma}, dt={dt}"
            expected = "theta and sigma of at least 0, dt above 0, theta · dt of at most 1"
            raise ConfigError(explain("OrnsteinUhlenbeck", expected=expected, got=got))
        self.theta = theta
        self.sigma = sigma
        self.dt = dt
        self.state_key = state_key
        self.in_keys = [*self.in_keys, state_key]
        self.out_keys = [*self.out_keys, ("next", state_key)]

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = super().forward(tensordict)
        x, following = tensordict.get(self.state_key, None), ("next", self.state_key)
        if x is not None and tensordict.get(following, None) is None:  # it did not explore: the noise stays
            tensordict.set(following, x)
        return tensordict

    def own_state(self) -> dict[str, torch.Tensor]:
        """Return the noise that one row starts an episode with, zero ``[A]``, under its key."""
        return {self.state_key: torch.zeros_like(self.low)}

    def explore(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Move the noise x by one step, add the new x, scaled, to the action, and write it under ``"next"``.

        Raises:
            KeyMissing: the root has no x.
        """
        x = tensordict.get(self.state_key, None)
        if x is None:
            expected = f"the key {self.state_key!r}"
            raise KeyMissing(explain("OrnsteinUhlenbeck", expected=expected, got="none", hint=PRIMER_LINE))
        action, noise = self._draw_noise(tensordict)
        x = x * (1 - self.theta * self.dt) + self.sigma * math.sqrt(self.dt) * noise
        self._move_action(tensordict, action, x)
        tensordict.set(("next", self.state_key), x)
        return tensordict


def action_bounds(who: str, action_spec: TensorSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the finite bounds of one row's action, ``[A]`` each, in its dtype.

    Args:
        who: the caller's name, for the message.
        action_spec: ``[A]``, or ``[*B, A]`` with the same bounds in each row.

    Raises:
        SpecError: the spec has no finite bounds, no floats, or other bounds in different rows.
    """
    if isinstance(action_spec, Bounded) and action_spec.ndim > 1 and action_spec.shape.numel():
        row = action_spec[(0,) * (action_spec.ndim - 1)]
        if row.expand(action_spec.shape) == action_spec:
            action_spec = row
    if isinstance(action_spec, Bounded) and action_spec.dtype.is_floating_point and action_spec.ndim == 1:
        low, high = (bound.expand(action_spec.shape).clone() for bound in (action_spec.low, action_spec.high))
        if bool(low.isfinite().all() and high.isfinite().all()):
            return low, high
    hint = "Pass env.action_spec, or that of one row; bounds are the same in all rows."
    raise SpecError(explain(who, expected="actions [A] with finite bounds", got=repr(action_spec), hint=hint))
