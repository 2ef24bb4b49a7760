"""LSTM and GRU: torch's own numbers, the fused sequence against the step loop, resets, one graph under compile."""

from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.modules import GRU, LSTM, Categorical, ProbabilisticActor, Sequence
from torchrl.modules.recurrent import insert_resets

CELLS = {"LSTM": LSTM, "GRU": GRU, "LSTM of 2": partial(LSTM, num_layers=2), "GRU of 2": partial(GRU, num_layers=2)}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(params=CELLS)
def cell(request):
    return CELLS[request.param]


def inputs(module, num_rows, num_steps, *, probability=0.3, dtype=torch.float32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, num_steps, module.cells[0].input_size, generator=draw, dtype=dtype)
    state = torch.randn(num_rows, *module.state_shape, generator=draw, dtype=dtype)
    return x, state, torch.rand(num_rows, num_steps, generator=draw) < probability


def results(module, unroll, x, state, is_init, weight):
    """Features, and the gradients of a weighted sum of them: of inputs, of the state, of every parameter."""
    x, state = x.clone().requires_grad_(), state.clone().requires_grad_()
    features = unroll(x, state, is_init)
    wanted = [x, state, *module.parameters()]
    return [features.detach(), *torch.autograd.grad((features * weight).sum(), wanted, allow_unused=True)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("is_learned", [False, True], ids=["zero", "learned"])
def test_the_fused_sequence_is_the_step_loop(cell, is_learned, probability, dtype):
    torch.manual_seed(0)
    module = cell(3, 5, learn_initial_state=is_learned).to(dtype)
    if is_learned:
        nn.init.normal_(module.initial)
    for num_rows, num_steps in ((4, 9), (1, 1), (3, 1), (1, 20)):
        given = inputs(module, num_rows, num_steps, probability=probability, dtype=dtype)
        weight = torch.randn(num_rows, num_steps, 5, dtype=dtype)
        fused = results(module, module.unroll, *given, weight)
        looped = results(module, module.unroll_stepwise, *given, weight)
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(fused, looped, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_without_resets_it_is_torchs_module(kind):
    module = CELLS[kind](3, 5, num_layers=2)
    x, state, _ = inputs(module, 4, 7)
    starts = [part.transpose(0, 1).contiguous() for part in state.unbind(2)]
    expected = getattr(nn, kind)(3, 5, 2, batch_first=True)
    layers = enumerate(module.cells)
    expected.load_state_dict({f"{name}_l{i}": x for i, cell in layers for name, x in cell.state_dict().items()})
    outputs, _ = expected(x, starts if kind == "LSTM" else starts[0])
    none = torch.zeros(4, 7, dtype=torch.bool)
    torch.testing.assert_close(module.unroll(x, state, none), outputs)


def test_a_step_is_torchs_cell():
    module, reference = LSTM(3, 5), nn.LSTMCell(3, 5)
    reference.load_state_dict(module.cells[0].state_dict())
    x, state, _ = inputs(module, 4, 1)
    features, following = module.step(x[:, 0], state)
    hidden, cell = reference(x[:, 0], (state[:, 0, 0], state[:, 0, 1]))
    torch.testing.assert_close((features, following), (hidden, torch.stack([hidden, cell], 1).unsqueeze(1)))


def test_the_forget_gates_of_an_lstm_start_more_open_than_torchs():
    torch.manual_seed(0)
    module = LSTM(3, 16, num_layers=2)
    for cell in module.cells:
        means = [part.mean().item() for part in cell.bias_ih.chunk(4)]
        assert means == pytest.approx([0, 1, 0, 0], abs=0.15)  # torch's are uniform in ± 0.25


def test_nothing_passes_an_ending_neither_value_nor_gradient(cell):
    module = cell(3, 5)
    x, state, is_init = inputs(module, 2, 8, probability=0.0)
    is_init[:, 4] = True
    x.requires_grad_(), state.requires_grad_()
    features = module.unroll(x, state, is_init)
    from_zero = module.unroll(x[:, 4:], torch.zeros_like(state), is_init[:, 4:] & False)
    torch.testing.assert_close(features[:, 4:], from_zero, rtol=0, atol=1e-7)
    of_x, of_state = torch.autograd.grad(features[:, 4:].sum(), (x, state))
    assert (of_x[:, :4] == 0).all() and (of_state == 0).all() and (of_x[:, 4:] != 0).any()


def test_places_of_steps_by_hand():
    place, length = insert_resets(torch.tensor([[False, True, False], [True, False, False]]))
    assert length == 4  # the first row has a reset before its second step; at a first step there is none
    assert place.tolist() == [[0, 1], [4, 3], [6, 5]]


def test_huge_weights_do_not_open_a_shut_gate(cell):
    torch.manual_seed(0)
    module = cell(3, 5).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(50)
    x, state, is_init = inputs(module, 3, 12, dtype=torch.float64)
    torch.testing.assert_close(module.unroll(x, state, is_init), module.unroll_stepwise(x, state, is_init))


@pytest.mark.parametrize("form", ["step", "sequence"])
def test_each_form_is_one_graph(cell, form):
    module = cell(3, 4)
    head = ProbabilisticActor(nn.Linear(4, 2), Categorical, in_keys=["hidden"], log_prob_key=None)
    policy = Sequence(module, head)
    x, state, is_init = inputs(module, 2, 5)
    data = TensorDict({"observation": x, "memory": state.unsqueeze(1).expand(2, 5, *module.state_shape)}, [2, 5])
    data["is_init"] = is_init.unsqueeze(-1)
    data = data[:, 0] if form == "step" else data
    torch._dynamo.reset()
    compiled = torch.compile(policy, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    expected = policy(data.clone())
    torch.testing.assert_close(compiled(data.clone())["logits"], expected["logits"])


def test_saved_and_loaded_it_computes_the_same(cell, tmp_path):
    one, other = cell(3, 4, learn_initial_state=True), cell(3, 4, learn_initial_state=True)
    torch.save(one.state_dict(), tmp_path / "cell.pt")
    other.load_state_dict(torch.load(tmp_path / "cell.pt", weights_only=True))
    given = inputs(one, 2, 5)
    assert torch.equal(one.unroll(*given), other.unroll(*given))
