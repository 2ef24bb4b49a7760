"""Memory without a name: arrays that two maps of one region see alike."""

import os

import numpy as np
import pytest

from torchrl.errors import ProcessError
from torchrl.processes.shared_memory import ALIGNMENT, SharedMemory, size_of


def cut(make):
    return [make((3, 2), np.dtype(np.float32)), make((5,), np.dtype(np.bool_)), make((0, 4), np.dtype(np.int64))]


def test_arrays_are_zeroed_aligned_and_apart():
    memory = SharedMemory(size_of(cut))
    one, two, empty = cut(memory.array)
    assert one.shape == (3, 2) and two.dtype == np.bool_ and empty.shape == (0, 4)
    assert not one.any() and not two.any()
    assert two.ctypes.data - one.ctypes.data == ALIGNMENT  # 24 bytes take a whole line
    one[:] = 1
    assert not two.any()


def test_size_is_what_the_arrays_take():
    assert size_of(cut) == 2 * ALIGNMENT
    assert size_of(lambda make: make((17,), np.dtype(np.float64))) == 3 * ALIGNMENT


def test_two_maps_of_one_region_see_the_same_numbers():
    memory = SharedMemory(size_of(cut))
    other = SharedMemory(memory.size, os.dup(memory.descriptor))
    (mine, *_), (theirs, *_) = cut(memory.array), cut(other.array)
    mine[1, 1] = 4.0
    assert theirs.tolist() == [[0, 0], [0, 4], [0, 0]]


def test_arrays_outlive_the_descriptor_and_nothing_has_a_name():
    before = set(os.listdir("/dev/shm"))
    memory = SharedMemory(64)
    array = memory.array((2,), np.dtype(np.int64))
    memory.close()
    memory.close()
    array[:] = 3
    assert array.tolist() == [3, 3] and set(os.listdir("/dev/shm")) == before


def test_memory_that_is_not_there_is_refused():
    with pytest.raises(ProcessError, match="bytes of shared memory"):
        SharedMemory(2**62)
