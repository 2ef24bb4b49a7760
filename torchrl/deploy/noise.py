"""Let a policy's actors make actions of given noise, instead of drawing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.errors import ConfigError, explain
from torchrl.modules import CompositeDistribution, Distribution, Options, ProbabilisticActor
from torchrl.unchecked import new_tensordict


class Noises:
    """Hand out noise to the families of a policy, in the order of their calls; the first round records what they need.

    Attributes:
        needed: law, shape of one row and dtype of each, in order.
        without: names of families that take no noise though they are no deterministic ones: they act by their mode.
    """

    def __init__(self) -> None:
        self.needed: list[tuple[str, tuple[int, ...], torch.dtype]] = []
        self.without: list[str] = []
        self._given: list[torch.Tensor] | None = None

    def give(self, values: Sequence[torch.Tensor]) -> None:
        """Set the noise of the next round, ``[N, ...]`` each, in the order of :attr:`needed`."""
        self._given = list(values)

    def action(self, distribution: Distribution) -> torch.Tensor | TensorDictBase:
        """Return the action that the next noise makes of a distribution."""
        if isinstance(distribution, CompositeDistribution):
            actions = {name: self.action(part) for name, part in distribution.parts.items()}
            return new_tensordict(actions, distribution.batch_size)
        if type(distribution).from_noise is Distribution.from_noise:
            self.without.append(type(distribution).__name__)
            return distribution.mode
        if distribution.noise_law is None:
            return distribution.from_noise(None)
        if self._given is not None:
            return distribution.from_noise(self._given.pop(0))
        like = distribution.noise_like()
        self.needed.append((distribution.noise_law, tuple(like.shape[1:]), like.dtype))
        action = distribution.from_noise(torch.zeros_like(like))
        _require_mode(distribution, action)
        return action


class Chosen:
    """A distribution whose mode is the action that noise makes of another one."""

    def __init__(self, distribution: Distribution, noises: Noises) -> None:
        self.log_prob = distribution.log_prob
        self.mode = noises.action(distribution)


class FromNoise:
    """A family in the place of another, ``func``, that makes :class:`Chosen` ones."""

    def __init__(self, family: Callable[..., Distribution], noises: Noises) -> None:
        self.func, self._noises = family, noises

    def __call__(self, *parameters: torch.Tensor, **options: object) -> Chosen:
        return Chosen(self.func(*parameters, **options), self._noises)


def take_noise_(policy: nn.Module) -> Noises:
    """Let the actors inside ``policy`` act by noise under the exploration type ``DETERMINISTIC``, in place."""
    noises = Noises()
    for part in policy.modules():
        if isinstance(part, ProbabilisticActor):
            part.distribution = FromNoise(part.distribution, noises)
        elif isinstance(part, Options):
            part.choice_family = FromNoise(part.choice_family, noises)
    return noises


def _require_mode(distribution: Distribution, action: torch.Tensor) -> None:
    """Refuse a family whose mode is not what zero noise gives, such as one that inherits ``from_noise`` by mistake."""
    if not torch.allclose(action.double(), distribution.mode.double(), rtol=1e-4, atol=1e-5, equal_nan=True):
        name = type(distribution).__name__
        expected = f"{name}.from_noise to give the mode for zero noise"
        hint = "Write from_noise(noise) of the family, or `from_noise = Distribution.from_noise` for none."
        raise ConfigError(explain("save_policy", expected=expected, got="another action", hint=hint))
