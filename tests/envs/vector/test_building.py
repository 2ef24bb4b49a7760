"""What is given in the place of factories and simulators: taken where that is natural, or told what to write."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from fakes import CountingEnv, CountingSimulator
from torchrl.envs import CartPole, GymEnv, ParallelEnv, SerialEnv
from torchrl.envs.simulators import TimeLimit
from torchrl.errors import ConfigError, EnvError


@pytest.mark.parametrize("kind", [SerialEnv, ParallelEnv])
@pytest.mark.parametrize(
    ("given", "num_envs", "message"),
    [
        (
            CountingSimulator(),
            2,
            r"got a CountingSimulator that is there already. .*lambda: CountingSimulator\(...\), 2\)",
        ),
        ([CountingSimulator()], None, "got a CountingSimulator that is there already"),
        (CartPole(2), 2, "got a CartPole that is there already"),
        (
            "CartPole-v1",
            2,
            r'"CartPole-v1", num_envs=2\), or (Serial|Parallel)Env\(partial\(gym_simulator, "CartPole-v1"\)',
        ),
        (["CartPole-v1"], None, r'Write GymEnv\("CartPole-v1"\), or'),
        (2, CountingSimulator, r"got 2. The factory comes first: (Serial|Parallel)Env\(make_simulator, 2\)"),
        (gymnasium.spec("CartPole-v1"), 2, r"an EnvSpec. (Serial|Parallel)Env\(spec.make, 2\) builds each simulator"),
        (3, 2, "got 3. Write a function that builds a new one at each call"),
    ],
)
def test_what_is_no_factory_is_refused_with_the_line_to_write(kind, given, num_envs, message):
    with pytest.raises(ConfigError, match=rf"^{kind.__name__}: expected callables that build a simulator.*{message}"):
        kind(given, num_envs)


def test_one_world_that_is_there_goes_into_a_gym_env():
    with pytest.raises(ConfigError, match=r"GymEnv\(env\) takes a gymnasium environment that is there"):
        SerialEnv(gymnasium.make("CartPole-v1"))


class World:
    """A duck-typed world that returns what it is told.

    Args:
        reward: of each step.
        terminated: of each step.
        num_values: how many of its six values a step returns.
        reset: what a reset returns; None is what is right.
    """

    observation_space, action_space = spaces.Box(0, 1, (2,), np.float32), spaces.Discrete(2)

    def __init__(self, reward=1.0, terminated=False, num_values=5, reset=None):
        self.values = (np.zeros(2, np.float32), reward, terminated, False, {}, None)[:num_values]
        self.first = (np.zeros(2, np.float32), {}) if reset is None else reset

    def reset(self, *, seed=None, options=None):
        return self.first

    def step(self, action):
        return self.values


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("reward", [2, np.float64(2), np.array(2.0), np.array([2.0], np.float32), np.array([[2]])])
def test_a_reward_of_one_entry_is_a_number(reward, num_envs):
    batch = SerialEnv(lambda: World(reward, np.array([False])), num_envs).rollout(3)
    assert torch.equal(batch["next", "reward"], torch.full((num_envs, 3, 1), 2.0))
    assert batch["next", "episode_return"][:, -1].flatten().tolist() == [6.0] * num_envs


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": np.array([1.0, 2.0])}, "reward of row 0: expected a float.*Weigh several objectives"),
        ({"reward": [1.0, 2.0]}, "reward of row 0: expected a float.*Weigh several objectives"),
        ({"reward": None}, "reward of row 0: expected a float, got None"),
        ({"reward": "1.0"}, "reward of row 0: expected a float, got '1.0'"),
        ({"terminated": None}, "terminated of row 0: expected a bool, got None"),
        ({"terminated": "no"}, "terminated of row 0: expected a bool, got 'no'"),
        ({"num_values": 4}, r"step of row 0: expected .*, got 4 values. In the old gym, done was"),
        ({"num_values": 6}, r"step of row 0: expected .*, got 6 values"),
        ({"reset": np.zeros(2, np.float32)}, r"reset of row 0: expected \(observation, info\).*return {} beside it"),
    ],
)
def test_the_first_step_says_what_is_malformed(options, message, num_envs):
    with pytest.raises(EnvError, match=message):
        SerialEnv(lambda: World(**options), num_envs).rollout(2)


def test_a_step_of_four_values_below_a_wrapper_is_told_of_five():
    env = SerialEnv(lambda: TimeLimit(World(num_values=4), 3))
    with pytest.raises(ValueError, match="values to unpack") as caught:
        env.rollout(2)
    assert any("A step returns five values" in note for note in caught.value.__notes__)


class Several(World):
    reward_space = spaces.Box(0, 1, (2,))


class Wrapper:
    observation_space, action_space = World.observation_space, World.action_space
    reset = step = None

    def __init__(self):
        self.env = Several()


class Turns:
    """Has the methods of a PettingZoo environment."""

    possible_agents = ("one", "other")

    def reset(self, seed=None, options=None): ...

    def step(self, action): ...

    def observation_space(self, agent): ...

    def action_space(self, agent): ...


class OldSpace:
    __module__ = "gym.spaces.box"


class Old(World):
    observation_space = action_space = OldSpace()


class Pool(World):
    __module__ = "envpool.python"


class Named:
    def reset(self): ...

    def step(self, action): ...

    def action_spec(self): ...

    def observation_spec(self): ...


FOREIGN = [
    (Several, "expected one reward a step, got Several with rewards of shape .2.. Weigh them in a wrapper"),
    (Wrapper, "expected one reward a step, got Several"),
    (Turns, "whose observation_space is a method. It has several agents"),
    (Old, "whose observation_space is of gym.spaces.box.OldSpace. It is of the old gym: pip install shimmy"),
    (Pool, r"expected a simulator, one world in numpy, got Pool. .* EnvPoolEnv\(name, num_envs\)"),
    (Named, r"got Named without observation_space, action_space. A dm_env goes into DMControlEnv\(env\)"),
    (partial(gymnasium.make_vec, "CartPole-v1", 2), r"A vector environment is a batch already: GymVectorEnv"),
]


@pytest.mark.parametrize(("make", "message"), FOREIGN)
def test_worlds_of_other_kinds_are_told_where_they_go(make, message):
    with pytest.raises(EnvError, match=message):
        SerialEnv(make, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Turns, "It has several agents"),
        (Old, "It is of the old gym"),
        (Named, r"A dm_env goes into DMControlEnv\(env\)"),
        (partial(CartPole, 2), "got CartPole. It is an environment of this library already"),
        (partial(gymnasium.spec, "CartPole-v1"), r'got EnvSpec. Write its id: GymEnv\("CartPole-v1"\)'),
        (lambda: World, r"A function that builds a simulator, of any kind, goes into SerialEnv"),
        (World, r"got World. A function that builds a simulator, of any kind, goes into SerialEnv"),
        (type("PoolEnv", (gymnasium.Env,), {"__module__": "envpool.python"}), r"EnvPoolEnv\(name, num_envs\)"),
    ],
)
def test_a_gym_env_says_the_same(make, message):
    with pytest.raises(EnvError, match=f"expected an id or a gymnasium.Env.*{message}"):
        GymEnv(make())


class Alternating(World):
    """Two players in turn behind one observation and two spaces."""

    agent_selection = "white"


@pytest.mark.parametrize("num_envs", [None, 2])
def test_a_world_of_players_in_turn_is_refused_also_where_it_has_spaces(num_envs):
    with pytest.raises(EnvError, match="Alternating, in which several agents act in turn. It has several"):
        SerialEnv(Alternating, num_envs)
    with pytest.raises(EnvError, match="a simulator of one agent"):
        SerialEnv(lambda: TimeLimit(Alternating(), 5), num_envs)


@pytest.mark.parametrize("num_envs", [1, 2])
def test_numbers_and_flags_may_be_tensors(num_envs):
    world = partial(World, torch.tensor([2.0]), torch.tensor(False))
    batch = SerialEnv(world, num_envs).rollout(3)
    assert torch.equal(batch["next", "reward"], torch.full((num_envs, 3, 1), 2.0))
    with pytest.raises(EnvError, match="reward of row 0: expected a float, got tensor"):
        SerialEnv(partial(World, torch.ones((), device="meta")), num_envs).rollout(2)


@pytest.mark.parametrize("make", [SerialEnv, lambda world: GymEnv(world())])
def test_a_reset_that_takes_no_seed_is_told_what_to_take(make):
    class Old(gymnasium.Env):
        observation_space, action_space = World.observation_space, World.action_space

        def reset(self):
            return np.zeros(2, np.float32)

    with pytest.raises(EnvError, match=r"of row 0: expected a simulator with reset\(\*, seed=None, options=None\)"):
        make(Old).reset()


def test_one_world_in_wrappers_of_its_own_in_each_row_is_refused():
    world = CountingEnv()
    with pytest.raises(EnvError, match="the same one in the rows 0 and 1"):
        SerialEnv([lambda: world, lambda: gymnasium.wrappers.TimeLimit(world, 5)])
