"""Many simulators, one and several processes, side by side, in the same run.

Three worlds: CartPole-v1 (a step costs 6 µs), HalfCheetah-v5 (MuJoCo), and one that sleeps 5 ms in every step. Every
line has 16 environments (but for *one process of 8*) and a 64×64 policy in the loop, one torch thread per process.
*gymnasium sync* and *async* are the plain loop over ``SyncVectorEnv`` and ``AsyncVectorEnv``. Then: how long four
workers take to start and to close.

    python benchmarks/processes.py [cartpole | cheetah | slow | start]
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from _plain import PlainCollector
from collect import make_policy

from torchrl.collectors import Collector, MultiAsyncCollector, MultiSyncCollector
from torchrl.envs import Compose, Env, ParallelEnv, SerialEnv, TransformedEnv
from torchrl.envs.simulators import gym_simulator
from torchrl.envs.transforms import ActionClip, RewardNorm

NUM_ENVS = 16
WORLDS = {
    "cartpole": ("CartPole-v1", 128, False),
    "cheetah": ("HalfCheetah-v5", 64, True),
    "slow": ("_slow:SlowCartPole-v0", 8, False),
}


def chained(env: Env, *, normalize: bool) -> Env:
    """Put the shipped config's transforms around HalfCheetah."""
    return TransformedEnv(env, Compose(ActionClip(), RewardNorm(gamma=0.99))) if normalize else env


def serial(name: str, num_envs: int, *, normalize: bool) -> Env:
    """So many simulators in this process."""
    return chained(SerialEnv(partial(gym_simulator, name), num_envs), normalize=normalize)


def parallel(name: str, num_workers: int, *, normalize: bool) -> Env:
    """All simulators in so many processes."""
    env = ParallelEnv(partial(gym_simulator, name), NUM_ENVS, num_workers=num_workers)
    return chained(env, normalize=normalize)


def frames_per_second(collector: object, frames: int, *, seconds: float = 1.5, rounds: int = 3) -> float:
    """Measure ``collect()`` and end the collector: the best of some rounds of at least so many seconds.

    By the clock, not by a number of calls that one call tells: of an asynchronous collector one may take no time.
    """
    for _ in range(4):
        collector.collect()
    best = 0.0
    for _ in range(rounds):
        begin, num = time.perf_counter(), 0
        while (spent := time.perf_counter() - begin) < seconds:
            collector.collect()
            num += 1
        best = max(best, num * frames / spent)
    if hasattr(collector, "shutdown"):
        collector.shutdown()
    return best


def compare(name: str, num_steps: int, *, normalize: bool) -> None:
    """Print one line for each way to collect from a world."""
    frames, options = NUM_ENVS * num_steps, {"normalize": normalize}
    policy = make_policy(serial(name, 2, **options), **options)

    def multi(kind: type, num_workers: int) -> Callable[[], float]:
        make_env = partial(serial, name, NUM_ENVS // num_workers, **options)
        per_batch = frames if kind is MultiSyncCollector else frames // num_workers
        return lambda: frames_per_second(
            kind(make_env, policy, num_workers=num_workers, frames_per_batch=per_batch, seed=0), per_batch
        )

    def single(env: Callable[[], Env], num_envs: int = NUM_ENVS) -> Callable[[], float]:
        rows = num_envs * num_steps
        return lambda: frames_per_second(Collector(env(), policy, frames_per_batch=rows, seed=0), rows)

    many = 8 if name.startswith("_slow") else 4
    lines = {
        "gymnasium sync": lambda: frames_per_second(PlainCollector(name, NUM_ENVS, num_steps, **options), frames),
        "gymnasium async": lambda: frames_per_second(
            PlainCollector(name, NUM_ENVS, num_steps, asynchronous=True, **options), frames
        ),
        "one process of 8": single(partial(serial, name, 8, **options), 8),
        "serial": single(partial(serial, name, NUM_ENVS, **options)),
        "parallel, 2 workers": single(partial(parallel, name, 2, **options)),
        f"parallel, {many} workers": single(partial(parallel, name, many, **options)),
        "multi-sync, 2 × 8": multi(MultiSyncCollector, 2),
        "multi-async, 2 × 8": multi(MultiAsyncCollector, 2),
        f"multi-sync, {many} × {NUM_ENVS // many}": multi(MultiSyncCollector, many),
    }
    print(f"\n{name:<24}{'frames/s':>10}{'of plain':>10}{'of 8':>8}   budget")
    measured: dict[str, float] = {}
    for label, measure in lines.items():
        measured[label] = rate = measure()
        plain, eight = measured["gymnasium sync"], measured.get("one process of 8", float("nan"))
        budget = "2.0 of plain, 1.7 of 8" if label.endswith("2 × 8") and not name.startswith("_slow") else ""
        print(f"{label:<24}{rate:>10,.0f}{rate / plain:>10.2f}{rate / eight:>8.2f}   {budget}", flush=True)


def starting(num_rounds: int = 5) -> None:
    """Print how long four workers of one CartPole each take to be ready, and to close."""
    print(f"\n{'four workers':<24}{'ready, s':>10}{'closed, s':>11}   budget")
    for label, rounds in (("cold", 1), ("again, the slowest", num_rounds)):
        ready, closed = [], []
        for _ in range(rounds):
            begin = time.perf_counter()
            env = ParallelEnv(partial(gym_simulator, "CartPole-v1"), 4, num_workers=4)
            env.reset(seed=0)
            ready.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            env.close()
            closed.append(time.perf_counter() - begin)
        budget = "1.5 and 1" if label == "cold" else "0.3 and 1"
        print(f"{label:<24}{max(ready):>10.3f}{max(closed):>11.3f}   {budget}")


def main() -> None:
    """Print what was asked for, or all of it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    asked = sys.argv[1:] or ["start", *WORLDS]
    for name in asked:
        if name == "start":
            starting()
        else:
            world, num_steps, normalize = WORLDS[name]
            compare(world, num_steps, normalize=normalize)


if __name__ == "__main__":
    main()
