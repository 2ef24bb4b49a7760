"""Losses compile to one graph, which agrees with eager mode and outlives schedules."""

import pytest
import torch

from cases.losses import CASES, CURIOSITY_LOSSES, POLICY_LOSSES, RANDOM, VALUE_LOSSES, gradients
from torchrl.objectives import total_loss

NAMES = [
    *VALUE_LOSSES,
    *CURIOSITY_LOSSES,
    *(f"{name} of discrete" for name, loss in POLICY_LOSSES.items() if loss.kinds == RANDOM),
    *(f"ClipPPOLoss, all options of {kind}" for kind in RANDOM if kind != "discrete"),
    *(f"KLPenaltyPPOLoss of {kind}" for kind in ("tanh", "truncated", "composite")),  # where actions have bounds
    "A2CLoss, all options of composite",
    "BehaviourCloningLoss, l2 of deterministic",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_compiles_to_one_graph(name):
    """Compile a loss, compare it with itself, and count graphs while a schedule changes its coefficients."""
    torch._dynamo.reset()
    case = CASES[name]
    loss, batch = case.build(), case.batch(16)
    if case.action:
        is_random = case.action == "vector" and not name.startswith("DDPG")
    else:
        draws = (getattr(loss, "num_entropy_samples", None), getattr(loss, "objective", None))
        is_random = bool(draws[0] or getattr(draws[1], "num_kl_samples", None) or getattr(loss, "share", 1.0) < 1)
    close = {"rtol": 0.5, "atol": 1.0} if is_random else {}  # compiled, the same stream gives other numbers
    expected, grads = gradients(loss, batch)
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    backend = (
        "aot_eager" if name in ("SACLoss", *CURIOSITY_LOSSES) else "eager"
    )  # breaks and graphs are found before a back end is asked
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    loss.zero_grad()
    torch.manual_seed(0)
    total_loss(terms := compiled(batch)).backward()
    torch.testing.assert_close(terms.detach().to_dict(), expected.to_dict(), **close)
    if not case.action:  # the loss of a value depends on no draw
        torch.testing.assert_close(terms.detach().get("loss_critic", None), expected.get("loss_critic", None))
    if not (case.action and is_random):
        torch.testing.assert_close([parameter.grad for parameter in loss.trainable_parameters()], grads, **close)
    for name, _ in loss.named_buffers():
        owner, _, buffer = name.rpartition(".")
        if buffer.startswith("_"):
            setattr(loss.get_submodule(owner), buffer.removeprefix("_"), 0.125)
    changed = compiled(case.batch(16, seed=1)).detach()
    torch.manual_seed(0)
    if not (case.action and is_random):
        torch.testing.assert_close(changed.to_dict(), loss(case.batch(16, seed=1)).detach().to_dict(), **close)
    assert graphs["unique_graphs"] == before + 1
