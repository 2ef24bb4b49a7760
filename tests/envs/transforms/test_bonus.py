"""The bonus of a module at each step: values, what the module sees, and weights that would be stale."""

from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.transform_steps import act, body, column, counting, counting_rows, echo
from cases.workers import Stepwise, counting_paid_by
from torchrl.collectors import Collector, MultiSyncCollector
from torchrl.data import IntrinsicReward
from torchrl.envs import SerialEnv
from torchrl.envs.transforms import Compose, ObservationNorm, RewardBonus, RewardScaling, TransformedEnv
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import MLP, Operator, RandomNetworkDistillation


class Reading:
    """Pays a function of what it reads, and keeps what it was given; no torch module."""

    out_keys = ("bonus",)

    def __init__(self, function, *in_keys):
        self.function, self.in_keys, self.seen = function, in_keys, []

    def __call__(self, tensordict):
        self.seen.append(tensordict.clone())
        return tensordict.set("bonus", self.function(*(tensordict[key] for key in self.in_keys)))


NEXT = ("next", "observation")


def test_it_pays_for_where_a_step_led():
    module = Reading(lambda after: after.float(), NEXT)
    batch = TransformedEnv(counting(length=3), RewardBonus(module, coef=0.5)).rollout(7, act)
    # The k-th episode pays k at every step; its observations count 1, 2, 3.
    assert column(batch, ("next", "reward")) == [0.5, 1.0, 1.5, 1.5, 2.0, 2.5, 2.5]
    assert column(batch, ("next", "episode_return")) == [0, 0, 0, 1, 2, 3, 2]
    assert set(module.seen[0].keys(True, True)) == {NEXT}


def test_it_reads_the_root_of_each_row_across_endings():
    module = Reading(lambda before, after: 10.0 * before + after, "observation", NEXT)
    batch = TransformedEnv(counting_rows(2, 3), RewardBonus(module, coef=1.0)).rollout(5, act)
    expected = counting_rows(2, 3).rollout(5, act)["next", "reward"] + 10.0 * batch["observation"] + batch[NEXT]
    torch.testing.assert_close(batch["next", "reward"], expected)


def test_it_reads_the_action_and_what_the_place_of_the_chain_shows():
    module = Reading(lambda action, after: action + after, "action", NEXT)
    chain = Compose(ObservationNorm(0.0, 2.0), RewardBonus(module, coef=1.0), RewardScaling(10.0))
    batch = TransformedEnv(echo(), chain).rollout(3, lambda root: root.set("action", torch.full((1,), 0.5)))
    assert module.seen[0][NEXT].item() == 0.25  # the echo of the action, halved
    raw = TransformedEnv(echo(), ObservationNorm(0.0, 2.0)).rollout(
        3, lambda root: root.set("action", torch.full((1,), 0.5))
    )
    torch.testing.assert_close(batch["next", "reward"], 10 * (raw["next", "reward"] + 0.75))


def test_nested_observations():
    module = Reading(lambda arm: arm.sum(-1, keepdim=True), ("next", "limbs", "arm"))
    batch = body(RewardBonus(module, coef=1.0)).rollout(2, act)
    assert column(batch, ("next", "reward")) == [21.0, 41.0]


def test_weights_that_would_be_stale_are_refused():
    module = RandomNetworkDistillation(MLP(1, 4), MLP(1, 4), shape=None)
    with pytest.raises(ConfigError, match=r"predictor\.layers\.0\.weight, which is trained.*IntrinsicReward\(module"):
        RewardBonus(module, coef=1.0)
    RewardBonus(module.requires_grad_(False), coef=1.0)
    RewardBonus(module.requires_grad_(True).share_memory(), coef=1.0)


def test_a_shared_module_in_training_is_followed_and_equals_the_batch_form():
    torch.manual_seed(0)
    module = RandomNetworkDistillation(MLP(1, 4), MLP(1, 4), shape=None, gamma=None).share_memory()
    env = TransformedEnv(counting(num_envs=2, length=9), RewardBonus(module, coef=0.5))
    raw = counting(num_envs=2, length=9).rollout(4, act)
    for episode, factor in enumerate((1.0, -3.0)):
        with torch.no_grad():
            for parameter in module.predictor.parameters():
                parameter.mul_(factor)
        due = IntrinsicReward(module, coef=0.5)(raw)["next", "reward"] + episode
        torch.testing.assert_close(env.rollout(4, act)["next", "reward"], due)


@pytest.mark.usefixtures("leaves_nothing")
def test_workers_follow_shared_weights():
    """Each worker's reward is the weight of the moment, above the episode's own, which is 0."""
    layer = nn.Linear(1, 1)
    module = Operator(layer, in_keys=[NEXT], out_keys=["bonus"]).share_memory()
    make_env = partial(counting_paid_by, module)
    collector = MultiSyncCollector(make_env, Stepwise(), num_workers=2, frames_per_batch=8)
    try:
        for weight in (2.0, -5.0):
            with torch.no_grad():
                layer.weight.zero_()
                layer.bias.fill_(weight)
            assert bool((collector.collect()["next", "reward"] == weight).all())
    finally:
        collector.shutdown()


def test_what_shared_weights_were_at_several_moments_can_be_joined():
    states = [{"module.weight": torch.tensor([1.0])}, {"module.weight": torch.tensor([2.0])}]
    assert RewardBonus.merge_learned(states)["module.weight"].item() == 2.0


def test_a_frozen_module_is_saved_with_what_transforms_learn():
    def make(weight):
        layer = nn.Linear(1, 1).requires_grad_(False)
        layer.weight.fill_(weight)
        module = Operator(layer, in_keys=[NEXT], out_keys=["bonus"])
        env = TransformedEnv(SerialEnv(lambda: counting().simulators[0], 2), RewardBonus(module, coef=1.0))
        return Collector(env, frames_per_batch=8, seed=0)

    one, other = make(1.0), make(5.0)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.collect()["next", "reward"], one.collect()["next", "reward"])


def test_wrong_modules_are_refused():
    with pytest.raises(ConfigError, match="RewardBonus: expected a module with in_keys and out_keys, got MLP"):
        RewardBonus(MLP(1, 1), coef=1.0)
    with pytest.raises(ConfigError, match="expected a finite coef"):
        RewardBonus(Reading(None, NEXT), coef=float("inf"))
    for key in (("next", "reward"), "speed"):
        with pytest.raises(KeyMissing, match="RewardBonus: expected a module that reads the action"):
            TransformedEnv(counting(), RewardBonus(Reading(None, key), coef=1.0))
    env = TransformedEnv(counting(), RewardBonus(Reading(lambda x: x.expand(2), NEXT), coef=1.0))
    with pytest.raises(SpecError, match=r"RewardBonus: expected a reward \[1\], got \[2\] from Reading"):
        env.step(act(env.reset()))


def test_a_row_that_waits_keeps_its_root():
    module = Reading(lambda before: before.float(), "observation")
    env = TransformedEnv(counting(num_envs=2, length=9), RewardBonus(module, coef=1.0))
    _, root = env.step_and_reset(act(env.reset()))
    env.freeze_(torch.tensor([True, False]))
    for _ in range(2):
        _, root = env.step_and_reset(act(root))
    assert [seen["observation"].flatten().tolist() for seen in module.seen] == [[0, 0], [1, 1], [1, 2]]


def test_it_takes_a_container_of_its_own():
    module = Reading(lambda after: after.float(), NEXT)
    batch = TransformedEnv(counting(), RewardBonus(module, coef=1.0)).rollout(2, act)
    assert isinstance(batch, TensorDict) and "bonus" not in batch.keys() and "bonus" not in batch["next"].keys()
