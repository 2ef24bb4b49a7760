"""Every public family of action distributions, with parameters, masks and references, to be held against the laws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from tensordict import TensorDict
from torch import distributions as theirs

from torchrl.modules import (
    Bernoulli,
    Categorical,
    CompositeDistribution,
    Delta,
    Distribution,
    GSDENormal,
    GSDETanhNormal,
    MaskedCategorical,
    MaskedOneHotCategorical,
    MultiCategorical,
    Normal,
    OneHotCategorical,
    TanhDelta,
    TanhNormal,
    TruncatedNormal,
)

ALL = {"entropy", "kl", "rsample", "mode", "mean", "median"}


@dataclass(frozen=True)
class Case:
    """A family, how to make its parameters, and what it offers.

    Attributes:
        family: a class, or a partial of one.
        sizes: last dimension of every parameter.
        positive: indices of the parameters that are positive.
        offers: which of ``ALL`` it has; the others raise.
        draws: whether a sample depends on chance.
        mask: makes a mask for a batch shape; None if it takes none.
        reference: from parameters and mask to pairs of a torch distribution and of what it reads in an action;
            log-prob, entropy and divergence are sums over these. None where a file of its own has a slower reference.
    """

    family: Callable[..., Distribution]
    sizes: tuple[int, ...]
    positive: tuple[int, ...] = ()
    offers: frozenset[str] = field(default_factory=frozenset)
    draws: bool = True
    mask: Callable[[tuple[int, ...]], torch.Tensor | TensorDict] | None = None
    reference: Callable[..., list] | None = None

    def parameters(self, *shape: int, dtype=torch.float64, device="cpu", seed=0) -> tuple[torch.Tensor, ...]:
        """Draw parameters ``[*shape, size]``; scales lie between 0.5 and 1.5."""
        generator = torch.Generator().manual_seed(seed)
        values = []
        for index, size in enumerate(self.sizes):
            value = torch.randn(*shape, size, generator=generator, dtype=torch.float64)
            value = 0.5 + torch.sigmoid(value) if index in self.positive else value
            values.append(value.to(device=device, dtype=dtype))
        return tuple(values)

    @property
    def has_finitely_many_actions(self) -> bool:
        return not self.positive and "entropy" in self.offers

    def build(self, *parameters: torch.Tensor) -> Distribution:
        """Build the distribution, with a mask where it takes one."""
        if self.mask is None:
            return self.family(*parameters)
        return self.family(*parameters, mask=self.mask(parameters[0].shape[:-1]).to(parameters[0].device))


def whole(action):
    return action


def pick(*keys):
    return lambda action: action[keys]


def choice(index):
    return lambda action: action[..., index]


def column_mask(*allowed: bool) -> Callable:
    """The same actions are legal in every row."""
    return lambda shape: torch.tensor(allowed).expand(*shape, len(allowed))


def nested_mask(shape) -> TensorDict:
    masks = {"inner": {"gear": column_mask(True, False, True)(shape)}, "lamps": column_mask(*[True] * 4, False)(shape)}
    return TensorDict(masks, shape)


def masked_reference(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.where(mask, logits, torch.finfo(logits.dtype).min)


def multi_reference(nvec: tuple[int, ...], logits: torch.Tensor) -> list:
    groups = logits.split(nvec, -1)
    return [(theirs.Categorical(logits=group), choice(index)) for index, group in enumerate(groups)]


def composite_reference(steer, loc, scale, bits, gear, lamps, mask):
    return [
        (theirs.Categorical(logits=steer), pick("steer")),
        (theirs.Independent(theirs.Normal(loc, scale), 1), pick("gas")),
        (theirs.Independent(theirs.Bernoulli(logits=bits), 1), lambda action: action["inner", "bits"].to(bits.dtype)),
        (theirs.Categorical(logits=masked_reference(gear, mask["inner", "gear"])), pick("inner", "gear")),
        *(
            (distribution, lambda action, read=read: read(action["lamps"]))
            for distribution, read in multi_reference((2, 3), masked_reference(lamps, mask["lamps"]))
        ),
    ]


DISCRETE = frozenset({"entropy", "kl", "mode"})
CONTINUOUS = frozenset(ALL)
COMPOSITE = CompositeDistribution.of(
    steer=Categorical,
    gas=Normal,
    inner={"bits": Bernoulli, "gear": MaskedCategorical},
    lamps=MultiCategorical.of([2, 3]),
)

CASES: dict[str, Case] = {
    "Categorical": Case(
        Categorical, (4,), offers=DISCRETE, reference=lambda logits: [(theirs.Categorical(logits=logits), whole)]
    ),
    "MaskedCategorical": Case(
        MaskedCategorical,
        (4,),
        offers=DISCRETE,
        mask=column_mask(True, False, True, True),
        reference=lambda logits, mask: [(theirs.Categorical(logits=masked_reference(logits, mask)), whole)],
    ),
    "OneHotCategorical": Case(
        OneHotCategorical,
        (4,),
        offers=DISCRETE | {"rsample"},
        reference=lambda logits: [(theirs.OneHotCategorical(logits=logits), whole)],
    ),
    "MaskedOneHotCategorical": Case(
        MaskedOneHotCategorical,
        (4,),
        offers=DISCRETE | {"rsample"},
        mask=column_mask(False, True, True, True),
        reference=lambda logits, mask: [(theirs.OneHotCategorical(logits=masked_reference(logits, mask)), whole)],
    ),
    "MultiCategorical of equal sizes": Case(
        MultiCategorical.of([3, 3]), (6,), offers=DISCRETE, reference=lambda logits: multi_reference((3, 3), logits)
    ),
    "MultiCategorical of different sizes": Case(
        MultiCategorical.of([1, 3, 2]),
        (6,),
        offers=DISCRETE,
        reference=lambda logits: multi_reference((1, 3, 2), logits),
    ),
    "MultiCategorical with a mask": Case(
        MultiCategorical.of([3, 2]),
        (5,),
        offers=DISCRETE,
        mask=column_mask(True, False, True, True, True),
        reference=lambda logits, mask: multi_reference((3, 2), masked_reference(logits, mask)),
    ),
    "Bernoulli": Case(
        Bernoulli,
        (3,),
        offers=DISCRETE,
        reference=lambda logits: [
            (theirs.Independent(theirs.Bernoulli(logits=logits), 1), lambda action: action.to(logits.dtype))
        ],
    ),
    "Normal": Case(
        Normal,
        (2, 2),
        (1,),
        CONTINUOUS,
        reference=lambda loc, scale: [(theirs.Independent(theirs.Normal(loc, scale), 1), whole)],
    ),
    "GSDENormal": Case(
        GSDENormal,
        (2, 2, 2),
        (1,),
        CONTINUOUS,
        draws=False,
        reference=lambda loc, scale, _: [(theirs.Independent(theirs.Normal(loc, scale), 1), whole)],
    ),
    "GSDETanhNormal": Case(GSDETanhNormal.within(-2.0, 3.0), (2, 2, 2), (1,), CONTINUOUS, draws=False),
    "TanhNormal": Case(TanhNormal, (2, 2), (1,), CONTINUOUS),
    "TanhNormal within numbers": Case(TanhNormal.within(-2.0, 3.0), (2, 2), (1,), CONTINUOUS),
    "TanhNormal within tensors": Case(
        TanhNormal.within(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])), (2, 2), (1,), CONTINUOUS
    ),
    "TruncatedNormal": Case(TruncatedNormal, (2, 2), (1,), CONTINUOUS),
    "TruncatedNormal within tensors": Case(
        TruncatedNormal.within(torch.tensor([-1.0, 0.3]), torch.tensor([1.0, 4.0])), (2, 2), (1,), CONTINUOUS
    ),
    "Delta": Case(Delta, (2,), offers=frozenset({"rsample", "mode", "mean", "median"}), draws=False),
    "TanhDelta": Case(
        TanhDelta.within(-0.3, 0.7), (2,), offers=frozenset({"rsample", "mode", "mean", "median"}), draws=False
    ),
    "CompositeDistribution": Case(
        COMPOSITE, (3, 2, 2, 2, 3, 5), (2,), DISCRETE, mask=nested_mask, reference=composite_reference
    ),
    "CompositeDistribution of choices": Case(
        CompositeDistribution.of({"steer": Categorical, "inner": {"bits": Bernoulli}}),
        (3, 2),
        offers=DISCRETE,
        reference=lambda steer, bits: [
            (theirs.Categorical(logits=steer), pick("steer")),
            (
                theirs.Independent(theirs.Bernoulli(logits=bits), 1),
                lambda action: action["inner", "bits"].to(bits.dtype),
            ),
        ],
    ),
    "CompositeDistribution of numbers": Case(
        CompositeDistribution.of(throttle=Normal, inner={"trim": TruncatedNormal}),
        (1, 1, 2, 2),
        (1, 3),
        CONTINUOUS,
    ),
}


def family_of(case: Case) -> type[Distribution]:
    return getattr(case.family, "func", case.family)


def leaves(action) -> list[torch.Tensor]:
    """Return the tensors of an action, nested or not."""
    return list(action.values(True, True)) if isinstance(action, TensorDict) else [action]


def on_leaves(function: Callable, action):
    """Apply a function to every tensor of an action, whatever becomes of its shape."""
    return action.apply(function, batch_size=[]) if isinstance(action, TensorDict) else function(action)
