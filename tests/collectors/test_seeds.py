"""What a `seed` reaches: as the table in docs/concepts/collectors.md says."""

import pytest
import torch

from torchrl.collectors import Collector, EpisodeCollector, MultiSyncCollector, rollout
from torchrl.envs import GymEnv
from torchrl.modules import MLP, Categorical, ProbabilisticActor


def make_env():
    return GymEnv("CartPole-v1", num_envs=2)


def make_policy(seed):
    torch.manual_seed(0)  # of the weights alone
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return ProbabilisticActor(MLP(4, 2), Categorical, generator=generator)


COLLECT = {
    "Collector": lambda policy: Collector(make_env(), policy, frames_per_batch=32, seed=3).collect(),
    "EpisodeCollector": lambda policy: EpisodeCollector(make_env(), policy, num_episodes=2, seed=3).collect(),
    "rollout": lambda policy: next(rollout(make_env(), policy, n_steps=16, seed=3)).batch,
}


@pytest.mark.parametrize("who", COLLECT)
def test_random_actions_and_a_policy_with_a_generator_repeat_without_the_global_stream(who):
    for make in (lambda: None, lambda: make_policy(5)):
        batches = []
        for elsewhere in (11, 12):  # two programs that used the global stream differently
            policy = make()
            torch.manual_seed(elsewhere)
            state = torch.get_rng_state()
            batches.append(COLLECT[who](policy))
            assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(batches[0]["action"], batches[1]["action"])
        assert torch.equal(batches[0]["observation"], batches[1]["observation"])


@pytest.mark.parametrize("who", COLLECT)
def test_a_policy_without_a_generator_follows_the_global_stream_which_stays_the_users(who):
    actions = []
    for elsewhere in (11, 11, 12):
        policy = make_policy(None)
        torch.manual_seed(elsewhere)
        actions.append(COLLECT[who](policy)["action"])
    assert torch.equal(actions[0], actions[1])
    assert actions[0].shape != actions[2].shape or not torch.equal(actions[0], actions[2])


@pytest.mark.usefixtures("leaves_nothing")
def test_workers_need_no_generator():
    actions = []
    for elsewhere in (11, 12):
        policy = make_policy(None)
        torch.manual_seed(elsewhere)
        collector = MultiSyncCollector(make_env, policy, num_workers=1, frames_per_batch=32, seed=3)
        actions.append(collector.collect()["action"])
        collector.shutdown()
    assert torch.equal(*actions)
