"""Collection in one process against the plain loop, one torch thread, in the same run.

*Bare* is environment, policy and recording; our environment counts the episodes' returns and lengths even then.
*Chain* adds what the shipped config of the task uses: for HalfCheetah the observation normaliser, ``ActionClip`` and
``RewardNorm``, which the plain loop gets as a normaliser in torch and nothing for the rewards.
"""

from __future__ import annotations

import warnings

import gymnasium
import torch
from _plain import PlainCollector, seconds_per_call
from torch import nn

from torchrl.collectors import Collector
from torchrl.envs import Compose, Env, GymEnv, TransformedEnv
from torchrl.envs.transforms import ActionClip, RewardNorm
from torchrl.modules import MLP, Categorical, Normal, NormalHead, ObservationNormalizer, ProbabilisticActor

NUM_STEPS = 128


def make_policy(env: Env, *, normalize: bool) -> ProbabilisticActor:
    """A 64×64 tanh network with the distribution that fits the actions."""
    size = env.observation_spec["observation"].shape[-1]
    discrete = not env.action_spec.dtype.is_floating_point
    num_actions = env.action_spec.n if discrete else env.action_spec.shape[-1]
    layers = [ObservationNormalizer(size)] if normalize else []
    layers.append(MLP(size, num_actions))
    if not discrete:
        layers.append(NormalHead(num_actions))
    network = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
    return ProbabilisticActor(network, Categorical if discrete else Normal)


def ours(name: str, num_envs: int, *, normalize: bool) -> float:
    """Seconds for one batch of ``NUM_STEPS`` vector steps."""
    env: Env = GymEnv(name, num_envs=num_envs)
    if normalize:
        env = TransformedEnv(env, Compose(ActionClip(), RewardNorm(gamma=0.99)))
    collector = Collector(env, make_policy(env, normalize=normalize), frames_per_batch=num_envs * NUM_STEPS, seed=0)
    return seconds_per_call(collector.collect)


def bare_steps(name: str, num_envs: int) -> float:
    """Seconds for the same number of ``env.step`` calls and nothing else."""
    envs = [gymnasium.make(name) for _ in range(num_envs)]
    for env in envs:
        env.reset(seed=0)
    action = envs[0].action_space.sample()

    def steps() -> None:
        for _ in range(NUM_STEPS):
            for env in envs:
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()

    return seconds_per_call(steps)


def main() -> None:
    """Print one line per task."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{'task':<32}{'plain':>10}{'ours':>10}{'ratio':>8}{'budget':>8}{'of env.step':>13}   frames/s")
    tasks = [("CartPole-v1", 8, False, 1.8), ("CartPole-v1", 64, False, 1.2), ("HalfCheetah-v5", 8, True, 1.25)]
    for name, num_envs, normalize, budget in tasks:
        frames = num_envs * NUM_STEPS
        plain = seconds_per_call(PlainCollector(name, num_envs, NUM_STEPS, normalize=normalize).collect)
        mine = ours(name, num_envs, normalize=normalize)
        share = bare_steps(name, num_envs) / mine
        label = f"{num_envs} × {name}" + (" (normalised)" if normalize else "")
        print(
            f"{label:<32}{frames / plain:>10,.0f}{frames / mine:>10,.0f}{plain / mine:>8.2f}{budget:>8}{share:>13.2f}"
        )


if __name__ == "__main__":
    main()
