"""The report of a loss or gradient that is NaN or infinite: which, where, and what the batch has to do with it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from tensordict import TensorDictBase

from torchrl.errors import NonFiniteError, explain
from torchrl.keys import key_name


def nonfinite_error(
    figures: Mapping[str, float], rows: TensorDictBase, *, step: str, source: str, undone: str
) -> NonFiniteError:
    """Build the error for a gradient step with figures that are NaN or infinite, naming them and the keys at fault.

    Args:
        figures: numbers of the loss, by name; if some ``loss_...`` are NaN or infinite, the error names only those.
        rows: the data of the step; the error names its keys with NaN or infinity.
        step: the step in words, for example ``"update 3"``.
        source: the word for ``rows``, ``"sample"`` or ``"batch"``.
        undone: the word for what was undone, ``"update"`` or ``"batch"``.
    """
    bad = [name for name, number in figures.items() if not math.isfinite(number)]
    bad = [name for name in bad if name.startswith("loss_")] or bad
    keys = [repr(key_name(key)) for key, value in rows.items(True, True) if not bool(torch.isfinite(value).all())]
    hint = f"The {source} itself holds such values under {', '.join(keys)}." if keys else ""
    hint = hint or "Try a smaller learning rate, or clip the gradient."
    got = f"{[figures[name] for name in bad]} in {step}"
    hint = f"{hint} Parameters and optimizer are as they were before this {undone}."
    return NonFiniteError(explain(" and ".join(bad), expected="finite numbers", got=got, hint=hint))
