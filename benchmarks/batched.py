"""Worlds that are a batch already against the plain loop over 64 gymnasium CartPoles: one torch thread, one run.

Every loop acts with a 64×64 tanh network and records what it collects. EnvPool steps its worlds in ``num_threads``
threads, which are not torch's; the line says how many.
"""

from __future__ import annotations

import warnings

import torch
from _plain import PlainCollector, seconds_per_call
from collect import NUM_STEPS, make_policy

from torchrl.collectors import Collector
from torchrl.envs import CartPole, Env, EnvPoolEnv
from torchrl.errors import MissingExtraError

NUM_PLAIN, NUM_NATIVE, NUM_POOL = 64, 4096, 64


def ours(env: Env, num_steps: int) -> float:
    """Frames per second of a collector."""
    frames = env.batch_size.numel() * num_steps
    collector = Collector(env, make_policy(env, normalize=False), frames_per_batch=frames, seed=0)
    return frames / seconds_per_call(collector.collect)


def report(label: str, frames: float, plain: float, budget: str) -> None:
    """Print one line."""
    print(f"{label:<40}{frames:>12,.0f}{frames / plain:>8.2f}{budget:>8}")


def main() -> None:
    """Print one line per kind of world."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{'CartPole-v1':<40}{'frames/s':>12}{'ratio':>8}{'budget':>8}")
    plain = NUM_PLAIN * NUM_STEPS / seconds_per_call(PlainCollector("CartPole-v1", NUM_PLAIN, NUM_STEPS).collect)
    report(f"plain loop, {NUM_PLAIN} gymnasium envs", plain, plain, "")
    report(f"CartPole, {NUM_NATIVE} rows", ours(CartPole(NUM_NATIVE), 32), plain, "10")
    try:
        for num_threads in (1, 2):
            env = EnvPoolEnv("CartPole-v1", NUM_POOL, num_threads=num_threads)
            report(f"EnvPoolEnv, {NUM_POOL} rows, num_threads={num_threads}", ours(env, NUM_STEPS), plain, "2.5")
    except MissingExtraError as error:
        print(f"EnvPoolEnv: {error}")


if __name__ == "__main__":
    main()
