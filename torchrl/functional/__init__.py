"""The library's formulas of losses, returns and endings as pure functions of tensors. No keys, no modules, no state."""

from torchrl.functional.costs import (
    adapted_kl_coef,
    approx_kl,
    clip_fraction,
    clipped_policy_objective,
    distance_loss,
    effective_sample_size,
    explained_variance,
    penalized_policy_objective,
    policy_gradient_loss,
    sampled_entropy,
    sampled_kl,
    standardize,
    value_loss,
    weighted_policy_objective,
)
from torchrl.functional.curiosity import inverse_model_loss, prediction_error, return_so_far
from torchrl.functional.endings import bootstraps, is_done, next_step_follows, trace_goes_on
from torchrl.functional.images import cut_images, jitter_colors
from torchrl.functional.off_policy_returns import vtrace
from torchrl.functional.q_values import categorical_target, cross_entropy, quantile_huber_loss, temperature_loss
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
    "adapted_kl_coef",
    "approx_kl",
    "bootstraps",
    "categorical_target",
    "clip_fraction",
    "clipped_policy_objective",
    "cross_entropy",
    "cut_images",
    "discounted_return",
    "distance_loss",
    "effective_sample_size",
    "explained_variance",
    "gae",
    "importance_weight",
    "inverse_model_loss",
    "is_done",
    "jitter_colors",
    "n_step_return",
    "next_step_follows",
    "penalized_policy_objective",
    "policy_gradient_loss",
    "prediction_error",
    "quantile_huber_loss",
    "reaches_ending",
    "return_so_far",
    "reverse_scan",
    "sampled_entropy",
    "sampled_kl",
    "standardize",
    "td0_target",
    "td_lambda",
    "temperature_loss",
    "trace_goes_on",
    "value_loss",
    "vtrace",
    "weighted_policy_objective",
]
