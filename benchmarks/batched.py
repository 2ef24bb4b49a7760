"""Worlds that are a batch already against the plain loop over 64 gymnasium CartPoles: one torch thread, one run.

Every loop acts with a 64×64 tanh network and records what it collects. EnvPool steps its worlds in ``num_threads``
threads, which are not torch's; the line says how many. Its asynchronous mode is for more cores than two.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable

import torch
from _plain import PlainCollector, seconds_per_call
from collect import NUM_STEPS, make_policy

from torchrl.collectors import AsyncEnvPoolCollector, Collector
from torchrl.envs import CartPole, Env, EnvPoolEnv
from torchrl.errors import MissingExtraError

NUM_PLAIN, NUM_NATIVE, NUM_POOL = 64, 4096, 64
NUM_AT_A_TIME, ROUNDS = 16, 5


def ours(env: Env, num_steps: int) -> float:
    """Frames per second of a collector."""
    frames = env.batch_size.numel() * num_steps
    collector = Collector(env, make_policy(env, normalize=False), frames_per_batch=frames, seed=0)
    return frames / seconds_per_call(collector.collect)


def asynchronous(name: str, num_steps: int, *, acts: bool) -> Callable[[], object]:
    """Return a function that collects from the first rows that are done, as many batches as all rows give."""
    env = EnvPoolEnv(name, NUM_AT_A_TIME, num_threads=2)
    policy = make_policy(env, normalize=False) if acts else None
    frames = NUM_AT_A_TIME * num_steps
    collector = AsyncEnvPoolCollector(env, policy, num_envs=NUM_POOL, frames_per_batch=frames, seed=0)
    return lambda: [collector.collect() for _ in range(NUM_POOL // NUM_AT_A_TIME)]


def compare_pong(num_steps: int = 16) -> None:
    """Print EnvPool's Pong by random actions, all rows together and the first of them, in turn."""
    together = Collector(EnvPoolEnv("Pong-v5", NUM_POOL, num_threads=2), frames_per_batch=NUM_POOL * num_steps, seed=0)
    first = asynchronous("Pong-v5", num_steps, acts=False)
    ratios = []
    for _ in range(ROUNDS):
        one, other = (
            NUM_POOL * num_steps / seconds_per_call(collect, seconds=1.0, repeats=1)
            for collect in (first, together.collect)
        )
        ratios.append(one / other)
    label = f"Pong-v5, first {NUM_AT_A_TIME} of {NUM_POOL} against all"
    print(f"{label:<40}{one:>12,.0f}{statistics.median(ratios):>8.2f}  ({min(ratios):.2f}–{max(ratios):.2f})")


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
        first = asynchronous("CartPole-v1", NUM_STEPS, acts=True)
        label = f"EnvPool, the first {NUM_AT_A_TIME} of {NUM_POOL}, num_threads=2"
        report(label, NUM_POOL * NUM_STEPS / seconds_per_call(first), plain, "")
        compare_pong()
    except MissingExtraError as error:
        print(f"EnvPoolEnv: {error}")


if __name__ == "__main__":
    main()
