"""The error for an input whose dtype a network cannot take, found after a failure: a good call pays nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from torchrl.data.specs.base import dtype_name
from torchrl.errors import SpecError, explain
from torchrl.keys import Key, as_path
from torchrl.modules.models.image_encoder import ImageEncoder

# What takes other numbers than its weights are.
_OTHERS = (nn.Embedding, nn.EmbeddingBag, ImageEncoder)


class Misfit(SpecError):
    """Raised where a network's input has another dtype than its weights; an operator raises it again with the key."""


def misfit(who: str, network: nn.Module, inputs: Mapping[Key, torch.Tensor]) -> Misfit | None:
    """Return the error to raise where a network failed because of an input's dtype; None where dtypes fit.

    Args:
        who: the part that complains, with the network's name.
        network: the network that failed.
        inputs: its inputs, by their names for the message.
    """
    first = next((part for part in network.modules() if isinstance(part, _OTHERS) or part._parameters), None)
    if first is None or isinstance(first, _OTHERS):
        return None
    due = next((value.dtype for value in first.parameters() if value.dtype.is_floating_point), None)
    for key, value in inputs.items():
        is_action = as_path(key)[-1] == "action"  # a critic joins it, whatever its dtype
        if due is not None and value.dtype is not due and not is_action:
            got = f"{dtype_name(value.dtype)} of shape {list(value.shape)} in {key!r}"
            expected = f"{dtype_name(due)}, as the weights of its {type(network).__name__} are"
            return Misfit(explain(who, expected=expected, got=got, hint=_transform_for(value.dtype, due)))
    return None


def _transform_for(dtype: torch.dtype, due: torch.dtype) -> str:
    """Return a hint: the environment transform that turns an entry of ``dtype`` into one of ``due``."""
    if dtype in (torch.float64, torch.float16) and due is torch.float32:
        return "TransformedEnv(env, DoubleToFloat()) makes it float32."
    if dtype.is_floating_point:
        return f"Convert one of them: .to({due})."
    if dtype is torch.bool:
        return "TransformedEnv(env, BitsToFloat()) makes numbers of flags."
    ways = "OneHotObservation() for choices, ScaleByBounds() for numbers, BitsToFloat() for bits"
    return f"Write TransformedEnv(env, ...) with {ways}; ConvNet takes pictures of bytes."
