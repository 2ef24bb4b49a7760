"""The sizes of lazy layers, found by one call on an example before the network is copied or optimised."""

from __future__ import annotations

from typing import TypeVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn
from torch.nn.parameter import is_lazy

from torchrl.errors import ConfigError, explain
from torchrl.modules.exploration import ExplorationType, set_exploration_type

ModuleT = TypeVar("ModuleT", bound=TensorDictModuleBase)


def initialise_lazy_(module: ModuleT, root: TensorDictBase) -> ModuleT:
    """Give every lazy layer inside ``module`` its size and its first weights, by one call on ``root``.

    >>> lazy = initialise_lazy_(ValueOperator(MLP(None, 1)), env.reset())
    >>> lazy.module.layers[0].weight.shape
    torch.Size([64, 4])

    Do this before a loss, an optimiser, a collector or a copy is made. The call draws nothing but the weights, from
    torch's global stream as layers do: it runs without gradient, in eval mode, with deterministic actions, on a shallow
    copy of ``root``. A module without lazy layers is not called. :func:`orthogonal_init_` may follow.

    For a root take ``env.observation_spec.zero()``, which has the keys, shapes and dtypes of one without a reset; or
    reset another environment than that of the training, ``make_env().reset()``, since a reset draws random numbers.

    Args:
        module: reads a root, such as an actor, a critic, or an :class:`ActorValueOperator`, which is both.
        root: observations, ``[*B]``.

    Returns:
        ``module``.

    Raises:
        ConfigError: ``root`` is no TensorDict, or layers that the call does not reach are still lazy.
        KeyMissing: the root lacks an entry that the module reads.
    """
    who = "initialise_lazy_"
    if not isinstance(root, TensorDictBase):
        hint = "Pass what an environment's reset() returns, or its observation_spec.zero()."
        raise ConfigError(explain(who, expected="a TensorDict of observations", got=type(root).__name__, hint=hint))
    if not lazy_tensors(module):
        return module
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            module(root.copy())
    finally:
        for part, flag in flags:
            part.training = flag
    left = lazy_tensors(module)
    if left:
        hint = "Call the parts that hold them as well."
        raise ConfigError(explain(who, expected="a call that reaches every layer", got=f"lazy {left}", hint=hint))
    return module


def lazy_tensors(module: nn.Module) -> list[str]:
    """Return the names of the parameters and buffers that have no size yet."""
    return [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if is_lazy(tensor)]
