import sys

import pytest

from cases.examples import ROOT
from torchrl.commands.train import with_config


def test_it_runs_the_script_of_an_algorithm(torchrl, tmp_path):
    before = sys.argv
    lines = torchrl("train", "a2c", "--config=cartpole", "--total_frames=40", "--eval_episodes=1", "--no-progress_bar")
    (folder,) = (tmp_path / "a2c_logging").iterdir()
    assert folder.name.startswith("CartPole-v1_") and (folder / "last.pt").is_file()
    assert lines[-1] == f"curve:       {folder.relative_to(tmp_path)}/learning_curve.png"
    assert "\ngamma = 0.99" in (folder / "config.txt").read_text()
    assert sys.argv is before


CARTPOLE = ROOT / "examples" / "ppo" / "configs" / "cartpole.txt"


@pytest.mark.parametrize(
    ("flags", "path"),
    [
        (["--config=cartpole"], CARTPOLE),
        (["-c", "cartpole.txt"], CARTPOLE),
        (["-ccartpole"], CARTPOLE),
        (["--config", f"{ROOT}/configs/ppo/pong.txt"], ROOT / "configs" / "ppo" / "pong.txt"),
    ],
)
def test_a_config_is_named_by_its_path_or_its_name(flags, path):
    assert with_config("ppo", [*flags, "--lr=1"]) == [f"--config={path}", "--lr=1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pppo"], "ALGORITHM: expected one of a2c, ddpg, "),
        (["PPO"], "got PPO. Did you mean ppo?"),
        (["ppo", "--config=cartpol"], "--config: expected a file that exists, or one of ppo's: acrobot, "),
        (["ppo", "--config=cartpol"], "got cartpol. Did you mean cartpole?"),
        (["ppo", "--lr=fast"], "ppo.py: command line: --lr: expected"),
        (["--lr=1"], "torchrl: command line: "),
    ],
)
def test_a_mistake_is_one_message(words, message, refused):
    assert message in refused("train", *words)


def test_without_an_algorithm_it_names_them(torchrl, refused):
    assert "ALGORITHM" in refused("train")
