"""An environment of one simulator as a simulator, alone and in the serial back end."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from fakes import CountingSimulator, assert_continues
from torchrl.data.specs import Bounded, Categorical, Composite, MultiOneHot, OneHot, Unbounded
from torchrl.envs import SerialEnv, TransformedEnv
from torchrl.envs.base import Env
from torchrl.envs.env_simulator import EnvSimulator
from torchrl.envs.torch_env import TorchEnv
from torchrl.envs.transforms.base import Transform
from torchrl.errors import EnvError


class Walk(TorchEnv):
    """Starts at a random place, and adds the action; over above 3."""

    def __init__(self, batch_size=(), max_episode_steps=None):
        super().__init__(
            batch_size=batch_size,
            observation_spec=Composite(
                {"deep": Composite({"place": Unbounded((*batch_size, 1))}, shape=batch_size)}, shape=batch_size
            ),
            action_spec=Bounded(-1.0, 1.0, (*batch_size, 1)),
            max_episode_steps=max_episode_steps,
        )

    def start(self, random):
        rows = random.batch_size
        return TensorDict({"deep": TensorDict({"place": random.rand(1)}, rows)}, rows)

    def dynamics(self, state, action):
        place = state["deep", "place"] + action
        deep = TensorDict({"place": place}, self.batch_size)
        return TensorDict({"deep": deep}, self.batch_size), 2 * action, place > 3


class Chooser(TorchEnv):
    """Observes its last choices, one-hot."""

    def __init__(self, spec):
        super().__init__(batch_size=(), observation_spec=Composite({"last": spec}), action_spec=spec)

    def start(self, random):
        return TensorDict({"last": self.action_spec.zero()}, [])

    def dynamics(self, state, action):
        return TensorDict({"last": action}, []), torch.ones(1), torch.zeros(1, dtype=torch.bool)


def test_it_has_the_spaces_of_the_specs_and_steps_in_numpy():
    world = Walk(max_episode_steps=2).as_simulator()
    assert world.observation_space == spaces.Dict(
        {"deep": spaces.Dict({"place": spaces.Box(-np.inf, np.inf, (1,), np.float32)})}
    )
    assert world.action_space == spaces.Box(-1, 1, (1,), np.float32)
    first, info = world.reset(seed=3)
    place = first["deep"]["place"]
    assert isinstance(place, np.ndarray) and 0 <= place[0] < 1 and info == {}
    second, *outcome = world.step(np.array([0.5], np.float32))
    assert second["deep"]["place"] == place + np.float32(0.5) and outcome == [1.0, False, False, {}]
    _, *outcome = world.step(np.array([-1], np.float32))
    assert outcome == [-2.0, False, True, {}]
    assert first["deep"]["place"] is place and world.reset(seed=3)[0] == first


@pytest.mark.parametrize(
    ("spec", "space", "action", "value"),
    [
        (OneHot(3), spaces.Discrete(3), np.int64(2), 2),
        (MultiOneHot([2, 3]), spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [1, 2]),
        (Categorical(3), spaces.Discrete(3), np.int64(1), 1),
    ],
)
def test_choices_are_numbers_outside(spec, space, action, value):
    world = Chooser(spec).as_simulator()
    assert world.action_space == space == world.observation_space["last"]
    world.reset()
    assert world.step(action)[0]["last"].tolist() == value


def test_actions_may_be_nested():
    spec = Composite({"0": Categorical(2), "1": Composite({"force": Unbounded((2,))})})
    world = Chooser(spec).as_simulator()
    world.reset()
    observed = world.step((np.int64(1), {"force": np.array([1, 2], np.float32)}))[0]["last"]
    assert observed[0] == 1 and observed[1]["force"].tolist() == [1, 2]


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(EnvError, match=r"expected reset\(\) first"):
        Walk().as_simulator().step(np.zeros(1, np.float32))


def test_a_state_continues_bit_for_bit_and_holds_plain_data():
    assert_continues(lambda: Walk(max_episode_steps=7).as_simulator())
    assert_continues(lambda: SerialEnv(lambda: CountingSimulator(4)).as_simulator())
    world = Walk().as_simulator()
    world.reset()
    kinds = []

    def look(state):
        for value in state.values() if isinstance(state, dict) else state if isinstance(state, list) else ():
            look(value)
        kinds.append(type(state))

    look(world.get_state())
    assert set(kinds) <= {dict, list, np.ndarray, str, int, float, bool, type(None)}


class Forgetful(Env):
    """Cannot save where it stands."""

    def __init__(self):
        super().__init__(
            batch_size=[], observation_spec=Composite({"observation": Unbounded((1,))}), action_spec=Categorical(2)
        )
        self.is_closed = False

    def reset_rows(self, mask, *, seeds, options):
        return TensorDict({"observation": torch.zeros(1), "is_init": torch.ones(1, dtype=torch.bool)}, [])

    def step_rows(self, tensordict):
        raise AssertionError

    def close(self):
        self.is_closed = True


def test_a_simulator_that_cannot_save_its_state_says_so_as_simulators_do():
    world = Forgetful().as_simulator()
    with pytest.raises(EnvError, match="Forgetful: expected a state to save"):
        world.get_state()
    with pytest.raises(EnvError, match="Forgetful: expected a state to load"):
        world.set_state({"env": {}})
    with pytest.raises(EnvError, match="an env that can draw its rows"):
        world.render()
    world.close()
    assert world.env.is_closed


def test_a_batch_of_them_is_each_of_them():
    env, alone = SerialEnv(Walk, 3), [Walk() for _ in range(3)]
    assert env.batch_size == (3,) and env.action_spec == Bounded(-1.0, 1.0, (3, 1))
    assert all(isinstance(world, EnvSimulator) for world in env.simulators)
    root = env.reset(seed=[4, 5, 6])
    roots = [one.reset(seed=[seed]) for one, seed in zip(alone, (4, 5, 6), strict=True)]
    for step in range(20):
        action = torch.sin(torch.arange(3.0) + step).unsqueeze(-1)
        transition, root = env.step_and_reset(root.set("action", action))
        for row, one in enumerate(alone):
            expected, roots[row] = one.step_and_reset(roots[row].set("action", action[row]))
            for key in (("next", "deep", "place"), ("next", "reward"), ("next", "done"), ("next", "episode_return")):
                assert torch.equal(transition[row].get(key), expected.get(key))
            assert torch.equal(root[row]["deep", "place"], roots[row]["deep", "place"])
    state = env.state_dict()
    again = SerialEnv(Walk, 3)
    assert torch.equal(again.load_state_dict(state)["deep", "place"], root["deep", "place"])


def test_batches_and_transformed_ones_are_refused_with_the_line_to_write():
    with pytest.raises(EnvError, match=r"Walk.as_simulator: expected an environment of batch size \[\]"):
        SerialEnv(lambda: Walk((2,)), 2)
    with pytest.raises(EnvError, match=r"TransformedEnv\(SerialEnv\(make_simulator, num_envs\), transform\)") as caught:
        SerialEnv([CountingSimulator, lambda: TransformedEnv(SerialEnv(CountingSimulator), Transform())])
    assert caught.value.__notes__ == ["Raised while the simulator of row 1 was built."]


def test_a_refused_environment_is_closed():
    built = []

    def make():
        built.append(TransformedEnv(Forgetful(), Transform()))
        return built[-1]

    with pytest.raises(EnvError, match="one that returns TransformedEnv"):
        SerialEnv(make, 2)
    assert built[0].env.is_closed
