"""Linear layers whose weights carry learned noise, so that a network explores by itself."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from torchrl.modules.distributions.base import draw
from torchrl.modules.models.arguments import positive


class NoisyLinear(nn.Module):
    """Apply ``y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b``, in training mode with Gaussian noise ε drawn at each call.

    >>> layer, x = NoisyLinear(3, 2), torch.ones(1, 3)
    >>> (layer(x) == layer(x)).all().item(), (layer.eval()(x) == layer(x)).all().item()
    (False, True)

    Fortunato et al., "Noisy Networks for Exploration" (2018), https://arxiv.org/abs/1706.10295, equations 9 to 11 and
    section 3.2 (b) for the initial values: ``ε_w = f(ε_out) f(ε_in)ᵀ`` with ``f(x) = sign(x) √|x|``.

    In training mode every call has noise of its own, one draw for all its rows: an online and a target network, and two
    calls of one network, never share any. After ``.eval()`` the layer is the plain one with weights μ.

    Args:
        in_features: p.
        out_features: q.
        init_std: σ₀; each σ begins as σ₀ / √p.
        generator: source of the noise; None uses torch's global one.

    Raises:
        ConfigError: a size is not a positive integer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        init_std: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features = positive("NoisyLinear(in_features=...)", in_features)
        self.out_features = positive("NoisyLinear(out_features=...)", out_features)
        self.generator = generator
        bound, std = 1 / math.sqrt(in_features), init_std / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound))
        self.weight_std = nn.Parameter(torch.full((out_features, in_features), std))
        self.bias_std = nn.Parameter(torch.full((out_features,), std))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return F.linear(x, self.weight, self.bias)
        rows, columns = self._noise(self.bias), self._noise(self.weight[0])
        weight = torch.addcmul(self.weight, self.weight_std, rows.unsqueeze(-1) * columns)
        return F.linear(x, weight, torch.addcmul(self.bias, self.bias_std, rows))

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        noise = draw(torch.Tensor.normal_, like.detach(), self.generator)
        return noise.sign() * noise.abs().sqrt()

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"
