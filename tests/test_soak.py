"""200,000 steps in every way that processes collect: memory, descriptors and children stay as they are."""

import gc
import os
from functools import partial
from pathlib import Path

import gymnasium
import pytest
import torch

from cases.workers import Stepwise, cartpole
from torchrl.collectors import Collector, MultiAsyncCollector, MultiSyncCollector, rollout
from torchrl.envs import ParallelEnv
from torchrl.envs.simulators import gym_simulator

pytestmark = [pytest.mark.usefixtures("leaves_nothing"), pytest.mark.timeout(90)]
STEPS, WARM_UP = 200_000, 50_000
MAX_SLOPE = 1.0  # MB per 10,000 steps


class Trained(Stepwise):
    """Acts as Stepwise, with weights that are sent with every batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1000))


def in_parallel_env():
    env = ParallelEnv(partial(gym_simulator, "CartPole-v1"), 64, num_workers=2)
    collector = Collector(env, Trained(), frames_per_batch=6400, seed=0)
    return collector.collect, collector.shutdown, lambda batch: batch.numel()


def by_workers(kind):
    collector = kind(partial(cartpole, 32), Trained(), num_workers=2, frames_per_batch=6400, update_every_batch=True)
    return collector.collect, collector.shutdown, lambda batch: batch.numel()


def by_rollout():
    makers = [partial(gymnasium.make, "CartPole-v1")] * 64
    generator = rollout(makers, Trained(), n_steps=100, num_workers=2)
    return lambda: next(generator), generator.close, lambda fragment: fragment.batch.numel()


WAYS = {
    "parallel": in_parallel_env,
    "sync": partial(by_workers, MultiSyncCollector),
    "async": partial(by_workers, MultiAsyncCollector),
    "rollout": by_rollout,
}


def resident_mb(pid):
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def below(pid):
    """List this process and its workers, the fork servers' children."""
    pids = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            pids += below(int(child))
    return pids


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_memory_does_not_grow(way):
    collect, close, frames_in = way()
    steps, samples, counts = 0, [], set()
    while steps < STEPS:
        steps += frames_in(collect())
        if steps > WARM_UP:
            gc.collect()
            pids = below(os.getpid())
            samples.append([steps / 10_000, sum(map(resident_mb, pids))])
            counts.add((len(pids), len(os.listdir("/proc/self/fd"))))
    close()
    x, y = torch.tensor(samples, dtype=torch.float64).unbind(1)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert len(samples) > 20 and slope < MAX_SLOPE, f"{slope:.2f} MB per 10,000 steps"
    assert len(counts) == 1, "children or descriptors come and go"
