"""Time several agents together against one: their ``updates``, and how they ``train``.

``updates``: PPO on CartPole's shapes, minibatches of 256 rows, two 64×64 tanh networks: the epochs of one eager agent,
of one with ``compile=True``, and of S together by one program. Times are those of a gradient step (of all members), as
ratios in one run, the three sides alternating.

``train``: the shipped settings of PPO on CartPole, 8 seeds on simulators or, with ``--env=torch``, on the batched
CartPole. One agent without compiled graphs, one with them and the population with them go on in turn, with evaluations
as they are due, without logs and checkpoints. Graphs are made in a first batch, whose time is printed apart.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ppo_update import NUM_UPDATES, make_batch, make_ours

from torchrl.agents import Agent
from torchrl.population import Population, join_updates
from torchrl.recipes import from_flags, parser_of

ROOT = Path(__file__).parents[1]
ENVS = {"simulators": [], "torch": ["--env_library=native", "--env_name=CartPole"]}


def seconds_of(call: Callable[[], object], calls: int) -> float:
    """Time a gradient step, by the mean of several calls."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / (calls * NUM_UPDATES)


def spread(numbers: list[float], unit: str = "×") -> str:
    """Write the median of some numbers, and their range."""
    return f"{statistics.median(numbers):.2f} {unit} ({min(numbers):.2f}–{max(numbers):.2f})"


def updates(num: int, *, rounds: int, calls: int) -> None:
    """Print how many times as long as one member's step the steps of all take, against the eager and the compiled."""
    batches = [make_batch() for _ in range(num)]
    eager, compiled = make_ours(), make_ours(compile=True)
    start = time.perf_counter()
    together = join_updates([make_ours(compile=True) for _ in range(num)])
    together(batches)
    first_s = time.perf_counter() - start
    sides = [lambda: eager(batches[0]), lambda: compiled(batches[0]), lambda: together(batches)]
    for side in sides:
        side()
    times = [[seconds_of(side, calls) for side in sides] for _ in range(rounds)]
    one, graph, all_ = zip(*times, strict=True)
    print(f"{num} members, {torch.get_num_threads()} threads; the first call, which may compile, took {first_s:.1f} s")
    for name, own in (("one, eager", one), ("one, compiled", graph), ("all together", all_)):
        print(f"  {name:<14}{spread([x * 1e3 for x in own], 'ms')}")
    print(f"  all to one eager    {spread([x / y for x, y in zip(all_, one, strict=True)])}")
    print(f"  all to one compiled {spread([x / y for x, y in zip(all_, graph, strict=True)])}")


def load_ppo() -> object:
    """Import the example."""
    spec = importlib.util.spec_from_file_location("ppo_example", ROOT / "examples/ppo/ppo.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(num_seeds: int, *flags: str) -> Agent | Population:
    """Build the agent of seed 0, or a population of more."""
    example, agents = load_ppo(), []
    for seed in range(num_seeds):
        words = [f"--config={ROOT}/configs/ppo/cartpole.txt", f"--seed={seed}", "--no-progress_bar", *flags]
        settings = from_flags(example.PPO, parser_of(example.PPO).parse_args(words))
        agents.append(example.make_agent(settings))
    if num_seeds == 1:
        return agents[0]
    rows = num_seeds * settings.environment.num_envs
    return Population(agents, env=settings.make_env(num_envs=rows, training=True))


def go_on(trained: Agent | Population, frames: int) -> float:
    """Train by so many frames more; return the seconds."""
    agents = trained.agents if isinstance(trained, Population) else [trained]
    for agent in agents:
        agent.collector.total_frames = agent.collector.frames + frames
    start = time.perf_counter()
    trained.train()
    return time.perf_counter() - start


def train(num_seeds: int, env: str, frames: int, rounds: int) -> None:
    """Print seconds of one seed and of several, and the ratios of each round."""
    flags = ENVS[env]
    builders: dict[str, Callable[[], Agent | Population]] = {
        "one": lambda: make(1, *flags),
        "one compiled": lambda: make(1, "--compile", *flags),
        f"{num_seeds} compiled": lambda: make(num_seeds, "--compile", *flags),
    }
    trained, seconds = {name: build() for name, build in builders.items()}, {name: [] for name in builders}
    for name, one in trained.items():
        print(f"{name}: first batch, with its graphs, {go_on(one, 256):.1f} s", flush=True)
    for _ in range(rounds):
        for name, one in trained.items():
            seconds[name].append(go_on(one, frames))
    print(f"{env}, {frames:,} frames of each seed, {rounds} rounds")
    for name, spent in seconds.items():
        print(f"  {name:<14}{statistics.median(spent):7.2f} s ({min(spent):.2f} to {max(spent):.2f})")
    many = seconds[f"{num_seeds} compiled"]
    for name in ("one", "one compiled"):
        ratios = [several / single for several, single in zip(many, seconds[name], strict=True)]
        print(f"  {num_seeds} seeds / {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    for one in trained.values():
        members = one.agents if isinstance(one, Population) else [one]
        phases = {phase: sum(agent.seconds[phase] for agent in members) for phase in members[0].seconds}
        print("  " + ", ".join(f"{phase} {spent:.2f} s" for phase, spent in phases.items()))
        one.close()


def main() -> None:
    """Run the part that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("part", choices=["updates", "train"], nargs="?", default="updates")
    parser.add_argument("--members", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2)
    parser.add_argument("--env", choices=list(ENVS), default="simulators")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--frames", type=int, default=4096)
    args = parser.parse_args()
    if args.part == "train":
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        train(args.seeds, args.env, args.frames, args.rounds)
        return
    for threads in args.threads:
        torch.set_num_threads(threads)
        for num in args.members:
            updates(num, rounds=args.rounds, calls=args.calls)


if __name__ == "__main__":
    main()
