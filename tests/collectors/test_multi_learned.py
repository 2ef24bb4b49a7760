"""What transforms learn in several workers: joined, kept through a restart, handed on to evaluations and files."""

import os
import signal
import time
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.workers import Marked, Stepwise, counting
from torchrl.agents import Agent, EvaluationProcess, Evaluator, MinibatchEpochs
from torchrl.collectors import Collector, MultiAsyncCollector, MultiSyncCollector
from torchrl.envs import GymEnv, TransformedEnv
from torchrl.envs.transforms import Compose, ObservationStatistics, RewardNorm, VecNorm
from torchrl.errors import ConfigError
from torchrl.modules import MLP, Categorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import GAE, ClipPPOLoss

pytestmark = pytest.mark.usefixtures("leaves_nothing")
both = pytest.mark.parametrize("kind", [MultiSyncCollector, MultiAsyncCollector])


def normalised(num_envs=1, length=4, *, statistics=None):
    norm = VecNorm(decay=1.0, statistics=statistics)
    return TransformedEnv(counting(num_envs, length), Compose(norm, RewardNorm(0.9)))


def lunar():
    return TransformedEnv(GymEnv("LunarLander-v3", num_envs=2), RewardNorm(0.99))


@pytest.fixture
def make(keep):
    return lambda kind, *arguments, **options: keep(kind(*arguments, **options))


def moments(states):
    return [state["VecNorm[observation]"]["statistics.mean_0"].item() for state in states]


def test_workers_go_on_from_what_all_have_learned(make):
    """Worlds of episodes of 2 and of 6 steps: as one environment with both rows, batch by batch."""
    factories = [partial(normalised, 1, 2), partial(normalised, 1, 6)]
    collector = make(MultiSyncCollector, factories, Stepwise(), frames_per_batch=12)
    first, second = collector.collect(), collector.collect()
    apart = moments(collector.learned_states())
    assert apart[0] != apart[1]
    third = collector.collect()
    # Both normalise the observation 1 by the same statistics as soon as a batch begins.
    ones = [[batch[row, 0]["next", "observation"].item() for row in range(2)] for batch in (first, second, third)]
    assert ones[0][0] == ones[0][1]  # nothing was learned before
    assert abs(ones[2][0] - ones[2][1]) < 0.1 < abs(ones[2][0])


def test_one_worker_normalises_as_a_collector_here(make):
    batches = [
        list(kind(normalised(), Stepwise(), frames_per_batch=8, total_frames=32, seed=0))
        if kind is Collector
        else list(make(kind, normalised, Stepwise(), num_workers=1, frames_per_batch=8, total_frames=32, seed=0))
        for kind in (Collector, MultiSyncCollector)
    ]
    for here, there in zip(*batches, strict=True):
        assert torch.equal(here["observation"], there["observation"])
        assert torch.equal(here["next", "reward"], there["next", "reward"])


@both
def test_a_worker_that_is_started_again_goes_on_from_what_it_had_learned(make, kind):
    collector = make(kind, lunar, num_workers=1, frames_per_batch=400, seed=0, on_worker_failure="restart")
    for _ in range(3):
        collector.collect()
    if kind is MultiAsyncCollector:
        collector.load_learned_states(collector.learned_states())  # its worker is at rest
    before = collector.learned_states()[0]["reward/RewardNorm"]["moments"]
    os.kill(collector.pids[0], signal.SIGKILL)
    while not collector._pool.has_died(0):
        time.sleep(0.01)
    collector.reset()  # finds it dead
    assert collector.num_restarts == 1
    assert torch.equal(collector.learned_states()[0]["reward/RewardNorm"]["moments"], before)
    reward = collector.collect()["next", "reward"]
    assert reward.abs().mean() < 1  # 37 times as large where nothing was kept


@both
def test_a_resumed_run_of_worlds_that_cannot_be_captured_keeps_its_statistics(make, kind):
    one, two = (make(kind, lunar, num_workers=2, frames_per_batch=80, seed=seed) for seed in (0, 1))
    one.collect()
    state = one.state_dict()
    learned = one.learned_states()
    two.load_state_dict(state)
    for came, expected in zip(two.learned_states(), learned, strict=True):
        assert torch.equal(came["reward/RewardNorm"]["moments"], expected["reward/RewardNorm"]["moments"])


def test_statistics_are_saved_of_workers_that_were_lost(make):
    one = make(MultiSyncCollector, lunar, num_workers=2, frames_per_batch=80, seed=0)
    one.collect()
    learned = one.learned_states()
    one.shutdown()
    two = make(MultiSyncCollector, lunar, num_workers=2, frames_per_batch=80, seed=0)
    two.load_state_dict(one.state_dict())
    assert torch.equal(
        two.learned_states()[1]["reward/RewardNorm"]["moments"],
        learned[1]["reward/RewardNorm"]["moments"],
    )


@pytest.mark.parametrize("start_method", ["forkserver", "spawn", "fork"])
def test_shared_statistics_count_the_rows_of_all_workers(make, start_method):
    shared = ObservationStatistics({"observation": [1]})
    shared.share_memory()
    collector = make(
        MultiSyncCollector,
        partial(normalised, statistics=shared),
        num_workers=2,
        frames_per_batch=40,
        start_method=start_method,
    )
    collector.collect()
    collector.collect()
    count, mean, _ = shared.moments("observation")
    # 40 steps and 11 starts in all of each worker: 51 are those of one alone. Of two updates at once one may be lost,
    # and how many come at once is the machine's affair.
    assert 55 < count.item() <= 102 and 1 < mean.item() < 3


def test_a_policy_in_shared_memory_is_copied_all_the_same(make):
    """Its weights change when the learner says so, not while a worker acts."""
    policy = Marked().share_memory()
    collector = make(MultiSyncCollector, partial(counting, 1), policy, num_workers=1, frames_per_batch=4)
    with torch.no_grad():
        policy.weight += 1
    assert collector.collect()["weight"].unique().tolist() == [0]
    collector.update_policy_weights_()
    assert collector.collect()["weight"].unique().tolist() == [1]


# ---- evaluations -----------------------------------------------------------------------------------------------------


class Seen(nn.Module):
    """Goes right where what it sees is large: worth something only behind the statistics of the training."""

    def forward(self, root):
        return root.set("action", (root["observation"].squeeze(-1) > 0).long())


def small_agent(collector, **options):
    torch.manual_seed(0)
    actor, critic = ProbabilisticActor(MLP(1, 2), Categorical), ValueOperator(MLP(1, 1))
    collector = collector(actor)
    loss = ClipPPOLoss(actor, critic)
    optimizer = torch.optim.Adam(loss.trainable_parameters())
    step = MinibatchEpochs(loss, optimizer, num_epochs=1, minibatch_size=8, generator=torch.Generator().manual_seed(0))
    return Agent(collector, step, advantage=GAE(critic), **options)


def test_an_evaluation_of_several_workers_sees_with_what_all_have_learned(make):
    factories = [partial(normalised, 1, 2), partial(normalised, 1, 6)]
    seen = []

    def look(root):
        seen.append(root["observation"].item())
        return root.set("action", torch.zeros(1, dtype=torch.int64))

    agent = small_agent(lambda actor: make(MultiSyncCollector, factories, actor, frames_per_batch=24))
    agent.collector.collect()
    learned = agent.collector.learned_states()
    Evaluator(normalised(1, 3), num_episodes=1)(look, learned=learned)
    joint = VecNorm.merge_learned([state["VecNorm[observation]"] for state in learned])
    _, mean, var = joint.values()
    expected = [((step - mean) / (var + 1e-8).sqrt()).item() for step in range(3)]
    assert seen == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("where", ["none", "here", "beside"])
def test_training_is_the_same_with_any_evaluation(where):
    """Statistics count as well as parameters: an evaluation learns nothing, wherever it runs."""
    options, evaluator = {"num_episodes": 2, "every_frames": 16}, None
    if where == "here":
        evaluator = Evaluator(normalised(), **options)
    elif where == "beside":
        evaluator = EvaluationProcess(normalised, **options)
    agent = small_agent(
        lambda actor: Collector(normalised(2), actor, frames_per_batch=16, total_frames=64, seed=0), evaluator=evaluator
    )
    agent.train()
    agent.close()
    summed = next(agent.loss.parameters()).double().sum().item()
    counted = agent.collector.learned_states()[0]["VecNorm[observation]"]
    result = (summed, {key: value.tolist() for key, value in counted.items()})
    assert RESULTS.setdefault("first", result) == result


RESULTS = {}


def test_an_evaluation_beside_sees_with_the_statistics_of_its_launch():
    with_policy = Seen()
    training = normalised(2)
    training.rollout(30)
    learned = [training.learned_state_dict()]
    process = EvaluationProcess(normalised, num_episodes=2)
    try:
        process.launch(with_policy, learned=learned)
        result = process.take().evaluation
        here = Evaluator(normalised(), num_episodes=2)(with_policy, learned=learned)
        assert torch.equal(result.returns, here.returns)
        with pytest.raises(ConfigError, match="seen nothing"):
            process(with_policy)
    finally:
        process.close()


def test_networks_are_loaded_with_what_observations_are_normalised_by(tmp_path):
    def agent():
        return small_agent(lambda actor: Collector(normalised(2), actor, frames_per_batch=16, total_frames=32, seed=0))

    one, two = agent(), agent()
    one.train()
    one.save(tmp_path / "a.pt")
    two.load_networks(tmp_path / "a.pt")
    ours, theirs = (each.collector.learned_states()[0] for each in (one, two))
    for key, value in ours["VecNorm[observation]"].items():
        assert torch.equal(theirs["VecNorm[observation]"][key], value)
    assert theirs["reward/RewardNorm"]["moments"].tolist() == [0, 0, 0]


def test_after_an_error_the_saved_agent_has_its_statistics(tmp_path):
    class Planted(Exception):
        pass

    def fail(batch):
        if fail.calls:
            raise Planted
        fail.calls += 1

    fail.calls = 0

    def agent(store):
        return small_agent(
            lambda actor: Collector(normalised(2), actor, frames_per_batch=16, total_frames=64, seed=0),
            store=store,
            folder=tmp_path,
        )

    one = agent(fail)
    with pytest.raises(Planted):
        one.train()
    two = agent(None)
    with pytest.warns(UserWarning, match="New episodes"):
        two.load(tmp_path / "last.pt")
    ours, theirs = (each.collector.learned_states()[0] for each in (one, two))
    for name, tensors in ours.items():
        for key, value in tensors.items():
            assert torch.equal(theirs[name][key], value)


def test_tensordicts_and_modules_that_a_factory_closes_over_stay_shared(make):
    """A level that the learner sets reaches the worlds of running workers."""
    level = TensorDict({"level": torch.zeros(())}).share_memory_()

    def leveled():
        env = counting(1)
        advance = env.step_rows

        def told(tensordict):
            next_, root, ended = advance(tensordict)
            next_.set("reward", next_.get("reward") * 0 + level["level"])
            return next_, root, ended

        env.step_rows = told
        return env

    collector = make(MultiSyncCollector, leveled, num_workers=1, frames_per_batch=4)
    assert collector.collect()["next", "reward"].unique().tolist() == [0]
    level["level"].fill_(3)
    assert collector.collect()["next", "reward"].unique().tolist() == [3]
