"""Run worlds of jax libraries, and write what was seen into the table of `docs/worlds.md`.

    python tests/jax_table.py "gymnax CartPole-v1" "brax ant 100"   # library, name, and a limit of steps if one is set
    python tests/jax_table.py                                       # all of the table that are installed

Each world is held against `check_env`, run for at least 1,000 steps over four rows until episodes ended, compared step
by step with the bare library from the same keys, and trained for 256 frames by the PPO command. A world that fails gets
its error into the table.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cases.bare_jax import LIBRARIES, compare, limit_option  # noqa: E402 - found by the path above
from cases.examples import load, settings_of  # noqa: E402
from torchrl.envs import JaxEnv, check_env, jax_world  # noqa: E402

PAGE = ROOT / "docs" / "worlds.md"
BEGIN, END = "<!-- jax table: written by tests/jax_table.py -->", "<!-- end of the jax table -->"
HEAD = (
    "| world | version | one observation | actions | `check_env` | 1,000 steps: episodes that ended "
    "| rows as the bare library | trains |"
)
SEEDS = [3, 4, 5, 6]
WORLDS = [
    *("gymnax CartPole-v1", "gymnax Acrobot-v1", "gymnax Pendulum-v1", "gymnax MountainCar-v0"),
    *("gymnax Breakout-MinAtar", "gymnax Asterix-MinAtar", "gymnax Freeway-MinAtar", "gymnax SpaceInvaders-MinAtar"),
    *("gymnax DeepSea-bsuite", "gymnax MemoryChain-bsuite", "gymnax FourRooms-misc"),
    *("brax inverted_pendulum 100", "brax ant 100", "playground CartpoleBalance 100"),
    *("jumanji Snake-v1", "jumanji Game2048-v1", "jumanji Maze-v0"),
    *("craftax Craftax-Classic-Symbolic-v1", "craftax Craftax-Symbolic-v1"),
    *("pgx 2048", "pgx tic_tac_toe", "pgx connect_four"),
]


def row_of(case: str) -> str:
    """Run one world and return its line of the table."""
    library, name, *limit = case.split()
    limit = int(limit[0]) if limit else None
    env = JaxEnv(jax_world(library, name, **limit_option(library, limit)), len(SEEDS))
    one, action = env.observation_spec[0], env.action_spec[0]
    seen = [f"{'/'.join(key) if isinstance(key, tuple) else key} {[*spec.shape]}" for key, spec in one.leaves()]
    bare, is_alone = LIBRARIES[library](name, limit), library != "pgx" or name == "2048"
    cells = [
        f"`{library}` {name}" + (f", {limit} steps" if limit else ""),
        version(library),
        ", ".join(seen),
        f"{type(action).__name__} {[*action.shape] or action.n}",
        attempt(lambda: checked(env)),
        attempt(lambda: ended(env)),
        attempt(lambda: f"yes, {compare(env, bare, 250, SEEDS)} endings") if is_alone else "others draw",
        attempt(lambda: train(library, name, limit)),
    ]
    return f"| {' | '.join(cells)} |"


def checked(env: JaxEnv) -> str:
    """Hold an env against `check_env`, and note its warning about starts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env, num_steps=60)
    return "passes" + (", all starts alike" if any("start alike" in str(each.message) for each in caught) else "")


def ended(env: JaxEnv) -> str:
    """Step until 1,000 steps of rows were made and an episode has ended, for 5,000 at most."""
    env.set_seed(0)
    root, counts, num_steps = env.reset(), {"terminated": 0, "truncated": 0}, 0
    while num_steps < 1000 or (num_steps < 5000 and not any(counts.values())):
        transition, root = env.step_and_reset(env.act_at_random(root))
        num_steps += len(SEEDS)
        for flag in counts:
            counts[flag] += int(transition["next", flag].sum())
    within = f" in {num_steps:,}" if num_steps > 1000 else ""
    return f"{counts['terminated']} terminated, {counts['truncated']} truncated{within}"


def train(library: str, name: str, limit: int | None) -> str:
    """Train for 256 frames by the PPO command, in a folder of its own."""
    flags = [f"--env_library={library}", f"--env_name={name}", "--num_envs=4", "--num_cells", "16"]
    flags += ["--frames_per_batch=128", "--total_frames=256", "--eval_episodes=1", "--record_interval=1000000"]
    if limit:
        flags += ["--env_kwargs", *(f"{key}={value}" for key, value in limit_option(library, limit).items())]
    agent = load("ppo").make_agent(settings_of("ppo", *flags))
    agent.train()
    agent.close()
    return "yes"


def attempt(run: object) -> str:
    """Return what a function answers, or its error in one line of a table."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return run()
    except Exception as error:  # noqa: BLE001 - a world that fails is a result
        text = " ".join(str(error).split())[:160].replace("|", "/")
        return f"**{type(error).__name__}: {text}**"


def write(rows: dict[str, str]) -> None:
    """Put rows into the page, in place of those of the same world and version."""
    page = PAGE.read_text()
    table = page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip().splitlines()[2:]
    known = {key_of(line): line for line in table}
    known.update(rows)
    lines = [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|", *known.values()]
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: "\n".join([BEGIN, "", *lines, "", END]), page))


def key_of(line: str) -> str:
    """Return world and version of a line."""
    return "|".join(line.split("|")[1:3])


def main() -> None:
    """Run the worlds that are named, or all."""
    os.chdir(tempfile.mkdtemp())
    for case in sys.argv[1:] or WORLDS:
        start = time.perf_counter()
        line = attempt(lambda case=case: row_of(case))
        print(f"{time.perf_counter() - start:.0f} s  {case}  {line}", flush=True)
        if line.startswith("|"):
            write({key_of(line): line})


if __name__ == "__main__":
    main()
