"""The T-maze by hand: what is seen where, what is paid, and what policies with and without memory return."""

import pytest
import torch

from torchrl.envs import TMaze
from torchrl.errors import ConfigError

NORTH, EAST, SOUTH, WEST = range(4)
CELLS = {(1, 1, 0): "sign north", (0, 1, 1): "sign south", (1, 0, 1): "corridor", (0, 1, 0): "junction"}


def seen(root):
    return [CELLS[tuple(row)] for row in root["observation"].int().tolist()]


def step(env, root, *actions):
    transition, root = env.step_and_reset(root.set("action", torch.tensor(actions)))
    outcome = transition["next"]
    return outcome["reward"].flatten().tolist(), outcome["done"].flatten().tolist(), seen(outcome), root


def maze_of_both_goals(**kwargs):
    """Two rows: the goal lies north in the first and south in the second."""
    env = TMaze(2, **kwargs)
    env.reset(seed=0)
    state = env.state_dict()
    state["root"] |= {"goal": torch.tensor([[0], [1]]), "observation": torch.tensor([[1.0, 1, 0], [0, 1, 1]])}
    return env, env.load_state_dict(state)


def test_an_episode_by_hand():
    env, root = maze_of_both_goals(length=2)
    assert seen(root) == ["sign north", "sign south"]
    wall = pytest.approx(-0.1)
    rewards, done, at, root = step(env, root, WEST, NORTH)  # into walls
    assert rewards == [wall, wall] and not any(done) and at == ["sign north", "sign south"]
    rewards, done, at, root = step(env, root, EAST, EAST)
    assert rewards == [0, 0] and not any(done) and at == ["corridor"] * 2
    rewards, done, at, root = step(env, root, EAST, SOUTH)
    assert rewards == [0, wall] and not any(done) and at == ["junction", "corridor"]
    rewards, done, at, root = step(env, root, EAST, WEST)
    assert rewards == [wall, 0] and not any(done) and at == ["junction", "sign south"]
    rewards, done, at, root = step(env, root, WEST, EAST)
    assert rewards == [0, 0] and not any(done) and at == ["corridor"] * 2
    rewards, done, at, root = step(env, root, EAST, EAST)
    assert rewards == [0, 0] and at == ["junction"] * 2
    rewards, done, at, root = step(env, root, NORTH, NORTH)  # right in the first row, wrong in the second
    assert rewards == [4, wall] and done == [True, True] and at == ["junction"] * 2
    assert root["is_init"].all() and all("sign" in cell for cell in seen(root))


@pytest.mark.parametrize("length", [1, 10, 50])
def test_a_policy_that_remembers_returns_the_best_and_one_that_does_not_half_of_it(length):
    env = TMaze(2000, length=length)
    returns = {}
    for remembers in (True, False):
        env.set_seed(0)
        root = env.reset()
        goal = torch.where(root["observation"][:, 0] == 1, NORTH, SOUTH)
        for _ in range(length):
            transition, root = env.step_and_reset(root.set("action", torch.full_like(goal, EAST)))
            assert not transition["next", "done"].any()
        choice = goal if remembers else torch.full_like(goal, SOUTH)
        outcome = env.step(root.set("action", choice))["next"]
        assert outcome["terminated"].all()
        returns[remembers] = outcome["episode_return"].flatten()
    assert (returns[True] == env.best_return).all() and env.best_return == 4
    assert returns[False].mean().item() == pytest.approx(env.best_return_without_memory, abs=0.15)
    assert returns[False].unique().tolist() == [pytest.approx(-0.1), 4.0] and env.best_return_without_memory == 1.95


def test_it_is_truncated_where_nobody_chooses():
    env = TMaze(1, length=2, max_episode_steps=4)
    root = env.reset()
    for time in range(4):
        transition, root = env.step_and_reset(root.set("action", torch.tensor([WEST])))
        assert transition["next", "truncated"].item() == (time == 3)
        assert not transition["next", "terminated"].item()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "TMaze: expected a length of at least 1 step, got 0"),
        ({"length": 2.0}, "got 2.0"),
        ({"length": 10, "max_episode_steps": 10}, "expected max_episode_steps above the length of 10, got 10"),
        ({"length": 200}, "got 200. The last step is the choice"),
        ({"num_envs": 0}, "num_envs: expected positive integers"),
    ],
)
def test_mazes_without_a_choice_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        TMaze(**arguments)
