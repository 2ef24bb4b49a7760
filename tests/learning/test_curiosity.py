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
from torchrl.modules import MLP, ProbabilisticActor, RandomNetworkDistillation, ValueOperator, distributions
from torchrl.objectives import GAE, ClipPPOLoss, JointLoss, RNDLoss

pytestmark = [pytest.mark.learn, pytest.mark.timeout(1200)]
NUM_DOORS = 25
FRAMES = 100_000


class Lock(TorchEnv):
    """Doors in a row, each with two keys: one opens it, the other leads back to the first. The last one pays 1."""

    keys = torch.arange(NUM_DOORS + 1) * 7 % 5 % 2

    def __init__(self, num_envs):
        observed = Composite({"observation": Bounded(0.0, 1.0, (num_envs, NUM_DOORS + 1))}, [num_envs])
        super().__init__(
            batch_size=[num_envs],
            observation_spec=observed,
            action_spec=Categorical(2, [num_envs]),
            max_episode_steps=2 * NUM_DOORS,
        )

    def start(self, generator):
        return self.at(torch.zeros(self.batch_size, dtype=torch.int64))

    def dynamics(self, state, action):
        door = state["observation"].argmax(-1)
        door = torch.where(action == self.keys[door], door + 1, 0)
        is_open = (door == NUM_DOORS).unsqueeze(-1)
        return self.at(door), is_open.float(), is_open

    def at(self, door):
        return TensorDict({"observation": F.one_hot(door, NUM_DOORS + 1).float()}, self.batch_size)


def train(seed, coef):
    """Train PPO with a reward for novelty; return how often the last door opened, and the mean of the last returns."""
    torch.manual_seed(seed)
    size = NUM_DOORS + 1
    actor, critic = ProbabilisticActor(MLP(size, 2), distributions.Categorical), ValueOperator(MLP(size, 1))
    rnd = RandomNetworkDistillation(MLP(size, 32), MLP(size, 32), shape=size)
    intrinsic, gae = IntrinsicReward(rnd, coef=coef), GAE(critic, gamma=0.99, lambda_=0.95)
    loss = JointLoss(ClipPPOLoss(actor, critic, entropy_coef=0.01), RNDLoss(rnd))
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=1e-3)
    optimise = MinibatchEpochs(loss, optimizer, num_epochs=4, minibatch_size=256, max_grad_norm=0.5)
    num_opened, returns = 0, []
    collector = Collector(Lock(16), actor, frames_per_batch=1024, total_frames=FRAMES, seed=seed)
    for batch in collector:
        optimise(gae(intrinsic(batch)))
        collector.update_policy_weights_()
        num_opened += int(batch["next", "terminated"].sum())
        returns.append(batch["next", "episode_return"][batch["next", "done"]])
    return num_opened, torch.cat(returns[-10:]).mean().item()


@pytest.mark.parametrize("seed", range(3))
def test_the_lock_is_opened_with_a_reward_for_novelty_and_never_without(seed):
    num_opened, mean_return = train(seed, coef=1.0)
    assert num_opened > 100 and mean_return >= 0.95
    assert train(seed, coef=0.0)[0] == 0
