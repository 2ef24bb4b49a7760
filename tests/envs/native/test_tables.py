"""Worlds of tables: moves by hand, values of the book and by hand, and returns of policies that equal the values."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.envs import ChainMDP, GridWorld, NarrowPath, TabularEnv
from torchrl.errors import ConfigError

BOOK = """
22.0 24.4 22.0 19.4 17.5
19.8 22.0 19.8 17.8 16.0
17.8 19.8 17.8 16.0 14.4
16.0 17.8 16.0 14.4 13.0
14.4 16.0 14.4 13.0 11.7
"""  # figure 3.5, optimal values for gamma = 0.9
AT_RANDOM = """
3.3 8.8 4.4 5.3 1.5
1.5 3.0 2.3 1.9 0.5
0.1 0.7 0.7 0.4 -0.4
-1.0 -0.4 -0.4 -0.6 -1.2
-1.9 -1.3 -1.2 -1.4 -2.0
"""  # figure 3.2, of the policy that draws all actions alike


def numbers(table):
    return torch.tensor([float(number) for number in table.split()])


def discounted(env, gamma, policy, num_steps):
    """Return where each row began ``[B]``, and the discounted return of ``num_steps`` steps ``[B]``."""
    root = env.reset(seed=0)
    place, total, weight = root["observation"].argmax(-1), torch.zeros(env.batch_size), torch.ones(env.batch_size)
    for step in range(num_steps):
        transition, root = env.step_and_reset(root.set("action", policy(root)))
        total += weight * gamma**step * transition["next", "reward"].squeeze(-1)
        weight = weight * ~transition["next", "terminated"].squeeze(-1)
    return place, total


def test_the_grids_values_are_those_of_the_book():
    values = GridWorld(1).action_values(0.9)
    torch.testing.assert_close(values.amax(-1).float(), numbers(BOOK), atol=0.0501, rtol=0)
    # by hand: from the second cell of the north, 10 and four steps back, again and again
    assert values[1].tolist() == [pytest.approx(10 / (1 - 0.9**5))] * 4
    corner, jump, below = values[0, 1].item(), values[1, 0].item(), values[5].max().item()
    assert values[0].tolist() == pytest.approx([0.9 * corner - 1, 0.9 * jump, 0.9 * below, 0.9 * corner - 1])


def test_returns_on_the_grid_are_the_values_of_the_policy():
    env = GridWorld(4000, max_episode_steps=None)
    best = env.action_values(0.9).argmax(-1)
    place, total = discounted(env, 0.9, lambda root: best[root["observation"].argmax(-1)], 120)
    torch.testing.assert_close(total, env.action_values(0.9).amax(-1).float()[place], atol=1e-3, rtol=0)
    assert len(place.unique()) == 25


def test_the_values_of_the_random_policy_are_those_of_the_book():
    env, cells = GridWorld(25), torch.arange(25)
    moves, pay = torch.zeros(25, 25), torch.zeros(25)
    for action in range(4):
        state = TensorDict({"place": cells.unsqueeze(-1)}, [25])
        after, reward, over = env.dynamics(state, torch.full((25,), action))
        moves[cells, after["place"].squeeze(-1)] += 0.25
        pay += 0.25 * reward.squeeze(-1)
        assert not over.any()
    values = torch.linalg.solve(torch.eye(25) - 0.9 * moves, pay)
    torch.testing.assert_close(values, numbers(AT_RANDOM), atol=0.0501, rtol=0)


def test_the_chain_by_hand():
    env = ChainMDP(3, length=4)
    root = env.reset()
    moves = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])
    shown, paid = [root["observation"].argmax(-1)], []
    for move in moves.T:
        transition, root = env.step_and_reset(root.set("action", move))
        shown.append(root["observation"].argmax(-1))
        paid.append(transition["next", "reward"].squeeze(-1))
    small = pytest.approx(0.001)
    assert torch.stack(shown, 1).tolist() == [[1, 0, 0, 0, 1, 2], [1, 2, 3, 3, 3, 2], [1, 0, 1, 2, 3, 3]]
    assert torch.stack(paid, 1).tolist() == [[0, small, small, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    assert env.step_limit == 13 and env.best_return == 11


@pytest.mark.parametrize(("length", "gamma"), [(4, 0.9), (9, 0.5), (30, 0.7)])
def test_the_chains_values_are_those_of_its_two_ends(length, gamma):
    values = ChainMDP(1, length=length).action_values(gamma)
    cells = torch.arange(length, dtype=torch.float64)
    to_right, to_left = gamma ** (length - 1 - cells) / (1 - gamma), 0.001 * gamma**cells / (1 - gamma)
    best = torch.maximum(to_right, to_left)
    torch.testing.assert_close(values.amax(-1), best, check_dtype=False, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(values[:-1, 1], gamma * best[1:], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(values[1:, 0], gamma * best[:-1], rtol=1e-6, atol=1e-12)
    assert (to_left > to_right).any() == (length == 30)  # there the small reward is the better one at first


def test_the_best_policy_of_the_chain_returns_the_best():
    env = ChainMDP(2, length=7)
    root = env.reset()
    for _ in range(16):
        transition, root = env.step_and_reset(root.set("action", torch.ones(2, dtype=torch.int64)))
    assert transition["next", "truncated"].all() and not transition["next", "terminated"].any()
    assert (transition["next", "episode_return"] == env.best_return).all() and env.best_return == 11


@pytest.mark.parametrize(("length", "num_actions"), [(1, 2), (4, 3), (6, 2)])
def test_the_path_pays_whoever_never_errs(length, num_actions):
    env, gamma = NarrowPath(num_actions, length=length, num_actions=num_actions), 0.9
    values = env.action_values(gamma)
    for cell in range(length):
        right = [gamma ** (length - 1 - cell) if action == cell % num_actions else 0 for action in range(num_actions)]
        assert values[cell].tolist() == pytest.approx(right)
    root = env.reset()
    for cell in range(length):  # in its last cell each row tries another action
        action = torch.arange(num_actions) if cell == length - 1 else env.path[cell].expand(num_actions)
        transition, root = env.step_and_reset(root.set("action", action))
    right = (torch.arange(num_actions) == env.path[-1]).unsqueeze(-1)
    assert torch.equal(transition["next", "reward"], right.float()) and transition["next", "terminated"].all()
    assert (root["observation"].argmax(-1) == 0).all() and env.best_return == 1


def test_a_wrong_step_ends_the_path():
    env = NarrowPath(1, length=4, num_actions=3)
    transition = env.step(env.reset().set("action", torch.tensor([2])))
    assert transition["next", "terminated"].item() and transition["next", "reward"].item() == 0


def test_one_random_player_in_many_arrives():
    env = NarrowPath(4000, length=5)
    batch = env.rollout(5)
    share = (batch["next", "reward"].sum(1) > 0).float().mean().item()
    assert share == pytest.approx(2**-5, abs=5 * (2**-5 / 4000) ** 0.5)


def test_values_with_endings_and_ties():
    following = torch.tensor([[1, 0], [0, 1]])
    ends = torch.tensor([[False, True], [False, True]])
    env = TabularEnv(following, torch.tensor([[0.0, 1.0], [0.0, 4.0]]), ends, starts=[0, 1], max_episode_steps=3)
    torch.testing.assert_close(env.action_values(0.5), torch.tensor([[2.0, 1.0], [1.0, 4.0]], dtype=torch.float64))
    assert env.action_values(0.0).tolist() == [[0.0, 1.0], [0.0, 4.0]]
    assert env.best_return == 4  # from either: to the second state, and end there
    assert TabularEnv(following, torch.zeros(2, 2), max_episode_steps=None).best_return is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ChainMDP(length=1), "ChainMDP: expected a length of at least 2 cells, got 1"),
        (lambda: NarrowPath(length=0), "NarrowPath: expected length of at least 1, got 0"),
        (lambda: NarrowPath(num_actions=1), "num_actions of at least 2, got 1"),
        (lambda: GridWorld(1).action_values(1.0), "GridWorld.action_values: expected gamma from 0 to below 1, got 1.0"),
        (lambda: TabularEnv(torch.zeros(2, 2), torch.zeros(2, 2)), "following of torch.int64 .*got torch.float32"),
        (lambda: TabularEnv(torch.zeros(2, 2).long(), torch.zeros(2)), r"rewards of .*, as following, got .*\[2\]"),
        (lambda: TabularEnv(torch.full((2, 1), 2), torch.zeros(2, 1)), "following states from 0 to 1, got 2 to 2"),
        (lambda: TabularEnv(torch.zeros(2, 1).long(), torch.zeros(2, 1), starts=[2]), r"starts from 0 to 1, got \[2\]"),
        (lambda: TabularEnv(torch.zeros(2, 1).long(), torch.zeros(2, 1), starts=[]), r"starts from 0 to 1, got \[\]"),
    ],
)
def test_what_is_no_world_is_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
