"""The contract of a simulator, and that none of it imports torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from fakes import FAULTS, ActionEchoSimulator, CountingSimulator, FaultySimulator, PlantedError
from torchrl.envs.simulators import Simulator, SimulatorWrapper, TimeLimit
from torchrl.errors import EnvError

USES = {
    "gym": "import torchrl.envs.simulators.gym as gym; gym.GymSimulator('CartPole-v1').reset(seed=0)",
    "mujoco": "import torchrl.envs.simulators.gym as gym; gym.GymSimulator('Hopper-v5').get_state()",
    "dm_control": "import torchrl.envs.simulators as s; s.DMControlSimulator('cartpole', 'swingup').get_state()",
    "fakes": "import sys; sys.path.insert(0, 'tests'); import fakes; fakes.CountingSimulator().reset()",
}


@pytest.mark.parametrize("name", USES)
def test_simulators_import_no_torch(name):
    if name in ("mujoco", "dm_control"):
        pytest.importorskip(name)
    code = f"{USES[name]}; import sys; assert 'gymnasium' in sys.modules; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


class Gusts(Simulator):
    """Draws from gymnasium's generator, seeded in gymnasium's way."""

    observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.random(1, np.float32), {}

    def step(self, action):
        return self.np_random.random(1, np.float32), 0.0, False, False, {}


def test_super_reset_seeds_gymnasiums_generator():
    one, other = Gusts(), Gusts()
    starts = [one.reset(seed=3)[0], other.reset(seed=3)[0]]
    assert starts[0] == starts[1] != one.reset(seed=4)[0]
    assert one.reset()[0] != one.reset()[0], "no seed goes on with the stream"


class Shaky(SimulatorWrapper):
    def step(self, action):
        return super().step(action)[0] + self.np_random.random(1, np.float32), 0.0, False, False, {}


def test_a_wrapper_has_a_seeded_generator_of_its_own():
    one, other = Shaky(Gusts()), Shaky(Gusts())
    assert one.reset(seed=3)[0] == other.reset(seed=3)[0] == Gusts().reset(seed=3)[0]
    assert one.step(0)[0] == other.step(0)[0]
    assert one.np_random.random() != one.simulator.np_random.random(), "another stream than the wrapped one's"


class Bare(Simulator):
    observation_space = action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 1, 0.0, False, False, {}


def test_a_simulator_without_a_state_says_what_will_happen():
    for simulator in (Bare(), SimulatorWrapper(Bare())):
        with pytest.raises(EnvError, match="start new episodes"):
            simulator.get_state()
    with pytest.raises(EnvError, match="start new episodes"):
        Bare().set_state({})
    Bare().close()


def test_a_wrapper_passes_everything_through():
    inner = CountingSimulator(3)
    wrapper = SimulatorWrapper(inner)
    assert wrapper.observation_space is inner.observation_space
    assert wrapper.action_space is inner.action_space
    assert wrapper.reset(seed=0)[0] == 0
    assert wrapper.step(0)[0] == 1
    state = wrapper.get_state()
    other = SimulatorWrapper(CountingSimulator(3))
    other.set_state(state)
    assert other.step(0)[0] == 2
    wrapper.close()
    assert inner.is_closed


def test_a_wrapper_refuses_the_state_of_another():
    with pytest.raises(EnvError, match="a state of TimeLimit, got one of SimulatorWrapper"):
        TimeLimit(CountingSimulator(), 3).set_state(SimulatorWrapper(CountingSimulator()).get_state())
    with pytest.raises(EnvError, match="a state of TimeLimit, got one of no wrapper"):
        TimeLimit(CountingSimulator(), 3).set_state(CountingSimulator().get_state())


class TestFakes:
    def test_counting(self):
        simulator = CountingSimulator([2, 1], ending=["terminated", "truncated"], observation_shape=(1, 2))
        assert simulator.reset(seed=7)[0].tolist() == [[0, 0]]
        observation, *rest = simulator.step(0)
        assert (observation.tolist(), rest) == ([[1, 1]], [0.0, False, False, {}])
        assert simulator.step(0)[1:4] == (0.0, True, False)
        with pytest.raises(EnvError):
            simulator.step(0)
        simulator.reset()
        assert simulator.step(0)[1:4] == (1.0, False, True)
        simulator.reset(seed=7)
        assert simulator.episode == 0

    def test_echo(self):
        simulator = ActionEchoSimulator(2, length=1)
        assert simulator.reset()[0].tolist() == [0, 0]
        observation, *rest = simulator.step(np.array([0.5, -1.0], np.float32))
        assert observation.tolist() == [0.5, -1.0]
        assert rest == [-0.5, False, True, {}]

    @pytest.mark.parametrize("fault", FAULTS)
    def test_each_fault_breaks_what_it_says(self, fault):
        def played(fault):
            simulator = FaultySimulator(fault)
            for _ in range(2):
                simulator.reset(seed=3)
                observation, reward, *_ = simulator.step(0)
            return simulator.observation_space.contains(observation), observation, reward

        assert played(None)[:2] == (True, 1)
        if fault.startswith("raises"):
            with pytest.raises(PlantedError, match=fault.removeprefix("raises_in_").replace("init", "__init__")):
                played(fault)
            return
        is_contained, observation, reward = played(fault)
        if fault.startswith("observation"):
            assert not is_contained
        elif fault == "ignores_seed":
            assert observation == 2
        else:
            assert reward != reward or isinstance(reward, list)
