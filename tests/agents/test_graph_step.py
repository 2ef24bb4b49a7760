"""A gradient step as one graph equals the eager one, for every loss, and moves nothing before it is told to."""

import copy
import warnings

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.devices import needs_cuda
from cases.losses import CASES, CURIOSITY_LOSSES, VALUE_LOSSES
from torchrl import graphs
from torchrl.agents import FusedAdam, GraphStep, MinibatchEpochs
from torchrl.agents.optimise import clip_grad_norm_
from torchrl.errors import ConfigError
from torchrl.objectives import Loss, total_loss

NAMES = [
    *VALUE_LOSSES,
    *CURIOSITY_LOSSES,
    *(f"ClipPPOLoss, all options of {kind}" for kind in ("tanh", "masked one-hot", "composite")),
    *(f"{name} of discrete" for name in ("A2CLoss", "KLPenaltyPPOLoss", "ReinforceLoss, baseline")),
    "BehaviourCloningLoss, l2 of deterministic",
]


class Square(Loss):
    """Predict a target by a linear layer, and count in a buffer how often it was asked."""

    def __init__(self, **options):
        model = nn.Linear(3, 1, dtype=torch.float64)
        super().__init__(in_keys=["x", "y"], trained=[model])
        self.model = model
        self.spare = nn.Parameter(torch.ones(2))  # of no loss
        self.register_buffer("asked", torch.zeros((), dtype=torch.float64))
        self.options = options

    def terms(self, rows):
        self.asked.add_(1)
        error = self.model(rows["x"]) - rows["y"]
        return {"loss_square": error.square().mean(), "td_error": error.detach().squeeze(-1), "worst": error.amax()}


def rows(num=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, 3, dtype=torch.float64, generator=generator)
    return TensorDict({"x": x, "y": x.sum(-1, keepdim=True) + 1}, [num])


def eager_step(loss, optimizer, batch, *, max_grad_norm=None, max_grad_value=None, **flags):
    """Take a step as it is written by hand; return the terms."""
    optimizer.zero_grad()
    losses = loss(batch, **flags)
    total_loss(losses).backward()
    parameters = loss.trainable_parameters()
    norm = clip_grad_norm_(parameters, max_grad_norm or 1e12)
    if max_grad_value is not None:
        nn.utils.clip_grad_value_(parameters, max_grad_value)
    optimizer.step()
    return {name: value.detach() for name, value in losses.items()} | {"grad_norm": norm}


def assert_same_state(one, other):
    torch.testing.assert_close([*one.parameters()], [*other.parameters()])
    torch.testing.assert_close(dict(one.named_buffers()), dict(other.named_buffers()))


OPTIMIZERS = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "FusedAdam with decay": lambda parameters: FusedAdam(parameters, lr=0.1, weight_decay=0.1, eps=1e-5),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.2, betas=(0.8, 0.9)),
    "AMSGrad": lambda parameters: torch.optim.Adam(parameters, lr=0.1, amsgrad=True),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.1),
}


@pytest.mark.parametrize(
    ("name", "clipping"),
    [("Adam", {}), ("Adam", {"max_grad_value": 0.1}), *((name, {"max_grad_norm": 0.5}) for name in OPTIMIZERS)],
)
def test_steps_are_those_of_each_optimizer_with_and_without_clipping(traced, name, clipping):
    torch.manual_seed(0)
    one = Square()
    other = copy.deepcopy(one)
    ours, theirs = (OPTIMIZERS[name](loss.trainable_parameters()) for loss in (one, other))
    step = GraphStep("test", one, ours, **clipping)
    for seed in range(4):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + seed)
        outcome = step(rows(seed=seed))
        step.commit(outcome)
        expected = eager_step(other, theirs, rows(seed=seed), **clipping)
        torch.testing.assert_close(outcome.td_error, expected.pop("td_error"))
        numbers = dict(zip(outcome.names, outcome.values, strict=True))
        numbers.pop("td_error")
        torch.testing.assert_close(numbers, expected)
    assert_same_state(one, other)
    assert one.asked == 4 and len(traced) == step.num_graphs == 1
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_nothing_moves_before_the_commit(traced):
    loss = Square()
    optimizer = torch.optim.Adam(loss.trainable_parameters())
    before = copy.deepcopy(loss)
    outcome = GraphStep("test", loss, optimizer)(rows())
    assert_same_state(loss, before)
    assert all(state["step"] == 0 for state in optimizer.state.values()) and "grad_norm" in outcome.names


def test_another_number_of_rows_is_another_graph(traced):
    loss = Square()
    step = GraphStep("test", loss, torch.optim.Adam(loss.trainable_parameters()))
    for num in (8, 4, 8):
        assert step(rows(num)).td_error.shape == (num,)
    assert step.num_graphs == 2


def test_a_state_that_was_loaded_goes_on(traced):
    loss = Square()
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=0.1)
    step = GraphStep("test", loss, optimizer)
    step.commit(step(rows()))
    weights, state = copy.deepcopy(loss.state_dict()), copy.deepcopy(optimizer.state_dict())
    step.commit(step(rows()))
    after = copy.deepcopy(loss.state_dict())
    loss.load_state_dict(weights)
    optimizer.load_state_dict(state)
    step.commit(step(rows()))
    torch.testing.assert_close(loss.state_dict(), after, rtol=0, atol=0)


def test_a_rate_that_is_a_tensor_counts_as_it_is_and_stays_in_its_memory(traced):
    one = Square()
    other, rate = copy.deepcopy(one), torch.tensor(0.1)
    ours = torch.optim.Adam(one.trainable_parameters(), lr=rate)
    theirs = torch.optim.Adam(other.trainable_parameters(), lr=0.1)
    step, memory = GraphStep("test", one, ours), set()
    for value in (0.1, 0.3):
        rate.fill_(value)
        theirs.param_groups[0]["lr"] = rate.item()
        step.commit(step(rows()))
        memory.add(step.function.learning_rates().data_ptr())
        eager_step(other, theirs, rows())
        assert_same_state(one, other)
    assert len(memory) == 1


def test_rows_elsewhere_are_not_given_to_the_graph_of_rows_here(traced):
    loss = Square()
    step = GraphStep("test", loss, torch.optim.Adam(loss.trainable_parameters()))
    step(rows())
    with pytest.raises(ConfigError, match="one graph of tensors"):
        step(rows().to("meta"))


@needs_cuda
@pytest.mark.parametrize("name", ["Adam", "FusedAdam with decay", "SGD"])
def test_a_step_on_a_gpu_is_the_eager_one_and_waits_for_nothing(traced, name):
    one = Square().cuda()
    other, batch = copy.deepcopy(one), rows().cuda()
    ours, theirs = (OPTIMIZERS[name](loss.trainable_parameters()) for loss in (one, other))
    eager_step(one, ours, batch)  # begins the state, in which Adam counts on the CPU
    eager_step(other, theirs, batch)
    step = GraphStep("test", one, ours, max_grad_norm=1.0)
    step.commit(step(batch))
    eager_step(other, theirs, batch, max_grad_norm=1.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours.param_groups[0]["lr"] = 0.05
        step.commit(step(batch))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    theirs.param_groups[0]["lr"] = 0.05
    eager_step(other, theirs, batch, max_grad_norm=1.0)
    assert_same_state(one, other)


class Branching(Square):
    def terms(self, rows):
        return super().terms(rows if rows["x"].sum() > 0 else -rows)


class Choosing(Square):
    def terms(self, rows):
        torch.multinomial(rows["x"].softmax(-1), 1, generator=torch.Generator())
        return super().terms(rows)


@pytest.mark.parametrize("loss", [Branching(), Choosing()], ids=lambda x: type(x).__name__)
def test_a_loss_that_is_no_single_graph_is_refused(traced, loss):
    step = GraphStep("compile", loss, torch.optim.Adam(loss.trainable_parameters()))
    with pytest.raises(ConfigError, match="compile: expected one graph of tensors, got .*Leave compile"):
        step(rows())
    assert loss.asked == 0 and not traced


class Drawing(Square):
    def terms(self, rows):
        generator = self.options["generator"]
        noise = torch.empty_like(rows["x"]).normal_(0, 0.1, generator=generator)
        order = torch.randperm(len(noise), generator=generator)
        return super().terms(rows.set("x", rows["x"] + noise[order]))


def test_what_a_loss_draws_from_a_generator_is_drawn_anew_for_each_step(traced):
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    one, other = (Drawing(generator=generator) for generator in generators)
    other.load_state_dict(one.state_dict())
    ours, theirs = (torch.optim.Adam(loss.trainable_parameters(), lr=0.1) for loss in (one, other))
    step = GraphStep("test", one, ours)
    for _ in range(3):
        outcome = step(rows())
        step.commit(outcome)
        torch.testing.assert_close(outcome.td_error, eager_step(other, theirs, rows())["td_error"])
    assert torch.equal(*(generator.get_state() for generator in generators)) and len(traced) == 1


class Reading(Square):
    def terms(self, rows):
        return super().terms(rows.set("y", rows["y"] + self.options["more"]))


class Weighted(Square):
    weight = 1.0

    def terms(self, rows):
        return {name: self.weight * value for name, value in super().terms(rows).items()}


def test_a_number_that_changed_counts_as_it_is(traced):
    one = Weighted()
    one.weight = 1.0
    other = copy.deepcopy(one)
    ours, theirs = (torch.optim.Adam(loss.trainable_parameters(), lr=0.1) for loss in (one, other))
    step = GraphStep("test", one, ours, max_grad_norm=1.0)
    for weight, eps in ((1.0, 1e-8), (3.0, 1e-8), (3.0, 0.5)):
        one.weight = other.weight = weight
        ours.param_groups[0]["eps"] = theirs.param_groups[0]["eps"] = eps
        step.commit(step(rows()))
        eager_step(other, theirs, rows(), max_grad_norm=1.0)
        assert_same_state(one, other)
    assert len(traced) == 3


def test_a_tensor_that_is_no_buffer_counts_as_it_is(traced):
    more = torch.zeros(8, 1, dtype=torch.float64)
    loss = Reading(more=more)
    step = GraphStep("test", loss, torch.optim.Adam(loss.trainable_parameters()))
    before = step(rows()).td_error
    more += 1
    torch.testing.assert_close(step(rows()).td_error, before - 1)
    torch.testing.assert_close(step(rows()).td_error, before - 1)
    assert len(traced) == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_steps_by_a_graph_as_it_does_without(traced, name):
    """Two steps of Adam, in float64, with the same random numbers."""
    case = CASES[name]
    torch.manual_seed(0)
    one, batch = case.build().double(), case.batch(16)
    batch = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
    other = copy.deepcopy(one)
    ours, theirs = (torch.optim.Adam(loss.trainable_parameters(), lr=0.1) for loss in (one, other))
    step = GraphStep("test", one, ours)
    for seed in (1, 2):
        torch.manual_seed(seed)
        outcome = step(batch)
        step.commit(outcome)
        torch.manual_seed(seed)
        expected = eager_step(other, theirs, batch)
        numbers = dict(zip(outcome.names, outcome.values, strict=True))
        assert list(numbers) == list(expected)
        for key, value in numbers.items():
            torch.testing.assert_close(value, expected[key].mean(), rtol=1e-6, atol=1e-8)
    assert_same_state(one, other)


@pytest.mark.timeout(900)
def test_a_graph_is_compiled_once_and_found_by_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "cache_folder", lambda: tmp_path)
    torch.manual_seed(0)
    one = Square()
    other, packages = copy.deepcopy(one), []
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        for loss in (one, other):
            options = {"num_epochs": 2, "minibatch_size": 4, "generator": torch.Generator().manual_seed(0)}
            optimise = MinibatchEpochs(loss, FusedAdam(loss.trainable_parameters()), compile=True, **options)
            figures = optimise(rows())
            assert figures["loss_square"] > 0
            (package,) = tmp_path.iterdir()
            packages.append((package.name, package.stat().st_mtime_ns))
    assert packages[0] == packages[1]
    assert_same_state(one, other)
