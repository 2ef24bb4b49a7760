"""The contract of action distributions. Not `torch.distributions`: values are neither validated nor re-normalised.

A distribution is built at every step of the hot loop, so it holds its parameters and little else. Its last dimension
(the choices of a categorical, the action dimensions of a normal) is consumed: densities have the batch shape ``[*B]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key
from torchrl.misspelling import refuse_misspelt


class Distribution:
    """Base of action distributions; a subclass takes its parameters in the order of ``parameter_names``.

    >>> distribution = actor.build(env.reset())  # what an actor's loss asks
    >>> distribution.log_prob(distribution.sample()).shape  # two rows
    torch.Size([2])

    What a family has no formula for raises :class:`ConfigError`; nothing is replaced by an estimate in silence.
    Families that can be differentiated through their actions without bias have ``rsample_and_log_prob``, the others
    lack it.

    Attributes:
        parameter_names: the names of the constructor's tensors, under which an actor writes them; one inside a nested
            action is a tuple.
        takes_mask: whether the constructor has a keyword ``mask`` that says which actions are legal, true = legal.
        needs_mask: whether the constructor requires ``mask``.
        noise_law: how the noise of :meth:`from_noise` is distributed, in each entry independently: ``"normal"``,
            ``"gumbel"`` or ``"logistic"``, of location 0 and scale 1; None for a family that takes none.
    """

    noise_law: str | None = None
    parameter_names: tuple[Key, ...] = ()
    takes_mask: bool = False
    needs_mask: bool = False
    __slots__ = ()

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a misspelt method; see :func:`~torchrl.misspelling.refuse_misspelt`."""
        super().__init_subclass__(**options)
        refuse_misspelt(cls, also=("rsample_and_log_prob",))

    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw one action per row, without gradient; ``generator=None`` uses torch's global one."""
        return self.rsample(generator).detach()

    def rsample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw one action per row as a differentiable function of the parameters."""
        raise self._lacks("a reparametrised sample")

    def noise_like(self) -> torch.Tensor:
        """Return a tensor of the shape, dtype and device that the noise of :meth:`from_noise` has."""
        raise self._lacks("noise")

    def from_noise(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Return the action that noise makes: the mode for zero noise, a sample for noise drawn by ``noise_law``.

        A policy that is handed over acts by it, as a function without a generator. A family without it acts by its mode
        alone there.

        Args:
            noise: see :meth:`noise_like`; None where ``noise_law`` is None.
        """
        raise self._lacks("actions made of noise")

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return the log-density of ``action``, ``[*B]``; a family without one does not override this.

        Raises:
            SpecError: the action's shape is not the one that :meth:`sample` gives.
            ConfigError: the family has none.
        """
        raise self._lacks("a log-density")

    def sample_and_log_prob(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw an action and return it with ``log_prob(action)``, the very number that a learner recomputes from it."""
        action = self.sample(generator)
        return action, self.log_prob(action)

    def entropy(self) -> torch.Tensor:
        """Return the entropy in nats, ``[*B]``, differentiable in the parameters."""
        raise self._lacks("an entropy")

    def kl(self, other: Distribution) -> torch.Tensor:
        """Return the divergence KL(self ‖ other) in nats, ``[*B]``; ``other`` is of the same family."""
        raise self._lacks("a closed-form divergence")

    @property
    def mode(self) -> torch.Tensor:
        """The most probable action; of a :class:`TanhNormal` the squashed ``loc`` instead."""
        raise self._lacks("a mode")

    @property
    def mean(self) -> torch.Tensor:
        """The expected action."""
        raise self._lacks("a mean")

    @property
    def median(self) -> torch.Tensor:
        """The action with as much probability on either side, in each dimension."""
        raise self._lacks("a median")

    def _lacks(self, what: str) -> ConfigError:
        name = type(self).__name__
        hint = "Use `mode` or samples."
        return ConfigError(explain(name, expected=f"a family with {what}", got=f"{name}, which has none", hint=hint))

    def _require_shape(self, action: torch.Tensor, shape: torch.Size) -> None:
        if action.shape != shape:
            who, expected = f"{type(self).__name__}.log_prob", f"an action of shape {list(shape)}"
            hint = "Add or remove the trailing dimension; nothing is broadcast."
            raise SpecError(explain(who, expected=expected, got=list(action.shape), hint=hint))

    def _misfit(self, action: torch.Tensor, expected: str, hint: str = "") -> SpecError:
        who, got = f"{type(self).__name__}.log_prob", f"{action.dtype} of shape {list(action.shape)}"
        return SpecError(explain(who, expected=expected, got=got, hint=hint))

    def _require_same_family(self, other: Distribution) -> None:
        if type(other) is not type(self):
            who, got = f"{type(self).__name__}.kl", type(other).__name__
            raise ConfigError(explain(who, expected=f"another {type(self).__name__}", got=got))


def trait(distribution: Callable[..., Distribution], name: str) -> Any:
    """Look up an attribute such as ``takes_mask`` of a distribution class, or of a ``functools.partial`` of one.

    A partial may have the attribute itself, as that of a :class:`CompositeDistribution` does: which parameters it takes
    follows from its parts.
    """
    while not hasattr(distribution, name) and hasattr(distribution, "func"):
        distribution = distribution.func
    return getattr(distribution, name, getattr(Distribution, name))


def draw(
    fill_: Callable[..., torch.Tensor], like: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Return noise of the shape, dtype and device of ``like``, filled by ``fill_(tensor, generator=...)``.

    Noise is drawn where the generator lives and then moved, so that a policy that was moved to another device keeps its
    generator and its random stream.

    >>> draw(torch.Tensor.normal_, torch.zeros(2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])

    Args:
        fill_: fills a tensor in place, such as ``torch.Tensor.uniform_``.
        like: what the noise is for.
        generator: its source; None uses torch's global one of the device.
    """
    if generator is None or generator.device == like.device:
        return fill_(torch.empty_like(like), generator=generator)
    noise = torch.empty(like.shape, dtype=like.dtype, device=generator.device)
    return fill_(noise, generator=generator).to(like.device)
