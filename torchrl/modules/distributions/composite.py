"""Actions made of named parts, each with a distribution of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from operator import add
from typing import Any, NamedTuple, Self

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key, as_path
from torchrl.modules.distributions.base import Distribution, trait
from torchrl.unchecked import new_tensordict

Families = Mapping[str, "Callable[..., Distribution] | Families"]


class Part(NamedTuple):
    """A named part of an action: its family, its share of the parameters, and whether it takes or needs a mask."""

    name: str
    family: Callable[..., Distribution]
    start: int
    stop: int
    takes_mask: bool
    needs_mask: bool


class CompositeDistribution(Distribution):
    """Draw every part of a nested action from a distribution of its own, independently given the observation.

    Actions are TensorDicts ``[*B]``, those of the environment's ``Composite`` action spec. Log-prob, entropy and
    divergence are sums over the parts; where one part has no entropy, no mean and so on, neither has the whole.
    :meth:`of` fills in the parts, which say in which order the parameters come.

    >>> from torchrl.modules import Bernoulli, Categorical, TanhNormal
    >>> family = CompositeDistribution.of(steer=Categorical, gas=TanhNormal, lights={"left": Bernoulli})
    >>> family.parameter_names
    (('steer', 'logits'), ('gas', 'loc'), ('gas', 'scale'), ('lights', 'left', 'logits'))

    Args:
        parameters: of the parts, one after the other, ``[*B, ...]`` each.
        parts: what :meth:`of` computes.
        mask: a TensorDict with a mask for the parts that take one, under their names; None where there are none.

    Attributes:
        parts: the distributions by name.
        batch_size: ``[*B]``.

    Raises:
        SpecError: the batch dimensions of the parameters differ, a part that needs a mask has none, or there is a mask
            for something else.
    """

    takes_mask = True
    __slots__ = ("parts", "batch_size")

    def __init__(self, *parameters: torch.Tensor, parts: tuple[Part, ...], mask: TensorDictBase | None = None) -> None:
        self.batch_size = parameters[0].shape[:-1]
        if any(parameter.shape[:-1] != self.batch_size for parameter in parameters):
            expected, got = "parameters of one batch size", [list(parameter.shape) for parameter in parameters]
            raise SpecError(explain("CompositeDistribution", expected=expected, got=got))
        masks = _masks(parts, mask)
        self.parts = {
            part.name: part.family(*parameters[part.start : part.stop], **masks.get(part.name, {})) for part in parts
        }

    @classmethod
    def of(
        cls, families: Families | None = None, /, **named: Callable[..., Distribution] | Families
    ) -> functools.partial[Self]:
        """Return the distribution class with its parts filled in, for :class:`ProbabilisticActor`.

        Args:
            families: by name, a distribution class, a ``functools.partial`` of one, or a mapping of these.
            named: the same, like the keywords of ``dict``.

        Raises:
            ConfigError: there is no part, or one is no family with ``parameter_names``.
        """
        parts: list[Part] = []
        names: list[Key] = []
        for name, family in {**(families or {}), **named}.items():
            if isinstance(family, Mapping):
                family = cls.of(family)
            inner = trait(family, "parameter_names")
            if not inner:
                expected = f"a distribution with parameter_names for {name!r}"
                raise ConfigError(explain("CompositeDistribution.of", expected=expected, got=repr(family)))
            masking = (trait(family, "takes_mask"), trait(family, "needs_mask"))
            parts.append(Part(name, family, len(names), len(names) + len(inner), *masking))
            names += [(name, *as_path(key)) for key in inner]
        if not parts:
            raise ConfigError(explain("CompositeDistribution.of", expected="at least one part", got="none"))
        partial = functools.partial(cls, parts=tuple(parts))
        partial.parameter_names = tuple(names)
        partial.takes_mask = any(part.takes_mask for part in parts)
        partial.needs_mask = any(part.needs_mask for part in parts)
        return partial

    def sample(self, generator: torch.Generator | None = None) -> TensorDict:
        """Draw a TensorDict ``[*B]`` with the action of every part."""
        return self._gather(part.sample(generator) for part in self.parts.values())

    def rsample(self, generator: torch.Generator | None = None) -> TensorDict:
        """Draw a TensorDict ``[*B]``, every part as a differentiable function of its parameters.

        Raises:
            ConfigError: a part has no reparametrised sample.
        """
        return self._gather(part.rsample(generator) for part in self.parts.values())

    def sample_and_log_prob(self, generator: torch.Generator | None = None) -> tuple[TensorDict, torch.Tensor]:
        """Draw a TensorDict ``[*B]`` and return it with its joint log-prob, ``[*B]``."""
        draws = [part.sample_and_log_prob(generator) for part in self.parts.values()]
        return self._gather(action for action, _ in draws), functools.reduce(add, [log_prob for _, log_prob in draws])

    def log_prob(self, action: TensorDictBase) -> torch.Tensor:
        """Return the sum of the log-probs of all parts, ``[*B]``.

        Args:
            action: TensorDict ``[*B]`` with exactly the parts.

        Raises:
            SpecError: it has other keys, or a part has another shape or dtype.
        """
        names = self.parts.keys()
        if not isinstance(action, TensorDictBase) or set(action.keys()) != names:
            got = sorted(action.keys()) if isinstance(action, TensorDictBase) else type(action).__name__
            expected = f"a TensorDict with the keys {sorted(names)}"
            raise SpecError(explain("CompositeDistribution.log_prob", expected=expected, got=got))
        return self._sum(part.log_prob(action.get(name)) for name, part in self.parts.items())

    def entropy(self) -> torch.Tensor:
        """Return the sum of the entropies of all parts, ``[*B]``."""
        return self._sum(part.entropy() for part in self.parts.values())

    def kl(self, other: CompositeDistribution) -> torch.Tensor:
        """Return the sum of the divergences of all parts, ``[*B]``.

        Raises:
            ConfigError: another family, or other parts.
        """
        self._require_same_family(other)
        if self.parts.keys() != other.parts.keys():
            got = f"{sorted(self.parts)} and {sorted(other.parts)}"
            raise ConfigError(explain("CompositeDistribution.kl", expected="the same parts", got=got))
        return self._sum(part.kl(other.parts[name]) for name, part in self.parts.items())

    @property
    def mode(self) -> TensorDict:
        """The mode of every part."""
        return self._gather(part.mode for part in self.parts.values())

    @property
    def mean(self) -> TensorDict:
        """The mean of every part."""
        return self._gather(part.mean for part in self.parts.values())

    @property
    def median(self) -> TensorDict:
        """The median of every part."""
        return self._gather(part.median for part in self.parts.values())

    def _gather(self, values: Iterator[Any]) -> TensorDict:
        return new_tensordict(dict(zip(self.parts, values, strict=True)), self.batch_size)

    @staticmethod
    def _sum(values: Iterator[torch.Tensor]) -> torch.Tensor:
        return functools.reduce(add, values)


def _masks(parts: tuple[Part, ...], mask: TensorDictBase | None) -> dict[str, dict[str, Any]]:
    """Return the keywords ``{"mask": mask}`` of every part that has a mask, by the part's name.

    Raises:
        SpecError: a part that needs a mask has none, or there is one that no part takes.
    """
    masks = {} if mask is None else {name: {"mask": value} for name, value in mask.items()}
    missing = [part.name for part in parts if part.needs_mask and part.name not in masks]
    unknown = masks.keys() - {part.name for part in parts if part.takes_mask}
    if missing or unknown:
        needed, taken = (
            [part.name for part in parts if getattr(part, which)] for which in ("needs_mask", "takes_mask")
        )
        expected = f"masks for {taken}, and not without {needed}"
        raise SpecError(explain("CompositeDistribution", expected=expected, got=f"masks for {sorted(masks)}"))
    return masks
