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
from torchrl.functional.off_policy_returns import vtrace
from torchrl.functional.returns import (
    discounted_return,
    gae,
    n_step_return,
    reaches_ending,
    reverse_scan,
    td0_target,
    td_lambda,
)
from torchrl.functional.steps import importance_weight

__all__ = [
    "approx_kl",
    "bootstraps",
    "clip_fraction",
    "clipped_policy_objective",
    "discounted_return",
    "explained_variance",
    "gae",
    "importance_weight",
    "is_done",
    "n_step_return",
    "next_row_follows",
    "reaches_ending",
    "reverse_scan",
    "standardize",
    "td0_target",
    "td_lambda",
    "trace_goes_on",
    "value_loss",
    "vtrace",
]
