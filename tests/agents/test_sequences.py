"""Minibatches of whole sequences: how a batch is cut, what each carries, and that all of it is one gradient step."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.agents import Agent, MinibatchEpochs
from torchrl.agents.sequences import as_batch, valid_sequences
from torchrl.collectors import Collector, EpisodeCollector
from torchrl.envs import GymEnv, TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import (
    LSTM,
    MLP,
    ActorCriticWrapper,
    ActorValueOperator,
    Categorical,
    ProbabilisticActor,
    RandomNetworkDistillation,
    Sequence,
    ValueOperator,
)
from torchrl.objectives import GAE, A2CLoss, ClipPPOLoss, JointLoss, RNDLoss, total_loss

MASK = ("collector", "mask")


def numbered(num_rows, num_steps, **more):
    """Steps numbered row by row, and a state ten times the number."""
    x = torch.arange(num_rows * num_steps, dtype=torch.float32).view(num_rows, num_steps, 1)
    none = torch.zeros(num_rows, num_steps, 1, dtype=torch.bool)
    flags = TensorDict({"terminated": none, "truncated": none}, [num_rows, num_steps])
    return TensorDict({"x": x, "memory": 10 * x, "is_init": none, "next": flags, **more}, [num_rows, num_steps])


def networks(seed=0):
    torch.manual_seed(seed)
    head = ProbabilisticActor(nn.Linear(8, 2), Categorical, in_keys=["hidden"])
    return ActorValueOperator(LSTM(4, 8), head, ValueOperator(nn.Linear(8, 1), in_keys=["hidden"]))


def remembering_env(policy, num_envs=4):
    return TransformedEnv(GymEnv("CartPole-v1", num_envs=num_envs), TensorDictPrimer(policy.initial_state()))


def collected(both, frames=64, **options):
    collector = Collector(remembering_env(both), both.actor, frames_per_batch=frames, seed=0, **options)
    for _ in range(3):  # so that the rows begin in mid-episode
        batch = collector.collect()
    return GAE(both.critic)(batch)


class TestCutting:
    def test_rows_are_cut_one_after_the_other_with_the_state_of_each_first_step(self):
        cut = valid_sequences(numbered(2, 6), ["x", "memory"], length=3, state_keys=["memory"])
        assert cut["x"].squeeze(-1).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
        assert cut["memory"].squeeze(-1).tolist() == [0, 30, 60, 90]
        batch = as_batch(cut[1:3], ["memory"], 3)
        assert batch.batch_size == (2, 3) and batch["memory"].squeeze(-1).tolist() == [[30] * 3, [60] * 3]
        assert batch["memory"].stride(1) == 0  # one number for all steps

    def test_a_remainder_is_padded(self):
        cut = valid_sequences(numbered(1, 5), ["x", "memory"], length=3, state_keys=["memory"])
        assert cut["x"].squeeze(-1).tolist() == [[0, 1, 2], [3, 4, 0]]
        assert cut[MASK].tolist() == [[True] * 3, [True, True, False]]
        assert cut["memory"].squeeze(-1).tolist() == [0, 30]

    def test_a_state_is_that_of_the_first_valid_step(self):
        batch = numbered(2, 5)
        batch[MASK] = torch.tensor([[False, True, True, False, True], [True, True, True, True, False]])
        cut = valid_sequences(batch, ["x", "memory"], length=3, state_keys=["memory"])
        assert cut["memory"].squeeze(-1).tolist() == [10, 40, 50, 80]

    def test_sequences_without_a_valid_step_are_left_out(self):
        mask = torch.tensor([[True, False, False, False], [True, True, True, False]])
        batch = numbered(2, 4, collector=TensorDict({"mask": mask}, [2, 4]))
        cut = valid_sequences(batch, ["x"], length=2, state_keys=["memory"])
        assert cut["x"].squeeze(-1).tolist() == [[0, 1], [4, 5], [6, 7]]
        assert cut[MASK].tolist() == [[True, False], [True, True], [True, False]]

    def test_more_dimensions_of_rows(self):
        batch = numbered(6, 4).reshape(2, 3, 4)
        cut = valid_sequences(batch, ["x", "memory"], length=4, state_keys=["memory"])
        assert cut["x"].shape == (6, 4, 1) and cut["memory"].squeeze(-1).tolist() == [0, 40, 80, 120, 160, 200]

    def test_what_is_no_batch_of_sequences_is_refused(self):
        with pytest.raises(SpecError, match=r"expected a batch \[\*B, T\], time last, got batch size \[6\].*unsqueeze"):
            valid_sequences(numbered(1, 6)[0], ["x"], length=3, state_keys=[])
        ids = torch.arange(4).expand(2, 4).reshape(4, 2).contiguous()
        batch = numbered(4, 2, collector=TensorDict({"traj_ids": ids}, [4, 2]))
        with pytest.raises(SpecError, match="rows follow each other in time"):
            valid_sequences(batch, ["x"], length=2, state_keys=[])
        with pytest.raises(KeyMissing, match="MinibatchEpochs: expected the key 'y'"):
            valid_sequences(numbered(1, 6), ["y"], length=3, state_keys=[])


class TestOptimising:
    def test_all_sequences_at_once_are_the_step_on_the_whole_batch(self):
        both = networks()
        batch = collected(both)
        loss = A2CLoss(both.actor, both.critic)
        total_loss(loss(batch)).backward()
        expected = [x.grad.clone() for x in loss.trainable_parameters()]
        before = [x.detach().clone() for x in loss.trainable_parameters()]
        optimizer = torch.optim.SGD(loss.trainable_parameters(), lr=1.0)
        MinibatchEpochs(loss, optimizer, num_epochs=1, minibatch_size=64, sequence_len=16)(batch)
        moved = [old - new for old, new in zip(before, loss.trainable_parameters(), strict=True)]
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)

    def test_shorter_sequences_begin_with_the_stored_state(self):
        both = networks()
        batch = collected(both)
        loss = ClipPPOLoss(both.actor, both.critic)
        figures = []
        for length in (1, 4, 16):
            sequences = valid_sequences(batch, loss.in_keys, length=length, state_keys=["memory"])
            figures.append(loss(as_batch(sequences, ["memory"], length)))
        for other in figures:
            assert other["approx_kl"].abs() < 1e-12  # log-probs are those that were collected
            torch.testing.assert_close(other["loss_critic"], figures[0]["loss_critic"])

    def test_rows_of_two_dimensions(self):
        states = []
        for batch_dims in (1, 2):
            torch.manual_seed(0)
            head = ProbabilisticActor(nn.Linear(8, 2), Categorical, in_keys=["hidden"])
            both = ActorValueOperator(
                LSTM(4, 8, batch_dims=batch_dims), head, ValueOperator(nn.Linear(8, 1), in_keys=["hidden"])
            )
            batch = collected(networks())
            batch = batch if batch_dims == 1 else batch.reshape(2, 2, -1)
            loss = A2CLoss(both.actor, both.critic)
            optimizer = torch.optim.SGD(loss.trainable_parameters(), lr=0.1)
            optimise = MinibatchEpochs(loss, optimizer, num_epochs=1, minibatch_size=64, sequence_len=8)
            optimise(batch)
            states.append(both.state_dict())
        torch.testing.assert_close(states[0], states[1])

    def test_weights_are_those_of_the_frames_seen(self):
        both = networks()
        loss = ClipPPOLoss(both.actor, both.critic)
        optimise = MinibatchEpochs(
            loss, torch.optim.Adam(loss.trainable_parameters()), num_epochs=2, minibatch_size=32, sequence_len=8
        )
        figures = optimise(collected(both))
        assert figures.weights["loss_critic"] == 2 * 64

    def test_episodes_of_different_length(self):
        both = networks()
        collector = EpisodeCollector(remembering_env(both), both.actor, num_episodes=4, seed=0)
        batch = GAE(both.critic)(collector.collect())
        loss = A2CLoss(both.actor, both.critic)
        optimizer = torch.optim.Adam(loss.trainable_parameters())
        figures = MinibatchEpochs(loss, optimizer, num_epochs=1, minibatch_size=16, sequence_len=8)(batch)
        assert figures["entropy"] == pytest.approx(0.69, abs=0.1)

    def test_an_interrupted_training_goes_on_as_if_it_had_not_been(self, tmp_path):
        def make():
            both = networks()
            loss = ClipPPOLoss(both.actor, both.critic)
            optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=1e-2)
            draw = torch.Generator().manual_seed(0)
            options = {"num_epochs": 2, "minibatch_size": 32, "sequence_len": 8, "generator": draw}
            collector = Collector(remembering_env(both), both.actor, frames_per_batch=64, total_frames=256, seed=0)
            torch.manual_seed(3)
            return Agent(collector, MinibatchEpochs(loss, optimizer, **options), advantage=GAE(both.critic))

        whole = make()
        whole.train()
        half = make()
        half.collector.total_frames = 128
        half.train()
        half.save(tmp_path / "half.pt")
        rest = make()
        rest.load(tmp_path / "half.pt")
        rest.train()
        assert rest.frames == whole.frames == 256
        for name, value in whole.optimise.loss.state_dict().items():
            assert torch.equal(value, rest.optimise.loss.state_dict()[name]), name


@pytest.mark.parametrize("keeps", [False, True], ids=["the actor alone", "both"])
def test_what_collects_writes_the_states_that_the_loss_starts_from(keeps):
    actor = Sequence(LSTM(4, 8), ProbabilisticActor(nn.Linear(8, 2), Categorical, in_keys=["hidden"]))
    cell = LSTM(4, 8, state_key="judging", out_key="judged")
    critic = Sequence(cell, ValueOperator(nn.Linear(8, 1), in_keys=["judged"]))
    both = ActorCriticWrapper(actor, critic)
    collector = Collector(remembering_env(both), both if keeps else actor, frames_per_batch=64, seed=0)
    loss = A2CLoss(actor, critic)
    optimizer = torch.optim.Adam(loss.trainable_parameters())
    optimise = MinibatchEpochs(loss, optimizer, num_epochs=1, minibatch_size=64, sequence_len=16)
    if keeps:
        Agent(collector, optimise, advantage=GAE(critic))
        return
    with pytest.raises(ConfigError, match="Agent: expected a policy that writes the state 'judging'.*ActorCriticWrap"):
        Agent(collector, optimise, advantage=GAE(critic))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minibatch_size": 32}, r"expected a sequence_len, got a A2CLoss of networks with memory.*sequence_len=32"),
        ({"minibatch_size": 32, "sequence_len": 12}, "a divisor of the minibatch_size of 32 rows, got 12"),
        ({"minibatch_size": 32, "sequence_len": 0}, "a divisor of the minibatch_size of 32 rows, got 0"),
    ],
)
def test_single_rows_and_other_lengths_are_refused(options, message):
    both = networks()
    loss = A2CLoss(both.actor, both.critic)
    with pytest.raises(ConfigError, match=message):
        MinibatchEpochs(loss, torch.optim.Adam(loss.trainable_parameters()), num_epochs=1, **options)


class TestJointLoss:
    """A loss of networks with memory beside one of single rows."""

    def make(self):
        both = networks()
        rnd = RandomNetworkDistillation(MLP(4, 8), MLP(4, 8), shape=4)
        return collected(both), ClipPPOLoss(both.actor, both.critic), RNDLoss(rnd, share=1.0)

    def test_its_terms_are_those_of_each(self):
        batch, policy, novelty = self.make()
        together = JointLoss(policy, novelty)(batch)
        for loss in (policy, novelty):
            for name, value in loss(batch).items():
                torch.testing.assert_close(together[name], value)

    def test_it_is_trained_on_sequences_and_on_nothing_else(self):
        batch, policy, novelty = self.make()
        loss = JointLoss(policy, novelty)
        assert loss.state_keys == policy.state_keys != []
        optimizer = torch.optim.SGD(loss.trainable_parameters(), lr=0.1)
        options = {"num_epochs": 1, "minibatch_size": 64}
        figures = MinibatchEpochs(loss, optimizer, sequence_len=8, **options)(batch)
        assert {"loss_objective", "loss_predictor"} <= figures.keys()
        with pytest.raises(ConfigError, match="expected a sequence_len, got a JointLoss of networks with memory"):
            MinibatchEpochs(loss, optimizer, **options)
