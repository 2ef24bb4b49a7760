"""What the tests of replay share: storages of every kind, each in a folder of its own."""

import itertools

import pytest

from torchrl.data.replay import ListStorage, MemmapStorage, StackedFrames, TensorStorage

STORAGES = {
    "list": lambda capacity, folder: ListStorage(capacity),
    "tensor": lambda capacity, folder: TensorStorage(capacity),
    "frames": lambda capacity, folder: TensorStorage(
        capacity, frames=StackedFrames("observation", num_frames=1, dim=-1)
    ),
    "memmap": MemmapStorage,
}


@pytest.fixture
def storage_of(tmp_path, keep):
    """Make storages by their kind and capacity; they are closed when the test ends."""
    numbers = itertools.count()
    return lambda kind, capacity: keep(STORAGES[kind](capacity, tmp_path / f"replay-{next(numbers)}"))
