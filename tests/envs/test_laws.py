"""What holds for every environment, at every batch size."""

from functools import partial

import gymnasium
import pytest
import torch

from cases import jax_worlds
from cases.batch_worlds import Gathered, Walks
from cases.isaac_worlds import IsaacWorld
from cases.torch_worlds import Counter
from fakes import ActionEchoSimulator, CountingSimulator
from torchrl import envs
from torchrl.envs import (
    Acrobot,
    ALEEnv,
    AtariEnv,
    BatchEnv,
    CartPole,
    ChainMDP,
    DMControlEnv,
    EnvPoolEnv,
    FourRooms,
    GridWorld,
    GymEnv,
    GymVectorEnv,
    IsaacEnv,
    JaxEnv,
    MountainCar,
    MountainCarContinuous,
    NarrowPath,
    ParallelEnv,
    Pendulum,
    Plane,
    RepeatPrevious,
    SerialEnv,
    TabularEnv,
    TMaze,
    ToyEnv,
    TransformedEnv,
    check_env,
)
from torchrl.envs.base import Env
from torchrl.envs.simulators import gym_simulator
from torchrl.envs.transforms import StepCounter
from torchrl.errors import EnvError


def gym_env(name, num_envs, **kwargs):
    pytest.importorskip("Box2D" if "Lunar" in name else "mujoco" if name.endswith("-v5") else "gymnasium")
    return GymEnv(name, num_envs=num_envs, max_episode_steps=15, **kwargs)


def dm_control_env(domain, task, num_envs):
    pytest.importorskip("dm_control")
    return DMControlEnv(domain, task, num_envs=num_envs, max_episode_steps=10)


def vector_env(mode, num_envs):
    make = [partial(gymnasium.make, "CartPole-v1", max_episode_steps=15)] * (num_envs or 1)
    return GymVectorEnv(gymnasium.vector.SyncVectorEnv(make, autoreset_mode=mode))


def batch_env(autoreset, num_envs):
    make = [partial(gymnasium.make, "CartPole-v1", max_episode_steps=15)] * (num_envs or 1)
    return BatchEnv(Gathered(make, autoreset))


def walks(autoreset, num_envs, **kwargs):
    return BatchEnv(Walks(num_envs or 1, autoreset, **kwargs))


def envpool_env(name, num_envs):
    pytest.importorskip("envpool")
    return EnvPoolEnv(name, num_envs or 1, env_kwargs={"max_episode_steps": 15}, num_threads=1)


def atari_env(num_envs):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    return AtariEnv("ALE/Pong-v5", num_envs=num_envs, max_noops=8, max_episode_steps=15)


def ale_env(num_envs):
    pytest.importorskip("ale_py")
    return ALEEnv("ALE/Breakout-v5", num_envs or 1, max_noops=8, max_episode_steps=15, num_threads=1)


def torch_env(num_envs):
    return Counter(() if num_envs is None else (num_envs,), max_episode_steps=7)


def jax_env(num_envs):
    return JaxEnv(jax_worlds.counter(), num_envs)


def ring(num_envs):
    cells = torch.arange(7)
    following = torch.stack([(cells + 1) % 7, (cells - 1) % 7], -1)
    return TabularEnv(following, following / 2, num_envs=num_envs, max_episode_steps=9)


MODES = gymnasium.vector.AutoresetMode
CASES = {
    "GymEnv CartPole": partial(gym_env, "CartPole-v1"),
    "GymEnv Acrobot": partial(gym_env, "Acrobot-v1"),
    "GymEnv Pendulum": partial(gym_env, "Pendulum-v1"),
    "GymEnv MountainCar frames skipped": partial(gym_env, "MountainCarContinuous-v0", frame_skip=3),
    "GymEnv HalfCheetah": partial(gym_env, "HalfCheetah-v5"),
    "GymEnv LunarLander": partial(gym_env, "LunarLander-v3"),
    "GymVectorEnv next step": partial(vector_env, MODES.NEXT_STEP),
    "GymVectorEnv same step": partial(vector_env, MODES.SAME_STEP),
    "GymVectorEnv disabled": partial(vector_env, MODES.DISABLED),
    "BatchEnv disabled": partial(batch_env, "disabled"),
    "BatchEnv same step": partial(batch_env, "same_step"),
    "BatchEnv walks": partial(walks, "disabled"),
    "BatchEnv walks same step": partial(walks, "same_step"),
    "BatchEnv walks in arrays of their own": partial(walks, "same_step", own=True),
    "EnvPoolEnv CartPole": partial(envpool_env, "CartPole-v1"),
    "EnvPoolEnv Pendulum": partial(envpool_env, "Pendulum-v1"),
    "EnvPoolEnv Taxi": partial(envpool_env, "Taxi-v3"),
    "AtariEnv Pong": atari_env,
    "ALEEnv Breakout": ale_env,
    "Acrobot": partial(Acrobot, max_episode_steps=15),
    "CartPole": partial(CartPole, max_episode_steps=15),
    "ChainMDP": ChainMDP,
    "FourRooms": partial(FourRooms, max_episode_steps=15),
    "GridWorld": partial(GridWorld, max_episode_steps=9),
    "MountainCar": partial(MountainCar, max_episode_steps=15),
    "MountainCarContinuous": partial(MountainCarContinuous, max_episode_steps=15),
    "NarrowPath": NarrowPath,
    "Pendulum": partial(Pendulum, max_episode_steps=15),
    "Plane": partial(Plane, max_episode_steps=15),
    "RepeatPrevious": partial(RepeatPrevious, delay=2, max_episode_steps=9),
    "TabularEnv": ring,
    "TMaze": partial(TMaze, length=3, max_episode_steps=15),
    "DMControlEnv cheetah": partial(dm_control_env, "cheetah", "run"),
    "DMControlEnv cartpole": partial(dm_control_env, "cartpole", "swingup"),
    "ToyEnv": lambda num_envs: ToyEnv("Matching", num_envs=num_envs),
    "ParallelEnv counting": partial(ParallelEnv, partial(CountingSimulator, 4)),
    "ParallelEnv CartPole": partial(ParallelEnv, partial(gym_simulator, "CartPole-v1", max_episode_steps=15)),
    "SerialEnv counting": partial(SerialEnv, lambda: CountingSimulator(4)),
    "SerialEnv echo": partial(SerialEnv, lambda: ActionEchoSimulator(length=4)),
    "TorchEnv": torch_env,
    "IsaacEnv": lambda num_envs: IsaacEnv(IsaacWorld(num_envs or 1)),
    "JaxEnv": jax_env,
    "TransformedEnv": lambda num_envs: TransformedEnv(torch_env(num_envs), StepCounter(max_steps=5)),
}
every_env = pytest.mark.parametrize("make_env", CASES.values(), ids=CASES.keys())
every_size = pytest.mark.parametrize("num_envs", [None, 1, 3])


def test_every_public_environment_is_held_against_the_laws():
    public = {name: getattr(envs, name) for name in envs.__all__}
    public = {name for name, member in public.items() if isinstance(member, type) and issubclass(member, Env)}
    assert public - {"Env"} == {name.split()[0] for name in CASES}


@pytest.mark.filterwarnings("ignore:.*All episodes start alike")
@every_size
@every_env
def test_it_passes_check_env(make_env, num_envs):
    env = make_env(num_envs)
    check_env(env, num_steps=40)
    env.close()


@every_size
@every_env
def test_its_batch_is_that_of_its_specs_and_its_rollout(make_env, num_envs):
    env = make_env(num_envs)
    assert env.observation_spec.shape == env.batch_size
    assert env.reward_spec.shape == (*env.batch_size, 1)
    batch = env.rollout(5)
    assert batch.batch_size == (*env.batch_size, 5)
    assert batch["next", "reward"].shape == (*env.batch_size, 5, 1)
    assert batch["is_init"].dtype == torch.bool
    env.close()


@every_env
def test_a_batch_of_two_is_not_the_same_simulator_twice(make_env):
    env = make_env(2)
    env.set_seed(0)
    batch = env.rollout(20)
    rows = batch.select(*env.observation_spec.keys(), "action").unbind(0)
    same = [torch.equal(one, other) for one, other in zip(*(row.values(True, True) for row in rows), strict=True)]
    assert not all(same)
    env.close()


@every_size
@every_env
def test_a_state_goes_on_bit_for_bit_or_is_refused(make_env, num_envs):
    env = make_env(num_envs)
    env.set_seed(3)
    env.rollout(6)
    try:
        state = env.state_dict()
    except EnvError as error:
        pytest.skip(f"no state can be captured: {error}")
    generator = torch.Generator().manual_seed(1)
    actions = [env.action_spec.rand(generator=generator) for _ in range(12)]
    runs = []
    for number in range(2):
        root = env.load_state_dict(state)
        if number == 0:
            env.rollout(3)
            root = env.load_state_dict(state)
        run = []
        for action in actions:
            transition, root = env.step_and_reset(root.set("action", action.clone()))
            run.append(transition.clone())
        runs.append(torch.stack(run))
    for key, value in runs[0].items(include_nested=True, leaves_only=True):
        assert torch.equal(value, runs[1].get(key)), key
    env.close()


@every_env
def test_it_may_be_closed_twice(make_env):
    env = make_env(2)
    env.reset()
    env.close()
    env.close()
