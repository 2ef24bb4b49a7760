"""Layers whose output depends on the training mode: found, switched for acting, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from torchrl.errors import ConfigError, explain
from torchrl.modules.models.batch_renorm import BatchRenorm


def training_layers(module: object) -> dict[str, nn.Module]:
    """Find the layers of a module, by path, whose output depends on the training mode.

    Dropout of any kind, batch and instance norms with running statistics, ``RReLU``, :class:`BatchRenorm`, and
    recurrent and attention layers with a dropout. Not :class:`NoisyLinear`, whose noise is meant for acting.
    """
    parts = module.named_modules() if isinstance(module, nn.Module) else ()
    return {path: part for path, part in parts if _depends_on_mode(part)}


@contextmanager
def acting_mode(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Switch layers to eval mode inside the context, and give each its former mode back on exit."""
    flags = [layer.training for layer in layers]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer, flag in zip(layers, flags, strict=True):
            layer.training = flag


def require_repeatable(who: str, actor: nn.Module) -> None:
    """Refuse an actor with dropout or batch norm in training mode: its log-probs would not be those it acted with.

    Raises:
        ConfigError: naming the layers in training mode.
    """
    layers = [f"{type(layer).__name__} at {path!r}" for path, layer in training_layers(actor).items() if layer.training]
    if layers:
        hint = (
            "Policies act in eval mode. Take nn.LayerNorm for a batch norm and weight decay for dropout, keep such "
            "layers to the critic, or freeze them by .eval()."
        )
        expected = "an actor that computes the log-probs of a batch as they were when it acted"
        raise ConfigError(explain(who, expected=expected, got=", ".join(layers), hint=hint))


def _depends_on_mode(layer: nn.Module) -> bool:
    if isinstance(layer, _DropoutNd):
        return layer.p > 0
    if isinstance(layer, _NormBase):
        return layer.track_running_stats
    if isinstance(layer, (nn.RNNBase, nn.MultiheadAttention)):
        return layer.dropout > 0
    return isinstance(layer, (nn.RReLU, BatchRenorm))
