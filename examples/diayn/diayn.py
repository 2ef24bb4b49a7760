"""Diversity is all you need: five skills learned at once, without a reward of the world (Eysenbach et al., 2018).

    python examples/diayn/diayn.py --seed=0

What it shows: every row of a batch plays a skill of its own. ``collector.set_info(agent_info=...)`` hands the skills
to the rows, the policy reads them as a key, and the batch brings them back. A discriminator learns to tell the skill
from the state that was reached, and the policy is rewarded for making that easy:
r = log q(skill | next state) - log p(skill), by advantage actor-critic.
"""

from __future__ import annotations

import argparse
import math
from functools import partial

import gymnasium
import numpy as np
import torch
from tensordict import TensorDict
from torch import nn
from torch.nn import functional as F

from torchrl.collectors import MultiSyncCollector
from torchrl.envs import SerialEnv
from torchrl.modules import MLP, Normal, NormalHead, ProbabilisticActor, ValueOperator
from torchrl.objectives import GAE, A2CLoss, total_loss
from torchrl.recipes import exit_on_mistake

NUM_SKILLS, NUM_SLOTS, NUM_STEPS = 5, 20, 20


class Plane(gymnasium.Env):
    """A point that starts in the middle of a square and moves by at most a tenth of its half side; 20 steps."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.step_index = np.zeros(2, np.float32), 0
        return self.place.copy(), {}

    def step(self, action):
        self.place = np.clip(self.place + 0.1 * np.clip(action, -1, 1), -1, 1).astype(np.float32)
        self.step_index += 1
        return self.place.copy(), 0.0, False, self.step_index == NUM_STEPS, {}


class SkillNetwork(nn.Module):
    """Observation ``[*B, 2]`` and one-hot skill ``[*B, 5]`` to the parameters of the action."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.head = MLP(2 + NUM_SKILLS, 2), NormalHead(2)

    def forward(self, observation: torch.Tensor, skill: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(self.mlp(observation, skill))


def train(seed: int, num_batches: int, num_workers: int) -> tuple[float, list[float]]:
    """Train policy and discriminator; return the discriminator's accuracy on fresh episodes, in all and by skill."""
    torch.manual_seed(seed)
    inputs = ("observation", "skill")
    actor = ProbabilisticActor(SkillNetwork(), Normal, in_keys=inputs)
    critic = ValueOperator(MLP(2 + NUM_SKILLS, 1), in_keys=inputs)
    discriminator = MLP(2, NUM_SKILLS)
    loss, advantage = A2CLoss(actor, critic, entropy_coef=1e-3, normalize_advantage=True), GAE(critic, gamma=0.95)
    optimizer = torch.optim.Adam([*loss.trainable_parameters(), *discriminator.parameters()], lr=3e-3)
    collector = MultiSyncCollector(
        partial(SerialEnv, Plane, NUM_SLOTS // num_workers),
        actor,
        num_workers=num_workers,
        frames_per_batch=NUM_SLOTS * NUM_STEPS,
        seed=seed,
    )

    def play() -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Collect an episode of every row, ``[20, 20]``, with the skills dealt anew; return it, skills and log q."""
        skill = torch.randperm(NUM_SLOTS) % NUM_SKILLS  # equally many rows of each
        collector.set_info(agent_info=TensorDict({"skill": F.one_hot(skill, NUM_SKILLS).float()}, [NUM_SLOTS]))
        batch = collector.collect()
        return batch, batch["skill"].argmax(-1), discriminator(batch["next", "observation"]).log_softmax(-1)

    for _ in range(num_batches):
        batch, skill, log_q = play()
        log_q = log_q.gather(-1, skill.unsqueeze(-1))
        batch["next", "reward"] = log_q.detach() + math.log(NUM_SKILLS)
        total = total_loss(loss(advantage(batch))) - log_q.mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        collector.update_policy_weights_()

    _, skill, log_q = play()
    collector.shutdown()
    is_right = (log_q.argmax(-1) == skill)[:, NUM_STEPS // 2 :]  # all begin at one place, where no skill can be told
    by_skill = [is_right[skill[:, 0] == one].float().mean().item() for one in range(NUM_SKILLS)]
    return is_right.float().mean().item(), by_skill


def main() -> None:
    """Train by flags and print how well the skills can be told apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="all random streams derive from it")
    parser.add_argument("--num_batches", type=int, default=400, help="batches of 20 episodes")
    parser.add_argument("--num_workers", type=int, default=2, choices=(1, 2, 4, 5, 10), help="worker processes")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the networks are small
    with exit_on_mistake():
        accuracy, by_skill = train(args.seed, args.num_batches, args.num_workers)
        print(f"accuracy {accuracy:.3f} (chance {1 / NUM_SKILLS}), by skill {[round(one, 2) for one in by_skill]}")


if __name__ == "__main__":
    main()
