import subprocess
import sys

import pytest

from sources import ROOT
from torchrl.commands import examples
from torchrl.errors import ConfigError


def test_each_script_has_settings_and_builds_an_agent():
    scripts = examples.find_scripts()
    assert set(scripts) == {path.parent.name for path in (ROOT / "examples").glob("*/configs")}
    settings, make_agent = examples.load_script("a2c")
    assert settings.__name__ == "A2C" and make_agent.__module__ == settings.__module__


def test_a_wheel_holds_the_scripts_and_their_configs(tmp_path, monkeypatch):
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    monkeypatch.setattr(examples, "HOMES", (tmp_path / "torchrl" / "examples",))
    names = {path.stem for path in (ROOT / "configs" / "ppo").iterdir()}
    assert "ppo" in examples.find_scripts()
    assert {path.stem for path in (tmp_path / "torchrl/examples/ppo/configs").iterdir()} == names
    assert not examples.find_config("ppo", "cartpole").is_symlink()


def test_a_package_without_scripts_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(examples, "HOMES", (tmp_path,))
    with pytest.raises(ConfigError, match="the folder of examples"):
        examples.find_scripts()
