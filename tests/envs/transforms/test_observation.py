"""Normalisation by fixed numbers, by hand."""

import pytest
import torch
from gymnasium import spaces

from cases.transform_steps import act
from fakes import CountingSimulator
from torchrl.data.specs import Bounded, Unbounded
from torchrl.envs import GymEnv, SerialEnv, check_env
from torchrl.envs.transforms import ObservationNorm, ObservationTransform, TransformedEnv
from torchrl.errors import ConfigError, KeyMissing, SpecError


class Pair(CountingSimulator):
    """Two features: the count, and a constant."""

    observation_space = spaces.Box(0.0, 4.0, (2,))

    def __init__(self, length=3):
        super().__init__(length)
        self.observation_space = Pair.observation_space

    def _observation(self):
        observation = super()._observation()
        observation[1] = 4
        return observation


class Choices(CountingSimulator):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Discrete(9)


def pairs(num_envs=None):
    return SerialEnv(Pair, num_envs)


def test_values_by_hand():
    env = TransformedEnv(pairs(2), ObservationNorm(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])))
    batch = env.rollout(3, act)
    assert batch["observation"][1].tolist() == [[-0.5, 0.5], [0, 0.5], [0.5, 0.5]]
    assert batch["next", "observation"][0].tolist() == [[0, 0.5], [0.5, 0.5], [1, 0.5]]


def test_bounds_are_normalised_and_missing_ones_stay_missing():
    env = TransformedEnv(pairs(2), ObservationNorm(1.0, torch.tensor([2.0, 4.0])))
    low, high = torch.tensor([-0.5, -0.25]), torch.tensor([1.5, 0.75])
    assert env.observation_spec["observation"] == Bounded(low, high, (2, 2))
    assert ObservationNorm(1.0, 2.0).transform_spec(Unbounded((2, 2))) == Unbounded((2, 2))
    assert ObservationNorm(1.0, 2.0).transform_spec(Bounded(0, torch.inf, (3,))) == Bounded(-0.5, torch.inf, (3,))


class Crop(ObservationTransform):
    """Returns a view of what it is given."""

    def forward(self, value):
        return value[..., :1]

    def transform_spec(self, leaf):
        return leaf[..., :1]


class Same(ObservationTransform):
    """Returns what it is given."""

    def forward(self, value):
        return value

    def transform_spec(self, leaf):
        return leaf


@pytest.mark.parametrize("transform", [Crop, Same])
def test_a_root_does_not_look_into_the_memory_of_the_next_outcome(transform):
    env = TransformedEnv(pairs(2), transform())
    batch = env.rollout(3, act)
    assert batch["observation"][0, :, 0].tolist() == [0, 1, 2]
    assert batch["next", "observation"][0, :, 0].tolist() == [1, 2, 3]
    check_env(env, num_steps=10)


def test_pixels_become_floats():
    norm = ObservationNorm(0.0, 255.0)
    assert norm.transform_spec(Bounded(0, 255, (4,), torch.uint8)) == Bounded(0.0, 1.0, (4,))
    assert norm(torch.tensor([255], dtype=torch.uint8)).tolist() == [1.0]


def test_the_numbers_are_saved():
    norm = ObservationNorm(0.0, torch.ones(2))
    norm.load_state_dict(ObservationNorm(3.0, torch.tensor([1.0, 2.0])).state_dict())
    assert norm(torch.tensor([4.0, 5.0])).tolist() == [1, 1]


def test_fit_takes_mean_and_deviation_of_the_roots_acted_on():
    # Counts 0, 1, 2, 0 in both rows: mean 3/4, variance 5/4 - 9/16 = 11/16. The second feature never moves.
    norm = ObservationNorm.fit(lambda: pairs(2), num_steps=4, seed=0)
    torch.testing.assert_close(norm.loc, torch.tensor([0.75, 4.0]))
    torch.testing.assert_close(norm.scale, torch.tensor([(11 / 16) ** 0.5, 1.0]))


def test_fit_makes_what_it_saw_standard():
    make_env = lambda: GymEnv("Pendulum-v1", num_envs=4)  # noqa: E731
    env = TransformedEnv(make_env(), ObservationNorm.fit(make_env, num_steps=50, seed=1))
    env.set_seed(1)
    observation = env.rollout(50)["observation"].flatten(0, 1)
    torch.testing.assert_close(observation.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(observation.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_fit_depends_on_its_seed_alone_and_closes_its_env():
    envs = []

    def make_env():
        envs.append(GymEnv("Pendulum-v1", num_envs=2))
        envs[-1].close = lambda: envs.append("closed")
        return envs[-1]

    global_stream = torch.get_rng_state()
    one, two, other = (ObservationNorm.fit(make_env, num_steps=9, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.loc, two.loc) and torch.equal(one.scale, two.scale)
    assert not torch.equal(one.loc, other.loc)
    assert torch.equal(torch.get_rng_state(), global_stream)
    assert envs.count("closed") == 3
    with pytest.raises(KeyMissing):
        ObservationNorm.fit(make_env, num_steps=9, seed=0, in_key="pixels")
    assert envs.count("closed") == 4


def test_fit_refuses_an_env_that_may_be_in_use():
    with pytest.raises(ConfigError, match="a function that makes an environment"):
        ObservationNorm.fit(pairs(), num_steps=3, seed=0)
    with pytest.raises(ConfigError, match="num_steps=0"):
        ObservationNorm.fit(pairs, num_steps=0, seed=0)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 0.0), (0.0, -1.0), (torch.nan, 1.0), (0.0, torch.inf)])
def test_numbers_that_cannot_normalise_are_refused(loc, scale):
    with pytest.raises(SpecError, match="a finite loc and a positive, finite scale"):
        ObservationNorm(loc, scale)


@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 2)])
def test_shapes_that_would_broadcast_the_observation_are_refused(shape):
    with pytest.raises(SpecError, match=r"a scale that broadcasts to \[2\]"):
        TransformedEnv(pairs(2), ObservationNorm(0.0, torch.ones(shape)))


def test_an_index_is_refused():
    with pytest.raises(SpecError, match="numbers in 'observation', got Categorical"):
        TransformedEnv(SerialEnv(Choices, 2), ObservationNorm(0.0, 1.0))


def test_a_transform_that_is_half_written_is_told_what_it_lacks():
    class Bare(ObservationTransform):
        def forward(self, value):
            return value

    class Careless(Bare):
        def __init__(self):
            pass

    with pytest.raises(NotImplementedError, match="Bare lacks a method .* write `transform_spec`"):
        TransformedEnv(pairs(2), Bare())
    with pytest.raises(ConfigError, match=r"Careless: expected a transform that is set up.*super\(\).__init__\(\)"):
        TransformedEnv(pairs(2), Careless())
