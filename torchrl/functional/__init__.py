"""The maths of the library as pure functions of tensors. No keys, no modules, no state; anyone may import it."""

from torchrl.functional.costs import (
    approx_kl,
    clip_fraction,
    clipped_policy_objective,
    explained_variance,
    standardize,
    value_loss,
)
from torchrl.functional.endings import bootstraps, is_done, next_row_follows, trace_goes_on
from torchrl.functional.returns import gae, reverse_scan, td0_target

__all__ = [
    "approx_kl",
    "bootstraps",
    "clip_fraction",
    "clipped_policy_objective",
    "explained_variance",
    "gae",
    "is_done",
    "next_row_follows",
    "reverse_scan",
    "standardize",
    "td0_target",
    "trace_goes_on",
    "value_loss",
]
