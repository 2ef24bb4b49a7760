"""What only the serial back end does: it builds, keeps and closes its simulators in this process."""

import pytest
import torch
from gymnasium import spaces

from fakes import ActionEchoSimulator, CountingSimulator
from torchrl.envs import SerialEnv
from torchrl.errors import ConfigError, EnvError, SpecError


def counting(num_envs=None, length=3, ending="terminated"):
    return SerialEnv(lambda: CountingSimulator(length=length, ending=ending), num_envs)


def test_a_factory_of_a_batch_is_refused():
    with pytest.raises(EnvError, match=r"SerialEnv.as_simulator: expected an environment of batch size \[\]"):
        SerialEnv(lambda: counting(2), 2)


def test_a_factory_of_something_else_is_refused():
    with pytest.raises(EnvError, match="without observation_space"):
        SerialEnv(object, 2)


class Closing(CountingSimulator):
    """Counts how many are open."""

    num_open = 0

    def __init__(self, length=3, observation_shape=(1,)):
        super().__init__(length, observation_shape=observation_shape)
        Closing.num_open += 1

    def close(self):
        Closing.num_open -= 1


def raises():
    raise RuntimeError("planted")


class Unreadable(Closing):
    """Observes what no spec describes."""

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Text(3)


class Taken(Closing):
    """Observes under a name of the environment."""

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict({"reward": self.observation_space})


@pytest.mark.parametrize(
    ("factories", "kind"),
    [
        ([Closing, Closing, raises], RuntimeError),
        ([Closing, object], EnvError),
        ([Closing, lambda: Closing(observation_shape=(2,))], EnvError),
        ([Closing, lambda: counting(2)], EnvError),
        ([Taken, Taken], EnvError),
        ([Unreadable, Unreadable], SpecError),
    ],
)
def test_simulators_already_built_are_closed_when_something_fails(factories, kind):
    Closing.num_open = 0
    with pytest.raises(kind):
        SerialEnv(factories)
    assert Closing.num_open == 0


def test_an_exception_while_building_says_which_row():
    with pytest.raises(RuntimeError, match="planted") as caught:
        SerialEnv([CountingSimulator, raises])
    assert caught.value.__notes__ == ["Raised while the simulator of row 1 was built."]


def test_what_was_built_stays_open_and_is_closed_with_the_env():
    Closing.num_open = 0
    env = SerialEnv(Closing, 3)
    assert Closing.num_open == 3
    env.close()
    assert Closing.num_open == 0


def test_one_simulator_in_two_rows_is_refused():
    shared = CountingSimulator()
    with pytest.raises(EnvError, match="of its own for every row, got the same one in the rows 0 and 1.*at each call"):
        SerialEnv(lambda: shared, 2)
    assert shared.is_closed


def test_simulators_with_different_spaces_are_refused():
    with pytest.raises(EnvError, match="in row 1"):
        SerialEnv([CountingSimulator, ActionEchoSimulator])


@pytest.mark.parametrize("num_envs", [0, -1])
def test_no_rows_are_refused(num_envs):
    with pytest.raises(ConfigError, match="at least 1"):
        counting(num_envs)


def test_a_rollout_takes_at_least_one_step():
    with pytest.raises(ConfigError, match="num_steps"):
        counting().rollout(0)


def test_a_seed_that_was_set_waits_for_a_whole_reset_and_gives_way_to_an_explicit_one():
    class Seeded(CountingSimulator):
        def reset(self, *, seed=None, options=None):
            self.seeds = [*getattr(self, "seeds", []), seed]
            return super().reset(seed=seed, options=options)

    env = SerialEnv(Seeded, 2)
    env.reset()
    env.set_seed(1)
    env.reset(torch.tensor([True, False]))
    env.reset()
    env.set_seed(1)
    env.reset(seed=[5, 6])
    env.reset()
    first, second = (simulator.seeds for simulator in env.simulators)
    assert first[1] is None and first[2] is not None and first[3:] == [5, None]
    assert second[1] is not None and second[2:] == [6, None]
