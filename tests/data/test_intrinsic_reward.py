"""What is added to the rewards of a batch, what stays as it was, and refusals."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.agents import Agent, MinibatchEpochs
from torchrl.collectors import Collector
from torchrl.data import IntrinsicReward
from torchrl.envs import GymEnv
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import MLP, Categorical, ProbabilisticActor, RandomNetworkDistillation, ValueOperator
from torchrl.objectives import GAE, A2CLoss, JointLoss, RNDLoss, total_loss

PAID = ("next", "intrinsic_reward")
REWARD = ("next", "reward")


class Double:
    """Pays twice what it reads, and notes the batches that it was shown."""

    in_keys, out_keys = (("next", "observation"),), ("bonus",)

    def __init__(self):
        self.updates = []

    def update(self, batch):
        self.updates.append(batch)

    def __call__(self, tensordict):
        return tensordict.set("bonus", 2 * tensordict["next", "observation"])


def make_batch(reward=(1.0, 2.0), seen=(5.0, 7.0), dtype=torch.float32):
    following = {"observation": torch.tensor([seen]).unsqueeze(-1), "reward": torch.tensor([reward], dtype=dtype)}
    following["reward"] = following["reward"].unsqueeze(-1)
    following["episode_return"] = torch.full((1, 2, 1), 9.0)
    return TensorDict({"next": TensorDict(following, [1, 2])}, [1, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_added_by_hand(dtype):
    batch, module = make_batch(dtype=dtype), Double()
    kept = batch.clone()
    result = IntrinsicReward(module, coef=0.5)(batch)
    assert result[REWARD].flatten().tolist() == [6.0, 9.0] and result[REWARD].dtype is dtype
    assert result[PAID].flatten().tolist() == [10.0, 14.0]
    assert result["next", "episode_return"].flatten().tolist() == [9.0, 9.0]
    assert set(batch.keys(True)) == set(kept.keys(True)) and bool((batch == kept).all())
    assert "bonus" not in result and module.updates[0] is batch and len(module.updates) == 1


def test_masked_steps_keep_their_reward():
    batch = make_batch(seen=(5.0, float("nan"))).set(("collector", "mask"), torch.tensor([[True, False]]))
    result = IntrinsicReward(Double(), coef=1.0)(batch)
    assert result[REWARD].flatten().tolist() == [11.0, 2.0] and result[PAID].flatten().tolist() == [10.0, 0.0]


def test_a_factor_of_0_changes_nothing_and_may_be_assigned():
    paid = IntrinsicReward(Double(), coef=1.0)
    paid.coef = 0.0
    assert torch.equal(paid(make_batch())[REWARD], make_batch()[REWARD])


def test_a_batch_is_paid_once():
    paid = IntrinsicReward(Double(), coef=1.0)
    with pytest.raises(SpecError, match="expected a batch as collected.*not to both"):
        paid(paid(make_batch()))


def test_another_shape_than_the_reward_is_refused():
    batch = make_batch()
    batch["next", "observation"] = torch.zeros(1, 2, 3)
    with pytest.raises(SpecError, match=r"IntrinsicReward: expected arguments of one shape.*\[1, 2, 3\]"):
        IntrinsicReward(Double(), coef=1.0)(batch)


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="expected a module with keys, got MLP"):
        IntrinsicReward(MLP(4, 1), coef=1.0)
    with pytest.raises(ConfigError, match="expected a finite coef"):
        IntrinsicReward(Double(), coef=float("nan"))


def make_agent(folder, total_frames):
    """An agent whose rewards hold a novelty, and whose loss trains the module that says how large it is."""
    torch.manual_seed(0)
    actor, critic = ProbabilisticActor(MLP(4, 2), Categorical), ValueOperator(MLP(4, 1))
    rnd = RandomNetworkDistillation(MLP(4, 8), MLP(4, 8), shape=4)
    gae, paid = GAE(critic), IntrinsicReward(rnd, coef=0.5)
    loss = JointLoss(A2CLoss(actor, critic), RNDLoss(rnd))
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=1e-2)
    collector = Collector(
        GymEnv("CartPole-v1", num_envs=2), actor, frames_per_batch=16, total_frames=total_frames, seed=0
    )
    optimise = MinibatchEpochs(loss, optimizer, num_epochs=1, minibatch_size=8)
    agent = Agent(collector, optimise, advantage=lambda batch: gae(paid(batch)), folder=folder)
    return agent, rnd


def test_a_resumed_agent_goes_on_bit_for_bit(tmp_path):
    whole, rnd = make_agent(None, 96)
    whole.train()
    agent, _ = make_agent(tmp_path, 48)
    agent.train()
    resumed, other = make_agent(None, 96)
    resumed.load(tmp_path / "last.pt")
    resumed.train()
    torch.testing.assert_close(other.state_dict(), rnd.state_dict(), rtol=0, atol=0)
    assert int(rnd.count) == 96
    for one, two in zip(whole.loss.parameters(), resumed.loss.parameters(), strict=True):
        assert torch.equal(one, two)


def test_reported_returns_stay_raw_in_a_plain_loop():
    torch.manual_seed(0)
    actor, critic = ProbabilisticActor(MLP(4, 2), Categorical), ValueOperator(MLP(4, 1))
    rnd = RandomNetworkDistillation(MLP(4, 8), MLP(4, 8), shape=4)
    collector = Collector(
        GymEnv("CartPole-v1", num_envs=2), actor, frames_per_batch=64, seed=0, postproc=IntrinsicReward(rnd, coef=1.0)
    )
    batch = collector.collect()
    assert bool((batch[REWARD] == 1.0 + batch[PAID]).all()) and bool((batch[PAID] > 0).all())
    ended = batch["next", "done"]
    assert torch.equal(batch["next", "episode_return"][ended], batch["next", "episode_length"][ended].float())
    total_loss(A2CLoss(actor, critic)(GAE(critic)(batch))).backward()
