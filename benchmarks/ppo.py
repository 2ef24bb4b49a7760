"""PPO on CartPole end to end against the same algorithm as one plain script, one torch thread, in the same run.

8 environments × 128 steps, 4 epochs of 4 minibatches, separate 64×64 networks, Adam, gradient norm 0.5. Ours is the
agent as the example builds it: collector, GAE, loss, optimise step and hooks, without evaluation and logs. With
``--compile`` it acts and trains by compiled graphs, and the time to make them counts.
"""

from __future__ import annotations

import sys
import time

import torch
from _plain import tanh_mlp
from _plain_ppo import plain_ppo

from torchrl.agents import Agent, FusedAdam, MinibatchEpochs
from torchrl.collectors import Collector
from torchrl.envs import GymEnv
from torchrl.modules import MLP, Categorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import GAE, ClipPPOLoss

NUM_ENVS, NUM_STEPS = 8, 128


def our_ppo(total_frames: int, *, compile: bool = False) -> Agent:
    """Train for ``total_frames`` and return the agent."""
    torch.manual_seed(0)
    actor = ProbabilisticActor(MLP(4, 2), Categorical)
    critic = ValueOperator(MLP(4, 1))
    collector = Collector(
        GymEnv("CartPole-v1", num_envs=NUM_ENVS),
        actor,
        frames_per_batch=NUM_ENVS * NUM_STEPS,
        total_frames=total_frames,
        seed=0,
        compile=compile,
    )
    loss = ClipPPOLoss(actor, critic, entropy_coef=0.01)
    optimizer = FusedAdam(loss.trainable_parameters(), lr=1e-3, eps=1e-5)
    optimise = MinibatchEpochs(loss, optimizer, num_epochs=4, minibatch_size=256, max_grad_norm=0.5, compile=compile)
    agent = Agent(collector, optimise, advantage=GAE(critic))
    agent.train()
    return agent


def main() -> None:
    """Print frames per second of both, and how ours are spent."""
    torch.set_num_threads(1)
    compile = "--compile" in sys.argv
    frames = NUM_ENVS * NUM_STEPS * (400 if compile else 100)
    tanh_mlp(4, 2)(torch.zeros(1, 4))  # torch's own start-up
    plain, mine = [], []
    agent = None
    for _ in range(1 if compile else 3):
        start = time.perf_counter()
        plain_ppo(frames)
        plain.append(time.perf_counter() - start)
        start = time.perf_counter()
        agent = our_ppo(frames, compile=compile)
        mine.append(time.perf_counter() - start)
    updates = frames // (NUM_ENVS * NUM_STEPS) * 16
    print(f"frames {frames:,}; plain {frames / min(plain):,.0f} frames/s, ours {frames / min(mine):,.0f} frames/s")
    print(f"ratio {min(plain) / min(mine):.2f} (must reach 1.7, aim 3)")
    print(
        f"ours: collecting {agent.seconds['collect']:.2f} s, optimising {agent.seconds['optimise']:.2f} s "
        f"({agent.seconds['optimise'] / updates * 1e3:.2f} ms per update with its share of everything)"
    )


if __name__ == "__main__":
    main()
