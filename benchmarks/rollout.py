"""A rollout of 64 CartPole × 512 steps by uniformly random actions, then GAE, against two other libraries.

    python benchmarks/rollout.py [--rounds=5] [--peer=FOLDER [--make_peer]]

Each has its own way, in one process with one thread of torch. The network of the values is the same, 64 × 64.

- Ours: ``Collector`` without a policy, then ``GAE``, which evaluates the batch at once; over the simulators of
  gymnasium, and over ``CartPole``, our batch of the same world in torch.
- Stable-Baselines3: ``PPO.learn`` over ``make_vec_env``, with a ``train`` that does nothing: ``collect_rollouts``
  remains. It asks for action and value at every step; its actor is one layer of zeros, the cheapest that it
  has, whose choices are uniformly random.
- PyPI's torchrl, 0.14 or newer, which has the name of ours and so a virtual environment of its own, ``--peer``, which
  ``--make_peer`` makes (torch again, 1 GB): ``Collector`` without a policy over ``SerialEnv``, then its ``GAE``, by
  ``_peer_rollout.py``. Its ``GymEnv(num_envs=64)`` would start 64 processes.

All take turns, ``--rounds`` times. Seconds of the processor are compared, wall-clock stands beside them. Needs the
extra ``benchmarks``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import gymnasium
import torch
from torch import nn

from torchrl.collectors import Collector
from torchrl.envs import CartPole, Env, GymEnv
from torchrl.modules import MLP, ValueOperator
from torchrl.objectives import GAE

NUM_ENVS, NUM_STEPS = 64, 512
FRAMES = NUM_ENVS * NUM_STEPS
THEIRS, PEER = "Stable-Baselines3", "PyPI's torchrl"
BUDGETS = {THEIRS: 2.5, PEER: 20.0}
Seconds = tuple[float, float]  # of the processor, of wall-clock


def timed(rollout: Callable[[], object]) -> Callable[[], Seconds]:
    """Return what measures one rollout."""

    def measure() -> Seconds:
        start = time.process_time(), time.perf_counter()
        rollout()
        return time.process_time() - start[0], time.perf_counter() - start[1]

    return measure


def ours(env: Env) -> Callable[[], object]:
    """Return our rollout."""
    estimate = GAE(ValueOperator(MLP(4, 1)), gamma=0.99, lambda_=0.95)
    collector = Collector(env, frames_per_batch=FRAMES, seed=0)
    return lambda: estimate(collector.collect())


def theirs() -> Callable[[], object]:
    """Return Stable-Baselines3's rollout."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    class OnlyCollects(PPO):
        def train(self) -> None:
            pass

    env = make_vec_env("CartPole-v1", NUM_ENVS, seed=0)
    networks, discounts = {"net_arch": {"pi": [], "vf": [64, 64]}}, {"gamma": 0.99, "gae_lambda": 0.95}
    model = OnlyCollects("MlpPolicy", env, n_steps=NUM_STEPS, policy_kwargs=networks, seed=0, **discounts)
    for parameter in model.policy.action_net.parameters():
        nn.init.zeros_(parameter)
    return lambda: model.learn(FRAMES, reset_num_timesteps=False)


def make_peer(folder: Path) -> None:
    """Make the virtual environment of PyPI's torchrl, with our torch and our gymnasium."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    same = [f"torch=={torch.__version__}", f"gymnasium=={gymnasium.__version__}"]
    subprocess.run([str(folder / "bin/python"), "-m", "pip", "install", "-q", "torchrl>=0.14", *same], check=True)


def peers(folder: Path, stack: ExitStack) -> Callable[[], Seconds]:
    """Start a process of the other environment; return what lets it roll out once."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1"}
    words = [str(folder / "bin/python"), str(Path(__file__).with_name("_peer_rollout.py"))]
    child = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.enter_context(child)
    greeting = child.stdout.readline().strip()
    if not greeting:
        raise SystemExit(f"{folder} has no Python with PyPI's torchrl, or it fails: see above. --make_peer makes one.")
    print(f"{PEER}: {greeting}", flush=True)

    def measure() -> Seconds:
        child.stdin.write("\n")
        child.stdin.flush()
        processor, wall = map(float, child.stdout.readline().split())
        return processor, wall

    return measure


def measure_all(sides: dict[str, Callable[[], Seconds]], rounds: int) -> None:
    """Let the sides take turns, then print frames per second, and the ratios of ours to the others."""
    measured: dict[str, list[Seconds]] = {name: [] for name in sides}
    for measure in sides.values():
        measure()  # start-up of each
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            measured[name].append(sides[name]())
    print(f"{'frames/s':<34}{'processor':>12}{'wall':>12}")
    for name, seconds in measured.items():
        rates = [FRAMES / statistics.median(column) for column in zip(*seconds, strict=True)]
        print(f"{name:<34}{rates[0]:>12,.0f}{rates[1]:>12,.0f}")
    for mine in (name for name in sides if name.startswith("ours")):
        for other in (name for name in BUDGETS if name in sides):
            pairs = zip(measured[mine], measured[other], strict=True)
            ratios = sorted(slow[0] / fast[0] for fast, slow in pairs)
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}; must reach {BUDGETS[other]})"
            print(f"{mine} over {other}: {spread}")


def main() -> None:
    """Measure what is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", type=Path, help="virtual environment with PyPI's torchrl; left out without it")
    parser.add_argument("--make_peer", action="store_true", help="make that first")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.make_peer:
        make_peer(args.peer)
    with ExitStack() as stack:
        sides = {
            "ours, simulators": timed(ours(GymEnv("CartPole-v1", num_envs=NUM_ENVS))),
            "ours, the batch in torch": timed(ours(CartPole(NUM_ENVS))),
            THEIRS: timed(theirs()),
        }
        if args.peer:
            sides[PEER] = peers(args.peer, stack)
        measure_all(sides, args.rounds)


if __name__ == "__main__":
    main()
