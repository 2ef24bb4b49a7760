"""100,000 steps in every way that processes collect: memory, descriptors and children stay as they are."""

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

pytestmark = pytest.mark.usefixtures("leaves_nothing")
STEPS, WARM_UP = 100_000, 30_000  # the allocators have grown to their size within the first batches
MAX_SLOPE = 1.0  # MB per 10,000 steps


class Trained(Stepwise):
    """Acts as Stepwise, with weights that are sent with every batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1000))


def in_parallel_env():
    env = ParallelEnv(partial(gym_simulator, "CartPole-v1"), 64, num_workers=2)
    collector = Collector(env, Trained(), frames_per_batch=3200, seed=0)
    return collector.collect, collector.shutdown


def by_workers(kind):
    collector = kind(partial(cartpole, 32), Trained(), num_workers=2, frames_per_batch=3200, update_every_batch=True)
    return collector.collect, collector.shutdown


def by_rollout():
    makers = [partial(gymnasium.make, "CartPole-v1")] * 64
    stream = rollout(makers, Trained(), n_steps=50, num_workers=2)
    return lambda: next(stream).batch, stream.close


WAYS = {
    "parallel": in_parallel_env,
    "sync": partial(by_workers, MultiSyncCollector),
    "async": partial(by_workers, MultiAsyncCollector),
    "rollout": by_rollout,
}


def resident_mb(pid):
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def num_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def below(pid):
    """List a process and all below it: fork servers and the workers, which are their children."""
    pids = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            pids += below(int(child))
    return pids


def slopes(steps, sizes):
    """Fit a line to each column of sizes, MB ``[n, processes]``; return MB per 10,000 steps by least squares."""
    x = torch.tensor(steps, dtype=torch.float64) / 10_000
    x, y = x - x.mean(), torch.tensor(sizes, dtype=torch.float64)
    return x @ (y - y.mean(0)) / x.square().sum()


def test_a_slope_is_that_of_the_line():
    steps = [0, 10_000, 30_000]
    assert slopes(steps, [[5, 1], [7, 1], [11, 1]]).tolist() == [2, 0]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_memory_does_not_grow(way):
    collect, close = way()
    num_steps, steps, sizes, seen = 0, [], [], set()
    while num_steps < STEPS:
        num_steps += collect().numel()
        if num_steps > WARM_UP:
            pids = below(os.getpid())
            steps.append(num_steps)
            sizes.append([*map(resident_mb, pids), sum(map(resident_mb, pids))])
            seen.add(tuple((pid, num_descriptors(pid)) for pid in pids))
    close()
    assert len(steps) > 20 and len(pids) >= 4  # this one, a fork server and two workers
    assert len(seen) == 1, f"processes or descriptors come and go: {seen}"
    grown = slopes(steps, sizes)
    assert grown.max() < MAX_SLOPE, f"MB per 10,000 steps of {pids} and in all: {grown.tolist()}"
