"""The README's lines run: every Python block whole, the first command of the example with a tiny budget."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from cases.examples import load
from test_docs import blocks_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = blocks_of(ROOT / "README.md")
COMMANDS = [line for line in README.splitlines() if line.startswith("python examples/")]
TINY = ["--total_frames=512", "--frames_per_batch=512", "--eval_episodes=1", "--record_episodes=1", "--no-progress_bar"]


def test_there_is_a_block_for_each_way_in():
    assert len(BLOCKS) == 5 and len(COMMANDS) == 5


@pytest.mark.parametrize("block", BLOCKS, ids=["object", "continuous", "parts", "plain loop", "maths"])
def test_the_python_blocks_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(torch.Generator().initial_seed())  # as in a new process
    exec(compile(block, "README.md", "exec"), {"__name__": "README"})
    printed = capsys.readouterr().out
    if "agent.evaluate()" in block:
        assert float(printed) >= 475, "the README says that its lines solve CartPole-v1"
    if "rollout(envs" in block:
        assert float(printed) > 50, "a policy that learns nothing reaches about 25"


def test_the_first_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, script, *flags = shlex.split(COMMANDS[0].replace("--config=", f"--config={ROOT}/"))
    load(Path(script).stem).main([*flags, *TINY])
    assert "evaluation return" in capsys.readouterr().out
    saved = next((tmp_path / "ppo_logging").iterdir())
    assert "lr = 0.0005" in (saved / "config.txt").read_text()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link.partition("#")[0]).exists()
