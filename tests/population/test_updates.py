"""The updates of several members together are those of each alone."""

import copy
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl import graphs
from torchrl.agents import FusedAdam, MinibatchEpochs
from torchrl.errors import ConfigError, NonFiniteError
from torchrl.modules import MLP, Categorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import A2CLoss, ClipPPOLoss
from torchrl.population import join_updates

NUM = 3
PPO = {"num_epochs": 2, "minibatch_size": 8, "max_grad_norm": 0.5}
A2C = {"num_epochs": 1, "minibatch_size": 16, "max_grad_norm": 0.5}


def make_member(seed, *, kind=ClipPPOLoss, make=FusedAdam, loss_options=None, activation=nn.Tanh, **options):
    """Build a loss in float64 and its epochs, all from one seed."""
    torch.manual_seed(seed)
    policy, shuffles = (torch.Generator().manual_seed(10 * seed + k) for k in range(2))
    network = MLP(4, 2, num_cells=(8,), activation=activation)
    actor = ProbabilisticActor(network, Categorical, generator=policy)
    loss = kind(actor, ValueOperator(MLP(4, 1, num_cells=(8,))), entropy_coef=0.01, **(loss_options or {})).double()
    optimizer = make(loss.trainable_parameters(), lr=0.01 * (1 + seed))
    return MinibatchEpochs(loss, optimizer, generator=shuffles, **options)


def pairs_of(num=NUM, *, kinds=(True, False), **options):
    """Build members for joint updates, and the same once more to step alone, without a compiler."""
    return [[make_member(seed, compile=compile, **options) for seed in range(num)] for compile in kinds]


def make_batch(seed, num=16):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(2, num // 2, *shape, dtype=torch.float64, generator=generator)

    rows = {"observation": draw(4), "action": (draw() > 0).long(), "action_log_prob": -0.7 + 0.1 * draw()}
    rows |= {"advantage": draw(1), "value_target": draw(1), "state_value": draw(1)}
    return TensorDict(rows, batch_size=(2, num // 2))


def state_of(optimise):
    return {**optimise.loss.state_dict()}, optimise.optimizer.state_dict()["state"]


def assert_same(joined, alone):
    for one, other in zip(joined, alone, strict=True):
        torch.testing.assert_close(state_of(one), state_of(other), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("num_calls", "options"),
    [
        (50, PPO),
        (200, A2C | {"kind": A2CLoss}),
        (5, A2C | {"kind": A2CLoss, "make": lambda parameters, lr: torch.optim.RMSprop(parameters, lr=lr)}),
        (5, PPO | {"make": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1)}),
    ],
    ids=["PPO", "A2C", "RMSprop", "AdamW"],
)
def test_each_member_moves_as_it_does_alone(traced, num_calls, options):
    joined, alone = pairs_of(**options)
    together = join_updates(joined)
    for call in range(num_calls):
        batches = [make_batch(NUM * call + k) for k in range(NUM)]
        if call == 3:  # a schedule
            for optimise in (*joined, *alone):
                optimise.optimizer.param_groups[0]["lr"] /= 2
        found = together(batches)
        expected = [optimise(batch) for optimise, batch in zip(alone, batches, strict=True)]
        assert [x.weights for x in found] == [x.weights for x in expected]
        torch.testing.assert_close([dict(x) for x in found], [dict(x) for x in expected], rtol=0, atol=1e-8)
    assert_same(joined, alone)
    assert together.step.num_graphs == 1


def test_a_call_without_a_compiler_steps_one_after_another():
    joined, alone = pairs_of(kinds=(False, False), **PPO)
    batches = [make_batch(k) for k in range(NUM)]
    found = join_updates(joined)(batches)
    expected = [optimise(batch) for optimise, batch in zip(alone, batches, strict=True)]
    assert found == expected
    assert_same(joined, alone)


@pytest.mark.learn  # 24 s to compile; what is compiled is tested above, compiling in agents/test_graph_step.py
@pytest.mark.timeout(900)
def test_the_compiled_program_steps_all_members(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "cache_folder", lambda: tmp_path)
    joined, alone = pairs_of(2, **PPO)
    batches = [make_batch(k) for k in range(2)]
    join_updates(joined)(batches)
    for optimise, batch in zip(alone, batches, strict=True):
        optimise(batch)
    assert_same(joined, alone)
    assert len([*tmp_path.iterdir()]) == 1


def test_the_divergence_ends_the_epochs_of_a_member_alone(traced):
    joined, alone = pairs_of(target_kl=0.02, **PPO | {"num_epochs": 6})
    batches = [make_batch(k) for k in range(NUM)]
    found = join_updates(joined)(batches)
    expected = [optimise(batch) for optimise, batch in zip(alone, batches, strict=True)]
    steps = [figures.weights["grad_norm"] for figures in expected]
    assert len(set(steps)) > 1 and min(steps) < 12
    assert [figures.weights["grad_norm"] for figures in found] == steps
    assert_same(joined, alone)


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_after_nan_nobody_has_moved_and_the_member_is_named(traced, compile, kind):
    make = FusedAdam if kind == "adam" else (lambda parameters, lr: torch.optim.RMSprop(parameters, lr=lr))
    (members,) = pairs_of(kinds=(compile,), make=make, **PPO)
    update = join_updates(members, ["seed 5", "seed 7", "seed 9"])
    update([make_batch(k) for k in range(NUM)])
    before = copy.deepcopy([state_of(member) for member in members])
    batches = [make_batch(k) for k in range(NUM)]
    batches[1]["advantage"][0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"^seed 7: .*in epoch 1, minibatch \d.*holds such values under 'adv"):
        update(batches)
    torch.testing.assert_close([state_of(member) for member in members], before, rtol=0, atol=0)
    batches[1] = make_batch(1)
    update(batches)


def test_members_with_other_numbers_of_rows_step_in_turn(traced):
    joined, alone = pairs_of(2, **PPO)
    batches = [make_batch(0), make_batch(1, num=32)]
    join_updates(joined)(batches)
    for optimise, batch in zip(alone, batches, strict=True):
        optimise(batch)
    assert_same(joined, alone)


@pytest.mark.parametrize("compile", [True, False])
def test_a_member_may_be_left_out(traced, compile):
    joined, alone = pairs_of(kinds=(compile, False), **PPO)
    update = join_updates(joined)
    found = update([make_batch(0), None, make_batch(2)])
    for index in (0, 2):
        alone[index](make_batch(index))
    assert found[1] == {} and found[0] and found[2]
    torch.testing.assert_close(joined[1].loss.state_dict(), alone[1].loss.state_dict(), rtol=0, atol=0)
    alone[1](make_batch(1)), update([None, make_batch(1), None])
    assert_same(joined, alone)


def test_a_state_that_was_loaded_goes_on(traced):
    joined, alone = pairs_of(2, **PPO)
    update = join_updates(joined)
    for call in range(2):
        batches = [make_batch(2 * call + k) for k in range(2)]
        update(batches)
        for optimise, batch in zip(alone, batches, strict=True):
            optimise(batch)
        for optimise in (joined[1], alone[1]):
            optimise.optimizer.load_state_dict(copy.deepcopy(optimise.optimizer.state_dict()))
    assert_same(joined, alone)


def test_numbers_may_differ_between_members(traced):
    joined, alone = [], []
    for members, compile in ((joined, True), (alone, False)):
        for seed in range(2):
            options = {"value_clip": 0.1 * (1 + seed), "clip_epsilon": 0.1 + 0.1 * seed}
            members.append(make_member(seed, loss_options=options, compile=compile, **PPO))
            members[-1].loss.entropy_coef = 0.1 * seed
    update = join_updates(joined)
    for call in range(3):
        for members in (joined, alone):
            members[0].loss.value_clip = 0.2 + 0.1 * call
        batches = [make_batch(2 * call + k) for k in range(2)]
        update(batches)
        for optimise, batch in zip(alone, batches, strict=True):
            optimise(batch)
    assert_same(joined, alone)
    assert update.step.num_graphs == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_epochs": 3}, "the same num_epochs in all members, got 2 in member 0 and 3 in member 1"),
        ({"max_grad_norm": 0.1}, "the same max_grad_norm in all members, got 0.5 in member 0 and 0.1"),
        ({"compile": False}, "the same compile in all members"),
        ({"make": torch.optim.SGD}, "the same optimizer in all members, got FusedAdam in member 0 and SGD in member 1"),
        ({"kind": A2CLoss}, "as many tensors each, got"),
        ({"activation": nn.ReLU}, "the same numbers in all members, got one named actor.module.* in member 1 alone"),
        ({"loss_options": {"critic_distance": "l1"}}, "the same critic_distance in all members, got l2 .* and l1"),
    ],
)
def test_members_that_differ_in_what_they_do_are_refused(traced, options, text):
    members = [make_member(0, compile=True, **PPO), make_member(1, **{"compile": True} | PPO | options)]
    with pytest.raises(ConfigError, match=text):
        join_updates(members)([make_batch(0), make_batch(1)])


def test_another_activation_is_another_graph(traced):
    members = [
        make_member(seed, activation=kind, compile=True, **PPO) for seed, kind in enumerate((nn.Tanh, nn.Sigmoid))
    ]
    with pytest.raises(ConfigError, match="members with one graph, got another in member 1"):
        join_updates(members)([make_batch(0), make_batch(1)])


@pytest.mark.parametrize("optimises", [[], [SimpleNamespace()]])
def test_only_optimise_steps_are_joined(optimises):
    with pytest.raises(ConfigError, match="join_updates: expected of each member its MinibatchEpochs, or"):
        join_updates(optimises)
