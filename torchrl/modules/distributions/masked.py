"""The distribution of a choice among the legal actions of each row, which a mask names."""

from __future__ import annotations

import math

import torch

from torchrl.data.specs.masks import as_bools
from torchrl.errors import SpecError, explain
from torchrl.modules.distributions.discrete import Categorical


class MaskedCategorical(Categorical):
    """Choose one of the legal actions with probability softmax(logits) among them.

    >>> distribution = MaskedCategorical(torch.tensor([3.0, 1.0, 1.0]), torch.tensor([False, True, True]))
    >>> distribution.log_probs.exp()
    tensor([0.0000, 0.5000, 0.5000])

    An illegal action is never drawn and never the mode, its log-prob is −inf, its logit may be anything, NaN included,
    and gets no gradient; entropy and divergence are over legal actions (Huang and Ontañón, "A Closer Look at Invalid
    Action Masking in Policy Gradient Algorithms", 2022, section 3).

    Looking for a row without a legal action costs 3 µs, and waits for an accelerator. In a graph of ``torch.compile``,
    which cannot depend on values, it is left out: such a row has NaN for a log-prob there.

    Args:
        logits: unnormalised log-probabilities, ``[*B, K]``.
        mask: ``[*B, K]``, true where an action is legal; bool, or 0 and 1 of any dtype.

    Raises:
        SpecError: the mask has another shape or other values, or a row of it allows nothing.
    """

    takes_mask = True
    needs_mask = True
    __slots__ = ()

    def __init__(self, logits: torch.Tensor, mask: torch.Tensor) -> None:
        super().__init__(only_legal(type(self).__name__, logits, mask))


def only_legal(who: str, logits: torch.Tensor, mask: torch.Tensor, *, rows: str = "row") -> torch.Tensor:
    """Return ``logits`` with −inf where ``mask`` is false; refuse a mask that does not fit or allows a row nothing.

    Args:
        who: who asks, for the message.
        logits: ``[*B, K]``.
        mask: ``[*B, K]``, true = legal; bool, or 0 and 1 of any dtype.
        rows: the word for an index into ``[*B]`` in the message.

    Raises:
        SpecError: the mask has another shape or other values, or a row of it allows nothing; it is named.
    """
    if mask.shape != logits.shape:
        expected, got = f"a bool mask of shape {list(logits.shape)}", f"{mask.dtype} of shape {list(mask.shape)}"
        raise SpecError(explain(who, expected=expected, got=got, hint="True means legal; nothing is broadcast."))
    mask = as_bools(who, mask)
    if not torch.compiler.is_compiling() and not mask.any(-1).all():
        stuck = (~mask.any(-1)).nonzero()[0].tolist()
        got = f"none in {rows} {stuck}" if stuck else "none"
        hint = "Where nothing is legal, the episode should have ended."
        raise SpecError(explain(who, expected=f"a mask that allows something in every {rows}", got=got, hint=hint))
    return torch.where(mask, logits, -math.inf)
