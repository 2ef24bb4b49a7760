"""Devices by name, and a clear word for those that are not there."""

import pytest
import torch

from torchrl.devices import available_devices, checked_device
from torchrl.errors import ConfigError


def test_the_cpu_is_always_there():
    assert available_devices()[0] == "cpu" and checked_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:63", "nonsense", "meta"])
def test_what_is_absent_is_refused_with_a_list_of_what_is_there(name):
    with pytest.raises(ConfigError, match=f"one of {', '.join(available_devices())}, got {name}"):
        checked_device(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_without_an_index_is_the_first():
    assert checked_device("cuda") == torch.device("cuda:0")
