"""Copies of environments, by ``copy.deepcopy`` and ``pickle``: as good as the original, or refused."""

import copy
import pickle
from functools import partial

import cloudpickle
import gymnasium
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from fakes import CountingEnv, CountingSimulator
from torchrl.envs import ALEEnv, CartPole, EnvPoolEnv, GymEnv, GymVectorEnv, ParallelEnv, SerialEnv, TransformedEnv
from torchrl.envs.simulators import gym_simulator
from torchrl.envs.transforms import RewardScaling, StepCounter
from torchrl.errors import EnvError

WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "cloudpickle": lambda env: cloudpickle.loads(cloudpickle.dumps(env)),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

ENVS = {
    "gym": partial(GymEnv, "CartPole-v1", num_envs=2),
    "one": partial(GymEnv, "Pendulum-v1", frame_skip=2, max_episode_steps=9),
    "skipping": partial(GymEnv, "Taxi-v4", num_envs=2),
    "dict": partial(SerialEnv, partial(CountingEnv, [2, 3], form="dict"), 2),
    "transformed": lambda: TransformedEnv(TransformedEnv(GymEnv("CartPole-v1"), StepCounter()), RewardScaling(2.0)),
    "native": partial(CartPole, 2),
}


def played(env, seed):
    """Return a rollout from a seed, of the worlds and of the actions."""
    env.set_seed(seed)
    return env.rollout(30)


@every_way
@pytest.mark.parametrize("make", ENVS.values(), ids=ENVS)
def test_a_copy_does_what_the_original_does_and_leaves_it_alone(make, way):
    env = make()
    played(env, 1)
    twin = way(env)
    ours, theirs = played(env, 3), played(twin, 3)
    again = played(env, 3)
    played(twin, 4)
    for batch in (theirs, again):
        assert set(ours.keys(True, True)) == set(batch.keys(True, True))
        for key, value in ours.items(include_nested=True, leaves_only=True):
            assert torch.equal(value, batch[key]), key


@every_way
def test_a_copy_in_mid_episode_is_reset_first_or_given_the_state(way):
    env = SerialEnv(partial(CountingSimulator, 5), 2)
    root = env.reset()
    step = torch.zeros(2, dtype=torch.int64)
    _, root = env.step_and_reset(root.set("action", step))
    twin = way(env)
    with pytest.raises(EnvError, match=r"rows \[0, 1\] that have ended or never started"):
        twin.step(root.clone().set("action", step))
    stands = twin.load_state_dict(env.state_dict())
    assert twin.step(stands.set("action", step))["next", "observation"].flatten().tolist() == [2, 2]
    assert env.step(root.set("action", step))["next", "observation"].flatten().tolist() == [2, 2]


@every_way
def test_worlds_that_cannot_be_copied_are_refused(way):
    env = GymVectorEnv(SyncVectorEnv([CountingEnv]))
    with pytest.raises(EnvError, match="GymVectorEnv: expected simulators that can be copied or pickled.*a function"):
        way(env)
    with pytest.raises(EnvError, match="expected simulators that can be copied or pickled"):
        way(TransformedEnv(env, RewardScaling(2.0)))


@every_way
def test_a_pool_is_refused(way):
    pytest.importorskip("envpool")
    with pytest.raises(EnvError, match="EnvPoolEnv: expected simulators that can be copied or pickled"):
        way(EnvPoolEnv("CartPole-v1", 2))


@every_way
def test_games_of_ale_are_refused(way):
    pytest.importorskip("ale_py")
    with pytest.raises(EnvError, match="ALEEnv: expected simulators that can be copied or pickled"):
        way(ALEEnv("ALE/Pong-v5", 1))


@pytest.mark.usefixtures("leaves_nothing")
@every_way
def test_a_copy_of_a_parallel_env_has_processes_of_its_own(way):
    env = ParallelEnv(partial(gym_simulator, "CartPole-v1"), 1)
    ours = played(env, 3)
    twin = way(env)
    assert not set(twin.pids) & set(env.pids)
    with pytest.raises(EnvError, match=r"rows \[0\] that have ended or never started"):
        twin.step(ours[:, 0].exclude("next"))
    assert torch.equal(ours["next", "observation"], played(twin, 3)["next", "observation"])
    assert torch.equal(ours["next", "observation"], played(env, 3)["next", "observation"])
    env.close()
    twin.close()


def test_a_world_built_anew_by_gymnasium_starts_with_a_reset():
    """Such are those of Box2D and MuJoCo: a copy is a fresh one, whatever the original had done."""

    class Fresh(CountingEnv, gymnasium.utils.EzPickle):
        def __init__(self):
            gymnasium.utils.EzPickle.__init__(self)
            super().__init__(5)

    env = GymEnv(Fresh())
    root = env.reset()
    twin = copy.deepcopy(env)
    with pytest.raises(EnvError, match=r"rows \[0\] that have ended or never started"):
        twin.step(root.set("action", torch.tensor(0)))
    assert twin.reset()["observation"].item() == 0
