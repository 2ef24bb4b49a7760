"""Fragments from worker processes: those of one process, a known lag of the weights, nothing left behind."""

import os
import signal
from functools import partial
from itertools import islice

import gymnasium
import pytest
import torch
from torch import nn

from cases.workers import Marked, Stepwise
from fakes import CountingSimulator, SlowSimulator
from torchrl.collectors import rollout
from torchrl.errors import ConfigError, ProcessError

pytestmark = [pytest.mark.usefixtures("leaves_nothing"), pytest.mark.timeout(60)]
CARTPOLE = partial(gymnasium.make, "CartPole-v1")


@pytest.fixture
def start():
    """Begin rollouts that are closed at the end."""
    begun = []

    def start(*arguments, **options):
        begun.append(rollout(*arguments, **options))
        return begun[-1]

    yield start
    while begun:
        begun.pop().close()


class Remembers(nn.Module):
    """Counts the steps of an episode in a state of its own."""

    def forward(self, root):
        if "state" not in root.keys():
            root["state"] = torch.zeros(*root.batch_size, 1)
        state = root["state"]
        root["next", "state"] = state + 1
        root["state_value"] = state * 10
        return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


def leaves(tensordict):
    return dict(tensordict.items(include_nested=True, leaves_only=True))


def assert_same(one, other):
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    for key, value in one.items():
        if "policy_version" not in key:
            assert torch.equal(value, other[key]), key


def test_fragments_of_one_worker_are_those_of_this_process(start):
    options = {"n_steps": 25, "seed": 3}
    ours = islice(start([CARTPOLE] * 4, Stepwise(), num_workers=1, **options), 8)
    theirs = islice(start([CARTPOLE] * 4, Stepwise(), **options), 8)
    num_endings = 0
    for mine, its in zip(ours, theirs, strict=True):
        assert_same(mine.batch, its.batch)
        assert_same(mine.last, its.last)
        num_endings += int(mine.batch["next", "done"].sum())
    assert num_endings > 10


def test_fragments_of_a_pool_are_joined(start):
    fragments = start([CARTPOLE] * 6, Stepwise(), n_steps=5, num_workers=3, fragments_per_batch=2)
    batch, last = next(fragments)
    assert batch.batch_size == (4, 5) and last.batch_size == (4,)
    assert len(torch.unique(batch["observation"][:, 0], dim=0)) == 4


def test_weights_lag_by_one_fragment_with_one_worker(start):
    policy = Marked()
    fragments = start([partial(CountingSimulator, 9)], policy, n_steps=2, num_workers=1)
    for number in range(6):
        batch, _ = next(fragments)
        weight = batch["weight"].unique().item()
        assert max(0, number - 1) <= weight <= number
        assert batch["collector", "policy_version"].unique().item() == weight
        assert batch["count"].unique().item() == 10 * weight
        with torch.no_grad():
            policy.weight += 1
            policy.count += 10


def test_state_and_the_value_behind_the_last_step_come_along(start):
    fragments = start([partial(CountingSimulator, 3)], Remembers(), n_steps=4, num_workers=1)
    (one, last), (two, _) = islice(fragments, 2)
    assert one["next", "state"].flatten().tolist() == [1, 2, 3, 1]
    assert last["state_value"].tolist() == [[10]] and last["state"].tolist() == [[1]]
    assert two["state_value"].flatten().tolist() == [10, 20, 0, 10]


def test_sticky_fragments_wait_in_the_worker(start):
    fragments = start([partial(CountingSimulator, 3)], Stepwise(), n_steps=5, num_workers=1, sticky=True)
    for batch, _ in islice(fragments, 2):
        assert batch["collector", "mask"].tolist() == [[True, True, True, False, False]]
        assert batch["is_init"][0, 0].item()


def test_closing_ends_the_workers_and_a_killed_one_is_named(start):
    fragments = start([partial(SlowSimulator, 0.01)] * 2, Marked(), n_steps=30, num_workers=2)
    pids = {next(fragments).batch["process"].unique().item() for _ in range(4)}
    os.kill(max(pids), signal.SIGKILL)
    with pytest.raises(ProcessError, match="killed by SIGKILL"):
        for _ in range(4):
            next(fragments)
    assert next(fragments, None) is None


def test_a_lost_worker_is_replaced(start):
    options = {"n_steps": 10, "num_workers": 1, "on_worker_failure": "restart"}
    fragments = start([partial(SlowSimulator, 0.001)], Marked(), **options)
    first = next(fragments).batch["process"].unique().item()
    os.kill(first, signal.SIGKILL)
    pids = [next(fragments).batch["process"].unique().item() for _ in range(3)]
    assert pids[-1] != first


@pytest.mark.parametrize(
    ("envs", "options", "message"),
    [
        ([CARTPOLE] * 2, {"num_workers": 3}, "num_workers from 0 to the 2 environments"),
        ("CartPole-v1", {"num_workers": 1}, "a list of callables"),
        ([CARTPOLE] * 2, {"num_workers": 2, "fragments_per_batch": 3}, "fragments_per_batch from 1 to the 2 workers"),
        ([CARTPOLE] * 3, {"num_workers": 2, "fragments_per_batch": 2}, "of equally many environments each"),
        ([CARTPOLE] * 2, {"fragments_per_batch": 2}, "fragments_per_batch=1 in this process"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(envs, options, message):
    with pytest.raises(ConfigError, match=message):
        rollout(envs, Stepwise(), n_steps=2, **options)
