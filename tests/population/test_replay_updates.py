"""Steps of several members on samples of their own buffers are those of each alone."""

import copy
from functools import partial

import pytest
import torch

from cases.losses import VALUE_LOSSES, make_transitions
from torchrl.agents import FusedAdam, ReplayUpdates, RewardScale
from torchrl.data.replay import PrioritizedSampler, ReplayBuffer, TensorStorage
from torchrl.errors import ConfigError, NonFiniteError
from torchrl.objectives import HardUpdate, SoftUpdate
from torchrl.population import join_updates

NUM = 3


def as_double(batch):
    return batch.apply(lambda x: x.double() if x.is_floating_point() else x)


def make_member(seed, name, *, sampler=None, gamma=None, target=None, frames=True, **options):
    """Build a loss in float64 and its updates on a buffer of 32 transitions, all from one seed."""
    torch.manual_seed(seed)
    case = VALUE_LOSSES[name]
    loss = case.build().double()
    if hasattr(loss, "generator"):
        loss.generator = torch.Generator().manual_seed(seed)
    if gamma is not None:
        loss.gamma = gamma
    buffer = ReplayBuffer(TensorStorage(64), sampler=None if sampler is None else sampler(), seed=seed)
    buffer.extend(as_double(make_transitions(case.action, 32, seed=seed)))
    optimizer = FusedAdam(loss.trainable_parameters(), lr=0.001 * (1 + seed))
    update = SoftUpdate(loss, tau=0.05) if target is None else target(loss)
    return ReplayUpdates(loss, optimizer, buffer, batch_size=8, target_update=update, **options)


def pairs_of(name, num=NUM, *, compile=True, **options):
    """Build members for joint updates, and the same once more to step alone, without a compiler."""
    return [[make_member(seed, name, compile=kind, **options) for seed in range(num)] for kind in (compile, False)]


def frames(num, seed=0):
    batch = as_double(make_transitions("choice", 1, num, seed=seed))
    batch["is_init"] = torch.zeros(1, num, 1, dtype=torch.bool)
    batch["collector", "traj_ids"] = torch.zeros(1, num, dtype=torch.long)
    return batch


def assert_same(joined, alone):
    for one, other in zip(joined, alone, strict=True):
        assert one.num_updates == other.num_updates
        states = [(dict(x.loss.state_dict()), x.optimizer.state_dict()["state"]) for x in (one, other)]
        torch.testing.assert_close(*states, rtol=0, atol=1e-8)


def train_both(joined, alone, *, calls, num_frames):
    """Train on the same numbers of frames, and compare all that is reported, time aside."""
    together = join_updates(joined)
    for _ in range(calls):
        found = together([frames(num_frames)] * len(joined))
        for one, optimise in zip(found, alone, strict=True):
            expected = optimise(frames(num_frames))
            for figures in (one, expected):
                assert figures.pop("time/updates_per_s") > 0
                del figures.weights["time/updates_per_s"]
            torch.testing.assert_close(dict(one), dict(expected), rtol=0, atol=1e-8)
            assert one.weights == expected.weights
    return together


CALLS = {"DQNLoss of choice": 20, "SACLoss": 20, "DiscreteSACLoss of choice": 2}


@pytest.mark.parametrize(("name", "calls"), CALLS.items())
def test_each_member_moves_as_it_does_alone(traced, name, calls):
    joined, alone = pairs_of(name)
    together = train_both(joined, alone, calls=calls, num_frames=10)
    assert_same(joined, alone)
    assert joined[0].num_updates == 10 * calls and together.step.num_graphs == 1


OPTIONS = {
    "priorities, clipping": ("DQNLoss of choice", {"sampler": PrioritizedSampler, "max_grad_norm": 0.1}),
    "a hard update": (
        "DQNLoss of choice",
        {"target": partial(HardUpdate, interval=3), "max_grad_value": 0.1},
    ),
    "scaled rewards": ("DQNLoss of choice", {"reward_scale": True}),
    "an actor's interval": ("SACLoss", {"actor_interval": 2}),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_mean_what_they_mean_alone(traced, case):
    name, options = OPTIONS[case]
    joined, alone = [], []
    for members, compile in ((joined, True), (alone, False)):
        for seed in range(2):
            own = options | ({"reward_scale": RewardScale(0.9)} if "reward_scale" in options else {})
            members.append(make_member(seed, name, compile=compile, **own))
    together = train_both(joined, alone, calls=2, num_frames=4)
    assert_same(joined, alone)
    assert together.step.num_graphs == (2 if "actor" in case else 1)


def test_discounts_and_target_entropies_may_differ(traced):
    joined, alone = [], []
    for members, compile in ((joined, True), (alone, False)):
        for seed in range(2):
            members.append(make_member(seed, "SACLoss", gamma=0.9 + 0.05 * seed, compile=compile))
            members[-1].loss.target_entropy -= seed
    train_both(joined, alone, calls=2, num_frames=2)
    assert_same(joined, alone)


def test_members_step_when_their_own_steps_are_due(traced):
    """One begins later, one takes fewer steps, and one is left out at first."""
    joined, alone = [], []
    for members, compile in ((joined, True), (alone, False)):
        for seed in range(NUM):
            start, share = {0: (4, 1.0), 1: (0, 0.5), 2: (0, 1.0)}[seed]
            options = {"start_frames": start, "updates_per_frame": share, "actor_interval": 2}
            members.append(make_member(seed, "SACLoss", compile=compile, **options))
    together = join_updates(joined)
    for call in range(3):
        batches = [frames(3), frames(3), frames(3) if call else None]
        found = together(batches)
        assert (found[2] == {}) == (call == 0)
        for optimise, batch in zip(alone, batches, strict=True):
            if batch is not None:
                optimise(batch)
    assert [member.num_updates for member in joined] == [6, 4, 6]
    assert_same(joined, alone)


def test_after_nan_nobody_has_moved_and_the_member_is_named(traced):
    joined, _ = pairs_of("DQNLoss of choice")
    together = join_updates(joined, ["seed 1", "seed 2", "seed 3"])
    together([frames(2)] * NUM)
    before = copy.deepcopy([(x.loss.state_dict(), x.optimizer.state_dict()["state"]) for x in joined])
    broken = as_double(make_transitions("choice", 64))
    broken["next", "reward"].fill_(torch.inf)
    joined[1].buffer.extend(broken)
    with pytest.raises(NonFiniteError, match=r"^seed 2: .*in update 3.*holds such values under 'next', 'reward'|next"):
        together([frames(2)] * NUM)
    after = [(x.loss.state_dict(), x.optimizer.state_dict()["state"]) for x in joined]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_call_without_a_compiler_steps_one_after_another():
    joined, alone = pairs_of("DQNLoss of choice", 2, compile=False)
    train_both(joined, alone, calls=1, num_frames=3)
    assert_same(joined, alone)
    broken = as_double(make_transitions("choice", 64))
    broken["next", "reward"].fill_(torch.inf)
    joined[1].buffer.extend(broken)
    with pytest.raises(NonFiniteError, match="^member 1: "):
        join_updates(joined)([frames(1)] * 2)


def test_samples_of_other_sizes_are_refused():
    joined, _ = pairs_of("DQNLoss of choice", 2)
    joined[1].batch_size = 4
    with pytest.raises(ConfigError, match="the same batch_size in all members, got 8 in member 0 and 4 in member 1"):
        join_updates(joined)
