"""A reward for novelty finds what a policy alone does not: a lock of 25 doors that pays when the last one opens."""

import pytest
import torch
from tensordict import TensorDict
from torch.nn import functional as F

from torchrl.agents import MinibatchEpochs
from torchrl.collectors import Collector
from torchrl.data import IntrinsicReward
from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.envs import TorchEnv
from torchrl.modules import (
    MLP,
    IntrinsicCuriosity,
    ProbabilisticActor,
    RandomNetworkDistillation,
    ValueOperator,
    distributions,
)
from torchrl.objectives import GAE, ClipPPOLoss, ICMLoss, JointLoss, RNDLoss

pytestmark = [pytest.mark.learn, pytest.mark.timeout(1200)]
NUM_DOORS = 25
SIZE = NUM_DOORS + 1  # of an observation
FRAMES = 100_000


class Lock(TorchEnv):
    """Doors in a row, each with two keys: one opens it, the other leads back to the first. The last one pays 1."""

    keys = torch.arange(SIZE) * 7 % 5 % 2

    def __init__(self, num_envs):
        observed = Composite({"observation": Bounded(0.0, 1.0, (num_envs, SIZE))}, [num_envs])
        super().__init__(
            batch_size=[num_envs],
            observation_spec=observed,
            action_spec=Categorical(2, [num_envs]),
            max_episode_steps=2 * NUM_DOORS,
        )

    def start(self, random):
        return self.at(torch.zeros(random.batch_size, dtype=torch.int64))

    def dynamics(self, state, action):
        door = state["observation"].argmax(-1)
        door = torch.where(action == self.keys[door], door + 1, 0)
        is_open = (door == NUM_DOORS).unsqueeze(-1)
        return self.at(door), is_open.float(), is_open

    def at(self, door):
        return TensorDict({"observation": F.one_hot(door, SIZE).float()}, door.shape)


def random_network():
    """Make the module of random network distillation, its loss, and the factor on what it pays."""
    rnd = RandomNetworkDistillation(MLP(SIZE, 32), MLP(SIZE, 32), shape=SIZE)
    return rnd, RNDLoss(rnd), 1.0


def curiosity():
    """Make the module of intrinsic curiosity, its loss, and the factor on what it pays."""
    icm = IntrinsicCuriosity(MLP(SIZE, 16), MLP(32, 2), MLP(18, 16), num_actions=2, gamma=0.99)
    return icm, ICMLoss(icm), 0.1


def train(seed, make_novelty):
    """Train PPO with a reward for novelty; return how often the last door opened, and the mean of the last returns."""
    torch.manual_seed(seed)
    actor, critic = ProbabilisticActor(MLP(SIZE, 2), distributions.Categorical), ValueOperator(MLP(SIZE, 1))
    gae, loss = GAE(critic, gamma=0.99, lambda_=0.95), ClipPPOLoss(actor, critic, entropy_coef=0.01)
    prepare = gae
    if make_novelty is not None:
        module, novelty_loss, coef = make_novelty()
        intrinsic, loss = IntrinsicReward(module, coef=coef), JointLoss(loss, novelty_loss)
        prepare = lambda batch: gae(intrinsic(batch))  # noqa: E731
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=1e-3)
    optimise = MinibatchEpochs(loss, optimizer, num_epochs=4, minibatch_size=256, max_grad_norm=0.5)
    num_opened, returns = 0, []
    collector = Collector(Lock(16), actor, frames_per_batch=1024, total_frames=FRAMES, seed=seed)
    for batch in collector:
        optimise(prepare(batch))
        collector.update_policy_weights_()
        num_opened += int(batch["next", "terminated"].sum())
        returns.append(batch["next", "episode_return"][batch["next", "done"]])
    return num_opened, torch.cat(returns[-10:]).mean().item()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make_novelty", [random_network, curiosity])
def test_the_lock_is_opened_with_a_reward_for_novelty(make_novelty, seed):
    num_opened, mean_return = train(seed, make_novelty)
    assert num_opened > 100 and mean_return >= 0.95


@pytest.mark.parametrize("seed", range(3))
def test_the_lock_is_never_opened_without(seed):
    assert train(seed, None)[0] == 0
