"""Losses compile to one graph, which agrees with eager mode and outlives schedules."""

import pytest
import torch

from cases.losses import (
    DETERMINISTIC,
    DETERMINISTIC_LOSSES,
    KIND_LOSSES,
    KINDS,
    LOSSES,
    gradients,
    make_critic,
    make_rows,
)
from torchrl.objectives import total_loss


def compiles(build, kind):
    """Compile a loss, compare it with itself, and count graphs while a schedule changes its coefficients."""
    torch._dynamo.reset()
    loss, batch = build(kind.make_actor(), make_critic()), make_rows(kind, 16)
    draws = bool(loss.num_entropy_samples or getattr(getattr(loss, "objective", None), "num_kl_samples", None))
    close = {"rtol": 0.5, "atol": 0.5} if draws else {}  # compiled, the same stream gives other numbers
    expected, grads = gradients(loss, batch)
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    loss.zero_grad()
    torch.manual_seed(0)
    total_loss(terms := compiled(batch)).backward()
    torch.testing.assert_close(terms.detach().to_dict(), expected.to_dict(), **close)
    torch.testing.assert_close(terms.detach().get("loss_critic", None), expected.get("loss_critic", None))
    torch.testing.assert_close([parameter.grad for parameter in loss.trainable_parameters()], grads, **close)
    for name, _ in loss.named_buffers():
        owner, _, buffer = name.rpartition(".")
        setattr(loss.get_submodule(owner), buffer.removeprefix("_"), 0.125)
    changed = compiled(make_rows(kind, 16, seed=1)).detach()
    torch.manual_seed(0)
    torch.testing.assert_close(changed.to_dict(), loss(make_rows(kind, 16, seed=1)).detach().to_dict(), **close)
    assert graphs["unique_graphs"] == before + 1


@pytest.mark.parametrize("name", KIND_LOSSES)
def test_every_loss_compiles_to_one_graph(name):
    compiles(LOSSES[name], KINDS["discrete"])


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "discrete"])
def test_ppo_compiles_to_one_graph_for_every_kind_of_action(kind):
    compiles(LOSSES["ClipPPOLoss, all options"], KINDS[kind])


@pytest.mark.parametrize("kind", ["tanh", "truncated", "composite"])
def test_the_penalty_compiles_to_one_graph_where_actions_have_bounds(kind):
    compiles(LOSSES["KLPenaltyPPOLoss"], KINDS[kind])


def test_a2c_compiles_to_one_graph_for_nested_actions():
    compiles(LOSSES["A2CLoss"], KINDS["composite"])


def test_deterministic_actors_compile_to_one_graph():
    compiles(DETERMINISTIC_LOSSES["BehaviourCloningLoss, l2"], DETERMINISTIC)
