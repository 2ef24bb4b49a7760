"""Exploration by noise that depends on the state (gSDE): the head of such a policy and its distribution.

The noise itself is an observation, drawn by the transform ``GSDENoise``: it lasts as long as that transform says, and a
recorded batch holds what its actions were made of.
"""

from __future__ import annotations

import torch
from torch import nn

from torchrl.errors import SpecError, explain
from torchrl.modules.distributions.bounds import Bound, Bounds
from torchrl.modules.distributions.continuous import Normal, TanhNormal
from torchrl.modules.models.arguments import positive

MIN_VARIANCE = 1e-6  # keeps the scale, and with it the log-density, finite where all features are zero


class GSDEHead(nn.Module):
    """Turn features and a matrix of noise into a mean, a standard deviation and an exploration term.

    >>> loc, scale, exploration = GSDEHead(8, 2)(torch.ones(4, 8), torch.zeros(4, 8, 2))
    >>> scale.shape, exploration.abs().sum().item()  # without noise there is no exploration
    (torch.Size([4, 2]), 0.0)

    Raffin, Kober and Stulp, "Smooth Exploration for Robotic Reinforcement Learning" (2021), sections 2 and 3. The
    features φ are those of the last hidden layer; σ = exp(``log_std``) is a matrix, ``[F, A]``:

    - loc = W φ + b, the action without exploration;
    - exploration_j = Σ_i φ_i σ_ij noise_ij: while the noise stays, a function of the state alone, so that the same
      state gets the same action and a trajectory is smooth;
    - scale_j = √(Σ_i (φ_i σ_ij)² + 10⁻⁶), the standard deviation of the exploration over draws of the noise; the
      constant keeps it from zero.

    The scale grows with the number and the size of the features: end the network before it with a bounded activation,
    and choose ``init_log_std`` for it. With 64 features of size 0.5, ``init_log_std=0`` is a standard deviation of 4,
    and −2 is one of 0.54.

    Use it as the module of ``ProbabilisticActor(head, GSDENormal, in_keys=["hidden", "gsde_noise"])``.

    Shapes: features ``[*B, F]`` and noise ``[*B, F, A]`` in; loc, scale and exploration ``[*B, A]`` out.

    Args:
        num_features: F.
        num_actions: A.
        init_log_std: initial value of every entry of ``log_std``.
        learn_features: let the gradient of scale and exploration reach the features; otherwise these are trained
            through ``loc`` alone.

    Raises:
        ConfigError: a size is not a positive integer.
        SpecError: from a call, the shapes do not fit.
    """

    def __init__(
        self, num_features: int, num_actions: int, *, init_log_std: float = 0.0, learn_features: bool = False
    ) -> None:
        super().__init__()
        num_features = positive("GSDEHead(num_features=...)", num_features)
        num_actions = positive("GSDEHead(num_actions=...)", num_actions)
        self.linear = nn.Linear(num_features, num_actions)
        self.log_std = nn.Parameter(torch.full((num_features, num_actions), float(init_log_std)))
        self.learn_features = learn_features

    def forward(self, features: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        num_features, num_actions = self.log_std.shape
        if features.shape[-1:] != (num_features,) or noise.shape != (*features.shape, num_actions):
            expected = f"features [*B, {num_features}] and noise [*B, {num_features}, {num_actions}]"
            got = f"features {list(features.shape)}, noise {list(noise.shape)}"
            hint = "GSDENoise takes the same num_features and num_actions."
            raise SpecError(explain("GSDEHead", expected=expected, got=got, hint=hint))
        loc, scale = self.marginal(features)
        if not self.learn_features:
            features = features.detach()
        exploration = (features.unsqueeze(-2) @ (self.log_std.exp() * noise)).squeeze(-2)
        return loc, scale, exploration

    def marginal(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return loc and scale, ``[*B, A]`` each, which do not depend on the noise."""
        loc = self.linear(features)
        if not self.learn_features:
            features = features.detach()
        return loc, (features.square() @ self.log_std.exp().square() + MIN_VARIANCE).sqrt()


class GSDEMarginal(nn.Module):
    """Compute a :class:`GSDEHead`'s mean and standard deviation without noise, for losses that draw their own actions.

    >>> loc, scale = GSDEMarginal(GSDEHead(8, 2))(torch.ones(4, 8))
    >>> loc.shape, scale.shape
    (torch.Size([4, 2]), torch.Size([4, 2]))

    A replay buffer then need not hold the noise, ``[F, A]`` numbers for each transition. It shares the head's
    parameters: ``ProbabilisticActor(GSDEMarginal(head), TanhNormal.within(low, high), in_keys=["hidden"])`` beside
    ``ProbabilisticActor(head, GSDETanhNormal.within(low, high), in_keys=["hidden", "gsde_noise"])``, which acts.

    Shapes: features ``[*B, F]`` in; loc and scale ``[*B, A]`` out.

    Args:
        head: the head whose parameters are shared.
    """

    def __init__(self, head: GSDEHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head.marginal(features)


class GSDETanhNormal(TanhNormal):
    """Give the action ``loc + exploration``, squashed between ``low`` and ``high``, and the density of a TanhNormal.

    >>> GSDETanhNormal(torch.zeros(1), torch.ones(1), torch.tensor([99.0])).sample()
    tensor([1.])

    As :class:`GSDENormal`, for policies whose actions must stay within their bounds, such as SAC's: Raffin, Kober and
    Stulp (2021). A sample draws nothing; :class:`GSDEMarginal` is for losses that do.

    Args:
        loc: mean before squashing, ``[*B, A]``.
        scale: standard deviation before squashing, positive, ``[*B, A]``.
        exploration: what the present noise adds to the mean, ``[*B, A]``.
        low: lower bound, a number or a tensor that broadcasts to ``[A]``.
        high: upper bound; :meth:`within` checks both.
        bounds: both at once, computed before, in the place of ``low`` and ``high``; :meth:`within` fills them in.

    Raises:
        SpecError: the three differ in shape.
    """

    parameter_names = ("loc", "scale", "exploration")
    noise_law = None  # it is an observation, GSDENoise
    __slots__ = ("exploration",)

    def __init__(
        self,
        loc: torch.Tensor,
        scale: torch.Tensor,
        exploration: torch.Tensor,
        *,
        low: Bound = -1.0,
        high: Bound = 1.0,
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__(loc, scale, low=low, high=high, bounds=bounds)
        _require_one_shape("GSDETanhNormal", loc, exploration)
        self.exploration = exploration

    def from_noise(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Return loc + exploration, squashed, ``[*B, A]``; the mode where the noise of the observations is zero."""
        return self.bounds.squash(self.loc + self.exploration)

    def _draw(self, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loc + self.exploration, self.exploration / self.scale


class GSDENormal(Normal):
    """Give the action ``loc + exploration``, and the density Normal(loc, scale), its distribution over the noise.

    >>> GSDENormal(torch.zeros(1), torch.ones(1), torch.tensor([3.0])).sample()
    tensor([3.])

    Density, entropy, divergence, mode, mean and median are those of the normal. A sample draws nothing: its noise was
    drawn by the environment, so that samples from one distribution are all equal, and an estimate from several of
    them is no better than one.

    Args:
        loc: mean, ``[*B, A]``.
        scale: standard deviation, positive, ``[*B, A]``.
        exploration: what the present noise adds to the mean, ``[*B, A]``.

    Raises:
        SpecError: the three differ in shape.
    """

    parameter_names = ("loc", "scale", "exploration")
    noise_law = None  # it is an observation, GSDENoise
    __slots__ = ("exploration",)

    def __init__(self, loc: torch.Tensor, scale: torch.Tensor, exploration: torch.Tensor) -> None:
        super().__init__(loc, scale)
        _require_one_shape("GSDENormal", loc, exploration)
        self.exploration = exploration

    def rsample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return loc + exploration, ``[*B, A]``; ``generator`` is not used."""
        return self.loc + self.exploration

    def from_noise(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Return loc + exploration, ``[*B, A]``, which is loc where the noise of the observations is zero."""
        return self.loc + self.exploration


def _require_one_shape(who: str, loc: torch.Tensor, exploration: torch.Tensor) -> None:
    if exploration.shape != loc.shape:
        got = f"loc {list(loc.shape)}, exploration {list(exploration.shape)}"
        raise SpecError(explain(who, expected="loc and exploration of one shape", got=got))
