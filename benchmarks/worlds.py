"""Worlds that others bring, in our loop and in a bare one, alternating in one run: one function per world.

    python benchmarks/worlds.py [pong] [frames] [gymnax] [batch]

Names choose functions; none runs all. Each comparison times both sides in turn, one torch thread; the median ratio of
the rounds counts, its range stands beside it.

``pong``: 8 games, four frames of 84 × 84 to an observation. Our collector has a tiny policy and records what it
collects; gymnasium's processes, and ale-py's own vector environment, are stepped by a plain loop that does the same,
and the latter also by a bare one, which has no policy and records nothing. ``frames``: what DQN's replay holds of the
same games, bytes of pictures a transition, counted in its memory.

``gymnax``: 4,096 rows of gymnax's CartPole by ``JaxEnv``, alone and in our collector with a policy, against gymnax's
own ``step``, compiled for as many rows and called with given actions, nothing recorded. XLA has one thread, too, and
computes in the thread that asks.

``batch``: 4,096 CartPoles in numpy that restart by themselves, as a ``BatchEnv`` stepped at random, or recorded by our
collector, at random or by a policy of one layer, against a loop that steps them at random.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch

from torchrl.collectors import Collector
from torchrl.data.replay import ReplayBuffer, StackedFrames, TensorStorage
from torchrl.envs import ALEEnv, BatchEnv, Compose, Env, GymVectorEnv, JaxEnv, TransformedEnv, jax_world
from torchrl.envs.transforms import FrameStack, Unsqueeze
from torchrl.modules import MLP, Categorical, ProbabilisticActor

ROUNDS = 5


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def report(label: str, values: list[float], budget: str = "", form: str = ".2f") -> None:
    """Print the median and the range."""
    values = sorted(values)
    median = format(statistics.median(values), form)
    ends = f"{values[0]:{form}}–{values[-1]:{form}}"
    print(f"{label:<66}{median:>9}  {ends:<15}{budget:>8}", flush=True)


# ---- Atari -----------------------------------------------------------------------------------------------------------

NUM_GAMES, NUM_STEPS, NUM_FRAMES = 8, 128, 4


def stacked_games() -> Env:
    """Build the games with our stack of frames."""
    from _atari import GAME

    return TransformedEnv(ALEEnv(GAME, NUM_GAMES), Compose(Unsqueeze(-3), FrameStack(NUM_FRAMES, dim=-3)))


def collector(env: Env, num_steps: int = NUM_STEPS) -> Collector:
    """Build a collector with a tiny policy."""
    from _atari import Tiny

    actor = ProbabilisticActor(Tiny(env.action_spec.n), Categorical)
    return Collector(env, actor, frames_per_batch=NUM_GAMES * num_steps, seed=0)


def pong() -> None:
    """Compare our collector with gymnasium's processes in a plain loop, and with ale-py's vector environment alone."""
    from _atari import BareLoop, PlainLoop, processes
    from ale_py.vector_env import AtariVectorEnv

    def threads(**options: object) -> AtariVectorEnv:
        return AtariVectorEnv("pong", NUM_GAMES, repeat_action_probability=0.25, **options)

    plain = PlainLoop(processes(NUM_GAMES), NUM_STEPS)
    sides = {
        "ours": collector(stacked_games()).collect,
        "ours, ale-py's stack": collector(GymVectorEnv(threads(reward_clipping=False))).collect,
        "processes": plain.collect,
        "ale-py, plain loop": PlainLoop(threads(autoreset_mode="SameStep"), NUM_STEPS).collect,
        "ale-py, bare loop": BareLoop(threads(), NUM_STEPS).collect,
    }
    for call in sides.values():
        call()
    rounds = [{name: seconds(call) for name, call in sides.items()} for _ in range(ROUNDS)]
    for name in sides:
        per_second = [NUM_GAMES * NUM_STEPS / one[name] for one in rounds]
        report(f"{NUM_GAMES} Pong, {name}: steps of a game a second", per_second, "", ",.0f")
    report("  against processes in a plain loop", [one["processes"] / one["ours"] for one in rounds], "1.5")
    report("  against ale-py in a plain loop", [one["ale-py, plain loop"] / one["ours"] for one in rounds])
    report("  against ale-py in a bare loop", [one["ale-py, bare loop"] / one["ours"] for one in rounds], "0.9")
    report("  our stack against ale-py's", [one["ours, ale-py's stack"] / one["ours"] for one in rounds])
    plain.envs.close()


def frames() -> None:
    """Count the bytes of pictures that a replay of stacks holds for each transition, when it is full."""
    capacity, num_steps = 4096, 64
    storage = TensorStorage(capacity, frames=StackedFrames("observation", num_frames=NUM_FRAMES))
    buffer, games = ReplayBuffer(storage), collector(stacked_games(), num_steps)
    while len(buffer) < capacity or games.frames < 1.5 * capacity:
        batch = games.collect()
        buffer.extend(batch)
    state = storage.state(capacity)
    held = [*state["memory"].values(), *(one["pool"] for one in state["frames"])]
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in held if tensor.dtype == torch.uint8)
    size = batch["observation"][0, 0, 0].numel()
    used = 1 + storage.frames[0].num_extra / capacity
    report("Pong, DQN's replay: frames a transition, in use", [used], "<= 1.05", ".3f")
    report("  with what its memory has free for more", [num_bytes / size / capacity], "", ".3f")
    report("  with nothing stored once", [2.0 * NUM_FRAMES], "", ".3f")


# ---- jax -------------------------------------------------------------------------------------------------------------

NUM_ROWS, NUM_CALLS = 4096, 64
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
}


def gymnax() -> None:
    """Compare our env, alone and with policies, with gymnax's own compiled step."""
    os.environ.update(ONE_THREAD)  # read when jax is imported
    from _jax import BareSteps

    bare = BareSteps("CartPole-v1", NUM_ROWS, NUM_CALLS)
    world = jax_world("gymnax", "CartPole-v1")  # compiled once for the three envs
    env, actions = JaxEnv(world, NUM_ROWS), bare.torch_actions()

    def alone() -> None:
        root = env.reset()
        for action in actions:
            _, root = env.step_and_reset(root.set("action", action))

    def with_policy(num_cells: list[int]) -> Callable[[], object]:
        actor = ProbabilisticActor(MLP(4, 2, num_cells=num_cells), Categorical)
        return Collector(JaxEnv(world, NUM_ROWS), actor, frames_per_batch=NUM_ROWS * NUM_CALLS, seed=0).collect

    names = {
        "ours, no policy": alone,
        "ours, linear policy": with_policy([]),
        "ours, 64 × 64 tanh": with_policy([64, 64]),
    }
    sides = {"bare": bare.run, **names}
    for call in sides.values():
        call()
        call()  # compiled, and buffers made
    rounds = [{name: seconds(call) for name, call in sides.items()} for _ in range(ROUNDS)]
    for name in sides:
        values = [NUM_ROWS * NUM_CALLS / one[name] for one in rounds]
        report(f"{NUM_ROWS:,} rows of gymnax's CartPole, {name}: frames/s", values, "", ",.0f")
    for name in names:
        budget = "" if name == "ours, no policy" else "0.5"
        report(f"  {name} against bare", [one["bare"] / one[name] for one in rounds], budget)


# ---- a batch in numpy ------------------------------------------------------------------------------------------------


def batch() -> None:
    """Compare our collector over a world that is a batch already with a loop that steps it and does nothing else."""
    from _batch import BareLoop, CartPoles

    num_envs, num_steps = 4096, 64
    env = BatchEnv(CartPoles(num_envs))
    root, acts = [env.reset()], env.act_at_random

    def steps() -> None:
        for _ in range(num_steps):
            root[0] = env.step_and_reset(acts(root[0]))[1]

    def collecting(policy: Callable | None) -> Callable[[], object]:
        frames_per_batch = num_envs * num_steps
        return Collector(BatchEnv(CartPoles(num_envs)), policy, frames_per_batch=frames_per_batch, seed=0).collect

    sides = {
        "steps at random": steps,
        "recorded, at random": collecting(None),
        "recorded, a policy of one layer": collecting(ProbabilisticActor(torch.nn.Linear(4, 2), Categorical)),
        "bare": BareLoop(num_envs, num_steps).collect,
    }
    for call in sides.values():
        call()
    rounds = [{name: seconds(call) for name, call in sides.items()} for _ in range(ROUNDS)]
    for name in sides:
        frames_per_second = [num_envs * num_steps / one[name] for one in rounds]
        report(f"{num_envs:,} CartPoles in numpy, {name}: frames/s", frames_per_second, "", ",.0f")
    for name in list(sides)[:-1]:
        budget = "0.6" if name == "steps at random" else ""
        report(f"  {name}, against the bare loop", [one["bare"] / one[name] for one in rounds], budget)


WORLDS = {"pong": pong, "frames": frames, "gymnax": gymnax, "batch": batch}


def main() -> None:
    """Print one block per world."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{'':<66}{'median':>9}  {'range':<15}{'budget':>8}")
    for name in sys.argv[1:] or WORLDS:
        WORLDS[name]()


if __name__ == "__main__":
    main()
