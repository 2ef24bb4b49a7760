"""Distributions over finitely many actions. Actions are int64 indices, ``[*B]``; one-hot actions are another family."""

from __future__ import annotations

import torch

from torchrl.errors import SpecError, explain
from torchrl.modules.distributions.base import Distribution, draw


class Categorical(Distribution):
    """Choose one of K actions with probability softmax(logits).

    >>> Categorical(torch.zeros(2, 4)).entropy()  # log 4
    tensor([1.3863, 1.3863])

    A logit of ``-inf`` forbids its action: it is never drawn, and neither entropy nor gradient turn into NaN. A row
    that forbids everything has no distribution and gives NaN.

    Args:
        logits: unnormalised log-probabilities, ``[*B, K]``.
    """

    parameter_names = ("logits",)
    noise_law = "gumbel"
    __slots__ = ("logits", "log_probs")

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits
        self.log_probs = torch.log_softmax(logits, -1)

    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw indices, int64 ``[*B]``."""
        return self._draw_by_exponential_clocks(generator).squeeze(-1)

    def sample_and_log_prob(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw indices, int64 ``[*B]``, with their log-probabilities, ``[*B]``."""
        index = self._draw_by_exponential_clocks(generator)
        return index.squeeze(-1), self.log_probs.gather(-1, index).squeeze(-1)

    def noise_like(self) -> torch.Tensor:
        """Return the logits, ``[*B, K]``."""
        return self.logits

    def from_noise(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Return the index whose logit plus Gumbel noise is largest, int64 ``[*B]`` (Gumbel, 1954)."""
        return (self.logits + noise).argmax(-1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return the log-probability of each index.

        Args:
            action: int64 ``[*B]``.

        Raises:
            SpecError: another dtype or shape, for example one-hot actions.
        """
        expected = self.logits.shape[:-1]
        if action.dtype != torch.int64 or action.shape != expected:
            hint = "One-hot actions become indices by `action.argmax(-1)`."
            raise self._misfit(action, f"int64 indices of shape {list(expected)}", hint)
        try:
            return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        except RuntimeError as error:
            num, least, most = self.logits.shape[-1], int(action.min()), int(action.max())
            if least >= 0 and most < num:
                raise
            got = f"indices from {least} to {most}"
            hint = "Give the actor's network as many outputs as there are choices."
            who = f"{type(self).__name__}.log_prob"
            raise SpecError(explain(who, expected=f"indices below {num}", got=got, hint=hint)) from error

    def entropy(self) -> torch.Tensor:
        """Return −Σ p log p, ``[*B]``."""
        return -(self.log_probs.exp() * self._finite_log_probs()).sum(-1)

    def kl(self, other: Categorical) -> torch.Tensor:
        """Return Σ p (log p − log q), ``[*B]``; a huge finite number where q forbids what p allows."""
        self._require_same_family(other)
        return (self.log_probs.exp() * (self._finite_log_probs() - other._finite_log_probs())).sum(-1)

    @property
    def mode(self) -> torch.Tensor:
        """The most probable index, int64 ``[*B]``; the first of several."""
        return self.logits.argmax(-1)

    def _draw_by_exponential_clocks(self, generator: torch.Generator | None) -> torch.Tensor:
        """Draw indices ``[*B, 1]``: of exponential clocks with rates p, each rings first with probability p."""
        clocks = draw(torch.Tensor.exponential_, self.log_probs, generator)
        return torch.div(self.log_probs.detach().exp(), clocks).argmax(-1, True)

    def _finite_log_probs(self) -> torch.Tensor:
        """Log-probabilities without −inf, because 0 · −inf is NaN where 0 is meant."""
        return self.log_probs.clamp(min=torch.finfo(self.log_probs.dtype).min)
