"""The distribution of actions whose entries are 0 or 1, each independent of the others."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from torchrl.modules.distributions.base import Distribution, draw


class Bernoulli(Distribution):
    """Set every entry of an action to 1 with probability sigmoid(logits), else to 0.

    >>> Bernoulli(torch.tensor([9.0, -9.0])).mode
    tensor([1, 0], dtype=torch.int8)

    Args:
        logits: log-odds, ``[*B, K]``; ±inf decides an entry for good.
        dtype: of the actions, that of the environment's ``Binary`` spec; fill it in by
            ``functools.partial(Bernoulli, dtype=torch.int64)``.
    """

    parameter_names = ("logits",)
    noise_law = "logistic"
    __slots__ = ("logits", "dtype")

    def __init__(self, logits: torch.Tensor, *, dtype: torch.dtype = torch.int8) -> None:
        self.logits = logits
        self.dtype = dtype

    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw an action of zeros and ones for each row, ``[*B, K]``."""
        share = draw(torch.Tensor.uniform_, self.logits, generator)
        return (share < torch.sigmoid(self.logits.detach())).to(self.dtype)

    def noise_like(self) -> torch.Tensor:
        """Return the log-odds, ``[*B, K]``."""
        return self.logits

    def from_noise(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Return 1 where the log-odds plus logistic noise are positive, else 0, ``[*B, K]``."""
        return (self.logits + noise > 0).to(self.dtype)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return the joint log-probability of all entries, ``[*B]``.

        Args:
            action: ``[*B, K]`` of the dtype that :meth:`sample` gives.

        Raises:
            SpecError: another dtype or shape.
        """
        if action.dtype != self.dtype or action.shape != self.logits.shape:
            hint = "The dtype of actions is an argument: partial(Bernoulli, dtype=...)."
            raise self._misfit(action, f"{self.dtype} of shape {list(self.logits.shape)}", hint)
        return F.logsigmoid(torch.where(action.bool(), self.logits, -self.logits)).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Return −Σ (p log p + (1 − p) log (1 − p)), ``[*B]``."""
        x = self._finite_logits()
        return -(torch.sigmoid(x) * F.logsigmoid(x) + torch.sigmoid(-x) * F.logsigmoid(-x)).sum(-1)

    def kl(self, other: Bernoulli) -> torch.Tensor:
        """Return Σ (p log p/q + (1 − p) log (1 − p)/(1 − q)), ``[*B]``; finite where q forbids what p allows."""
        self._require_same_family(other)
        x, y = self._finite_logits(), other._finite_logits()
        ones, zeros = F.logsigmoid(x) - F.logsigmoid(y), F.logsigmoid(-x) - F.logsigmoid(-y)
        return (torch.sigmoid(x) * ones + torch.sigmoid(-x) * zeros).sum(-1)

    @property
    def mode(self) -> torch.Tensor:
        """The action with 1 in entries where 1 is more probable than 0, and 0 elsewhere, ``[*B, K]``."""
        return (self.logits > 0).to(self.dtype)

    def _finite_logits(self) -> torch.Tensor:
        """Logits without ±inf, because 0 · inf is NaN where 0 is meant."""
        info = torch.finfo(self.logits.dtype)
        return self.logits.clamp(info.min, info.max)
