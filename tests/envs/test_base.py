"""What every environment refuses: bad seeds, a missing ``super().__init__()``, pictures it cannot draw."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import nn

from fakes import CountingSimulator
from torchrl.data.specs import Categorical, Composite, Unbounded
from torchrl.envs import Compose, Env, SerialEnv, TransformedEnv, check_env
from torchrl.errors import ConfigError, EnvError


class Seeded(CountingSimulator):
    """Keeps the seeds it was given."""

    def __init__(self):
        super().__init__(3)
        self.seeds = []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        return super().reset(seed=seed, options=options)


def seeds_of(env):
    return [simulator.seeds[-1] for simulator in env.simulators]


def test_a_seed_may_be_of_numpy_and_of_any_size():
    def rows(seed):
        env = SerialEnv(Seeded, 2)
        env.set_seed(seed)
        env.reset()
        return seeds_of(env)

    assert rows(np.int64(3)) == rows(3) != rows(2**64 + 3)
    assert all(type(seed) is int for seed in rows(np.uint8(3)))


@pytest.mark.parametrize("seed", [-1, 1.0, "a", None, [1, 2], True])
def test_a_seed_that_is_no_count_is_refused(seed):
    with pytest.raises(ConfigError, match="seed: expected a non-negative integer"):
        SerialEnv(Seeded, 2).set_seed(seed)


def test_row_seeds_reach_their_rows_as_integers():
    env = SerialEnv(Seeded, 2)
    env.reset(seed=np.array([4, 5]))
    assert seeds_of(env) == [4, 5] and type(seeds_of(env)[0]) is int
    env.reset(seed=(7, None))
    assert seeds_of(env) == [7, None]


@pytest.mark.parametrize("seeds", [[1, -2], [1, 2.5], "ab", [0, True], torch.tensor([1, 2])])
def test_a_row_seed_that_is_no_count_is_refused_with_its_row(seeds):
    with pytest.raises(ConfigError, match=r"the seed of row \d: expected a non-negative integer"):
        SerialEnv(Seeded, 2).reset(seed=seeds)


class Forgetful(Env):
    """Does not call ``super().__init__()``."""

    def __init__(self):
        self.worlds = 2

    def _reset(self, mask, *, seeds, options):
        raise NotImplementedError

    def _advance(self, tensordict):
        raise NotImplementedError


@pytest.mark.parametrize(
    "use",
    [
        lambda env: env.set_seed(0),
        lambda env: env.reset(),
        lambda env: env.rollout(1),
        lambda env: check_env(env),
        lambda env: TransformedEnv(env, Compose()),
        repr,
    ],
)
def test_an_env_without_its_own_init_says_what_to_call(use):
    with pytest.raises(EnvError, match=r"Forgetful: expected an Env that was initialised.*super\(\).__init__\("):
        use(Forgetful())


def test_other_missing_attributes_are_named_as_always():
    with pytest.raises(AttributeError, match="'SerialEnv' object has no attribute 'worlds'"):
        _ = SerialEnv(Seeded).worlds
    assert not hasattr(Forgetful(), "close_all")


class Learned(Env, nn.Module):
    """A world that is a network."""

    def __init__(self):
        nn.Module.__init__(self)
        Env.__init__(
            self,
            batch_size=[2],
            observation_spec=Composite({"observation": Unbounded([2, 3])}, [2]),
            action_spec=Categorical(2, [2]),
        )
        self.layer = nn.Linear(3, 3)

    def _reset(self, mask, *, seeds, options):
        return TensorDict({"observation": self.layer(torch.zeros(2, 3))}, [2])

    def _advance(self, tensordict):
        raise NotImplementedError


def test_an_env_may_be_a_module():
    env = Learned()
    assert env.reset()["observation"].shape == (2, 3)
    assert [name for name, _ in env.named_parameters()] == ["layer.weight", "layer.bias"]


def test_worlds_that_cannot_draw_say_so():
    with pytest.raises(EnvError, match="Learned: expected worlds that can draw themselves"):
        Learned().render()
