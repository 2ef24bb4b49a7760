"""Four rooms: the map, walls, the way to the goal, and where episodes start."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.envs import FourRooms, RowRandom
from torchrl.envs.native.four_rooms import CELLS
from torchrl.errors import ConfigError

MAP = """
.....#.....
.....#.....
...........
.....#.....
.....#.....
#.####.....
.....###.##
.....#.....
.....#.....
...........
.....#.....
"""


def number(row, column):
    return CELLS.index((row, column))


def move(env, row, column, action):
    state = TensorDict({"place": torch.tensor([[number(row, column)]])}, [1])
    after, reward, ended = env.dynamics(state, torch.tensor([action]))
    assert reward.item() == -1.0 and after["observation"].argmax() == after["place"]
    return CELLS[after["place"].item()], ended.item()


def test_the_rooms_are_those_of_the_paper():
    drawn = [(row, column) for row, line in enumerate(MAP.split()) for column, x in enumerate(line) if x == "."]
    assert drawn == CELLS and len(CELLS) == 104


def test_moves_and_walls():
    env = FourRooms(1)
    assert move(env, 1, 1, 0) == ((0, 1), False) and move(env, 1, 1, 1) == ((1, 2), False)
    assert move(env, 1, 1, 2) == ((2, 1), False) and move(env, 1, 1, 3) == ((1, 0), False)
    assert move(env, 0, 0, 0) == ((0, 0), False) and move(env, 0, 4, 1) == ((0, 4), False)
    assert move(env, 2, 4, 1) == ((2, 5), False)  # a door
    assert move(env, 5, 8, 2) == ((6, 8), True)  # the goal


def test_the_best_return_is_that_of_the_shortest_ways():
    env = FourRooms(103)
    assert env.distances[number(6, 8)] == 0 and env.distances[number(5, 8)] == env.distances[number(7, 8)] == 1
    # from the north-western corner: 2 south and 5 east to the door, 4 south and 3 east to the goal
    assert env.distances[number(0, 0)] == 14
    cells = torch.arange(104)
    ends = [FourRooms(104).dynamics(TensorDict({"place": cells.unsqueeze(-1)}, [104]), cells * 0 + a) for a in range(4)]
    best = torch.stack([env.distances[after["place"].squeeze(-1)] for after, _, _ in ends], -1).argmin(-1)
    root = env.reset(seed=0)
    place = root["observation"].argmax(-1)
    shortest, total = env.distances[place], torch.zeros(103)
    for _ in range(30):
        action = best[root["observation"].argmax(-1)]
        transition, root = env.step_and_reset(root.set("action", action))
        ended = transition["next", "terminated"].squeeze(-1) & (total == 0)
        total[ended] = transition["next", "episode_return"].squeeze(-1)[ended]
    assert torch.equal(total, -shortest.float())


def test_starts_are_all_cells_but_the_goal():
    env = FourRooms(20_000)
    places = env.start(RowRandom([20_000], seed=0))["place"].flatten()
    counts = torch.bincount(places, minlength=104)
    assert counts[env.goal] == 0 and counts[counts > 0].min() > 100 and (counts > 0).sum() == 103


def test_another_goal_and_none():
    env = FourRooms(2, goal=(9, 9))
    assert CELLS[env.goal] == (9, 9)
    with pytest.raises(ConfigError, match=r"FourRooms\(goal=...\): expected row and column of a free cell"):
        FourRooms(2, goal=(0, 5))
