"""Critics: from a TensorDict's observation, or observation and action, to a value."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from torchrl.keys import Key, as_path, key_list
from torchrl.modules.operator import Operator


class ValueOperator(Operator):
    """Write the value that ``module`` computes of a state, or of a state and an action.

    >>> ValueOperator(MLP(4, 1))(env.reset())["state_value"].shape
    torch.Size([2, 1])

    Args:
        module: observation(s) ``[*B, F]``, or observation and action, to value ``[*B, 1]``.
        in_keys: entries to read.
        out_keys: entries to write, the value first; None is ``state_action_value`` where ``"action"`` is read, alone or
            inside a nested key, and ``state_value`` elsewhere.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        in_keys: Iterable[Key] = ("observation",),
        out_keys: Iterable[Key] | None = None,
    ) -> None:
        in_keys = key_list("ValueOperator(in_keys=...)", in_keys)
        if out_keys is None:
            out_keys = ["state_action_value" if reads_action(in_keys) else "state_value"]
        super().__init__(module, in_keys=in_keys, out_keys=out_keys)


def reads_action(keys: Iterable[Key]) -> bool:
    """Answer whether one of the keys is ``"action"``, or a nested key with ``"action"`` in it."""
    return any("action" in as_path(key) for key in keys)
