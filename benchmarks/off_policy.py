"""SAC on Pendulum and DQN on CartPole end to end against Stable-Baselines3, in the same run.

    python benchmarks/off_policy.py [--threads=2] [--flush_both] [--compile] [--only=DQN]

The settings are those of the shipped configs, the tuned ones of the RL Baselines3 Zoo: SAC with twin critics of
256×256, batches of 256 and one update a frame; DQN with 256×256, batches of 64 and 128 updates every 256 frames, single
as theirs is. Both sides step one environment, without evaluation and logs, each as its users run it: our examples flush
denormal numbers, Stable-Baselines3 does not; ``--flush_both`` does it for both. With ``--compile`` ours acts and
trains by compiled graphs, which a first, short training makes. Needs the extra ``benchmarks``.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from torchrl.recipes import from_flags, parser_of

ROOT = Path(__file__).resolve().parent.parent
SAC_FRAMES, DQN_FRAMES, ROUNDS = 1500, 10_240, 3
QUIET = ["--no-progress_bar", "--record_interval=100000000", "--log_interval=100000000"]


def ours(algorithm: str, config: str, frames: int, *flags: str) -> float:
    """Train by the example and return its seconds."""
    path = ROOT / "examples" / algorithm / f"{algorithm}.py"
    spec = importlib.util.spec_from_file_location(algorithm, path)
    example = sys.modules[algorithm] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    settings = getattr(example, algorithm.upper())
    words = [f"--config={ROOT / 'configs' / algorithm / config}.txt", f"--total_frames={frames}", *QUIET, *flags]
    agent = example.make_agent(from_flags(settings, parser_of(settings).parse_args(words)))
    agent.evaluator = None
    start = time.perf_counter()
    agent.train()
    seconds = time.perf_counter() - start
    agent.close()
    return seconds


def theirs_sac(frames: int) -> float:
    """Train Stable-Baselines3's SAC and return its seconds."""
    from stable_baselines3 import SAC

    model = SAC("MlpPolicy", "Pendulum-v1", learning_rate=1e-3, seed=0)
    start = time.perf_counter()
    model.learn(frames)
    return time.perf_counter() - start


def theirs_dqn(frames: int) -> float:
    """Train Stable-Baselines3's DQN and return its seconds."""
    from stable_baselines3 import DQN

    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1000,
        gamma=0.99,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        seed=0,
    )
    start = time.perf_counter()
    model.learn(frames)
    return time.perf_counter() - start


def main() -> None:
    """Print frames per second of both, and their ratio."""
    threads = next((int(word.partition("=")[2]) for word in sys.argv if word.startswith("--threads=")), 1)
    torch.set_num_threads(threads)

    def flushed(train: Callable[[int], float], frames: int, *, flush: bool) -> float:
        torch.set_flush_denormal(flush)
        return train(frames)

    flush_theirs = "--flush_both" in sys.argv
    how = ["--compile"] if "--compile" in sys.argv else []
    only = next((word.partition("=")[2] for word in sys.argv if word.startswith("--only=")), "")
    cases = {
        "SAC, Pendulum-v1": (theirs_sac, lambda n: ours("sac", "pendulum", n, *how), SAC_FRAMES),
        "DQN, CartPole-v1": (theirs_dqn, lambda n: ours("dqn", "cartpole", n, "--no-double", *how), DQN_FRAMES),
    }
    cases = {name: case for name, case in cases.items() if name.startswith(only)}
    for name, (their, mine, frames) in cases.items():
        their(frames // 5), mine(frames // 5)  # start-up of torch
        pairs = [
            (frames / flushed(their, frames, flush=flush_theirs), frames / flushed(mine, frames, flush=True))
            for _ in range(ROUNDS)
        ]
        ratios = [mine_fps / their_fps for their_fps, mine_fps in pairs]
        their_fps, mine_fps = (statistics.median(fps) for fps in zip(*pairs, strict=True))
        print(
            f"{name}, {threads} thread(s): Stable-Baselines3 {their_fps:,.0f}, ours {mine_fps:,.0f} frames/s, "
            f"ratio {statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
            flush=True,
        )


if __name__ == "__main__":
    main()
