"""Measure which layout is fastest here for an environment: rows in one process, or several processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch

from torchrl.commands.parsing import make_parser
from torchrl.commands.worlds import BATCHES, ENV_ID, settings_for
from torchrl.errors import ConfigError, explain
from torchrl.modules import ProbabilisticActor
from torchrl.recipes.collectors import make_collector
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.envs import make_env
from torchrl.recipes.network_parts import ActorCriticNetworks
from torchrl.recipes.networks import chain, make_action_head, make_mlp
from torchrl.recipes.parts import AsyncCollecting, Environment, Optimising
from torchrl.recipes.settings import PositiveFloat, PositiveInt, add_parts

DESCRIPTION = "Measure frames per second of collecting, by a small policy, in each layout that flags can ask for."
FOREVER = 10**12  # frames
MAX_ROUNDS, MEASURED = 5, 0.5  # rounds; the share of the time that is measured, the rest is for starting
BATCH_S, MIN_STEPS, MAX_STEPS = 0.1, 8, 128  # one process takes about so long for a batch, of so many steps


@dataclass(frozen=True)
class Measuring:
    """What is measured, and for how long."""

    seconds: PositiveFloat = 30.0
    "time for all of it; one round of all layouts is measured in any case"
    workers: tuple[PositiveInt, ...] = (2,)
    "numbers of processes to try"


@dataclass(frozen=True)
class Bench:
    """Measure layouts."""

    environment: Environment = Environment(num_envs=16)
    measuring: Measuring = Measuring()


@dataclass(frozen=True)
class Layout:
    """One way to collect, as the settings of a command, of which it has the parts that collecting takes."""

    environment: Environment
    collecting: AsyncCollecting
    optimising: Optimising = Optimising()

    @property
    def make_env(self) -> Callable:
        """What builds an environment, here or in another process."""
        return partial(make_env, self.environment, gamma=0.99, clips_actions=True)

    @property
    def flags(self) -> str:
        """The flags that ask for it."""
        words = [f"--num_envs={self.environment.num_envs}"]
        if self.environment.env_workers:
            words.append(f"--env_workers={self.environment.env_workers}")
        if self.collecting.num_workers:
            words.append(f"--num_workers={self.collecting.num_workers}")
        return " ".join([*words, *(["--async_collection"] if self.collecting.async_collection else [])])


def parser() -> ConfigParser:
    """Make the parser of the command.

    >>> parser().parse_args(["CartPole-v1", "--seconds=10"]).seconds
    10.0
    """
    return add_parts(make_parser("bench", DESCRIPTION, env_id=ENV_ID), Bench)


def run(flags: Sequence[str]) -> None:
    """Measure all layouts in turn and print a table; the last line names the fastest and the flags to write.

    Args:
        flags: the environment's id, flags of the environment, ``--seconds`` and ``--workers``.

    Raises:
        ConfigError: flags that do not fit each other, or actions that a small policy cannot choose.
        EnvError: there is no such environment.
    """
    settings = settings_for(Bench, parser().parse_args(flags))
    if settings.environment.env_workers:
        got = settings.environment.env_workers
        raise ConfigError(explain("--env_workers", expected="--workers, the numbers to try", got=got))
    torch.set_num_threads(1)
    begin = time.perf_counter()
    num_steps = _steps_of_a_batch(settings.environment)
    layouts = layouts_of(settings, num_steps)
    print(f"{settings.environment.env_name}: {num_steps} steps of each environment in a batch, a policy of 64 x 64")
    print_table(layouts, measure(layouts, settings.measuring.seconds, begin))


def layouts_of(settings: Bench, num_steps: int) -> list[Layout]:
    """Return the layouts to measure, the simplest first: few and many environments here, then processes.

    Args:
        settings: of the command.
        num_steps: of each environment in a batch.
    """
    environment, num_envs = settings.environment, settings.environment.num_envs

    def layout(num_envs: int, env_workers: int = 0, **options: object) -> Layout:
        frames = {"frames_per_batch": num_envs * num_steps, "total_frames": FOREVER}
        changed = replace(environment, num_envs=num_envs, env_workers=env_workers)
        return Layout(changed, AsyncCollecting(**frames, **options))

    found = [layout(number) for number in sorted({1, min(8, num_envs), num_envs})]
    for workers in settings.measuring.workers:
        if num_envs % workers:
            raise ConfigError(explain("--workers", expected=f"divisors of --num_envs={num_envs}", got=workers))
        if environment.env_library not in (*BATCHES, "ale"):  # which step all rows at once
            found.append(layout(num_envs, env_workers=workers))
        found += [layout(num_envs, num_workers=workers, async_collection=is_async) for is_async in (False, True)]
    return found


def measure(layouts: Sequence[Layout], seconds: float, begin: float) -> list[list[float]]:
    """Measure layouts in turn, round after round, until the time is up.

    Args:
        layouts: what is measured.
        seconds: for all rounds together.
        begin: when they began, by ``time.perf_counter``.

    Returns:
        Frames per second of each layout in each round.
    """
    part = seconds * MEASURED / (len(layouts) * MAX_ROUNDS)
    rates: list[list[float]] = [[] for _ in layouts]
    for _ in range(MAX_ROUNDS):
        began = time.perf_counter()
        for layout, found in zip(layouts, rates, strict=True):
            found.append(frames_per_second(layout, part))
        now = time.perf_counter()
        if now + (now - began) > begin + seconds:
            break
    return rates


def frames_per_second(layout: Layout, seconds: float) -> float:
    """Collect batches in a layout for some time, after a few that are not counted.

    Args:
        layout: how.
        seconds: for how long; at least one batch.
    """
    with _collecting(layout) as collect:
        for _ in range(2 * max(layout.collecting.num_workers, 1)):
            collect()
        begin, frames = time.perf_counter(), 0
        while (spent := time.perf_counter() - begin) < seconds or not frames:
            frames += collect().numel()
    return frames / spent


def print_table(layouts: Sequence[Layout], rates: Sequence[Sequence[float]]) -> None:
    """Print median and range of each layout, those that noise hides from the fastest, and the fastest.

    Args:
        layouts: what was measured, the simplest first.
        rates: frames per second of each in each round.
    """
    num_rounds, medians = len(rates[0]), [median(found) for found in rates]
    head = f"frames/s, {num_rounds} round{'s in turn' if num_rounds > 1 else ''}"
    width = max(len(layout.flags) for layout in layouts)
    print(f"{head:<{width}}    median   lowest - highest")
    for layout, found, middle in zip(layouts, rates, medians, strict=True):
        print(f"{layout.flags:<{width}}{middle:>10,.0f}   {min(found):,.0f} - {max(found):,.0f}")
    best = medians.index(max(medians))
    near = [
        layout.flags
        for index, (layout, found) in enumerate(zip(layouts, rates, strict=True))
        if index != best and max(found) >= min(rates[best])
    ]
    if num_rounds < 3:
        print("fewer than 3 rounds say nothing of noise: write a longer --seconds")
    elif near:
        print(f"within noise of the fastest: {'; '.join(near)}")
    share = medians[best] / medians[0]
    print(f"fastest here: {layouts[best].flags}, {medians[best]:,.0f} frames/s, {share:.1f} x {layouts[0].flags}")


@contextmanager
def _collecting(layout: Layout) -> Iterator[Callable]:
    """Build the policy and the collector of a layout, and yield what collects a batch; all is closed at the end."""
    num_here = 1 if layout.collecting.num_workers else layout.environment.num_envs
    env = layout.make_env(num_envs=num_here, training=not layout.collecting.num_workers)
    try:
        networks = ActorCriticNetworks()
        head = make_action_head(networks, env)
        body = chain(make_mlp(networks, env, head.num_inputs), head.module)
        policy = ProbabilisticActor(body, head.distribution, mask_key=head.mask_key)
        collector = make_collector(layout, env, policy, seed=0)
        try:
            yield collector.collect
        finally:
            collector.shutdown()
    finally:
        env.close()


def _steps_of_a_batch(environment: Environment) -> int:
    """Return how many steps of all environments in one process take a moment, by the time of a few."""
    frames = MIN_STEPS * environment.num_envs
    with _collecting(Layout(environment, AsyncCollecting(frames_per_batch=frames, total_frames=FOREVER))) as collect:
        collect()
        spent = []
        for _ in range(3):  # the shortest: the machine may have been busy with something else
            begin = time.perf_counter()
            collect()
            spent.append(time.perf_counter() - begin)
    return int(min(max(BATCH_S / (min(spent) / MIN_STEPS), MIN_STEPS), MAX_STEPS))
