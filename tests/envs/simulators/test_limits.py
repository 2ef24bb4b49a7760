"""How long episodes are when somebody asks: a request for more than a simulator's own limit wins or is refused."""

import types
import warnings
from functools import partial

import gymnasium
import pytest
from gymnasium.envs.registration import register, registry

from cases.torch_worlds import Counter
from fakes import CountingEnv, CountingSimulator
from torchrl.envs import DMControlEnv, GymEnv, GymVectorEnv, ParallelEnv, SerialEnv, ToyEnv, TransformedEnv
from torchrl.envs.simulators import FrameSkip, GymSimulator, NoopReset, RandomTruncation, TimeLimit, gym_simulator
from torchrl.envs.simulators.dm_control import dm_step_limit
from torchrl.envs.simulators.limits import step_limit_of
from torchrl.envs.transforms import Compose, StepCounter
from torchrl.errors import ConfigError


@pytest.fixture
def endless():
    """Register ``Endless-v0``, limited to 10 steps by its id, and ``Console-v0``, which is so like an Atari game."""
    register("Endless-v0", entry_point=partial(CountingEnv, 10**9), max_episode_steps=10)
    register(
        "Console-v0",
        entry_point=lambda frameskip, max_num_frames_per_episode: CountingEnv(10),
        kwargs={"frameskip": 4, "max_num_frames_per_episode": 40},
    )
    yield
    del registry["Endless-v0"], registry["Console-v0"]


def longest(env, num_steps=60):
    return int(env.rollout(num_steps)["next", "episode_length"].max())


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({}, 10),
        ({"max_episode_steps": 25}, 25),
        ({"max_episode_steps": 5}, 5),
        ({"max_episode_steps": 25, "frame_skip": 4}, 25),
        ({"max_episode_steps": 10, "max_noops": 3}, 10),
        ({"env_kwargs": {"max_episode_steps": 25}}, 25),
        ({"frame_skip": 4}, 3),
    ],
)
def test_the_number_of_agent_steps_that_was_asked_for_holds(endless, options, length):
    assert longest(GymEnv("Endless-v0", num_envs=2, **options)) == length


def test_two_requests_are_refused(endless):
    with pytest.raises(ConfigError, match="one max_episode_steps, got both"):
        GymEnv("Endless-v0", max_episode_steps=5, env_kwargs={"max_episode_steps": 5})


@pytest.mark.parametrize("options", [{"max_episode_steps": 11}, {"max_episode_steps": 4, "frame_skip": 4}])
def test_an_environment_that_is_given_keeps_its_limit_and_more_is_refused(endless, options):
    with pytest.raises(ConfigError, match=r"TimeLimit: expected max_steps of at most (10|3), after which"):
        GymEnv(gymnasium.make("Endless-v0"), **options)
    assert longest(GymEnv(gymnasium.make("Endless-v0"), max_episode_steps=3, frame_skip=4)) == 3


def test_every_way_to_ask_is_held_against_the_limit(endless):
    more = partial(TimeLimit, max_steps=11)
    for build in (
        lambda: GymEnv("Endless-v0", wrappers=[more]),
        lambda: SerialEnv(lambda: more(gym_simulator("Endless-v0")), 2),
        lambda: SerialEnv(lambda: more(gymnasium.make("Endless-v0")), 2),
        lambda: more(TimeLimit(CountingSimulator(), 10)),
        lambda: more(NoopReset(TimeLimit(CountingSimulator(), 13), 3)),
        lambda: more(Counter(batch_size=(), max_episode_steps=10).as_simulator()),
        lambda: ToyEnv("Matching", max_episode_steps=17),
    ):
        with pytest.raises(ConfigError, match="TimeLimit: expected max_steps of at most 1[06]"):
            build()
    assert longest(ToyEnv("Matching", max_episode_steps=5)) == 5


def test_limits_count_in_the_steps_of_each_wrapper(endless):
    world = gymnasium.make("Endless-v0")
    assert step_limit_of(world) == 10 and step_limit_of(GymSimulator(world)) == 10
    assert step_limit_of(FrameSkip(world, 3)) == 4 and step_limit_of(NoopReset(FrameSkip(world, 3), 1)) == 3
    assert step_limit_of(CountingSimulator()) == float("inf")


@pytest.mark.parametrize("options", [{"frame_skip": 4}, {"max_episode_steps": 11}])
def test_an_atari_simulator_has_its_own_skip_and_limit(endless, options):
    with pytest.raises(ConfigError, match="4 around 4 of its own|at most 10"):
        GymEnv("Console-v0", **options)
    own = {"frameskip": 1, "max_num_frames_per_episode": 400}
    GymEnv("Console-v0", env_kwargs=own, frame_skip=4, max_episode_steps=100)


def in_a_chain(max_steps):
    return Compose(StepCounter("other"), StepCounter(max_steps=max_steps))


@pytest.mark.parametrize("transform", [StepCounter, in_a_chain])
def test_a_transform_that_asks_for_more_is_refused(endless, transform):
    sync = gymnasium.vector.SyncVectorEnv([partial(gymnasium.make, "Endless-v0")])
    for env in (
        GymEnv("Endless-v0", num_envs=2),
        TransformedEnv(GymEnv("Endless-v0", num_envs=2), StepCounter("seen")),
        Counter(max_episode_steps=10),
        GymVectorEnv(sync),
    ):
        with pytest.raises(ConfigError, match="StepCounter: expected max_steps of at most 10"):
            TransformedEnv(env, transform(max_steps=11))
    TransformedEnv(GymEnv("Endless-v0", max_episode_steps=11), transform(max_steps=11))


def test_processes_tell_their_limit(leaves_nothing):
    env = ParallelEnv(lambda: TimeLimit(CountingSimulator(99), 10), 2, num_workers=1)
    try:
        with pytest.raises(ConfigError, match="StepCounter: expected max_steps of at most 10"):
            TransformedEnv(env, StepCounter(max_steps=11))
    finally:
        env.close()


def test_a_simulator_that_truncates_without_having_told_is_warned_of_once():
    env = SerialEnv(lambda: TimeLimit(CountingSimulator([3, 4], ending="truncated"), 9))
    with pytest.warns(UserWarning, match="truncated an episode after 3 steps, not the 9") as caught:
        env.rollout(20)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SerialEnv(lambda: TimeLimit(CountingSimulator(3), 9)).rollout(20)
        SerialEnv(lambda: TimeLimit(CountingSimulator(3, ending="truncated"), 3)).rollout(20)
        SerialEnv(lambda: TimeLimit(RandomTruncation(CountingSimulator(10**9), 5), 9)).rollout(20)


def composed(seconds):
    return types.SimpleNamespace(_time_limit=seconds, control_timestep=lambda: 0.03)


def test_limits_of_dm_control_are_in_steps():
    suite = types.SimpleNamespace(_step_limit=333.33)  # counted until it is reached
    assert dm_step_limit(suite) == 334 and dm_step_limit(types.SimpleNamespace(_env=suite)) == 334
    assert dm_step_limit(composed(10.0)) == 334 and dm_step_limit(composed(float("inf"))) == float("inf")
    assert dm_step_limit(types.SimpleNamespace()) == float("inf")


def test_a_suite_task_goes_on_as_long_as_was_asked_for():
    pytest.importorskip("dm_control")
    assert longest(DMControlEnv("cartpole", "balance", max_episode_steps=1010), 1015) == 1010
    with pytest.raises(ConfigError, match="at most 10,"):
        DMControlEnv("cartpole", "balance", max_episode_steps=11, task_kwargs={"time_limit": 0.1})
