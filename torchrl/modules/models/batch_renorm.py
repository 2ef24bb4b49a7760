"""Normalisation by the statistics of a minibatch, corrected towards running ones."""

from __future__ import annotations

import torch
from torch import nn

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.modules.models.arguments import positive


class BatchRenorm(nn.Module):
    """Normalise features by the minibatch, corrected so that training and evaluation compute nearly the same function.

    >>> BatchRenorm(1)(torch.tensor([[0.0], [2.0]])).detach()  # while it learns: by the batch
    tensor([[-0.9995],
            [ 0.9995]])

    Ioffe, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models" (2017), algorithm
    1. With the mean μ_B and the standard deviation σ_B = √(Var_B + ε) of a minibatch and running ones μ and σ::

        r = σ_B / σ       clipped to [1 / r_max, r_max], without gradient
        d = (μ_B − μ) / σ clipped to [−d_max, d_max],    without gradient
        y = γ · ((x − μ_B) / σ_B · r + d) + β
        μ += momentum · (μ_B − μ),  σ += momentum · (σ_B − σ)

    and y = γ · (x − μ) / σ + β in evaluation. For the first batches r_max = 1 and d_max = 0, which is batch
    normalisation; then both grow linearly to ``max_r`` and ``max_d``.

    **When it learns.** Batches are normalised by their own statistics, and these learnt, only in training mode *and*
    while gradients are recorded. Acting, target networks and bootstrap values, which run under ``no_grad``, use the
    running statistics and leave them alone in either mode: what a collector stores of a row does not depend on the
    other rows. In eval mode everything is frozen. An on-policy loss that rebuilds a policy with gradient would
    thus find other log-probs than were collected: it belongs into critics and off-policy actors; elsewhere take
    :class:`~torch.nn.LayerNorm`. Padding is to be dropped before the network, as losses do; NaN in a batch stays in
    the statistics.

    Shapes: ``[*B, F]`` in and out; statistics are over all of ``*B``. For images give it the channels last, as
    :class:`ConvNet` does.

    Args:
        num_features: F.
        momentum: share of a new batch in the running statistics; the paper's α.
        eps: added to the variance.
        max_r: last r_max, at least 1.
        max_d: last d_max, at least 0.
        r_ramp: numbers of batches at which r_max begins and ends to grow.
        d_ramp: numbers of batches at which d_max begins and ends to grow.

    Raises:
        ConfigError: a number is out of its range.
        SpecError: from a call, the last dimension is not F, or a batch to learn from has a single row.
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.01,
        eps: float = 1e-3,
        max_r: float = 3.0,
        max_d: float = 5.0,
        r_ramp: tuple[int, int] = (5_000, 40_000),
        d_ramp: tuple[int, int] = (5_000, 25_000),
    ) -> None:
        super().__init__()
        self.num_features = positive("BatchRenorm(num_features=...)", num_features)
        if not (0 < momentum <= 1 and eps > 0 and max_r >= 1 and max_d >= 0):
            expected = "momentum in (0, 1], eps > 0, max_r >= 1, max_d >= 0"
            got = f"momentum={momentum}, eps={eps}, max_r={max_r}, max_d={max_d}"
            raise ConfigError(explain("BatchRenorm", expected=expected, got=got))
        if not (0 <= r_ramp[0] < r_ramp[1] and 0 <= d_ramp[0] < d_ramp[1]):
            got = f"r_ramp={r_ramp}, d_ramp={d_ramp}"
            raise ConfigError(explain("BatchRenorm", expected="ramps (begin, end) with 0 <= begin < end", got=got))
        self.momentum, self.eps = momentum, eps
        self.max_r, self.max_d = max_r, max_d
        self.r_ramp, self.d_ramp = tuple(r_ramp), tuple(d_ramp)
        self.weight = nn.Parameter(torch.ones(self.num_features))
        self.bias = nn.Parameter(torch.zeros(self.num_features))
        self.register_buffer("running_mean", torch.zeros(self.num_features))
        self.register_buffer("running_std", torch.ones(self.num_features))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1:] != (self.num_features,):
            expected = f"a shape ending in [{self.num_features}]"
            raise SpecError(explain("BatchRenorm", expected=expected, got=list(x.shape)))
        if self.training and torch.is_grad_enabled():
            x = self._renormalise(x)
        else:
            x = (x - self.running_mean) / self.running_std
        return x * self.weight + self.bias

    def _renormalise(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise by this batch with the present correction, then merge its statistics into the running ones."""
        rows = tuple(range(x.ndim - 1))
        if x.numel() < 2 * self.num_features:
            hint = "Acting belongs under torch.no_grad(), or in eval mode."
            raise SpecError(explain("BatchRenorm", expected="at least two rows", got=list(x.shape), hint=hint))
        var, mean = torch.var_mean(x, rows, correction=0)
        std = (var + self.eps).sqrt()
        with torch.no_grad():
            max_r = 1 + (self.max_r - 1) * self._progress(self.r_ramp)
            max_d = self.max_d * self._progress(self.d_ramp)
            r = (std / self.running_std).clamp(1 / max_r, max_r)
            d = ((mean - self.running_mean) / self.running_std).clamp(-max_d, max_d)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_std.lerp_(std, self.momentum)
            self.num_batches.add_(1)
        return (x - mean) / std * r + d

    def _progress(self, ramp: tuple[int, int]) -> torch.Tensor:
        """Return which share of a ramp ``num_batches`` has passed, 0 to 1; a tensor, to wait for no accelerator."""
        begin, end = ramp
        return ((self.num_batches - begin) / (end - begin)).clamp(0, 1)

    def extra_repr(self) -> str:
        return f"{self.num_features}, momentum={self.momentum}, eps={self.eps}, max_r={self.max_r}, max_d={self.max_d}"
