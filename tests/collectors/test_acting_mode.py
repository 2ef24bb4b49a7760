"""Policies act without dropout and without the statistics of the rows beside them, and get their flags back."""

import pytest
import torch
from torch import nn

from torchrl.collectors import Collector, EpisodeCollector, rollout
from torchrl.collectors.placement import PlacedPolicy
from torchrl.envs import GymEnv
from torchrl.errors import ConfigError
from torchrl.modules import (
    MLP,
    BatchRenorm,
    Categorical,
    NoisyLinear,
    ProbabilisticActor,
    ValueOperator,
)
from torchrl.objectives import A2CLoss, ClipPPOLoss, KLPenaltyPPOLoss, VTrace


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.attention(*[x.unsqueeze(-2)] * 3)[0].squeeze(-2)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.cell(x.unsqueeze(-2))[0].squeeze(-2)


LAYERS = {
    "dropout": lambda: nn.Dropout(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.5),
    "batch norm": lambda: nn.BatchNorm1d(4),
    "rrelu": nn.RReLU,
    "attention": Attention,
    "recurrent": Recurrent,
}


def make_actor(layer):
    torch.manual_seed(0)
    return ProbabilisticActor(nn.Sequential(layer, nn.Linear(4, 2)), Categorical)


def make_env():
    return GymEnv("CartPole-v1", num_envs=2)


def collectors(actor):
    yield lambda: Collector(make_env(), actor, frames_per_batch=16, seed=0).collect()
    yield lambda: EpisodeCollector(make_env(), actor, num_episodes=2, seed=0, packed=True).collect()
    yield lambda: next(rollout(make_env(), actor, n_steps=8, seed=0)).batch


@pytest.mark.parametrize("layer", LAYERS)
def test_log_probs_are_those_of_eval_mode_and_flags_come_back(layer):
    actor = make_actor(LAYERS[layer]())
    actor.module[1].eval()
    flags = {name: part.training for name, part in actor.named_modules()}
    statistics = {name: x.clone() for name, x in actor.named_buffers()}
    for collect in collectors(actor):
        batch = collect()
        assert {name: part.training for name, part in actor.named_modules()} == flags
        assert all(torch.equal(x, statistics[name]) for name, x in actor.named_buffers())
        actor.eval()
        with torch.no_grad():
            again = actor.build(batch.reshape(-1)).log_prob(batch["action"].reshape(-1))
        for name, part in actor.named_modules():
            part.training = flags[name]
        torch.testing.assert_close(again, batch["action_log_prob"].reshape(-1), rtol=1e-5, atol=1e-6)


def test_flags_come_back_after_an_error():
    actor = make_actor(nn.Dropout(0.5))
    collector = Collector(make_env(), actor, frames_per_batch=16)
    collector.env.step_and_reset = None
    with pytest.raises(TypeError):
        collector.collect()
    assert all(part.training for part in actor.modules())


def test_a_copy_on_a_device_acts_alike():
    actor = make_actor(nn.Dropout(0.5))
    collector = Collector(make_env(), actor, frames_per_batch=16, seed=0)
    collector._act = PlacedPolicy(actor, torch.device("cpu"))
    collector._layers = [part for part in collector._act.copy.modules() if isinstance(part, nn.Dropout)]
    batch = collector.collect()
    with torch.no_grad():
        actor.eval()
        again = actor.build(batch).log_prob(batch["action"])
    torch.testing.assert_close(again, batch["action_log_prob"])
    assert all(part.training for part in collector._act.copy.modules())


def test_a_noisy_network_explores_while_it_collects():
    torch.manual_seed(0)
    actor = ProbabilisticActor(MLP(4, 2, linear=NoisyLinear), Categorical)
    batch = Collector(make_env(), actor, frames_per_batch=16, seed=0).collect()
    with torch.no_grad():
        actor.eval()
        again = actor.build(batch).log_prob(batch["action"])
    assert (again - batch["action_log_prob"]).abs().max() > 1e-3


@pytest.mark.parametrize("layer", [*LAYERS, "batch renorm"])
def test_losses_that_compare_log_probs_refuse_what_cannot_repeat_them(layer):
    layer = BatchRenorm(4) if layer == "batch renorm" else LAYERS[layer]()
    actor, critic = make_actor(layer), ValueOperator(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1)))
    for make in (ClipPPOLoss, KLPenaltyPPOLoss, VTrace):
        with pytest.raises(ConfigError, match=r"expected an actor that computes the log-probs .* at 'module.0"):
            make(actor, critic)
    actor.eval()
    for make in (ClipPPOLoss, KLPenaltyPPOLoss, VTrace):
        make(actor, critic)
    actor.train()
    A2CLoss(actor, critic)


def test_dropout_of_probability_zero_is_none():
    ClipPPOLoss(make_actor(nn.Dropout(0.0)), ValueOperator(nn.Linear(4, 1)))
