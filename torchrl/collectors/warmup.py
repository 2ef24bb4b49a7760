"""Random actions at the start of a run, by a module around the policy, so that the collector's loop needs no branch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.data.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, TensorSpec
from torchrl.errors import ConfigError, SpecError, explain


@dataclass
class Progress:
    """Count the frames of a warm-up; the policy and its copies on other devices share one such counter."""

    frames: int = 0


class WarmUp(nn.Module):
    """Write random actions, drawn uniformly, for the first ``frames`` frames; after them leave the policy's actions.

    The policy is called all the time; during the warm-up its entries ``action`` and ``action_log_prob`` are overwritten
    (under other keys a log-probability stays that of the policy's own action). So the keys of the batches never change.

    >>> policy = WarmUp(actor, env.action_spec, frames=3)
    >>> for _ in range(3):
    ...     _ = policy(env.reset())  # two rows
    >>> policy.frames_acted
    4

    Args:
        policy: maps a root to a root with ``action``.
        action_spec: the environment's: discrete, or with finite bounds.
        frames: how many frames to act at random, rounded up to whole vector steps.
        mask_key: the observation that says which choices are legal, ``env.action_mask_key``; None allows all.
        generator: source of the random actions; None uses torch's global one.

    Raises:
        SpecError: actions cannot be drawn uniformly from this spec.
        ConfigError: ``frames`` is negative.
    """

    def __init__(
        self,
        policy: Callable,
        action_spec: TensorSpec,
        frames: int,
        *,
        mask_key: str | tuple[str, ...] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if frames < 0:
            raise ConfigError(explain("WarmUp", expected="frames of at least 0", got=frames))
        self.policy = policy
        self.action_spec = action_spec
        self.frames = frames
        self.mask_key = mask_key
        self.generator = generator
        self.progress = Progress()
        uniform_log_prob(action_spec)  # refuses here what cannot be drawn
        if mask_key is not None and not isinstance(action_spec, (Categorical, MultiCategorical, MultiOneHot)):
            raise SpecError(explain("WarmUp", expected="an action spec of choices with a mask", got=repr(action_spec)))

    @property
    def frames_acted(self) -> int:
        """How many frames were acted at random, by this policy and its copies on other devices."""
        return self.progress.frames

    def forward(self, root: TensorDictBase) -> TensorDictBase:
        """Call the policy on a root, ``[*B]``, and overwrite its actions while the warm-up lasts."""
        return self.act_at_random_(self.policy(root))

    def act_at_random_(self, root: TensorDictBase) -> TensorDictBase:
        """Overwrite the actions in a root that the policy has acted on, ``[*B]``, while the warm-up lasts."""
        if self.progress.frames < self.frames:
            self.progress.frames += root.batch_size.numel()
            action, log_prob = root.get("action"), root.get("action_log_prob", None)
            mask = None if self.mask_key is None else root.get(self.mask_key).to(self.action_spec.device)
            root.set("action", self.action_spec.rand(generator=self.generator, mask=mask).to(action.device))
            if log_prob is not None and mask is None:
                uniform = uniform_log_prob(self.action_spec, root.batch_dims)
                root.set("action_log_prob", torch.full_like(log_prob, uniform))
            elif log_prob is not None:
                root.set("action_log_prob", legal_log_prob(self.action_spec, mask, root.batch_dims).to(log_prob))
        return root

    @property
    def require_fit(self) -> Callable[..., None]:
        """The policy's method that refuses an action spec that it does not fit."""
        return self.policy.require_fit

    def get_extra_state(self) -> torch.Tensor:
        """Return how many frames were acted at random, to be saved."""
        return torch.tensor(self.progress.frames)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Restore how many frames were acted at random."""
        self.progress.frames = int(state)


def legal_log_prob(action_spec: TensorSpec, mask: torch.Tensor, batch_dims: int) -> torch.Tensor:
    """Return the log-probability, ``[*B]``, of an action drawn uniformly from the legal choices of each row.

    Args:
        action_spec: ``[*B, ...]``, of choices.
        mask: true where a choice is legal, ``[*B, n]``, or with the masks of several choices side by side. Nothing is
            refused: of a row that allows nothing the result is infinite.
        batch_dims: number of the dimensions ``*B``.
    """
    row = action_spec[(0,) * batch_dims] if batch_dims else action_spec
    if isinstance(row, Categorical):
        sizes = [row.n]
    else:
        sizes = list(row.nvec) if isinstance(row, MultiOneHot) else row.nvec.flatten().tolist()
    return -sum(choice.sum(-1).log() for choice in mask.split(sizes, -1))


def uniform_log_prob(action_spec: TensorSpec, batch_dims: int = 0) -> float:
    """Return the log-probability (or log-density) of one row's action drawn uniformly from choices or between bounds.

    Args:
        action_spec: ``[*B, ...]``.
        batch_dims: number of the dimensions ``*B``; the others are one row's action.

    Raises:
        SpecError: actions cannot be drawn uniformly from this spec.
    """
    row = action_spec[(0,) * batch_dims] if batch_dims else action_spec
    if isinstance(row, Composite):
        return sum(uniform_log_prob(leaf) for _, leaf in row.leaves())
    if isinstance(row, Categorical):
        return -math.log(row.n) * row.shape.numel()
    if isinstance(row, MultiOneHot):
        return -sum(math.log(n) for n in row.nvec) * row.shape[:-1].numel()
    if isinstance(row, MultiCategorical):
        return -float(row.nvec.double().log().sum())
    if isinstance(row, Binary):
        return -math.log(2) * row.shape.numel()
    if isinstance(row, Bounded):
        width = row.high.double() - row.low.double()
        if bool(width.isfinite().all()):
            return -float((width if row.dtype.is_floating_point else width + 1).log().sum())
    raise SpecError(
        explain(
            "WarmUp",
            expected="an action spec of choices, or finitely bounded",
            got=repr(action_spec),
            hint="Act at random on the environment's own action_spec.",
        )
    )
