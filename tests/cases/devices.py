"""What marks a test that needs a GPU: ``make gpu`` selects all of them by the marker ``cuda``."""

import pytest
import torch

_WITH_GPU = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
CUDA = pytest.param("cuda", marks=_WITH_GPU)
FIRST_GPU = pytest.param("cuda:0", marks=_WITH_GPU)  # as tensors on it name it
DEVICES = ["cpu", CUDA]  # of ``pytest.mark.parametrize("device", DEVICES)``


def needs_cuda(test):
    """Mark a test that cannot run without a GPU."""
    for mark in _WITH_GPU:
        test = mark(test)
    return test
