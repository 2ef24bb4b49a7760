"""The README's lines run: every Python block whole, every command of the example with a tiny budget."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for line in README.splitlines() if line.startswith("python examples/")]
TINY = ["--total_frames=512", "--frames_per_batch=512", "--eval_episodes=1", "--record_episodes=1", "--no-progress_bar"]


def test_there_is_a_block_for_each_way_in():
    assert len(PYTHON_BLOCKS) == 5 and len(COMMANDS) == 5


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=["object", "continuous", "parts", "plain loop", "maths"])
def test_the_python_blocks_run(block, tmp_path):
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "agent.evaluate()" in block:
        assert float(done.stdout) >= 475, "the README says that its lines solve CartPole-v1"
    if "rollout(envs" in block:
        assert float(done.stdout) > 50, "a policy that learns nothing reaches about 25"


def test_the_first_command_runs(tmp_path):
    words = shlex.split(COMMANDS[0])[1:]
    words = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
    words = [word.replace("--config=", f"--config={ROOT}/") for word in words]
    done = subprocess.run([sys.executable, *words, *TINY], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "evaluation return" in done.stdout
    saved = next((tmp_path / "ppo_logging").iterdir())
    assert "lr = 0.0005" in (saved / "config.txt").read_text()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
