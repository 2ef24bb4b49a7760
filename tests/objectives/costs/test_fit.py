"""Losses on batches of others: what does not fit the actions is refused, where the action spec or the batch says so."""

import pytest
import torch
from torch import nn

from torchrl.collectors import Collector
from torchrl.envs import GymEnv
from torchrl.errors import SpecError
from torchrl.modules import (
    MLP,
    Actor,
    Categorical,
    NormalHead,
    ProbabilisticActor,
    QuantileQValueActor,
    QValueActor,
    TanhHead,
    TanhNormal,
    TruncatedNormal,
    ValueEnsemble,
)
from torchrl.modules.models import DuelingMLP
from torchrl.objectives import BehaviourCloningLoss, DiscreteSACLoss, DQNLoss, QuantileDQNLoss, SACLoss, TD3Loss


@pytest.fixture(scope="module")
def cartpole():
    return Collector(GymEnv("CartPole-v1", num_envs=2), frames_per_batch=32, seed=0).collect()


def chooser(num):
    return ProbabilisticActor(MLP(4, num), Categorical)


def test_an_action_that_the_network_does_not_have_is_named(cartpole):
    with pytest.raises(SpecError, match=r"Categorical\.log_prob: expected indices below 1, got indices from 0 to"):
        BehaviourCloningLoss(chooser(1))(cartpole)
    with pytest.raises(SpecError, match=r"QValueActor: expected actions below 1, the number of values, got num"):
        DQNLoss(QValueActor(MLP(4, 1)))(cartpole)
    with pytest.raises(SpecError, match="QuantileQValueActor: expected actions below 1"):
        QuantileDQNLoss(QuantileQValueActor(DuelingMLP(4, 1, num_outputs=3)))(cartpole)


def test_an_actor_and_critics_of_other_numbers_of_actions(cartpole):
    critics = ValueEnsemble(lambda: MLP(4, 3), 2, in_keys=["observation"])
    loss = DiscreteSACLoss(chooser(2), critics, action_spec=GymEnv("CartPole-v1").action_spec)
    with pytest.raises(SpecError, match="as many actions, got 2 choices and 3 values"):
        loss(cartpole)


def gaussian(family):
    return ProbabilisticActor(nn.Sequential(MLP(3, 1), NormalHead(1)), family)


def squashed(low, high):
    return Actor(nn.Sequential(MLP(3, 1), TanhHead(low, high)))


def make(actor):
    critics, spec = ValueEnsemble(lambda: MLP(4, 1), 2), GymEnv("Pendulum-v1").action_spec
    return (TD3Loss if isinstance(actor, Actor) else SACLoss)(actor, critics, action_spec=spec)


@pytest.mark.parametrize(
    ("good", "wide", "narrow"),
    [
        (gaussian(TanhNormal.within(-2, 2)), gaussian(TanhNormal.within(-3, 2)), gaussian(TanhNormal)),
        (
            gaussian(TruncatedNormal.within(-2, 2)),
            gaussian(TruncatedNormal.within(-2, 3)),
            gaussian(TruncatedNormal.within(-1, 1)),
        ),
        (squashed(-2, 2), squashed(-3, 2), squashed(0, 1)),
    ],
    ids=["tanh", "truncated", "head"],
)
def test_bounds_are_held_against_the_action_spec(good, wide, narrow, recwarn):
    make(good)
    assert not recwarn.list
    with pytest.raises(SpecError, match=r"expected actions between -2\.0 and 2\.0.*within\(-2, 2\)"):
        make(wide)
    with pytest.warns(UserWarning, match="never takes a part of the actions"):
        make(narrow)


def test_a_row_of_an_environments_spec_or_the_whole():
    spec = GymEnv("Pendulum-v1", num_envs=3).action_spec
    critics = ValueEnsemble(lambda: MLP(4, 1), 2)
    for one in (spec, spec[0]):
        loss = TD3Loss(squashed(-2, 2), critics, action_spec=one)
        assert torch.equal(loss.low, torch.tensor([-2.0]))
