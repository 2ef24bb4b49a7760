"""Random actions at the start of a run. Wraps the policy, so that the collector's loop needs no branch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.data.specs import Bounded, Categorical, TensorSpec
from torchrl.errors import ConfigError, SpecError, explain


class WarmUp(nn.Module):
    """Act uniformly at random for the first frames, then as the policy does.

    The policy is called all the while and its action and log-probability are overwritten: the keys never change.

    Args:
        policy: maps a root to a root with ``action``.
        action_spec: the environment's, ``[*B]`` discrete or ``[*B, A]`` bounded.
        frames: how many frames to act at random, rounded up to whole vector steps.
        generator: source of the random actions; None uses torch's global one.

    Raises:
        SpecError: actions cannot be drawn uniformly from this spec.
    """

    def __init__(
        self, policy: Callable, action_spec: TensorSpec, frames: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if frames < 0:
            raise ConfigError(explain("WarmUp", expected="frames of at least 0", got=frames))
        self.policy = policy
        self.action_spec = action_spec
        self.frames = frames
        self.generator = generator
        self.frames_acted = 0
        self._log_prob = uniform_log_prob(action_spec)

    def forward(self, root: TensorDictBase) -> TensorDictBase:
        """Act on a root, ``[*B]``."""
        root = self.policy(root)
        if self.frames_acted < self.frames:
            self.frames_acted += root.batch_size.numel()
            action = root.get("action")
            root.set("action", self.action_spec.rand(generator=self.generator).to(action.device))
            log_prob = root.get("action_log_prob", None)
            if log_prob is not None:
                root.set("action_log_prob", torch.full_like(log_prob, self._log_prob))
        return root

    def get_extra_state(self) -> torch.Tensor:
        """Save how far the warm-up is."""
        return torch.tensor(self.frames_acted)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Restore how far the warm-up is."""
        self.frames_acted = int(state)


def uniform_log_prob(action_spec: TensorSpec) -> float:
    """Log-density of one action drawn uniformly from a discrete or finitely bounded spec."""
    if isinstance(action_spec, Categorical):
        return -math.log(action_spec.n)
    if isinstance(action_spec, Bounded):
        width = (action_spec.high - action_spec.low).expand(action_spec.shape)
        if bool(width.isfinite().all()):
            return -float(width.reshape(-1, width.shape[-1])[0].log().sum())
    raise SpecError(
        explain(
            "WarmUp",
            expected="a Categorical or a finitely bounded action spec",
            got=repr(action_spec),
            hint="Act at random on the environment's own action_spec.",
        )
    )
