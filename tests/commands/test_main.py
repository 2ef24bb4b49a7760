import subprocess
import sys

import pytest

from sources import ROOT
from torchrl import __version__, commands


def test_the_help_has_a_line_for_each_command(torchrl):
    lines = torchrl("--help")
    assert [line.split()[0] for line in lines if line.startswith("  ")][: len(commands.__all__)] == commands.__all__
    assert "  train     Train an agent by an algorithm, by a config and flags." in lines
    assert torchrl() == lines
    assert torchrl("--version") == [f"torchrl {__version__}"]


@pytest.mark.parametrize("name", commands.__all__)
def test_a_command_has_a_line_and_a_help_of_its_own(name, torchrl, capsys):
    module = getattr(commands, name)
    assert len(module.__doc__.partition("\n")[0]) < 100
    with pytest.raises(SystemExit) as ended:
        torchrl(name, "--help")
    assert ended.value.code == 0
    assert f"torchrl {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "hint"), [("trian", "Did you mean 'train'?"), ("zzz", "torchrl --help lists them."), ("--lr=1", "--help")]
)
def test_an_unknown_command_is_one_message_with_the_nearest_name(word, hint, refused):
    message = refused(word)
    assert message.startswith(f"torchrl: torchrl: expected a command, got '{word}'.") and hint in message


def test_what_is_no_command_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = commands.trian


def test_the_help_of_the_module_loads_no_torch():
    script = "import sys; from torchrl.commands.main import main; main([]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)


def test_python_runs_the_package():
    done = subprocess.run([sys.executable, "-m", "torchrl"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("torchrl COMMAND")
