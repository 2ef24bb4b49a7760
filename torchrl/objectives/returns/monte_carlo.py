"""The Monte-Carlo estimator: discounted returns up to an ending or the batch's edge. Maths: ``functional/returns``."""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.functional.returns import discounted_return, reaches_ending
from torchrl.objectives.keys import MASK, require_writable
from torchrl.objectives.returns.base import ReturnEstimator, read_flags


class DiscountedReturn(ReturnEstimator):
    """Write returns-to-go as targets, these minus values as advantages: :func:`torchrl.functional.discounted_return`.

    With a critic, the value of the successor replaces the rewards after a time limit and after the edge of the
    batch. Without one, advantage and value target are the return itself, there is no ``state_value``, and a row whose
    episode does not end inside the batch has no return: the estimator sets its ``("collector", "mask")`` to false. A
    time limit then counts as an end, since there is no value of what follows.

    >>> batch["next", "terminated"][:, 4] = True  # both episodes end with the fifth step, and others run on
    >>> DiscountedReturn(gamma=1.0)(batch)["advantage"].squeeze(-1)[0].tolist()
    [5.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0]

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key; None for none.
        **options: as for :class:`GAE`.
    """

    def __init__(self, critic: TensorDictModuleBase | None = None, **options: object) -> None:
        super().__init__(critic, **options)

    def forward(self, batch: TensorDictBase) -> TensorDictBase:
        """Write advantages and value targets; without a critic, first mask the steps whose episode is unfinished."""
        if self.critic is None:
            exclude_unfinished(batch, who="DiscountedReturn")
        return super().forward(batch)

    def estimate(self, **series: Tensor) -> tuple[Tensor, Tensor]:
        """Return returns-to-go minus values as advantages, and the returns-to-go as value targets."""
        target = discounted_return(**series, gamma=self.gamma)
        return target - series["value"], target


def exclude_unfinished(batch: TensorDictBase, *, who: str) -> Tensor:
    """Set ``("collector", "mask")`` to false on steps whose episode does not end inside the batch ``[*B, T]``.

    Returns:
        the new mask, bool ``[*B, T, 1]``.
    """
    require_writable(who, batch)
    terminated, truncated = read_flags(batch, who=who)
    mask = batch.get(MASK, None)
    valid = reaches_ending(
        terminated,  # mutate: equivalent - any ending will do
        truncated,
        is_init=batch.get("is_init", None),
        mask=None if mask is None else mask.unsqueeze(-1),
    )
    batch.set(MASK, valid.squeeze(-1))
    return valid
