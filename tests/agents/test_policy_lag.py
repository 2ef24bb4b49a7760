"""Policies that are behind: what a batch says of the one that acted, what V-trace makes of it, what is logged."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from recorder import Recorder

from cases.workers import cartpole
from fakes import wait_until
from torchrl.agents import Agent, Hook, MinibatchEpochs
from torchrl.collectors import MultiAsyncCollector, MultiSyncCollector
from torchrl.modules import MLP, Categorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import A2CLoss, TDLambda, VTrace

pytestmark = pytest.mark.usefixtures("leaves_nothing")


class Versions(Hook):
    """Keeps every version of the policy, and every batch before it is trained on; waits for the next one on request."""

    def __init__(self, actor, is_slow):
        self.policies, self.batches, self.is_slow = [deepcopy(actor)], [], is_slow

    def on_batch(self, agent, batch):
        self.batches.append(batch.clone())
        if self.is_slow:
            wait_until(agent.collector.is_ready)

    def on_batch_end(self, agent, report):
        self.policies.append(deepcopy(agent.policy))


@pytest.fixture
def train():
    """Train by V-trace on batches of ``[2, 8]`` a worker; return the critic, the lags in the log, and the versions."""

    def run(kind, num_workers, num_batches, *, is_slow=False):
        torch.manual_seed(0)
        actor, critic = ProbabilisticActor(MLP(4, 2), Categorical), ValueOperator(MLP(4, 1))
        loss = A2CLoss(actor, critic)
        optimizer = torch.optim.SGD(loss.trainable_parameters(), lr=0.1)
        optimise = MinibatchEpochs(loss, optimizer, num_epochs=1, minibatch_size=16)
        frames = 16 * (num_workers if kind is MultiSyncCollector else 1)
        collector = kind(
            partial(cartpole, 2),
            actor,
            num_workers=num_workers,
            frames_per_batch=frames,
            total_frames=frames * num_batches,
            seed=0,
        )
        recorder, versions = Recorder(), Versions(actor, is_slow)
        agent = Agent(collector, optimise, advantage=VTrace(actor, critic), logger=recorder, hooks=[versions])
        try:
            agent.train()
        finally:
            agent.close()
        return critic, [metrics["collect/policy_lag"] for _, metrics in recorder.rows], versions

    return run


def test_the_lag_of_one_worker_is_that_counted_by_hand(train):
    """It has batch k+1 before the learner trains on batch k: all but the first are one update behind."""
    _, lags, _ = train(MultiAsyncCollector, 1, 5, is_slow=True)
    assert lags == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_workers_that_wait_are_never_behind(train):
    _, lags, _ = train(MultiSyncCollector, 2, 3)
    assert lags == [0.0, 0.0, 0.0]


def test_every_batch_of_two_workers_was_acted_by_the_version_that_it_names(train):
    _, lags, versions = train(MultiAsyncCollector, 2, 8)
    assert lags[0] == 0
    for index, (batch, lag) in enumerate(zip(versions.batches, lags, strict=True)):
        (version,) = batch["collector", "policy_version"].unique().tolist()
        assert lag == index - version
        acted = versions.policies[version].build(batch).log_prob(batch["action"])
        torch.testing.assert_close(acted.detach(), batch["action_log_prob"], rtol=1e-5, atol=1e-6)


def test_without_lag_targets_are_lambda_returns_and_with_it_they_are_not(train):
    critic, lags, versions = train(MultiAsyncCollector, 1, 2, is_slow=True)
    assert lags == [0.0, 1.0]
    for policy, batch, is_equal in zip(versions.policies, versions.batches, (True, False), strict=False):
        whole = TDLambda(critic, lambda_=1.0)(batch.clone())
        ours = VTrace(policy, critic)(batch.clone())
        for key in ("value_target", "advantage"):
            assert torch.allclose(ours[key], whole[key], rtol=1e-5, atol=1e-5) is is_equal, key
