"""Devices by name, and a clear word for those that are not there."""

import re

import pytest
import torch
from tensordict import TensorDict

from cases.devices import needs_cuda
from sources import ROOT
from torchrl.devices import available_devices, find_device, to_device
from torchrl.errors import ConfigError


def test_the_cpu_is_always_there():
    assert available_devices()[0] == "cpu" and find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:63", "nonsense", "meta"])
def test_what_is_absent_is_refused_with_a_list_of_what_is_there(name):
    with pytest.raises(ConfigError, match=f"one of {', '.join(available_devices())}, got {name}"):
        find_device(name)


@needs_cuda
def test_cuda_without_an_index_is_the_first():
    assert find_device("cuda") == torch.device("cuda:0")


def transitions():
    return TensorDict({"observation": torch.ones(3), "next": {"reward": torch.ones(3, 1)}}, [3])


def test_transitions_that_are_there_already_are_not_copied():
    batch = transitions()
    assert to_device(batch, torch.device("cpu")) is batch
    unrewarded = batch.exclude(("next", "reward"))
    assert to_device(unrewarded, torch.device("cpu")) is unrewarded


@needs_cuda
def test_transitions_go_to_a_gpu_and_back():
    there = to_device(transitions(), torch.device("cuda:0"))
    assert there["observation"].is_cuda and there["next", "reward"].is_cuda
    assert (to_device(there, torch.device("cpu")) == transitions()).all()


def test_whatever_needs_a_gpu_is_marked_so():
    """``make gpu`` selects by the marker: no test may ask for a GPU in words of its own."""
    own = r"skipif\(not torch\.cuda|\[\"cuda\"\] if|param\(\"cuda"
    tests = ROOT / "tests"
    asking = [path.name for path in tests.rglob("*.py") if re.search(own, path.read_text(encoding="utf-8"))]
    assert asking == ["devices.py"]
