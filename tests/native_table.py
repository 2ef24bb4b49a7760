"""Run every native world, and write what was seen into the table of `docs/worlds.md`: `python tests/native_table.py`.

Each is held against `check_env`, run for at least 1,000 steps over four rows until episodes ended, and trained for 256
frames by the PPO command.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cases.examples import load, settings_of  # noqa: E402 - found by the path above
from torchrl.envs import Env, check_env, native_env  # noqa: E402
from torchrl.envs.native.named import NATIVE  # noqa: E402

PAGE = ROOT / "docs" / "worlds.md"
BEGIN, END = "<!-- native table: written by tests/native_table.py -->", "<!-- end of the native table -->"
HEAD = "| world | one observation | actions | `check_env`, 1,000 steps | episodes that ended in 1,000 steps | trains |"
NUM_ENVS, NUM_STEPS = 4, 250


def row_of(name: str) -> str:
    """Run one world and return its line of the table."""
    env = native_env(name, NUM_ENVS)
    action = env.action_spec[0]
    cells = [
        f"`{name}`",
        str([*env.observation_spec["observation"].shape[1:]]),
        f"{type(action).__name__} {[*action.shape] or action.n}",
        checked(env),
        ended(env),
        trained(name),
    ]
    return f"| {' | '.join(cells)} |"


def checked(env: Env) -> str:
    """Hold an env against `check_env`, and note its warning about starts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env, num_steps=NUM_STEPS)
    return "passes" + (", all starts alike" if any("start alike" in str(each.message) for each in caught) else "")


def ended(env: Env) -> str:
    """Step at random until 1,000 steps of rows were made and an episode has ended."""
    env.set_seed(0)
    root, counts, num_steps = env.reset(), {"terminated": 0, "truncated": 0}, 0
    while num_steps < NUM_STEPS or not any(counts.values()):
        transition, root = env.step_and_reset(env.act_at_random(root))
        num_steps += 1
        for flag in counts:
            counts[flag] += int(transition["next", flag].sum())
    within = f" in {num_steps * NUM_ENVS:,}" if num_steps > NUM_STEPS else ""
    return f"{counts['terminated']} terminated, {counts['truncated']} truncated{within}"


def trained(name: str) -> str:
    """Train for 256 frames by the PPO command."""
    flags = ["--env_library=native", f"--env_name={name}", f"--num_envs={NUM_ENVS}", "--num_cells", "16"]
    flags += ["--frames_per_batch=128", "--total_frames=256", "--eval_episodes=1", "--record_interval=1000000"]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        agent = load("ppo").make_agent(settings_of("ppo", *flags))
        agent.train()
        agent.close()
    return "yes"


def main() -> None:
    """Run all worlds and write their lines."""
    os.chdir(tempfile.mkdtemp())
    lines = [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|", *map(row_of, NATIVE)]
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: "\n".join([BEGIN, "", *lines, "", END]), PAGE.read_text()))


if __name__ == "__main__":
    main()
