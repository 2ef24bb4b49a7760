"""Actors: modules that read the observation of a TensorDict and write an action into it, computed or drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.errors import ConfigError, explain
from torchrl.keys import Key
from torchrl.modules.distributions.base import Distribution, trait
from torchrl.modules.exploration import ExplorationType, exploration_type
from torchrl.modules.families import require_bounds, require_family, spec_at
from torchrl.modules.models.heads import TanhHead
from torchrl.modules.operator import Operator, accept_tensors, read, write
from torchrl.modules.randomness import keep_module_state, keep_randomness

if TYPE_CHECKING:
    from torchrl.data.specs import TensorSpec

# What a distribution is asked for, by exploration type; the types that are not here sample.
CHOICES = {
    ExplorationType.DETERMINISTIC: "mode",
    ExplorationType.MODE: "mode",
    ExplorationType.MEAN: "mean",
    ExplorationType.MEDIAN: "median",
}


class Actor(Operator):
    """Write the action that ``module`` computes from the observation: a deterministic policy.

    >>> Actor(MLP(4, 2))(env.reset())["action"].shape
    torch.Size([2, 2])

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

    def require_fit(self, action_spec: TensorSpec, tensordict: TensorDictBase | None = None) -> None:
        """Refuse a :class:`TanhHead` whose bounds exceed those of one row's ``action_spec``; warn of narrower bounds.

        Raises:
            SpecError: naming the bounds to write.
        """
        spec = spec_at(action_spec, self.action_key)
        heads = [part for part in self.module.modules() if isinstance(part, TanhHead)]
        if spec is not None and heads:
            require_bounds("TanhHead", heads[-1].bounds, spec)


class ProbabilisticActor(Operator):
    """Build an action distribution from a module's output, choose an action, and write it with its log-probability.

    >>> from torchrl.modules import Categorical
    >>> root = ProbabilisticActor(MLP(4, 2), Categorical)(env.reset())
    >>> root["action"].shape, root["action_log_prob"].shape
    (torch.Size([2]), torch.Size([2]))

    Writes the parameters under the distribution's ``parameter_names`` (``logits``, or ``loc`` and ``scale``), the
    action and its log-probability ``[*B]``. The exploration type decides: sampling outside of any context and under
    ``RANDOM``; ``DETERMINISTIC`` and ``MODE`` take the mode, ``MEAN`` and ``MEDIAN`` what they say, or raise where
    the family has none. The keys written are always the same ones. Meant to be called under ``torch.no_grad()`` when
    collecting.

    An action of several named parts is a TensorDict under ``action_key``, from a :class:`CompositeDistribution`, whose
    parameters are written under nested keys such as ``("steer", "logits")``.

    Args:
        module: observation(s) to the parameters: a tensor, or a tuple in the order of ``parameter_names``.
        distribution: a :class:`Distribution` class, or a ``functools.partial`` of one.
        in_keys: entries that ``module`` is called with.
        action_key: where the action goes: an index, int64 ``[*B]``, or a vector ``[*B, A]``.
        log_prob_key: where its log-probability goes, ``[*B]``; None leaves it out.
        mask_key: entry that says which actions are legal, ``env.action_mask_key``: ``[*B, n]``, true = legal, bool or 0
            and 1 of any dtype, or a TensorDict of masks for the parts of a nested action. It joins ``in_keys``; the
            distribution gets it, the module does not. None for actions that are always legal.
        generator: source of the samples; None uses torch's global one, the only one that ``torch.compile`` takes
            (torch 2.13). A copy of the actor has a copy of the generator in its present state: give each copy that acts
            beside this one a generator of its own.

    Raises:
        ConfigError: ``distribution`` names no parameters, takes no mask or cannot do without one, or (from a call) the
            module returns another number of tensors.
        KeyMissing: from a call, an entry to read is not there.
    """

    def __init__(
        self,
        module: nn.Module,
        distribution: Callable[..., Distribution],
        *,
        in_keys: Iterable[Key] = ("observation",),
        action_key: Key = "action",
        log_prob_key: Key | None = "action_log_prob",
        mask_key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        names = trait(distribution, "parameter_names")
        _require_family(distribution, names, mask_key)
        log_prob_keys = () if log_prob_key is None else (log_prob_key,)
        super().__init__(module, in_keys=in_keys, out_keys=(*names, action_key, *log_prob_keys))
        if mask_key is not None and mask_key not in self.in_keys:
            self.in_keys = [*self.in_keys, mask_key]
        self.distribution = distribution
        self.parameter_names = names
        self.action_key = action_key
        self.log_prob_key = log_prob_key
        self.mask_key = mask_key
        self.generator = generator

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        parameters = self._results(tensordict, len(self.parameter_names))
        distribution = self._distribution(parameters, tensordict)
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
        return self._distribution(self._results(tensordict, len(self.parameter_names)), tensordict)

    def require_fit(self, action_spec: TensorSpec, tensordict: TensorDictBase) -> None:
        """Raise if the distribution gives other actions than one row's ``action_spec`` describes; no state changes.

        Args:
            action_spec: without batch dimensions.
            tensordict: a root to build the distribution for, ``[*B]``.

        Raises:
            SpecError: another family, or another number of choices or dimensions; it names what fits.
        """
        spec = spec_at(action_spec, self.action_key)
        if spec is not None:
            with torch.no_grad(), keep_randomness(self), keep_module_state(self):
                distribution = self.build(tensordict)
            require_family(type(self).__name__, distribution, spec)

    def _distribution(self, parameters: tuple[torch.Tensor, ...], tensordict: TensorDictBase) -> Distribution:
        if self.mask_key is None:
            return self.distribution(*parameters)
        (mask,) = read(tensordict, (self.mask_key,), "ProbabilisticActor(mask_key=...)")
        return self.distribution(*parameters, mask=mask)


def _require_family(distribution: Callable[..., Distribution], names: tuple[Key, ...], mask_key: Key | None) -> None:
    """Refuse a class that is no :class:`Distribution`, a mask for a family that takes none, and a missing mask.

    Raises:
        ConfigError: saying which.
    """
    who, got = "ProbabilisticActor", getattr(distribution, "func", distribution)
    if not names:
        hint = "Distributions of torchrl.modules.distributions have them; those of torch do not."
        if getattr(got, "__module__", "").startswith("torchrl.data.specs"):
            hint = f"That is a spec, which describes actions; the distribution is torchrl.modules.{got.__name__}."
        raise ConfigError(explain(who, expected="a distribution with parameter_names", got=repr(got), hint=hint))
    if mask_key is not None and not trait(distribution, "takes_mask"):
        hint = "MaskedCategorical, MaskedOneHotCategorical and MultiCategorical do."
        raise ConfigError(explain(who, expected="a distribution that takes a mask", got=repr(got), hint=hint))
    if mask_key is None and trait(distribution, "needs_mask"):
        hint = "It is the environment's `action_mask_key`."
        raise ConfigError(explain(who, expected=f"a mask_key for {got!r}", got=None, hint=hint))
