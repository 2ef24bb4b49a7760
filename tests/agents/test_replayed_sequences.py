"""Agents whose networks remember, on slices of replay: what is stored and learned, and how it goes on after a save."""

from functools import partial

import pytest
import torch

from cases.repeating import make_env, make_policy, make_right_policy
from torchrl.agents import Agent, EvaluationProcess, Evaluator, FusedAdam, ReplayUpdates, SaveBuffer, StepExploration
from torchrl.collectors import Collector, WarmUp
from torchrl.data.replay import PrioritizedSliceSampler, ReplayBuffer, SliceSampler, TensorStorage
from torchrl.errors import ConfigError, KeyMissing
from torchrl.modules import EGreedy
from torchrl.objectives import DQNLoss, SoftUpdate
from torchrl.recipes import Store
from torchrl.recipes.parts import Replay


@pytest.fixture
def make_agent(keep):
    """Build an agent that learns to repeat by recurrent DQN on slices of eight steps, the first three a burn-in."""

    def make(*, total_frames=192, sampler=SliceSampler, zero_state=True, hooks=(), random_frames=0, **options):
        torch.manual_seed(0)
        actor = make_policy()
        loss = DQNLoss(actor, burn_in=3, zero_state=zero_state, n_steps=2)
        env = make_env()
        policy = EGreedy(actor, env.action_spec[0], num_frames=64, generator=torch.Generator().manual_seed(0))
        draws = torch.Generator().manual_seed(1)
        policy = WarmUp(policy, env.action_spec, random_frames, generator=draws)
        collector = Collector(env, policy, frames_per_batch=32, total_frames=total_frames, seed=0)
        buffer = ReplayBuffer(TensorStorage(1000), sampler=sampler(8), seed=0)
        updates = ReplayUpdates(
            loss,
            FusedAdam(loss.trainable_parameters(), lr=1e-3),
            buffer,
            batch_size=32,
            start_frames=64,
            updates_per_frame=0.125,
            target_update=SoftUpdate(loss),
        )
        store = Store(Replay(sub_traj_len=8), buffer, loss, gamma=0.99)
        return keep(Agent(collector, updates, store=store, hooks=[StepExploration(), *hooks], **options))

    return make


@pytest.mark.parametrize("zero_state", [True, False], ids=["initial", "stored"])
def test_no_state_is_stored_unless_it_is_read(zero_state, make_agent):
    agent = make_agent(zero_state=zero_state)
    agent.train()
    buffer = agent.optimise.buffer
    stored = {entry.key: entry.num_bytes for entry in buffer.storage.entries}
    assert (("memory",) in stored) is not zero_state and ("next", "memory") not in stored
    state = 4 * 2 * 8
    leaves = 2 * 4 * 4 + 8 + 4 + 4 + 8  # two observations, action, reward, four flags, the number of the trajectory
    assert sum(stored.values()) == leaves + (0 if zero_state else state)
    assert agent.optimise.num_updates == 20
    if zero_state:
        with pytest.raises(KeyMissing, match="write zero_state=True"):
            make_agent(zero_state=False).loss(buffer.sample(32))


def test_states_go_on_while_actions_are_random(make_agent):
    agent = make_agent(random_frames=1000)
    batch = agent.collector.collect()  # [2, 16]
    cell = agent.loss.actor[0]
    state = torch.zeros(2, 1, 2, 8)
    for observed, stored in zip(batch["observation"].unbind(1), batch["memory"].unbind(1), strict=True):
        torch.testing.assert_close(stored, state)
        state = cell.step(observed, state)[1]


def test_prioritised_slices_are_told_of_rows_behind_the_burn_in(make_agent, monkeypatch):
    told = []
    monkeypatch.setattr(ReplayBuffer, "update_priority", lambda buffer, *what: told.append(what))
    agent = make_agent(sampler=PrioritizedSliceSampler, total_frames=96)
    agent.train()
    assert len(told) == 8 and all(sample.batch_size == (4, 8) and priority.shape == (4,) for sample, priority in told)
    sample, priority = told[-1]
    agent.optimise.buffer.sampler.update_priority(sample["replay", "last"][:, 0].numpy(), priority.double().numpy())


@pytest.mark.parametrize("zero_state", [True, False], ids=["initial", "stored"])
def test_a_resumed_run_is_bit_identical(zero_state, make_agent, tmp_path):
    whole = make_agent(zero_state=zero_state, random_frames=80)
    whole.train()
    half = make_agent(zero_state=zero_state, random_frames=80, total_frames=96, folder=tmp_path)
    half.hooks = (*half.hooks, SaveBuffer(half.optimise.buffer))
    half.train()
    rest = make_agent(zero_state=zero_state, random_frames=80)
    rest.optimise.buffer.load(tmp_path / "replay")
    rest.load(tmp_path / "last.pt")
    rest.train()
    for ours, theirs in zip(rest.loss.state_dict().values(), whole.loss.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert rest.optimise.num_updates == whole.optimise.num_updates == 20


@pytest.mark.usefixtures("leaves_nothing")
def test_an_evaluation_remembers_within_an_episode_and_beside_the_training_alike(keep):
    make = partial(make_env, 3, make=make_right_policy, delay=1)
    policy = make_right_policy()
    assert keep(Evaluator(make(), num_episodes=5))(policy).returns.tolist() == [31.0] * 5
    beside = keep(EvaluationProcess(make, num_episodes=5))
    beside.launch(policy, version=0)
    assert beside.take().evaluation.returns.tolist() == [31.0] * 5


def test_sequences_are_not_compiled(make_agent):
    updates = make_agent().optimise
    with pytest.raises(ConfigError, match="ReplayUpdates, compile: expected networks without memory.*compile out"):
        ReplayUpdates(updates.loss, updates.optimizer, updates.buffer, batch_size=8, compile=True)
