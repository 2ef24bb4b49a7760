"""Prepare a batch for a buffer: which steps are valid, in which order they become items, which step each one follows.

The order of items for a batch ``[B, T]`` without a mask, and with one that leaves a step out::

    row a   a0 a1 a2                a0 a1 --      a mask leaves out the last step of row a
    row b   b0 b1 b2                b0 b1 b2

    items   a0 b0 a1 b1 a2 b2       a0 a1 b0 b1 b2
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl.data.replay.lanes import Lanes, Links
from torchrl.data.replay.records import values_of
from torchrl.errors import KeyMissing, SpecError, explain

FACTS = "replay"
MASK = ("collector", "mask")


class Incoming:
    """Present a batch to a buffer: its valid steps in the order of writing, and which step each one follows.

    Where a batch has ``is_init``, its last dimension is time; else ``[N]`` are N rows of one step each. Without a mask
    the steps of all rows at one time are written side by side, so that a step's predecessor lies B places before it,
    however short the batches are; where the mask leaves a step out, the rows are written one behind the other.

    Args:
        batch: N transitions ``[N]``, or ``[*B, T]``.

    Raises:
        SpecError: ``batch`` has another shape or is no TensorDict.
    """

    def __init__(self, batch: TensorDictBase) -> None:
        if not isinstance(batch, TensorDictBase) or not batch.batch_dims:
            is_one = isinstance(batch, TensorDictBase)
            got = f"one of batch size {list(batch.batch_size)}" if is_one else type(batch).__name__
            raise SpecError(explain("extend", expected="a TensorDict of batch size [N] or [*B, T]", got=got))
        if batch.batch_dims == 1:
            batch = batch.unsqueeze(0 if "is_init" in batch.keys() else 1)
        elif batch.batch_dims > 2:
            batch = batch.reshape(-1, batch.batch_size[-1])
        self.shape = batch.batch_size
        self.values = {key: value for key, value in values_of(batch).items() if key[0] != FACTS}
        mask = self.values.pop(MASK, None)
        self._mask = None if mask is None or bool(mask.all()) else mask.cpu()
        self.num = self.shape.numel() if self._mask is None else int(self._mask.sum())

    @property
    def is_masked(self) -> bool:
        """Whether the mask leaves a step out; false for a mask that is true everywhere."""
        return self._mask is not None

    def steps(self, keys: Iterable[tuple[str, ...]] | None = None) -> dict[tuple[str, ...], Tensor]:
        """Return the entries ``keys`` (None: all) of the valid steps, ``[B, T, ...]``; not copied where all are valid.

        Where the mask leaves a step out they are ``[n, ...]``, row by row; a mask that is true everywhere counts as
        none.
        """
        values = self.values if keys is None else {key: self.values[key] for key in keys}
        if self._mask is None:
            return values
        return {key: value[self._mask.to(value.device)] for key, value in values.items()}

    def flat(self, keys: Iterable[tuple[str, ...]] | None = None) -> dict[tuple[str, ...], Tensor]:
        """Return the entries ``keys`` (None: all) of the n valid steps in the order of writing, ``[n, ...]``."""
        steps = self.steps(keys)
        return steps if self.is_masked else {key: value.transpose(0, 1).flatten(0, 1) for key, value in steps.items()}

    def links(self, lanes: Lanes, first: int) -> Links:
        """Return which step each valid step follows; the steps get ids from ``first`` on, in the order of writing."""
        num_rows, num_steps = self.shape
        starts = self.values.get(("is_init",))
        if starts is None:
            return Links.none(self.num)
        if self._mask is None:
            ids = np.arange(first, first + self.num).reshape(num_steps, num_rows).T
        else:
            counts = self._mask.numpy()
            ids = np.where(counts, first - 1 + counts.reshape(-1).cumsum().reshape(counts.shape), -1)
        done, trajectories = self.values.get(("next", "done")), self.values.get(("collector", "traj_ids"))
        counted = [self.values.get(key) for key in (("episode_length",), ("next", "episode_length"))]
        links = lanes.link(
            ids,
            is_init=self._column(starts),
            done=np.zeros(self.shape, bool) if done is None else self._column(done),
            trajectories=None if trajectories is None else trajectories.cpu().numpy(),
            num_steps=None
            if any(value is None for value in counted)
            else tuple(self._column(value) for value in counted),
            are_masked=self.is_masked,
        )
        return Links(*[column.T.reshape(-1) if self._mask is None else column[counts] for column in links])

    def _column(self, value: Tensor) -> np.ndarray:
        """Return a tensor ``[B, T, 1]`` as a numpy array ``[B, T]``."""
        return value.cpu().numpy().reshape(self.shape)


def items_of(which: TensorDictBase | Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the places and ids of a sample's items; for a tensor of places, return the places, and None.

    A sample of slices stands for the last step of each slice, ``("replay", "last")``.

    Raises:
        KeyMissing: a TensorDict without these entries.
    """
    if not isinstance(which, TensorDictBase):
        return torch.as_tensor(which).reshape(-1).cpu().numpy().astype(np.int64), None
    facts = which.get(FACTS, None)
    if facts is None:
        raise KeyMissing(explain("update_priority", expected='a sample, with the key "replay"', got="none"))
    index, ids = facts.get("index").cpu().numpy(), facts.get("id").cpu().numpy()
    last = facts.get("last", None)
    if last is None:
        return index.reshape(-1), ids.reshape(-1)
    places = last[..., 0].cpu().numpy()
    return places, np.take_along_axis(ids, (index == places[:, None]).argmax(1)[:, None], 1)[:, 0]
