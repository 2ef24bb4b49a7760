"""What the tests of replay share: storages of every kind, each in a folder of its own."""

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
def storage_of(tmp_path):
    """Make storages by their kind and capacity; they are closed when the test ends."""
    made = []

    def make(kind, capacity):
        made.append(STORAGES[kind](capacity, tmp_path / f"replay-{len(made)}"))
        return made[-1]

    yield make
    for storage in made:
        storage.close()
