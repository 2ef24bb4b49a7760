"""Fragments from worker processes: those of one process, a known lag of the weights, nothing left behind."""

import os
import signal
import threading
from functools import partial
from itertools import islice
from pathlib import Path

import gymnasium
import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.same import assert_same
from cases.workers import Marked, Stepwise, counting
from fakes import CountingSimulator, PlantedError, SlowSimulator, wait_until
from torchrl.collectors import FragmentPool, fragments, rollout
from torchrl.data import lengths_of
from torchrl.errors import ConfigError, ProcessError
from torchrl.modules import MLP, Categorical, ProbabilisticActor

pytestmark = pytest.mark.usefixtures("leaves_nothing")
CARTPOLE = partial(gymnasium.make, "CartPole-v1")
VERSION, TRAJ_IDS = ("collector", "policy_version"), ("collector", "traj_ids")


same_but_versions = partial(assert_same, without=(VERSION,))


@pytest.fixture
def start(keep):
    return lambda *arguments, **options: keep(rollout(*arguments, **options))


class Remembers(nn.Module):
    """Counts the steps of an episode in a state of its own, and values it."""

    def forward(self, root):
        if "state" not in root.keys():
            root["state"] = torch.zeros(*root.batch_size, 1)
        state = root["state"]
        root["next", "state"] = state + 1
        root["state_value"] = state * 10
        return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


class Coin(nn.Module):
    """Acts by the global random stream."""

    def forward(self, root):
        return root.set("action", torch.randint(2, root.batch_size))


def only(tensor):
    """Return the one value that stands everywhere."""
    return tensor.unique().item()


# ---- the same fragments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sticky", [False, True])
def test_fragments_of_one_worker_are_those_of_this_process(start, sticky):
    options = {"n_steps": 25, "seed": 3, "sticky": sticky}
    ours = islice(start([CARTPOLE] * 4, Stepwise(), num_workers=1, **options), 8)
    theirs = islice(start([CARTPOLE] * 4, Stepwise(), **options), 8)
    num_endings = 0
    for mine, its in zip(ours, theirs, strict=True):
        same_but_versions(mine.batch, its.batch)
        same_but_versions(mine.last, its.last)
        num_endings += int(mine.batch["next", "done"].sum())
    assert num_endings > 10


def test_each_worker_of_a_pool_steps_its_share_of_the_environments_of_this_process(start):
    options = {"n_steps": 10, "seed": 3}
    theirs = torch.cat([batch for batch, _ in islice(start([CARTPOLE] * 4, Stepwise(), **options), 12)], 1)
    shares = [[], []]
    for batch, last in islice(start([CARTPOLE] * 4, Stepwise(), num_workers=2, **options), 12):
        shares[only(batch[TRAJ_IDS] % 2)].append(batch)  # worker k numbers its trajectories k, k + 2, ...
        assert batch.batch_size == (2, 10) and last.batch_size == (2,)
    for index, share in enumerate(shares):
        ours = torch.cat(share, 1)
        rows = theirs[2 * index : 2 * index + 2, : ours.shape[1]]
        assert_same(ours, rows, without=(VERSION, TRAJ_IDS))


def test_fragments_of_a_pool_are_joined(start):
    stream = start([partial(CountingSimulator, 9)] * 6, Marked(), n_steps=3, num_workers=3, fragments_per_batch=2)
    for batch, last in islice(stream, 6):
        assert batch.batch_size == (4, 3) and last.batch_size == (4,)
        assert torch.equal(last["observation"] % 9, batch["next", "observation"][:, -1] % 9)
        assert torch.equal(batch["process"][::2], batch["process"][1::2])  # whole fragments, one after the other


def test_fragments_are_the_receivers_own(start):
    stream = start([CARTPOLE] * 2, Stepwise(), n_steps=5, num_workers=1)
    kept = [next(stream) for _ in range(3)]
    copies = [(batch.clone(), last.clone()) for batch, last in kept]
    next(stream)
    for fragment, (batch, last) in zip(kept, copies, strict=True):
        assert_same(fragment.batch, batch)
        assert_same(fragment.last, last)


def test_state_goes_in_and_out_and_is_not_advanced_by_the_question(start):
    stream = start([partial(CountingSimulator, 3)], Remembers(), n_steps=4, num_workers=1)
    (one, last), (two, _) = islice(stream, 2)
    assert one["next", "state"].flatten().tolist() == [1, 2, 3, 1]
    assert last["state_value"].tolist() == [[10]] and last["state"].tolist() == [[1]]
    assert two["state_value"].flatten().tolist() == [10, 20, 0, 10]


def test_sticky_fragments_wait_in_the_workers(start):
    envs = [partial(CountingSimulator, length) for length in (2, 9)]
    stream = start(envs, Remembers(), n_steps=4, num_workers=2, sticky=True)
    seen = {True: [], False: []}
    for batch, last in islice(stream, 8):
        is_short = batch["next", "done"][0, 1].item()
        seen[is_short].append((lengths_of(batch).item(), last["state"].item()))
    assert seen[True] == [(2, 0)] * len(seen[True])
    assert seen[False] == [(4, 4), (4, 8), (1, 0), (4, 4), (4, 8), (1, 0), (4, 4), (4, 8)][: len(seen[False])]
    assert len(seen[True]) > 1 < len(seen[False])


# ---- weights and seeds -----------------------------------------------------------------------------------------------


def test_with_one_worker_weights_and_buffers_lack_exactly_one_fragment(start):
    policy, seen = Marked(), []
    for batch, last in islice(start([partial(CountingSimulator, 9)], policy, n_steps=2, num_workers=1), 20):
        seen.append(only(batch["weight"]))
        assert only(batch[VERSION]) == only(last["weight"]) == seen[-1] and only(batch["count"]) == 10 * seen[-1]
        with torch.no_grad():
            policy.weight += 1
            policy.count += 10
    assert seen == [0, *range(19)]


def test_a_worker_that_is_slow_to_begin_gets_no_newer_weights_by_chance():
    policy, seen = Marked(), []
    pool = FragmentPool([partial(counting, 1)], policy, n_steps=2)
    stream = fragments(pool)
    pid = only(next(stream).batch["process"])
    for _ in range(3):
        wait_until(pool.is_ready)
        os.kill(pid, signal.SIGSTOP)
        seen.append(only(next(stream).batch["weight"]))
        with torch.no_grad():
            policy.weight += 1
        threading.Timer(0.1, partial(os.kill, pid, signal.SIGCONT)).start()
        seen.append(only(next(stream).batch["weight"]))
    assert seen == [0, 0, 1, 1, 2, 2]
    stream.close()


def test_the_present_weights_act_in_this_process(start):
    policy = Marked()
    for number, (batch, last) in enumerate(islice(start([partial(CountingSimulator, 9)], policy, n_steps=2), 4)):
        assert only(batch["weight"]) == only(last["weight"]) == only(batch[VERSION]) == number
        with torch.no_grad():
            policy.weight += 1


def test_with_several_workers_a_fragment_says_how_old_its_weights_are(start):
    policy, taken_at = Marked(), {}
    options = {"n_steps": 2, "num_workers": 2, "fragments_per_batch": 2}
    simulators = [partial(SlowSimulator, 0.01), partial(SlowSimulator, 0.0)]  # one is overtaken often
    for number, (batch, _) in enumerate(islice(start(simulators, policy, **options), 20)):
        assert torch.equal(batch["weight"].long(), batch[VERSION]) and (batch[VERSION] <= number).all()
        for row in batch:  # a worker begins a fragment when its last one is taken, not before
            assert only(row[VERSION]) >= taken_at.get(only(row["process"]), 0)
        taken_at |= dict.fromkeys(batch["process"].unique().tolist(), number)
        with torch.no_grad():
            policy.weight += 1


def actor():
    actor = ProbabilisticActor(MLP(4, 2), Categorical)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.fill_(0.01)
    return actor


def test_a_seed_repeats_environments_and_actions(start):
    def run(seed):
        stream = start([CARTPOLE] * 2, actor(), n_steps=30, num_workers=1, seed=seed)
        return torch.cat([batch for batch, _ in islice(stream, 3)], 1)

    first = run(5)
    assert_same(first, run(5))
    other = run(6)
    assert not torch.equal(first["action"], other["action"])
    assert not torch.equal(first["observation"], other["observation"])
    assert len(torch.unique(first["observation"][:, 0], dim=0)) == 2


def test_copies_of_the_policy_draw_their_own_actions_and_without_one_actions_are_random(start):
    for policy in (Coin(), None):
        options = {"n_steps": 60, "num_workers": 2, "fragments_per_batch": 2, "seed": 1}
        batch, _ = next(start([partial(CountingSimulator, 9)] * 2, policy, **options))
        assert batch["action"].unique().tolist() == [0, 1] and not torch.equal(*batch["action"])


def test_parameters_of_the_rows_reach_the_workers():
    pool = FragmentPool([partial(counting, 1)] * 2, Stepwise(), n_steps=2, fragments_per_batch=2)
    try:
        pool.set_info(agent_info=TensorDict({"skill": torch.tensor([3, 4])}, [2]))
        seen, last = set(), set()
        while len(seen) < 2:  # both fragments of a batch may be of one row, if its worker is the faster
            both = pool.collect()
            seen |= set(map(tuple, both["batch", "skill"].tolist()))
            last |= set(both["last", "skill"].tolist())
        assert seen == {(3, 3), (4, 4)} and last == {3, 4}
    finally:
        pool.close()


# ---- endings and faults ----------------------------------------------------------------------------------------------


def are_gone(pids):
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    return True


@pytest.mark.parametrize("is_begun", [True, False])
def test_closing_the_generator_ends_the_workers(is_begun):
    pool = FragmentPool([partial(counting, 1)] * 2, Stepwise(), n_steps=2)
    stream, pids = fragments(pool), pool.pids
    if is_begun:
        next(stream)
    stream.close()
    assert are_gone(pids)
    with pytest.raises(StopIteration):
        next(stream)


def test_an_exception_in_the_loop_ends_the_workers(start):
    def loop():
        for batch, _ in rollout([partial(CountingSimulator, 9)], Marked(), n_steps=2, num_workers=1):
            pids.append(only(batch["process"]))
            raise PlantedError("in the loop")

    pids = []
    with pytest.raises(PlantedError):
        loop()
    assert are_gone(pids)


def test_a_killed_worker_is_named_and_the_others_are_ended(start):
    stream = start([partial(SlowSimulator, 0.01)] * 2, Marked(), n_steps=30, num_workers=2)
    pids = {only(next(stream).batch["process"]) for _ in range(4)}
    os.kill(max(pids), signal.SIGKILL)
    with pytest.raises(ProcessError, match=rf"FragmentPool, worker \d, process {max(pids)}.*killed by SIGKILL"):
        for _ in range(4):
            next(stream)
    assert len(pids) == 2
    assert next(stream, None) is None and are_gone(pids)


def test_a_lost_worker_is_replaced_with_the_present_weights_and_new_episodes(start):
    policy = Marked()
    options = {"n_steps": 10, "num_workers": 1, "on_worker_failure": "restart"}
    stream = start([partial(SlowSimulator, 0.001)], policy, **options)
    first = only(next(stream).batch["process"])
    with torch.no_grad():
        policy.weight += 7
    os.kill(first, signal.SIGKILL)
    seen = [next(stream).batch for _ in range(3)]
    assert first not in [only(batch["process"]) for batch in seen[1:]]
    assert [only(batch["weight"]) for batch in seen[1:]] == [7, 7]
    assert any(batch["is_init"][0, 0] for batch in seen)  # it begins anew


@pytest.mark.parametrize(
    ("envs", "options", "message"),
    [
        ([CARTPOLE] * 2, {"num_workers": 3}, "num_workers from 0 to the 2 environments"),
        ([CARTPOLE] * 2, {"num_workers": -1}, "num_workers from 0 to the 2 environments"),
        ([CARTPOLE] * 2, {"num_workers": 1.5}, "num_workers from 0 to the 2 environments"),
        ("CartPole-v1", {"num_workers": 1}, "a list of callables"),
        ([gymnasium.make("CartPole-v1")], {"num_workers": 1}, "a list of callables"),
        (counting(2), {"num_workers": 1}, "a list of callables"),
        ([CARTPOLE] * 2, {"num_workers": 2, "fragments_per_batch": 3}, "fragments_per_batch from 1 to the 2 workers"),
        ([CARTPOLE] * 3, {"num_workers": 2, "fragments_per_batch": 2}, "of equally many environments each"),
        ([CARTPOLE] * 2, {"fragments_per_batch": 2}, "fragments_per_batch=1 in this process"),
        ([CARTPOLE] * 2, {"num_workers": 1, "n_steps": 0}, "n_steps: expected a whole number of at least 1"),
        ([CARTPOLE] * 2, {"num_workers": 1, "policy": len}, "a torch module, whose weights can be sent"),
        ([CARTPOLE] * 2, {"num_workers": 1, "policy": 3}, "a policy that can be called"),
        ([CARTPOLE] * 2, {"num_workers": 1, "on_worker_failure": "ignore"}, '"raise" or "restart"'),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(envs, options, message):
    with pytest.raises(ConfigError, match=message):
        rollout(envs, **{"policy": Stepwise(), "n_steps": 2, **options})
