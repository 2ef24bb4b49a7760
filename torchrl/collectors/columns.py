"""Entries of many places, of which some are written and read at a time: the memory of simulators out of step."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.envs.stepping import another_layout
from torchrl.layouts import layout_of
from torchrl.unchecked import new_tensordict


class Columns:
    """Hold N places of the entries of a TensorDict, each entry in one tensor; write some places, read some.

    >>> columns = Columns("docs", TensorDict({"reward": torch.zeros(2, 1)}, [2]), 5)
    >>> columns.write_(TensorDict({"reward": torch.tensor([[1.0], [2.0]])}, [2]), torch.tensor([4, 1]))
    >>> columns.read(torch.tensor([[1, 4]]))["reward"].squeeze(-1)
    tensor([[2., 1.]])

    Args:
        who: writes, for errors.
        example: ``[n]``, with the keys, shapes and dtypes of what will be written.
        num_places: N.
    """

    def __init__(self, who: str, example: TensorDictBase, num_places: int) -> None:
        self._who, self._example = who, example[:1].clone()
        self._layout = layout_of(self._example, batch_dims=1)
        self._memory = self._example.apply(lambda x: x.new_zeros(num_places, *x.shape[1:]), batch_size=[num_places])

    def write_(self, entries: TensorDictBase, places: torch.Tensor) -> None:
        """Write entries ``[n]`` into places, int64 ``[n]``, none of them twice.

        Raises:
            SpecError: other keys, shapes or dtypes than those of the example.
        """
        if layout_of(entries, batch_dims=1) != self._layout:
            raise another_layout(self._who, entries[:1], self._example)
        _write(self._memory, entries, places)

    def read(self, places: torch.Tensor) -> TensorDict:
        """Return a copy of the entries at places, int64 of any shape."""
        return _read(self._memory, places)


def _write(memory: TensorDict, entries: TensorDictBase, places: torch.Tensor) -> None:
    for key, value in memory.items():
        if isinstance(value, TensorDict):
            _write(value, entries.get(key), places)
        else:
            value.index_copy_(0, places, entries.get(key))


def _read(memory: TensorDict, places: torch.Tensor) -> TensorDict:
    flat, entries = places.reshape(-1), {}
    for key, value in memory.items():
        if isinstance(value, TensorDict):
            entries[key] = _read(value, places)
        else:
            entries[key] = value.index_select(0, flat).reshape(*places.shape, *value.shape[1:])
    return new_tensordict(entries, places.shape)
