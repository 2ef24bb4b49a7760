"""Choices written as one-hot vectors, int64 ``[*B, K]``; the families of indices are in ``discrete`` and ``masked``."""

from __future__ import annotations

import torch

from torchrl.modules.distributions.discrete import Categorical
from torchrl.modules.distributions.masked import MaskedCategorical


class OneHotCategorical(Categorical):
    """Choose one of K actions with probability softmax(logits), as a :class:`Categorical` does, in one-hot form.

    >>> OneHotCategorical(torch.tensor([0.0, 9.0, 0.0])).mode
    tensor([0, 1, 0])

    Args:
        logits: unnormalised log-probabilities, ``[*B, K]``; ``-inf`` forbids an action.
    """

    __slots__ = ()

    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw one-hot vectors, int64 ``[*B, K]``."""
        return self._one_hot(self._draw_by_exponential_clocks(generator))

    def rsample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw one-hot vectors of floats, ``[*B, K]``, whose gradient is that of the probabilities.

        The straight-through estimator of Bengio, Léonard and Courville, "Estimating or Propagating Gradients Through
        Stochastic Neurons for Conditional Computation" (2013), section 3: biased, which is why there is no
        ``rsample_and_log_prob``.
        """
        probabilities = self.log_probs.exp()
        return self.sample(generator) + (probabilities - probabilities.detach())

    def sample_and_log_prob(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one-hot vectors, int64 ``[*B, K]``, with their log-probabilities, ``[*B]``."""
        index = self._draw_by_exponential_clocks(generator)
        return self._one_hot(index), self.log_probs.gather(-1, index).squeeze(-1)

    def from_noise(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Return the one-hot vector of the index whose logit plus Gumbel noise is largest, int64 ``[*B, K]``."""
        return self._one_hot((self.logits + noise).argmax(-1, True))

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return the log-probability of each one-hot vector, ``[*B]``.

        Args:
            action: int64 ``[*B, K]``, in each row a single 1, which is not checked.

        Raises:
            SpecError: another dtype or shape, for example indices.
        """
        if action.dtype != torch.int64 or action.shape != self.logits.shape:
            hint = "Indices are the actions of a Categorical; floats become integers by `action.long()`."
            raise self._misfit(action, f"one-hot vectors, int64 of shape {list(self.logits.shape)}", hint)
        return self.log_probs.gather(-1, action.argmax(-1, True)).squeeze(-1)

    @property
    def mode(self) -> torch.Tensor:
        """The most probable action, int64 ``[*B, K]``; the first of several."""
        return self._one_hot(self.logits.argmax(-1, True))

    def _one_hot(self, index: torch.Tensor) -> torch.Tensor:
        """Turn indices ``[*B, 1]`` into one-hot vectors ``[*B, K]``."""
        return torch.zeros_like(self.logits, dtype=torch.int64).scatter_(-1, index, 1)


class MaskedOneHotCategorical(MaskedCategorical, OneHotCategorical):
    """Choose one of the legal actions, in one-hot form; see :class:`MaskedCategorical`.

    >>> MaskedOneHotCategorical(torch.tensor([0.0, 9.0]), torch.tensor([True, False])).sample()
    tensor([1, 0])

    Args:
        logits: unnormalised log-probabilities, ``[*B, K]``.
        mask: ``[*B, K]``, true where an action is legal; bool, or 0 and 1 of any dtype.

    Raises:
        SpecError: the mask has another shape or other values, or a row of it allows nothing.
    """

    __slots__ = ()
