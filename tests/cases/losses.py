"""Losses and kinds of action to be held against the laws: actors of real parts, and batches that a policy left behind.

Every actor reads ``"observation"`` ``[*B, 4]``. Another of its kind, with other weights, acted in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.modules import (
    Actor,
    Bernoulli,
    Categorical,
    CompositeDistribution,
    MaskedCategorical,
    MaskedOneHotCategorical,
    MultiCategorical,
    Normal,
    OneHotCategorical,
    ProbabilisticActor,
    TanhNormal,
    TruncatedNormal,
    ValueOperator,
)
from torchrl.objectives import (
    A2CLoss,
    BehaviourCloningLoss,
    ClippedSurrogate,
    ClipPPOLoss,
    KLPenaltyPPOLoss,
    Loss,
    PolicyGradientLoss,
    PPOLoss,
    ReinforceLoss,
    total_loss,
)

OBSERVATION = ("observation",)


class Constant(nn.Module):
    """Return the same row for every observation, in float64."""

    def __init__(self, *row: float) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.tensor(row, dtype=torch.float64))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Return ``[*B, len(row)]``."""
        return self.row.expand(*observation.shape[:-1], -1)


class Net(nn.Module):
    """A body of 5 features and one linear layer per output.

    Args:
        body: 4 observations to 5 features; None makes one.
        sizes: of the outputs.
        positive: the indices of those outputs that are scales.
    """

    def __init__(self, body: nn.Module | None, sizes: Sequence[int], positive: Sequence[int] = ()) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh()) if body is None else body
        self.heads = nn.ModuleList(nn.Linear(5, size) for size in sizes)
        self.positive = positive

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = [head(self.body(observation)) for head in self.heads]
        return tuple(x.exp() * 0.5 if i in self.positive else x for i, x in enumerate(outputs))


class Kind(NamedTuple):
    """A kind of action: the family, its network, and what says which actions are legal."""

    family: Callable | None
    sizes: tuple[int, ...]
    positive: tuple[int, ...] = ()
    make_mask: Callable[[tuple[int, ...], torch.Generator], torch.Tensor | TensorDict] | None = None

    def make_actor(
        self, body: nn.Module | None = None, *, in_keys: Iterable = OBSERVATION, **options
    ) -> ProbabilisticActor | Actor:
        """Make an actor with weights from torch's global generator."""
        net = Net(body, self.sizes, self.positive)
        if self.family is None:
            return Actor(net, in_keys=in_keys)
        options |= {} if self.make_mask is None else {"mask_key": "legal"}
        return ProbabilisticActor(net, self.family, in_keys=in_keys, **options)


def two_of_three(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Forbid one of three actions in each row."""
    return torch.rand(*shape, 3, generator=generator).argsort(-1) > 0


def two_of_three_gears(shape: tuple[int, ...], generator: torch.Generator) -> TensorDict:
    """Forbid one of three gears in each row."""
    return TensorDict({"gear": two_of_three(shape, generator)}, batch_size=shape)


GAS = TanhNormal.within(0.0, 1.0)
KINDS = {
    "discrete": Kind(Categorical, (3,)),
    "masked": Kind(MaskedCategorical, (3,), make_mask=two_of_three),
    "one-hot": Kind(OneHotCategorical, (3,)),
    "masked one-hot": Kind(MaskedOneHotCategorical, (3,), make_mask=two_of_three),
    "multi-discrete": Kind(MultiCategorical.of([3, 2]), (5,)),
    "binary": Kind(Bernoulli, (2,)),
    "normal": Kind(Normal, (2, 2), (1,)),
    "tanh": Kind(TanhNormal.within(-2.0, 2.0), (2, 2), (1,)),
    "truncated": Kind(TruncatedNormal.within(-2.0, 2.0), (2, 2), (1,)),
    "composite": Kind(
        CompositeDistribution.of(gear=Categorical, pedals={"gas": GAS, "horn": Bernoulli}), (3, 1, 1, 1), (2,)
    ),
    "masked composite": Kind(
        CompositeDistribution.of(gear=MaskedCategorical, gas=GAS), (3, 1, 1), (2,), two_of_three_gears
    ),
}
DETERMINISTIC = Kind(None, (2,))


def make_critic(body: nn.Module | None = None, *, in_keys: Iterable = OBSERVATION) -> ValueOperator:
    """Make a critic with weights from torch's global generator."""
    return ValueOperator(Net(body, (1,)), in_keys=in_keys)


def make_rows(kind: Kind, *shape: int, seed: int = 0) -> TensorDict:
    """Make a batch in which an actor of this kind acted, as an estimator left it."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *tail: torch.randn(*shape, *tail, generator=generator)  # noqa: E731
    batch = TensorDict({"observation": normal(4)}, batch_size=shape)
    if kind.make_mask is not None:
        batch["legal"] = kind.make_mask(shape, generator)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + 1)
        kind.make_actor()(batch)
    for key in ("state_value", "advantage", "value_target"):
        batch[key] = normal(1)
    return batch


def actor_alone(loss: Callable[..., Loss], **options) -> Callable[..., Loss]:
    """Build a loss that takes no critic, for callers that offer one."""
    return lambda actor, critic: loss(actor, **options)


LOSSES = {
    "ReinforceLoss": actor_alone(ReinforceLoss),
    "ReinforceLoss, baseline": partial(ReinforceLoss, entropy_coef=0.01, normalize_advantage=True),
    "A2CLoss": A2CLoss,
    "A2CLoss, all options": partial(
        A2CLoss, entropy_coef=0.1, normalize_advantage=True, critic_distance="smooth_l1", num_entropy_samples=3
    ),
    "PPOLoss": PPOLoss,
    "PPOLoss, sum": partial(PPOLoss, entropy_coef=0.01, reduction="sum"),
    "ClipPPOLoss": ClipPPOLoss,
    "ClipPPOLoss, all options": partial(
        ClipPPOLoss, clip_epsilon=0.1, entropy_coef=0.01, value_clip=0.2, critic_distance="smooth_l1"
    ),
    "ClipPPOLoss, raw advantage": partial(ClipPPOLoss, normalize_advantage=False, critic_distance="l1"),
    "PolicyGradientLoss": lambda actor, critic: PolicyGradientLoss(actor, critic, ClippedSurrogate(0.3)),
    "KLPenaltyPPOLoss": KLPenaltyPPOLoss,
    "KLPenaltyPPOLoss, sampled": partial(KLPenaltyPPOLoss, num_kl_samples=2, kl_coef=3.0),
    "BehaviourCloningLoss": actor_alone(BehaviourCloningLoss),
    "BehaviourCloningLoss, entropy": actor_alone(BehaviourCloningLoss, entropy_coef=0.1),
}
DETERMINISTIC_LOSSES = {
    "BehaviourCloningLoss, l2": actor_alone(BehaviourCloningLoss),
    "BehaviourCloningLoss, smooth_l1": actor_alone(BehaviourCloningLoss, distance="smooth_l1", reduction="sum"),
}
# One of each, with options: enough to be tried with every kind of action.
KIND_LOSSES = (
    "ReinforceLoss, baseline",
    "A2CLoss, all options",
    "PPOLoss",
    "ClipPPOLoss, all options",
    "KLPenaltyPPOLoss",
    "KLPenaltyPPOLoss, sampled",
    "BehaviourCloningLoss, entropy",
)


def gradients(loss: Loss, batch: TensorDict) -> tuple[TensorDict, list[torch.Tensor]]:
    """Differentiate the total; return the terms and the gradient of every trainable parameter."""
    torch.manual_seed(0)  # of what the loss draws
    loss.zero_grad()
    terms = loss(batch)
    total_loss(terms).backward()
    return terms.detach(), [parameter.grad.clone() for parameter in loss.trainable_parameters()]
