"""Collectors over several processes: the batches of one process, whatever happens to the others."""

import gc
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.interrupt import assert_ctrl_c_leaves_nothing
from cases.same import assert_same
from cases.workers import Marked, Nudge, Stepwise, Wide, cartpole, counting, faulty, gated, slow
from fakes import FOREVER_S, DeadlySimulator, PlantedError, wait_until, with_more_time
from torchrl.collectors import Collector, MultiAsyncCollector, MultiSyncCollector, WarmUp
from torchrl.envs import SerialEnv, TransformedEnv
from torchrl.envs.transforms import RewardScaling, StepCounter
from torchrl.errors import ConfigError, DeadlineError, ProcessError, SpecError
from torchrl.modules import MLP, Categorical, ExplorationType, ProbabilisticActor, set_exploration_type

pytestmark = pytest.mark.usefixtures("leaves_nothing")
both = pytest.mark.parametrize("kind", [MultiSyncCollector, MultiAsyncCollector])


same_but_ids = partial(assert_same, without=(("collector", "traj_ids"),))


@pytest.fixture
def make(keep):
    return lambda kind, *arguments, **options: keep(kind(*arguments, **options))


# ---- the same batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "num_workers"), [(MultiSyncCollector, 1), (MultiSyncCollector, 2), (MultiAsyncCollector, 1)]
)
def test_a_thousand_transitions_are_those_of_one_process(make, kind, num_workers):
    collector = make(
        kind,
        partial(cartpole, 4 // num_workers),
        Stepwise(),
        num_workers=num_workers,
        frames_per_batch=400,
        total_frames=1200,
        seed=7,
    )
    ours = torch.cat(list(collector), dim=1)
    reference = Collector(cartpole(4), Stepwise(), frames_per_batch=400, total_frames=1200, seed=7)
    theirs = torch.cat(list(reference), dim=1)
    assert ours.batch_size == (4, 300) and ours["next", "done"].sum() > 10
    same_but_ids(ours, theirs)
    first = ours["observation"][:, 0]
    assert len(torch.unique(first, dim=0)) == 4  # different rows differ


def test_two_runs_with_one_seed_are_the_same_and_workers_explore_differently(make):
    def batches():
        actor = ProbabilisticActor(MLP(4, 2), Categorical, generator=torch.Generator().manual_seed(1))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            actor.module.load_state_dict({k: torch.full_like(v, 0.01) for k, v in actor.module.state_dict().items()})
        collector = make(MultiSyncCollector, partial(cartpole, 2), actor, num_workers=2, frames_per_batch=256, seed=7)
        return torch.cat([collector.collect(), collector.collect()], dim=1)

    one, other = batches(), batches()
    same_but_ids(one, other)
    actions = one["action"]
    assert not torch.equal(actions[:2], actions[2:])  # a shared stream of the copies would make them equal


def test_trajectory_ids_are_unique_over_workers_and_batches(make):
    collector = make(MultiSyncCollector, partial(counting, 2, 3), num_workers=2, frames_per_batch=16, seed=0)
    ids = torch.cat([collector.collect()["collector", "traj_ids"] for _ in range(2)], dim=1)
    lengths = torch.unique(ids, return_counts=True)[1].tolist()
    assert len(lengths) == 4 * 3 and sorted(set(lengths)) == [2, 3]  # 8 steps a row: 3 + 3 + 2


def test_a_batch_that_is_handed_out_is_the_receivers_own(make):
    collector = make(MultiSyncCollector, partial(counting, 2), num_workers=2, frames_per_batch=8)
    first = collector.collect()
    kept = first.clone()
    second = collector.collect()
    same_but_ids(first, kept)
    first["observation"].fill_(-1)
    assert (second["observation"] >= 0).all()


def test_environments_of_one_world_become_rows(make):
    collector = make(MultiSyncCollector, partial(counting, None), num_workers=3, frames_per_batch=12)
    assert collector.collect().batch_size == (3, 4) and collector.num_envs == 3


def test_workers_may_have_environments_of_their_own_in_other_numbers(make):
    makers = [partial(counting, 1, 2), partial(counting, 3, 4)]
    collector = make(MultiSyncCollector, makers, Stepwise(), frames_per_batch=16)
    batch = collector.collect()
    assert batch["next", "done"].squeeze(-1).nonzero()[:, 1].tolist() == [1, 3, 3, 3, 3]


def test_transforms_are_built_in_the_workers(make):
    def scaled():
        return TransformedEnv(counting(2, [2, 2]), RewardScaling(10.0))

    collector = make(MultiSyncCollector, scaled, num_workers=2, frames_per_batch=16)
    assert collector.collect()["next", "reward"].unique().tolist() == [0.0, 10.0]


@both
def test_iteration_ends_after_the_frames_and_batches_are_postprocessed(make, kind):
    collector = make(
        kind,
        partial(counting, 2),
        num_workers=2,
        frames_per_batch=8,
        total_frames=20,
        postproc=lambda batch: batch.set("seen", batch["observation"] + 1),
    )
    batches = list(collector)
    assert len(batches) == 3 and collector.frames == 24
    assert torch.equal(batches[0]["seen"], batches[0]["observation"] + 1)


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_parameters_and_buffers_reach_every_worker_with_their_version(make):
    policy = Marked()
    collector = make(MultiSyncCollector, partial(counting, 1), policy, num_workers=2, frames_per_batch=4)
    for version in range(3):
        batch = collector.collect()
        assert batch["weight"].unique().tolist() == [version] and batch["count"].unique().tolist() == [10 * version]
        assert batch["collector", "policy_version"].unique().tolist() == [version]
        assert len(batch["process"].unique()) == 2
        with torch.no_grad():
            policy.weight += 1
            policy.count += 10
        collector.update_policy_weights_()


def test_weights_that_are_not_announced_do_not_reach_the_workers(make):
    policy = Marked()
    collector = make(MultiSyncCollector, partial(counting, 1), policy, num_workers=1, frames_per_batch=2)
    with torch.no_grad():
        policy.weight += 1
    assert collector.collect()["weight"].unique().tolist() == [0]


@both
def test_weights_can_be_sent_with_every_batch(make, kind):
    policy = Marked()
    options = {"num_workers": 1, "frames_per_batch": 2, "update_every_batch": True}
    collector = make(kind, partial(counting, 1), policy, **options)
    seen = []
    for _ in range(4):
        with torch.no_grad():
            policy.weight += 1
        seen.append(collector.collect()["weight"].unique().item())
    lag = 0 if kind is MultiSyncCollector else 1  # double buffering: a batch is collected while another is taken
    assert all(now - lag <= weight <= now for now, weight in enumerate(seen, 1))


def test_an_asynchronous_batch_says_with_which_weights_it_was_collected(make):
    policy = Marked()
    collector = make(MultiAsyncCollector, partial(counting, 1), policy, num_workers=2, frames_per_batch=2)
    for version in range(1, 12):
        batch = collector.collect()
        came = batch["collector", "policy_version"].unique().item()
        assert batch["weight"].unique().item() == came and 0 <= came < version
        with torch.no_grad():
            policy.weight += 1
        collector.update_policy_weights_()
    assert came > 5


def test_a_batch_under_way_keeps_the_weights_it_was_launched_with(make):
    policy = Marked()
    collector = make(MultiSyncCollector, partial(counting, 1), policy, num_workers=2, frames_per_batch=4)
    for version in range(20):
        collector.launch()
        with torch.no_grad():
            policy.weight += 1
        collector.update_policy_weights_()  # at once: the workers may not have begun
        batch = collector.take()
        assert batch["weight"].unique().tolist() == [version]
        assert batch["collector", "policy_version"].unique().tolist() == [version]


@both
def test_weights_that_are_replaced_and_not_written_to_reach_the_workers(make, kind):
    policy = Marked()
    collector = make(kind, partial(counting, 1), policy, num_workers=1, frames_per_batch=2, update_every_batch=True)
    for _ in range(3):
        policy.count = policy.count + 10
        batch = collector.collect()
    assert batch["count"].unique().item() in (20, 30)
    policy.count = torch.zeros(3)
    with pytest.raises(ConfigError, match="of the same shapes and dtypes"):
        collector.update_policy_weights_()


@both
def test_a_loaded_collector_acts_with_the_weights_of_now_and_says_so(make, kind):
    policy = Marked()
    options = {"num_workers": 1, "frames_per_batch": 2}
    first = make(kind, partial(counting, 1), policy, **options)
    for _ in range(2):
        first.collect()
        first.update_policy_weights_()
    state = first.state_dict()
    with torch.no_grad():
        policy.weight += 7
    for collector in (first, make(kind, partial(counting, 1), policy, **options)):
        collector.load_state_dict(state)
        for _ in range(3):  # an asynchronous one has a batch of before in its state
            batch = collector.collect()
        assert batch["weight"].unique().tolist() == [7]
        assert batch["collector", "policy_version"].unique().tolist() == [2]


def test_asking_does_not_let_the_workers_run_ahead(make):
    collector = make(MultiAsyncCollector, partial(counting, 1), Marked(), num_workers=3, frames_per_batch=2)
    taken_at = dict.fromkeys(collector.pids, 0)
    for version in range(40):
        collector.is_ready()
        batch = collector.take()
        process = batch["process"].unique().item()
        # A worker's batch begins when its last one is taken, not before: with the weights of then or newer ones.
        assert batch["collector", "policy_version"].unique().item() >= taken_at[process]
        taken_at[process] = version
        collector.update_policy_weights_()
        assert len(collector._arrived) <= 3


def test_no_batch_has_weights_of_two_versions(make):
    policy = Wide()
    collector = make(MultiAsyncCollector, partial(counting, 1), policy, num_workers=2, frames_per_batch=1)
    for _ in range(150):
        batch = collector.collect()
        assert torch.equal(batch["least"], batch["most"])
        with torch.no_grad():
            policy.weight += 1
            policy.tail += 1
        collector.update_policy_weights_()


def test_a_plain_function_has_no_weights_to_send(make):
    collector = make(
        MultiSyncCollector,
        partial(counting, 1),
        lambda root: root.set("action", torch.ones(root.batch_size, dtype=torch.int64)),
        num_workers=1,
        frames_per_batch=2,
    )
    assert collector.collect()["action"].tolist() == [[1, 1]]
    with pytest.raises(ConfigError, match="a torch module, whose weights can be sent"):
        collector.update_policy_weights_()


def test_the_strength_of_exploration_travels(make):
    policy = Nudge(Marked(), start=1.0, end=0.0, num_frames=8)
    collector = make(MultiSyncCollector, partial(counting, 1), policy, num_workers=2, frames_per_batch=4)
    assert collector.collect()["strength"].unique().tolist() == [1.0]
    policy.step(4)
    collector.update_policy_weights_()
    assert collector.collect()["strength"].unique().tolist() == [0.5]


def test_the_exploration_type_is_that_of_the_caller(make):
    actor = ProbabilisticActor(MLP(4, 2), Categorical)
    collector = make(MultiSyncCollector, partial(cartpole, 8), actor, num_workers=1, frames_per_batch=800, seed=0)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        batch = collector.collect()
        assert torch.equal(batch["action"], batch["logits"].argmax(-1))
    batch = collector.collect()
    assert not torch.equal(batch["action"], batch["logits"].argmax(-1))


@both
def test_a_warm_up_is_shared_by_the_workers_and_counted_here(make, kind):
    env = counting(2)
    policy = WarmUp(Stepwise(), env.action_spec, 40)
    collector = make(kind, partial(counting, 2), policy, num_workers=2, frames_per_batch=16, seed=0)
    scripted = []
    is_behind = True  # of two workers that do not wait, one may be
    while len(scripted) < 8 or not scripted[-1] or is_behind:
        batch = collector.collect()
        scripted.append(torch.equal(batch["action"], batch["episode_length"].squeeze(-1) % 2))
        is_behind = policy.frames_acted < 40 and len(scripted) < 1000
    assert policy.frames_acted == 40 and not scripted[0]
    assert scripted.count(False) <= 4, "40 frames of random actions, at most 20 of each worker"


# ---- without waiting -------------------------------------------------------------------------------------------------


def test_a_batch_can_be_launched_asked_for_and_taken(make, tmp_path):
    gate = tmp_path / "gate"
    collector = make(MultiSyncCollector, partial(gated, gate), num_workers=2, frames_per_batch=8)
    gate.touch()
    collector.launch()
    assert not collector.is_ready()
    with pytest.raises(ConfigError, match=r"launch: .*Call take\(\) first"):
        collector.launch()
    for forbidden in (collector.reset, collector.state_dict, partial(collector.load_state_dict, {"workers": [0, 1]})):
        with pytest.raises(ConfigError, match=r"no batch under way.*Call take\(\) first"):
            forbidden()
    collector.update_policy_weights_()  # safe: it holds from the next batch on
    gate.unlink()
    wait_until(collector.is_ready)
    batch = collector.take()
    assert batch["collector", "policy_version"].unique().tolist() == [0]
    assert collector.collect()["collector", "policy_version"].unique().tolist() == [1]
    for forbidden in (collector.take, collector.is_ready):
        with pytest.raises(ConfigError, match=r"Call launch\(\) first"):
            forbidden()


def test_nothing_steps_while_the_learner_trains(make):
    collector = make(MultiSyncCollector, partial(counting, 1, 1000), num_workers=2, frames_per_batch=4)
    last = collector.collect()["next", "observation"][:, -1]
    time.sleep(0.2)
    assert torch.equal(collector.collect()["observation"][:, 0], last)


def test_the_first_that_is_ready_is_handed_out_first(make):
    makers = [partial(slow, FOREVER_S), partial(slow, 0.0)]
    collector = make(MultiAsyncCollector, makers, Marked(), frames_per_batch=4)
    processes = {collector.collect()["process"].unique().item() for _ in range(6)}
    assert processes == {collector.pids[1]}


def test_no_worker_is_left_out_however_slow_the_learner(make):
    collector = make(MultiAsyncCollector, partial(counting, 1), Marked(), num_workers=3, frames_per_batch=2)
    processes = []
    while min(processes.count(pid) for pid in collector.pids) < 3:
        assert len(processes) < 1000
        processes.append(collector.collect()["process"].unique().item())
        time.sleep(0.02)


def test_an_asynchronous_reset_comes_after_the_batches_under_way(make):
    collector = make(MultiAsyncCollector, partial(counting, 1, 1000), Marked(), num_workers=2, frames_per_batch=4)

    def starts(num):
        """Take batches until each worker has delivered so many; say which begin with an episode."""
        seen = {pid: [] for pid in collector.pids}
        while min(map(len, seen.values())) < num:
            batch = collector.collect()
            seen[batch["process"].unique().item()].append(bool(batch["is_init"][0, 0]))
        return list(seen.values())

    assert [sum(each) for each in starts(2)] == [1, 1]
    collector.reset()
    for each in starts(3):
        assert sum(each) == 1 and not each[0]  # the batch that was under way goes on with its episode


# ---- parameters of each row ------------------------------------------------------------------------------------------


def test_every_row_has_its_own_parameters_in_the_order_of_the_workers(make):
    collector = make(MultiSyncCollector, partial(counting, 2, 1000), Stepwise(), num_workers=2, frames_per_batch=8)
    collector.set_info(agent_info=TensorDict({"skill": torch.arange(4)}, [4]))
    assert collector.collect()["skill"].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    collector.set_info(agent_info=TensorDict({"skill": torch.arange(4) + 10}, [4]))  # in mid-episode
    batch = collector.collect()
    assert batch["skill"].tolist() == [[10, 10], [11, 11], [12, 12], [13, 13]] and not batch["is_init"].any()
    with pytest.raises(ConfigError, match=r"batch size \[4\], got \[2\]"):
        collector.set_info(agent_info=TensorDict({"skill": torch.arange(2)}, [2]))


# ---- going on --------------------------------------------------------------------------------------------------------


@both
def test_a_run_goes_on_bit_for_bit_in_other_processes(make, kind):
    options = {"num_workers": 1, "frames_per_batch": 64, "seed": 3}

    def actor():
        actor = ProbabilisticActor(MLP(4, 2), Categorical, generator=torch.Generator())
        with torch.no_grad():
            for number, parameter in enumerate(actor.parameters()):
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape) / (number + 1))
        return actor

    whole = make(kind, partial(cartpole, 2), actor(), **options)
    first = [whole.collect() for _ in range(2)]
    state = whole.state_dict()
    rest = [whole.collect() for _ in range(3)]
    other = make(kind, partial(cartpole, 2), actor(), **options)
    other.load_state_dict(state)
    assert other.frames == 2 * 64 and len(first) == 2
    for ours, theirs in zip(rest, [other.collect() for _ in range(3)], strict=True):
        same_but_ids(ours, theirs)


# ---- faults ----------------------------------------------------------------------------------------------------------


@both
def test_an_exception_keeps_its_type_and_names_the_worker(make, kind):
    with pytest.raises(PlantedError) as caught:
        make(kind, [partial(counting, 2), partial(faulty, "raises_in_init")], frames_per_batch=8)
    assert "worker 1" in "\n".join(caught.value.__notes__)
    collector = make(kind, [partial(counting, 2), partial(faulty, "raises_in_step", 3)], frames_per_batch=8)
    with pytest.raises(PlantedError, match="planted in step") as caught:
        for _ in range(9):
            collector.collect()
    notes = "\n".join(caught.value.__notes__)
    assert "worker 1" in notes and "row 0" in notes


def test_the_others_go_on_after_an_exception_was_raised(make):
    collector = make(
        MultiSyncCollector, [partial(counting, 2), partial(faulty, "raises_in_step", 4)], frames_per_batch=12
    )
    for _ in range(2):  # the faulty ones fail again, from new episodes
        with pytest.raises(PlantedError):
            for _ in range(3):
                collector.collect()


@both
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_is_named_at_once(make, kind, victim):
    collector = make(kind, partial(slow, FOREVER_S), num_workers=2, frames_per_batch=200, timeout_s=FOREVER_S)
    collector.launch()
    os.kill(collector.pids[victim], signal.SIGKILL)
    with pytest.raises(ProcessError, match=rf"worker {victim}, process .*killed by SIGKILL"):
        for _ in range(3):
            collector.take()
    with pytest.raises(ProcessError, match="shut down"):
        collector.collect()


def test_a_batch_that_never_ends_is_ended(make):
    def attempt(seconds):
        makers = [partial(slow, 0), partial(slow, FOREVER_S)]
        collector = make(MultiSyncCollector, makers, frames_per_batch=4, timeout_s=seconds)
        with pytest.raises(DeadlineError, match=rf"worker 1.*a batch within {seconds:g} s"):
            collector.collect()

    with_more_time(attempt)


@both
def test_a_worker_that_died_is_replaced_and_its_batch_dropped_and_counted(make, kind):
    policy = Marked()
    with torch.no_grad():
        policy.weight += 5
    collector = make(
        kind, partial(slow, 0.005), policy, num_workers=2, frames_per_batch=40, seed=0, on_worker_failure="restart"
    )
    for _ in range(3):
        collector.update_policy_weights_()
    collector.collect()
    before = collector.pids
    threading.Timer(0.1, partial(os.kill, before[1], signal.SIGKILL)).start()
    batches, delivered = [], set()
    while collector.pids[1] not in delivered - {before[1]}:
        batches.append(collector.collect())
        delivered |= set(batches[-1]["process"].unique().tolist())
    after = collector.pids
    assert after[0] == before[0] and after[1] != before[1]
    assert collector.num_restarts == 1
    versions = torch.cat([batch["collector", "policy_version"].reshape(-1) for batch in batches])
    assert versions.unique().tolist() == [3]
    assert collector.dropped_frames == (20 if kind is MultiSyncCollector else 40)
    assert all(batch["weight"].unique().item() == 5 for batch in batches)
    rows = torch.cat([batch.reshape(-1) for batch in batches])
    assert set(rows["process"].unique().tolist()) >= {after[0], after[1]}
    ids = rows["collector", "traj_ids"][rows["process"] == after[1]].unique()
    old = rows["collector", "traj_ids"][rows["process"] != after[1]].unique()
    assert not set(ids.tolist()) & set(old.tolist())  # new episodes


@both
def test_a_worker_that_died_between_two_batches_is_replaced_where_it_is_needed(make, kind):
    collector = make(kind, partial(counting, 1), num_workers=2, frames_per_batch=4, on_worker_failure="restart")
    collector.collect()
    for needed in (collector.state_dict, collector.reset, lambda: [collector.collect() for _ in range(4)]):
        os.kill(collector.pids[0], signal.SIGKILL)
        wait_until(partial(collector._pool.has_died, 0))
        before = collector.num_restarts
        needed()
        assert collector.num_restarts == before + 1


def test_a_policy_that_writes_something_else_in_mid_batch_is_refused(make):
    class Fickle(Stepwise):
        calls = 0

        def forward(self, root):
            self.calls += 1
            return super().forward(root).set("late", torch.zeros(root.batch_size, dtype=[None, int][self.calls == 3]))

    collector = make(MultiSyncCollector, partial(counting, 1), Fickle(), num_workers=1, frames_per_batch=4)
    with pytest.raises(SpecError, match=r"'late' is \[1\] torch.int64 on cpu instead of \[1\] torch.float32"):
        collector.collect()


def test_fifty_rounds_leave_nothing(make):
    before = None
    for _ in range(50):
        collector = MultiSyncCollector(partial(counting, 1), Stepwise(), num_workers=1, frames_per_batch=2)
        collector.collect()
        collector.shutdown()
        del collector
        gc.collect()
        before = before or len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_worker_that_always_dies_is_not_started_for_ever(make):
    def deadly():
        return SerialEnv(partial(DeadlySimulator, 3), 1)

    collector = make(MultiSyncCollector, deadly, num_workers=1, frames_per_batch=8, on_worker_failure="restart")
    with pytest.raises(ProcessError, match="exited with status 9") as caught:
        collector.collect()
    assert "4 processes in a row were lost without a batch" in "\n".join(caught.value.__notes__)
    assert collector.num_restarts == 3


class Fragile:
    """Makes an environment the first time, and raises the second."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self):
        mark = Path(self.folder) / "built"
        if mark.exists():
            raise PlantedError("planted in the second call")
        mark.touch()
        return slow(0.01)


@both
def test_an_exception_of_a_factory_while_a_worker_is_replaced_is_raised(make, kind, tmp_path):
    makers = [partial(slow, 0.01), Fragile(str(tmp_path))]
    collector = make(kind, makers, frames_per_batch=20, on_worker_failure="restart")
    collector.launch()
    os.kill(collector.pids[1], signal.SIGKILL)
    with pytest.raises(PlantedError, match="second call"):
        for _ in range(4):
            collector.take()


def test_a_warm_up_that_is_over_does_not_begin_again_in_the_workers(make):
    policy = WarmUp(Stepwise(), counting(2).action_spec, 40)
    policy.progress.frames = 40
    collector = make(MultiSyncCollector, partial(counting, 2), policy, num_workers=2, frames_per_batch=16)
    batch = collector.collect()
    assert torch.equal(batch["action"], batch["episode_length"].squeeze(-1) % 2) and policy.frames_acted == 40


def bare():
    return counting(1)


def with_steps():
    return TransformedEnv(counting(1), StepCounter())


def test_workers_with_other_keys_are_refused(make):
    collector = make(MultiSyncCollector, [bare, with_steps], frames_per_batch=4)
    with pytest.raises(SpecError, match="batches of one layout from all workers"):
        collector.collect()


def test_a_worker_with_other_keys_does_not_take_the_batches_of_others_along(make):
    collector = make(MultiAsyncCollector, [bare, with_steps, bare], frames_per_batch=4)
    collector.launch()
    wait_until(lambda: all(remote._channel.has_input() for remote in collector._pool._remotes))
    first = collector.collect()
    with pytest.raises(SpecError, match="batches of one layout from all workers"):
        collector.collect()
    second = collector.collect()
    workers = [set((batch["collector", "traj_ids"] % 3).flatten().tolist()) for batch in (first, second)]
    assert workers == [{0}, {2}]


@both
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 2, "frames_per_batch": 7}, "a positive multiple of the 2 environments"),
        ({"num_workers": 0, "frames_per_batch": 4}, "num_workers of at least 1"),
        ({"num_workers": 2, "frames_per_batch": 4, "total_frames": -3}, "or -1, which never stops"),
        ({"num_workers": 2, "frames_per_batch": 4, "on_worker_failure": "ignore"}, '"raise" or "restart"'),
        ({"num_workers": 2, "frames_per_batch": 4, "devices": ["cpu"]}, "one for each of the 2 workers"),
        ({"num_workers": 2, "frames_per_batch": 4, "policy": 3}, "a policy that can be called"),
        ({"num_workers": 2, "frames_per_batch": 4, "policy": nn.LazyLinear(2)}, "initialised parameters"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(make, kind, options, message):
    num_envs = 2 if options["frames_per_batch"] == 7 and kind is MultiAsyncCollector else 1
    with pytest.raises(ConfigError, match=message):
        make(kind, partial(counting, num_envs), **options)


def test_an_environment_instead_of_its_maker_is_refused():
    with pytest.raises(ConfigError, match="a callable that makes an Env"):
        MultiSyncCollector(counting(2), num_workers=2, frames_per_batch=4)
    with pytest.raises(ConfigError, match=r'got .CartPole-v1.*Write lambda: GymEnv\("CartPole-v1", num_envs=...\)'):
        MultiSyncCollector("CartPole-v1", num_workers=2, frames_per_batch=4)


INTERRUPTED = """
from functools import partial
from cases.interrupt import assert_ctrl_c_leaves_nothing
from cases.same import assert_same
from cases.workers import slow
from torchrl.collectors import KIND
collector = KIND(partial(slow, 0.01), num_workers=2, frames_per_batch=100)
print(*collector.pids, flush=True)
while True:
    collector.collect()
"""


@both
def test_ctrl_c_in_the_middle_leaves_nothing(kind):
    assert_ctrl_c_leaves_nothing(INTERRUPTED.replace("KIND", kind.__name__))
