"""Critics: from a TensorDict's observation to a value."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from torchrl.modules.operator import Key, Operator


class ValueOperator(Operator):
    """Write the value that ``module`` computes.

    Args:
        module: observation(s) ``[*B, F]`` to value ``[*B, 1]``.
        in_keys: entries to read.
        out_keys: entries to write, the value first.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        in_keys: Iterable[Key] = ("observation",),
        out_keys: Iterable[Key] = ("state_value",),
    ) -> None:
        super().__init__(module, in_keys=in_keys, out_keys=out_keys)
