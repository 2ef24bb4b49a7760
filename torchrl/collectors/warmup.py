"""Random actions at the start of a run. Wraps the policy, so that the collector's loop needs no branch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.data.specs import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    TensorSpec,
)
from torchrl.errors import ConfigError, SpecError, explain


class WarmUp(nn.Module):
    """Act uniformly at random for the first frames, then as the policy does.

    The policy is called all the while and its action and log-probability are overwritten: the keys never change.

    Args:
        policy: maps a root to a root with ``action``.
        action_spec: the environment's, of choices or finitely bounded; a mask of legal actions is not looked at.
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
    """Log-probability, or log-density, of one action drawn uniformly from a spec of choices or of finite bounds.

    Raises:
        SpecError: actions cannot be drawn uniformly from this spec.
    """
    if isinstance(action_spec, Composite):
        return sum(uniform_log_prob(spec) for _, spec in action_spec.items())
    if isinstance(action_spec, Categorical):
        return -math.log(action_spec.n)
    if isinstance(action_spec, MultiOneHot):
        return -sum(math.log(n) for n in action_spec.nvec)
    if isinstance(action_spec, MultiCategorical):
        return -float(_first_row(action_spec.nvec).double().log().sum())
    if isinstance(action_spec, Binary):
        return -math.log(2) * action_spec.shape[-1]
    if isinstance(action_spec, Bounded):
        width = action_spec.high - action_spec.low
        if bool(width.isfinite().all()):
            return -float(_first_row(width).log().sum())
    raise SpecError(
        explain(
            "WarmUp",
            expected="an action spec of choices, or finitely bounded",
            got=repr(action_spec),
            hint="Act at random on the environment's own action_spec.",
        )
    )


def _first_row(value: torch.Tensor) -> torch.Tensor:
    return value.reshape(-1, value.shape[-1])[0]
