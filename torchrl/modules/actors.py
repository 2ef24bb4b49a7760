"""Actors: from a TensorDict's observation to its action. What values a state belongs to the critics."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.errors import ConfigError, explain
from torchrl.modules.distributions.base import Distribution
from torchrl.modules.exploration import ExplorationType, exploration_type
from torchrl.modules.operator import Key, Operator, write

# What a distribution is asked for, by exploration type; the types that are not here sample.
CHOICES = {
    ExplorationType.DETERMINISTIC: "mode",
    ExplorationType.MODE: "mode",
    ExplorationType.MEAN: "mean",
    ExplorationType.MEDIAN: "median",
}


class Actor(Operator):
    """Write the action that ``module`` computes from the observation, without chance.

    Args:
        module: observation(s) ``[*B, F]`` to action ``[*B, A]``.
        in_keys: entries to read.
        out_keys: entries to write; the first is the action.
    """

    def __init__(
        self, module: nn.Module, *, in_keys: Iterable[Key] = ("observation",), out_keys: Iterable[Key] = ("action",)
    ) -> None:
        super().__init__(module, in_keys=in_keys, out_keys=out_keys)

    @property
    def action_key(self) -> Key:
        """Where the action is written."""
        return self.out_keys[0]


class ProbabilisticActor(Operator):
    """Build an action distribution from a module's output, choose an action, and write it with its log-probability.

    Writes the parameters under the distribution's ``parameter_names`` (``logits``, or ``loc`` and ``scale``), the
    action and its log-probability ``[*B]``. The exploration type decides: sampling outside of any context and under
    ``RANDOM``; ``DETERMINISTIC`` and ``MODE`` take the mode, ``MEAN`` and ``MEDIAN`` what they say, or raise where
    the family has none. The keys written are always the same ones. Meant to be called under ``torch.no_grad()`` when
    collecting.

    Args:
        module: observation(s) to the parameters: a tensor, or a tuple in the order of ``parameter_names``.
        distribution: a :class:`Distribution` class, or a ``functools.partial`` of one.
        in_keys: entries to read.
        action_key: where the action goes: int64 ``[*B]`` or ``[*B, A]``.
        log_prob_key: where its log-probability goes, ``[*B]``; None leaves it out.
        generator: source of the samples; None uses torch's global one, the only one that ``torch.compile`` takes
            (torch 2.13). A copy of the actor has a copy of the generator in its present state: give each copy that acts
            beside this one a generator of its own.

    Raises:
        ConfigError: ``distribution`` names no parameters, or (from a call) the module returns another number of
        tensors. KeyMissing: from a call, an entry to read is not there.
    """

    def __init__(
        self,
        module: nn.Module,
        distribution: Callable[..., Distribution],
        *,
        in_keys: Iterable[Key] = ("observation",),
        action_key: Key = "action",
        log_prob_key: Key | None = "action_log_prob",
        generator: torch.Generator | None = None,
    ) -> None:
        family = getattr(distribution, "func", distribution)
        names = tuple(getattr(family, "parameter_names", ()))
        if not names:
            who, expected = "ProbabilisticActor", "a distribution with parameter_names"
            hint = "Distributions of torchrl.modules.distributions have them; those of torch do not."
            raise ConfigError(explain(who, expected=expected, got=repr(family), hint=hint))
        log_prob_keys = () if log_prob_key is None else (log_prob_key,)
        super().__init__(module, in_keys=in_keys, out_keys=(*names, action_key, *log_prob_keys))
        self.distribution = distribution
        self.parameter_names = names
        self.action_key = action_key
        self.log_prob_key = log_prob_key
        self.generator = generator

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        parameters = self._results(tensordict, len(self.parameter_names))
        distribution = self.distribution(*parameters)
        choice = CHOICES.get(exploration_type())
        if choice is not None:
            action = getattr(distribution, choice)
            log_prob = None if self.log_prob_key is None else distribution.log_prob(action)
        elif self.log_prob_key is None:
            action, log_prob = distribution.sample(self.generator), None
        else:
            action, log_prob = distribution.sample_and_log_prob(self.generator)
        for name, parameter in zip(self.parameter_names, parameters, strict=True):
            write(tensordict, name, parameter)
        write(tensordict, self.action_key, action)
        if log_prob is not None:
            write(tensordict, self.log_prob_key, log_prob)
        return tensordict

    def build(self, tensordict: TensorDictBase) -> Distribution:
        """Return the distribution for the observations in ``tensordict``, with gradient; nothing is sampled or written.

        A loss asks it for ``log_prob(batch["action"])`` and ``entropy()``.
        """
        return self.distribution(*self._results(tensordict, len(self.parameter_names)))
