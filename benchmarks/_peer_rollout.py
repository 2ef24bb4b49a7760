"""Collect and estimate by PyPI's torchrl, in a Python that has it: a helper process of ``rollout.py``, never imported.

It makes its environments, then answers each line on its standard input by a rollout and one line: seconds of the
processor and of wall-clock.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
import warnings

import torch
from tensordict.nn import TensorDictModule
from torch import nn

from torchrl.collectors import Collector
from torchrl.envs import GymEnv, SerialEnv
from torchrl.objectives.value import GAE

NUM_ENVS, NUM_STEPS = 64, 512


def main() -> None:
    """Answer until the input ends."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    critic = TensorDictModule(network, in_keys=["observation"], out_keys=["state_value"])
    estimate = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    env = SerialEnv(NUM_ENVS, lambda: GymEnv("CartPole-v1"))
    collector = Collector(env, None, frames_per_batch=NUM_ENVS * NUM_STEPS, total_frames=-1)
    batches = iter(collector)
    print("ready", importlib.metadata.version("torchrl"), flush=True)
    for _ in sys.stdin:
        start = time.process_time(), time.perf_counter()
        batch = estimate(next(batches))
        seconds = time.process_time() - start[0], time.perf_counter() - start[1]
        if batch.shape != (NUM_ENVS, NUM_STEPS) or not bool(batch["advantage"].isfinite().all()):
            raise SystemExit(f"an odd batch: {batch}")
        print(*seconds, flush=True)


if __name__ == "__main__":
    main()
