"""EnvPool's asynchronous mode: each simulator's steps are its own, whole and in order, whoever else is faster."""

from functools import partial

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from cases.same import assert_same
from cases.workers import Marked
from torchrl.agents import Agent, MinibatchEpochs
from torchrl.collectors import AsyncEnvPoolCollector, Collector, WarmUp
from torchrl.envs import EnvPoolEnv, GymEnv, TransformedEnv
from torchrl.envs.transforms import RewardScaling
from torchrl.errors import ConfigError, EnvError, NonFiniteError, SpecError
from torchrl.modules import MLP, Categorical, ExplorationType, ProbabilisticActor, ValueOperator, set_exploration_type
from torchrl.objectives import GAE, ClipPPOLoss
from torchrl.seeding import child_seeds

envpool = pytest.importorskip("envpool")

NUM_ENVS, NUM_ROWS, NUM_STEPS, LIMIT = 7, 3, 8, 25


def pool_env(num_rows=NUM_ROWS, limit=LIMIT):
    return EnvPoolEnv("CartPole-v1", num_rows, env_kwargs={"max_episode_steps": limit}, num_threads=2)


@pytest.fixture
def make(keep):
    def make(policy=None, *, env=None, **options):
        options = {"num_envs": NUM_ENVS, "frames_per_batch": NUM_ROWS * NUM_STEPS, "seed": 7} | options
        return keep(AsyncEnvPoolCollector(pool_env() if env is None else env, policy, **options))

    return make


def by_digit(root):
    """Push by a digit of the position, as good as at random: some poles fall, others stand until the limit."""
    return root.set("action", (root["observation"][:, 0] * 1e4).floor().long() % 2)


def by_simulator(batches):
    """Join the fragments of each simulator, in the order in which they came: ``[T]`` for each number."""
    rows = [row for batch in batches for row in batch.unbind(0)]
    return {
        one: torch.cat([row for row in rows if row["collector", "env_ids"][0] == one])
        for one in range(NUM_ENVS)
        if any(row["collector", "env_ids"][0] == one for row in rows)
    }


def played_together(num_steps, policy):
    """Step a synchronous pool by hand, from the same seeds: the transitions of each simulator, without the resets."""
    seeds = child_seeds(7, NUM_ENVS)
    pool = envpool.make_gymnasium("CartPole-v1", num_envs=NUM_ENVS, seed=seeds, max_episode_steps=LIMIT)
    seen, _ = pool.reset()
    is_init = np.ones(NUM_ENVS, bool)
    found, was_over = [[] for _ in range(NUM_ENVS)], np.zeros(NUM_ENVS, bool)
    while min(map(len, found)) < num_steps:
        root = TensorDict({"observation": torch.tensor(seen)}, [7])
        after, reward, terminated, truncated, _ = pool.step(policy(root)["action"].numpy().astype(np.int32))
        for one in np.flatnonzero(~was_over):
            found[one].append((seen[one], is_init[one], after[one], reward[one], terminated[one], truncated[one]))
        is_init = was_over
        was_over = (terminated | truncated) & ~was_over
        seen = after
    return found


@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_every_simulator_makes_the_steps_that_it_makes_among_others(make):
    collector = make(by_digit)
    batches = [collector.collect() for _ in range(30)]
    rows = by_simulator(batches)
    assert len(rows) == NUM_ENVS and sum(len(row) for row in rows.values()) == 30 * NUM_ROWS * NUM_STEPS
    expected = played_together(max(map(len, rows.values())), by_digit)
    for one, row in rows.items():
        facts = zip(*expected[one][: len(row)], strict=True)
        observation, is_init, after, reward, terminated, truncated = (torch.tensor(np.array(x)) for x in facts)
        assert torch.equal(row["observation"], observation) and torch.equal(row["next", "observation"], after)
        assert torch.equal(row["is_init"].squeeze(-1), is_init)
        assert torch.equal(row["next", "reward"].squeeze(-1), reward)
        assert torch.equal(row["next", "truncated"].squeeze(-1), truncated)
        assert torch.equal(row["next", "terminated"].squeeze(-1), terminated & ~truncated)
        assert torch.equal(row["next", "done"].squeeze(-1), terminated | truncated)
    flags = torch.cat([*rows.values()])["next"]
    assert flags["terminated"].sum() > 5 and flags["truncated"].sum() > 5


def test_rows_are_different_simulators_and_trajectories_have_numbers_of_their_own(make):
    collector = make(by_digit)
    batches = [collector.collect() for _ in range(30)]
    for batch in batches:
        assert batch.batch_size == (NUM_ROWS, NUM_STEPS)
        ids = batch["collector", "env_ids"]
        assert (ids == ids[:, :1]).all() and len(ids[:, 0].unique()) == NUM_ROWS
    owners = {}
    for one, row in by_simulator(batches).items():
        trajectories, starts = row["collector", "traj_ids"], row["is_init"].squeeze(-1)
        assert torch.equal(trajectories.diff() != 0, starts[1:]) and starts[0]
        assert not [owners[number] for number in trajectories.unique().tolist() if number in owners]
        owners |= dict.fromkeys(trajectories.unique().tolist(), one)
        length, total = row["next", "episode_length"].squeeze(-1), row["next", "episode_return"].squeeze(-1)
        assert torch.equal(length, row["episode_length"].squeeze(-1) + 1) and torch.equal(length.float(), total)
        goes_on = ~starts[1:]
        assert torch.equal(row["observation"][1:][goes_on], row["next", "observation"][:-1][goes_on])
        assert torch.equal(row["next", "done"].squeeze(-1)[:-1], starts[1:])
    assert max(owners) < len(owners) + NUM_ENVS


def test_no_simulator_is_left_out(make):
    collector = make(by_digit)
    counts = torch.cat([collector.collect()["collector", "env_ids"][:, 0] for _ in range(70)]).bincount()
    assert len(counts) == NUM_ENVS and counts.min() >= 15


def test_a_batch_is_the_receivers_own(make):
    collector = make(by_digit)
    first = collector.collect()
    kept = first.clone()
    second = collector.collect()
    assert_same(first, kept)
    first["observation"].fill_(-1)
    assert (second["observation"] != -1).any()


def test_a_step_says_with_which_weights_it_was_chosen(make):
    policy = Marked()
    collector = make(policy)
    versions = []
    for version in range(20):
        batch = collector.collect()
        came = batch["collector", "policy_version"]
        assert torch.equal(batch["weight"].long(), came) and came.max() <= version
        assert (came.diff(dim=-1) >= 0).all()
        versions.append(came)
        with torch.no_grad():
            policy.weight += 1
        collector.update_policy_weights_()
    assert versions[-1].min() >= 15  # none lags behind for ever


def test_iteration_ends_after_the_frames_and_batches_are_postprocessed(make):
    collector = make(by_digit, total_frames=60, postproc=lambda batch: batch.set("seen", batch["observation"] + 1))
    batches = list(collector)
    assert len(batches) == 3 and collector.frames == 72
    assert torch.equal(batches[0]["seen"], batches[0]["observation"] + 1)


def test_actions_are_sampled_unless_the_caller_says_otherwise(make):
    collector = make(ProbabilisticActor(MLP(4, 2), Categorical))
    batch = collector.collect()
    assert not torch.equal(batch["action"], batch["logits"].argmax(-1))
    collector.reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        batch = collector.collect()
    assert torch.equal(batch["action"], batch["logits"].argmax(-1))


def test_random_actions_and_a_warm_up(make):
    assert 0 < make().collect()["action"].float().mean() < 1
    policy = WarmUp(by_digit, pool_env().action_spec, 39)
    collector = make(policy)
    for _ in range(4):
        batch = collector.collect()
    assert policy.frames_acted == 39 and torch.equal(batch["action"], by_digit(batch.reshape(-1))["action"].view(3, -1))


def test_a_reset_begins_other_episodes(make):
    collector = make(by_digit)
    first = collector.collect()
    collector.reset()
    again = collector.collect()
    assert again["is_init"][:, 0].all() and not torch.equal(first["observation"][:, 0], again["observation"][:, 0])
    assert again["collector", "traj_ids"].min() > first["collector", "traj_ids"].max()


def test_a_run_goes_on_with_new_episodes_and_its_counters(make):
    whole = make(by_digit)
    before = [whole.collect() for _ in range(2)]
    whole.update_policy_weights_()
    other = make(by_digit)
    with pytest.warns(UserWarning, match="New episodes start after loading"):
        other.load_state_dict(whole.state_dict())
    assert other.frames == 48 and other.policy_version == 1
    batch = other.collect()
    assert batch["is_init"][:, 0].all()
    assert not torch.isin(batch["observation"][:, 0], torch.cat([b["observation"].flatten(0, 1) for b in before])).any()
    assert batch["collector", "traj_ids"].min() > max(b["collector", "traj_ids"].max() for b in before)


def test_after_an_error_all_begin_again(make):
    class Once:
        calls = 0

        def __call__(self, root):
            self.calls += 1
            if self.calls == 12:
                raise RuntimeError("planted")
            return by_digit(root)

    collector = make(Once())
    with pytest.raises(RuntimeError, match="planted"):
        for _ in range(5):
            collector.collect()
    batch = collector.collect()
    assert batch["is_init"][:, 0].all()
    assert torch.equal(batch["observation"][:, 1:], batch["next", "observation"][:, :-1])


def test_a_simulator_that_shows_no_numbers_is_refused(make, monkeypatch):
    collector = make(by_digit)
    collector.collect()
    receive = collector._queue.receive

    def spoilt():
        result = receive()
        collector._queue.answers["reward"].fill(np.nan)
        return result

    monkeypatch.setattr(collector._queue, "receive", spoilt)
    with pytest.raises(NonFiniteError, match="reward"):
        for _ in range(3):
            collector.collect()


def test_a_policy_with_memory_or_with_entries_that_come_and_go_is_refused(make):
    with pytest.raises(ConfigError, match="a policy without memory"):
        make(lambda root: by_digit(root).set(("next", "h"), torch.zeros(3, 1))).collect()
    number = iter(range(100))
    collector = make(lambda root: by_digit(root).set("late", torch.zeros(3, 1 + (next(number) == 4))))
    with pytest.raises(SpecError, match=r"'late' is \[1, 2\] torch.float32 on cpu instead of \[1, 1\]"):
        for _ in range(3):
            collector.collect()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_envs": 6}, ConfigError, "num_envs of at least 7, for an env of 3 rows, got 6"),
        ({"frames_per_batch": 25}, ConfigError, "a positive multiple of the 3 environments"),
        ({"env": GymEnv("CartPole-v1", num_envs=3)}, EnvError, "an EnvPoolEnv without transforms"),
        ({"policy": 3}, ConfigError, "a policy that can be called"),
        ({"total_frames": -3}, ConfigError, "or -1, which never stops"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_transforms_and_parameters_of_rows_are_refused(make):
    with pytest.raises(EnvError, match="without transforms.*postproc"):
        make(env=TransformedEnv(pool_env(), RewardScaling(2.0)))
    with pytest.raises(ConfigError, match="the same simulators in each batch"):
        make(by_digit).set_info(agent_info=TensorDict({"skill": torch.arange(3)}, [3]))


def test_one_env_serves_one_collector_and_again_after_a_shutdown():
    env = pool_env()
    collector = AsyncEnvPoolCollector(env, by_digit, num_envs=7, frames_per_batch=24)
    with pytest.raises(EnvError, match="AsyncEnvPoolCollector"):
        Collector(env, by_digit, frames_per_batch=24)
    collector.collect()
    collector.shutdown()
    collector.shutdown()
    Collector(env, by_digit, frames_per_batch=24).shutdown()


def test_an_agent_trains_with_it(make):
    actor, critic = ProbabilisticActor(MLP(4, 2), Categorical), ValueOperator(MLP(4, 1))
    loss = ClipPPOLoss(actor, critic)
    optimise = MinibatchEpochs(loss, torch.optim.Adam(loss.parameters()), num_epochs=1, minibatch_size=12)
    agent = Agent(make(actor, total_frames=72), optimise, advantage=GAE(critic))
    before = [x.detach().clone() for x in actor.parameters()]
    agent.train()
    assert agent.frames == 72 and agent.collector.policy_version == 3
    assert not any(map(partial(torch.equal), before, actor.parameters()))
