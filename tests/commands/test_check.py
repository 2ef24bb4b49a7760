import pytest

FILE = """
import gymnasium
import numpy as np


class Odd(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.full(1, 2.0, np.float32), 0.0, True, False, {}
"""


def test_an_environment_that_keeps_the_rules(torchrl):
    lines = torchrl("check", "native/CartPole", "--steps=30")
    assert lines[0] == "native/CartPole, 4 rows:" and lines[2] == "  action: 0 to 1, int64 []"
    assert lines[-1].startswith("native/CartPole keeps the rules over 30 steps of each row: ")
    assert lines[-1].endswith("and a seed repeats the run")
    assert "repeats" not in torchrl("check", "CartPole-v1", "--steps=30", "--no-repeats", "--num_envs=2")[-1]


def test_one_that_breaks_a_rule_has_status_1(torchrl, tmp_path, capsys):
    (tmp_path / "odd.py").write_text(FILE)
    with pytest.raises(SystemExit) as ended:
        torchrl("check", "python/odd.py:Odd", "--steps=5")
    assert ended.value.code == 1
    *_, problem, last = capsys.readouterr().out.splitlines()
    assert problem.startswith("  broken: ") and "observation" in problem
    assert last.startswith("python/odd.py:Odd breaks a rule")


def test_an_environment_that_does_not_exist_is_a_mistake(refused):
    assert "CartPol" in refused("check", "CartPol-v1")
