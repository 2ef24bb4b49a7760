"""Diversity is all you need: five skills learned at once, without a reward of the world (Eysenbach et al., 2018).

    python examples/diayn/diayn.py --seed=0

What it shows: every slot of a batch plays a skill of its own. ``collector.set_info(agent_info=...)`` hands the skills
to the slots, the policy reads them as a key, and the batch brings them back. A discriminator learns to tell the skill
from the state that was reached, and the policy is rewarded for making that easy:
r = log q(skill | next state) - log p(skill), by REINFORCE.
"""

from __future__ import annotations

import argparse
from functools import partial

import gymnasium
import numpy as np
import torch
from tensordict import TensorDict
from torch import nn
from torch.nn import functional as F

from torchrl.collectors import MultiSyncCollector
from torchrl.envs import SerialEnv
from torchrl.functional import discounted_return
from torchrl.modules import MLP, Normal, NormalHead, ProbabilisticActor
from torchrl.recipes import exit_on_mistake

NUM_SKILLS, NUM_STEPS = 5, 20


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
        self.layers = nn.Sequential(MLP(2 + NUM_SKILLS, 2), NormalHead(2))

    def forward(self, observation: torch.Tensor, skill: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layers(torch.cat([observation, skill], -1))


def train(seed: int, num_batches: int, num_workers: int) -> tuple[float, list[float]]:
    """Train policy and discriminator; return the discriminator's accuracy on fresh episodes, in all and by skill."""
    torch.manual_seed(seed)
    policy = ProbabilisticActor(SkillNetwork(), Normal, in_keys=("observation", "skill"))
    discriminator = MLP(2, NUM_SKILLS)
    optimizer = torch.optim.Adam([*policy.parameters(), *discriminator.parameters()], lr=3e-3)
    slots = 20 // num_workers
    collector = MultiSyncCollector(
        partial(SerialEnv, Plane, slots), policy, num_workers=num_workers, frames_per_batch=20 * NUM_STEPS, seed=seed
    )
    skill = torch.arange(20) % NUM_SKILLS  # four slots of each skill in one batch
    collector.set_info(agent_info=TensorDict({"skill": F.one_hot(skill, NUM_SKILLS).float()}, [20]))

    for _ in range(num_batches):
        batch = collector.collect()  # [20, 20]: one episode of every slot
        wanted = batch["skill"].argmax(-1)
        log_q = discriminator(batch["next", "observation"]).log_softmax(-1)
        log_q = log_q.gather(-1, wanted.unsqueeze(-1))
        reward = log_q.detach() + np.log(NUM_SKILLS)
        flags = batch["next", "terminated"], batch["next", "truncated"]
        value = discounted_return(reward, *flags, gamma=0.95)
        advantage = (value - value.mean(0)) / (value.std() + 1e-6)
        distribution = policy.build(batch)
        log_prob = distribution.log_prob(batch["action"]).unsqueeze(-1)
        loss = -(log_prob * advantage).mean() - log_q.mean() - 1e-3 * distribution.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        collector.update_policy_weights_()

    batch = collector.collect()
    collector.shutdown()
    right = discriminator(batch["next", "observation"]).argmax(-1) == batch["skill"].argmax(-1)
    right = right[:, NUM_STEPS // 2 :].float()  # all episodes begin at one place, where no skill can be told
    return right.mean().item(), [right[skill == one].mean().item() for one in range(NUM_SKILLS)]


def main() -> None:
    """Train by flags and print how well the skills can be told apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="all random streams derive from it")
    parser.add_argument("--num_batches", type=int, default=400, help="batches of 20 episodes")
    parser.add_argument("--num_workers", type=int, default=2, help="worker processes: 1, 2, 4, 5 or 10")
    args = parser.parse_args()
    with exit_on_mistake():
        accuracy, by_skill = train(args.seed, args.num_batches, args.num_workers)
        print(f"accuracy {accuracy:.3f} (chance {1 / NUM_SKILLS}), by skill {[round(one, 2) for one in by_skill]}")


if __name__ == "__main__":
    main()
