"""What an object in another process is built from is copied there, but for what lies in shared memory."""

import numpy as np
import pytest
import torch
from torch import nn

from torchrl.processes.children import START_METHODS
from torchrl.processes.remote import RemoteObject
from torchrl.processes.shared_tensors import parcel_of

pytestmark = pytest.mark.usefixtures("leaves_nothing")
SERVE = "torchrl.collectors.hosting:serve"  # a process that has imported torch


class Holder:
    COMMANDS = frozenset({"add", "describe", "is_one"})

    def __init__(self, *values):
        self.values = values

    def add(self, number):
        for value in self.values:
            for tensor in value.state_dict().values() if isinstance(value, nn.Module) else [value]:
                tensor += number

    def describe(self):
        return [(type(value).__name__, getattr(value, "requires_grad", None)) for value in self.values]

    def is_one(self):
        return self.values[0] is self.values[1]


@pytest.fixture
def hold():
    remotes = []

    def hold(*values, method="forkserver", **options):
        remotes.append(RemoteObject("holder", SERVE, Holder, *values, start_method=method, parcel_of=parcel_of))
        remotes[-1].answer(600)
        return remotes[-1]

    yield hold
    for remote in remotes:
        remote.close()


@pytest.mark.parametrize("method", START_METHODS)
def test_what_is_shared_stays_shared_and_the_rest_is_copied(hold, method, tmp_path):
    whole = torch.arange(12.0).share_memory_()
    view = whole.view(3, 4).T[1:, ::2]  # other shape, strides and offset
    module = nn.Linear(2, 1, bias=False).share_memory()
    before = module.weight.detach().clone()
    memmap = np.memmap(tmp_path / "numbers", np.int64, "w+", shape=(2, 2))
    copied, array = torch.zeros(2), np.zeros(2)
    hold(view, module, memmap, copied, array, method=method).call("add", 1, timeout_s=600)
    assert whole.tolist() == [0, 2, 3, 4, 4, 5, 6, 7, 8, 10, 11, 12]
    assert torch.equal(module.weight, before + 1)
    assert memmap.tolist() == [[1, 1], [1, 1]]
    assert copied.tolist() == [0, 0] and array.tolist() == [0, 0]


def test_a_parameter_stays_one_and_an_object_that_comes_twice_is_one(hold):
    weight = nn.Parameter(torch.zeros(2)).share_memory_()
    remote = hold(weight, weight)
    assert remote.call("describe", timeout_s=600) == [("Parameter", True)] * 2
    assert remote.call("is_one", timeout_s=600)


def test_more_tensors_than_the_kernel_sends_open_files_at_once(hold):
    tensors = [torch.zeros(()).share_memory_() for _ in range(450)]
    hold(*tensors).call("add", 2, timeout_s=600)
    assert {tensor.item() for tensor in tensors} == {2}
