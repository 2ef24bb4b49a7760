"""Run worlds of other makers, every one, and write what came into the tables of `docs/worlds.md`.

    python tests/world_table.py              # the families whose library is installed
    python tests/world_table.py dm_control   # one of them

A world's row is written if `check_env` passes, a thousand steps over endings are those of its own library, observation
by observation from the same seed, and a tiny training ends. A family lies between two comments in the page; the text
around them is written by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from cases import dm_worlds
from cases.dm_worlds import EPISODE, SEED, compare, compare_with_the_suite, load_task
from cases.examples import load
from torchrl.data.specs import Bounded, Categorical, MultiCategorical
from torchrl.envs import DMControlEnv, check_env
from torchrl.envs.base import Env
from torchrl.envs.simulators import DMControlSimulator

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "worlds.md"
NUM_STEPS = 1000
TINY = ["--num_envs=1", "--num_cells", "8", "8", "--total_frames=64", "--max_episode_steps=20", "--eval_episodes=1"]
OFF_POLICY = ["--buffer_size=64", "--batch_size=8", "--init_random_frames=16", "--start_frames=16"]
ON_POLICY = ["--frames_per_batch=32", "--minibatch_size=16", "--num_epochs=1"]
HEAD = "| world | observes | acts | limit | compared | endings | trained by |\n|---|---|---|---|---|---|---|"


def suite_rows() -> Iterator[str]:
    """Try every task of the DeepMind control suite."""
    from dm_control import suite

    for domain, task in suite.ALL_TASKS:
        yield from attempt(f"{domain} {task}", lambda domain=domain, task=task: suite_row(domain, task))


def suite_row(domain: str, task: str) -> str:
    """Try one task of the suite; return its row."""
    _, limit = load_task(domain, task, 40)
    check_env(DMControlEnv(domain, task, num_envs=2, task_kwargs=limit), num_steps=100)
    env = DMControlEnv(domain, task)
    endings = compare_with_the_suite(domain, task, NUM_STEPS)
    algorithm = "sac" if isinstance(env.action_spec, Bounded) else "ppo"
    train(algorithm, "--env_library=dm_control", f"--env_name={domain}", f"--env_task={task}")
    return row(f"`{domain}` `{task}`", env, endings, algorithm.upper())


def bsuite_rows() -> Iterator[str]:
    """Try one configuration of each experiment of bsuite; what downloads pictures is left out."""
    from bsuite import sweep

    names = dict.fromkeys(bsuite_id.split("/")[0] for bsuite_id in sweep.SWEEP)
    for name in names:
        if not name.startswith("mnist"):
            yield from attempt(name, lambda name=name: dm_env_row(name, "bsuite_world", f"{name}/0"))


def jumanji_rows() -> Iterator[str]:
    """Try some environments of jumanji through its own adapter to dm_env."""
    for name in ("CVRP-v1", "Cleaner-v0", "Game2048-v1", "Snake-v1"):  # JaxEnv takes jumanji without this detour
        yield from attempt(name, lambda name=name: dm_env_row(name, "jumanji_world", name))


FAMILIES: dict[str, tuple[tuple[str, ...], Callable[[], Iterator[str]]]] = {
    "dm_control": (("dm_control", "mujoco"), suite_rows),
    "bsuite": (("bsuite",), bsuite_rows),
    "jumanji": (("jumanji", "jax"), jumanji_rows),
}


def dm_env_row(name: str, function: str, argument: str) -> str:
    """Try one world of dm_env that a function of `cases/dm_worlds.py` builds; return its row."""
    make = partial(getattr(dm_worlds, function), argument)
    check_env(DMControlEnv(make()), num_steps=100)
    env, theirs = DMControlEnv(make()), make()
    env.reset(seed=[SEED])
    DMControlSimulator(theirs).reset(seed=SEED)
    endings = compare(env, env.reset(), theirs, NUM_STEPS)  # from the second episodes on
    own = f"--env_name={dm_worlds.__file__}:{function}"
    train("ppo", "--env_library=python", own, "--env_kwargs", f"name={argument}")
    return row(f"`{name}`", env, endings, "PPO")


def attempt(name: str, make_row: Callable[[], str]) -> Iterator[str]:
    """Yield the row of a world, or say why there is none."""
    began = time.monotonic()
    try:
        made = make_row()
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", flush=True)
        yield f"| `{name}` | {type(error).__name__} | | | | | |"
    else:
        print(f"{time.monotonic() - began:5.1f} s  {made}", flush=True)
        yield made


def row(name: str, env: Env, endings: tuple[int, int], trained: str) -> str:
    """Write one world: what it observes and does, its limit, how many endings were compared, and by what it trained."""
    shapes = [list(leaf.shape) for _, leaf in env.observation_spec.leaves()]
    numbers = sum(torch.Size(shape).numel() for shape in shapes)
    observes = f"{numbers} in {len(shapes)}" + (", of two dimensions" if max(map(len, shapes)) > 1 else "")
    limit = "none" if env.step_limit == float("inf") else f"{env.step_limit:,}"
    terminated, truncated = endings
    ends = ", ".join(f"{count} {kind}" for count, kind in ((terminated, "term."), (truncated, "trunc.")) if count)
    return f"| {name} | {observes} | {acts(env)} | {limit} | {NUM_STEPS:,} | {ends or 'none'} | {trained} |"


def acts(env: Env) -> str:
    """Name the actions of an env: one of so many choices, or so many numbers and their bounds."""
    spec = env.action_spec
    if isinstance(spec, Categorical):
        return f"one of {spec.n}"
    numbers = spec.shape.numel()
    if isinstance(spec, MultiCategorical):
        return f"{numbers} of {' and '.join(map(str, sorted(set(spec.nvec.flatten().tolist()))))} choices"
    if not isinstance(spec, Bounded):
        return f"{numbers} without bounds"
    pairs = zip(spec.low.ravel().tolist(), spec.high.ravel().tolist(), strict=True)
    bounds = sorted({(round(low, 3), round(high, 3)) for low, high in pairs})
    is_one = bounds == [(-1.0, 1.0)]
    return f"{numbers}" if is_one else f"{numbers} in " + ", ".join(f"{low:g} to {high:g}" for low, high in bounds)


def train(algorithm: str, *flags: str) -> None:
    """Train an example for 64 frames, in a folder that is deleted, without a word."""
    kind = OFF_POLICY if algorithm == "sac" else ON_POLICY
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        load(algorithm).main([*flags, *TINY, *kind, f"--folder={folder}", "--loggers", "--no-progress_bar"])


def write(family: str, rows: list[str], packages: tuple[str, ...]) -> None:
    """Put the table of one family into the page, in the place of the one before."""
    begin, end = f"<!-- {family}: written by tests/world_table.py -->", f"<!-- {family}: end -->"
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    note = f"; {EPISODE} steps an episode at most where it was compared" if family == "dm_control" else ""
    table = "\n".join([begin, f"{versions}{note}.", "", HEAD, *rows, end])
    page = PAGE.read_text()
    if begin not in page:
        sys.exit(f"{PAGE.name} has no place for {family}: write {begin} and {end}")
    PAGE.write_text(re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: table, page, flags=re.DOTALL))


def main() -> int:
    """Run the families that were named, or all that are installed."""
    parser = argparse.ArgumentParser(description="Run worlds of other makers and write the tables of docs/worlds.md.")
    parser.add_argument("families", nargs="*", help=f"of {', '.join(FAMILIES)}; without one all that are installed")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for family in parser.parse_args().families or FAMILIES:
        packages, rows_of = FAMILIES[family]
        if find_spec(packages[0]) is not None:
            write(family, list(rows_of()), packages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
