"""Inputs that a network cannot take: the message names the network, what came, and the transform to write."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import SpecError
from torchrl.modules import (
    MLP,
    Actor,
    Categorical,
    ConvNet,
    DuelingMLP,
    Encoded,
    Operator,
    ProbabilisticActor,
    QValueActor,
    ValueEnsemble,
    ValueOperator,
)

CHOICE = torch.zeros(3, dtype=torch.int64)
NETWORKS = {
    "ProbabilisticActor": lambda: ProbabilisticActor(MLP(4, 2), Categorical),
    "Actor": lambda: Actor(MLP(4, 2)),
    "QValueActor": lambda: QValueActor(DuelingMLP(4, 2)),
    "ValueOperator": lambda: ValueOperator(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))),
    "ValueEnsemble": lambda: ValueEnsemble(lambda: MLP(4, 2), 2, in_keys=["observation"]),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("value", "got", "write"),
    [
        (CHOICE, r"int64 of shape \[3\]", r"OneHotObservation\(\) for choices, ScaleByBounds\(\) for numbers"),
        (torch.zeros(3, 4, dtype=torch.uint8), r"uint8 of shape \[3, 4\]", "ConvNet takes pictures"),
        (torch.zeros(3, 4, dtype=torch.int8), r"int8 of shape \[3, 4\]", r"BitsToFloat\(\) for bits"),
        (torch.zeros(3, 4, dtype=torch.bool), r"bool of shape \[3, 4\]", r"BitsToFloat\(\)\) makes"),
        (torch.zeros(3, 4, dtype=torch.float64), r"float64 of shape \[3, 4\]", r"DoubleToFloat\(\)\) makes"),
        (torch.zeros(3, 4, dtype=torch.float16), r"float16 of shape \[3, 4\]", r"DoubleToFloat\(\)\) makes"),
        (torch.zeros(3, 4, dtype=torch.bfloat16), r"bfloat16 of shape \[3, 4\]", r"\.to\(torch\.float32\)"),
    ],
)
def test_another_dtype_is_named_with_what_to_write(name, value, got, write):
    due = r"expected float32, as the weights of its \w+ are"
    message = rf"^{name} of '\w+': {due}, got {got} in 'observation'\. .*{write}"
    with pytest.raises(SpecError, match=message):
        NETWORKS[name]()(TensorDict({"observation": value}, [3]))


def test_an_mlp_alone_says_it_as_well():
    with pytest.raises(SpecError, match=r"^MLP: .* got int64 of shape \[3\] in 'input 0'.*OneHotObservation"):
        MLP(4, 2)(CHOICE)
    with pytest.raises(SpecError, match=r"^MLP: expected float32, .* got int64 of shape \[3\] in 'input 0'"):
        MLP(None, 2)(CHOICE)


def test_an_action_that_is_a_number_of_a_choice_is_no_input_of_a_critic():
    critics = ValueEnsemble(lambda: MLP(5, 1), 2)
    rows = TensorDict({"observation": torch.zeros(3, 4), "action": CHOICE}, [3])
    with pytest.raises(
        SpecError, match=r"^ValueEnsemble of 'state_action_value': .*a discrete action has in its one-hot form only"
    ):
        critics(rows)


def image(size):
    return torch.zeros(1, 1, size, size, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("network", "value", "error", "message"),
    [
        (nn.Embedding(2, 3), torch.tensor([5]), IndexError, "index out of range"),
        (
            Encoded(ConvNet(1), MLP(64, 2)),
            image(44),
            RuntimeError,
            "cannot be multiplied",
        ),
        (ConvNet(1), torch.zeros(1, 1, 9, 9, dtype=torch.uint8), SpecError, "^ConvNet: .*9 × 9 pixels"),
        (
            ConvNet(1),
            torch.zeros(1, 1, 40, 40, dtype=torch.int64),
            SpecError,
            "^ConvNet: expected images of floats or uint8",
        ),
    ],
)
def test_another_reason_to_fail_is_not_covered(network, value, error, message):
    with pytest.raises(error, match=message):
        Operator(network, in_keys=["x"], out_keys=["y"])(TensorDict({"x": value}, value.shape[:1]))


def test_a_failure_inside_keeps_its_own_error():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            raise RuntimeError("its own")

    with pytest.raises(RuntimeError) as failed:
        Operator(Broken(), in_keys=["x"], out_keys=["y"])(TensorDict({"x": torch.zeros(1, 2)}, [1]))
    assert str(failed.value) == "its own"
