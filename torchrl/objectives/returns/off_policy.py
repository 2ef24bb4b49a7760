"""V-trace: targets and advantages of the present policy from actions of an older one. The equations: ``functional``."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.functional.off_policy_returns import require_clips, vtrace
from torchrl.objectives.returns.base import ReturnEstimator


class VTrace(ReturnEstimator):
    """Write V-trace's advantages and value targets into a batch: see :func:`torchrl.functional.vtrace`.

    >>> VTrace(actor, critic, gamma=0.99)(batch)["advantage"].shape  # beside it, state_value and value_target
    torch.Size([2, 8, 1])

    The advantage holds the weight ρ_t already: multiply it with the gradient of log π, not of a ratio. All that is
    written belongs to the present weights of both networks: call it anew before each gradient step on a batch.

    Args:
        actor: the present policy: has ``build(tensordict)``, which returns a distribution with ``log_prob``, and the
            keys ``action_key`` and ``log_prob_key``, under which the batch holds what the acting policy wrote.
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        gamma: discount γ; 0.99 as for :class:`GAE`.
        rho_clip: ρ̄, the largest weight of an error; None clips nothing.
        c_clip: c̄, the largest weight of a trace; at most ρ̄. None clips nothing, and needs ``rho_clip=None`` too.
        lambda_: decay λ of the trace; 1 leaves it out, as in equation 1 of the paper.
        average_reward: see :class:`ReturnEstimator`.
        standardize: see :class:`ReturnEstimator`.

    Raises:
        ConfigError: the actor writes no log-prob, or the clips are not ``0 < c̄ <= ρ̄``.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        gamma: float | Tensor = 0.99,
        rho_clip: float | None = 1.0,
        c_clip: float | None = 1.0,
        lambda_: float | Tensor = 1.0,
        average_reward: float | Tensor | str | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__(critic, gamma=gamma, actor=actor, average_reward=average_reward, standardize=standardize)
        require_clips("VTrace", rho_clip, c_clip)
        self.keep_fraction("lambda_", lambda_)
        self.rho_clip = rho_clip
        self.c_clip = c_clip

    def weights(self, log_weight: Tensor) -> dict[str, Tensor]:
        """Pass ``log π - log μ`` on unclipped: :func:`torchrl.functional.vtrace` clips the weight in two ways."""
        return {"log_weight": log_weight}

    def estimate(self, **series: Tensor) -> tuple[Tensor, Tensor]:
        """Return the advantages and value targets of V-trace, with clipped importance weights."""
        clips = {"rho_clip": self.rho_clip, "c_clip": self.c_clip}
        return vtrace(**series, gamma=self.gamma, lambda_=self.lambda_, **clips)
