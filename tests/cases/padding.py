"""What must not be seen, in the rows of a batch that a mask rules out."""

import torch

MASK = ("collector", "mask")


def poisoned(batch, mask):
    """Return a copy whose masked rows hold NaN, true flags and odd integers, under the mask."""
    batch = batch.clone()
    for key, value in batch.items(True, True):
        if key != MASK:
            value[~mask] = float("nan") if value.is_floating_point() else (True if value.dtype is torch.bool else 77)
    return batch.set(MASK, mask.clone())
