"""Every wrapper of gymnasium.wrappers around one simulator does here what it does there."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces, wrappers

from fakes import Painter
from torchrl.envs import GymEnv, SerialEnv
from torchrl.envs.simulators import FrameSkip, TimeLimit, gym_simulator
from torchrl.envs.transforms import VecNorm
from torchrl.errors import ConfigError, EnvError

pytestmark = pytest.mark.usefixtures("stand_ins_of_wrappers")


def half(value):
    return value / 2


# By name: the form of what is observed, and the arguments.
WORKS = {
    "DelayObservation": ("box", {"delay": 1}),
    "DtypeObservation": ("box", {"dtype": np.float64}),
    "DiscretizeObservation": ("box", {"bins": 5}),
    "FilterObservation": ("dict", {"filter_keys": ["box"]}),
    "FlattenObservation": ("dict", {}),
    "FrameStackObservation": ("box", {"stack_size": 2}),
    "GrayscaleObservation": ("picture", {}),
    "TransformObservation": ("box", {"func": half, "observation_space": Painter.box}),
    "MaxAndSkipObservation": ("box", {"skip": 2}),
    "NormalizeObservation": ("box", {}),
    "AddRenderObservation": ("box", {"render_only": False}),
    "ResizeObservation": ("picture", {"shape": (2, 2)}),
    "ReshapeObservation": ("box", {"shape": (2, 2)}),
    "RescaleObservation": ("box", {"min_obs": np.float32(-1), "max_obs": np.float32(1)}),
    "TimeAwareObservation": ("box", {}),
    "ClipAction": ("box", {}),
    "DiscretizeAction": ("box", {"bins": 3}),
    "TransformAction": ("box", {"func": half, "action_space": Painter.action_space}),
    "RescaleAction": ("box", {"min_action": np.float32(-1), "max_action": np.float32(1)}),
    "StickyAction": ("box", {"repeat_action_probability": 0.0}),
    "RepeatAction": ("box", {"num_repeats": 2}),
    "ClipReward": ("box", {"min_reward": 1.5, "max_reward": 2.5}),
    "TransformReward": ("box", {"func": half}),
    "NormalizeReward": ("box", {}),
    "TimeLimit": ("box", {"max_episode_steps": 3}),
    "Autoreset": ("box", {}),
    "PassiveEnvChecker": ("box", {}),
    "OrderEnforcing": ("box", {}),
    "RecordEpisodeStatistics": ("box", {}),
    "AddWhiteNoise": ("box", {"probability_of_noise_per_pixel": 0.1}),
    "ObstructView": ("box", {"obstructed_pixels_ratio": 0.1, "obstruction_width": 1}),
    "RenderCollection": ("box", {}),
    "RecordVideo": ("box", {"video_folder": "films", "episode_trigger": lambda episode: False}),
    "HumanRendering": ("box", {}),
}
# What needs a library that is not there: the arcade's, arrays of jax or torch.
ELSEWHERE = {"AtariPreprocessing", "ArrayConversion", "JaxToNumpy", "JaxToTorch", "NumpyToTorch"}
LENGTH = 4


def test_every_wrapper_of_gymnasium_is_in_a_list():
    assert WORKS.keys() | ELSEWHERE | {"vector"} == set(wrappers.__all__)


def played(world):
    """Step a wrapped simulator by hand, through the end of an episode; return what came."""
    world.action_space.seed(0)
    observation, _ = world.reset(seed=0)
    seen, rewards, actions = [observation], [], []
    for _ in range(2 * LENGTH):
        action = world.action_space.sample()
        observation, reward, terminated, truncated, _ = world.step(action)
        rewards.append(reward)
        actions.append(action)
        seen.append(observation)
        if terminated or truncated:
            break
    return seen, rewards, actions


def timed(wrap, world):
    return wrap(wrappers.TimeLimit(world, 2 * LENGTH))


@pytest.mark.parametrize("is_driven", [False, True], ids=["alone", "around ours"])
@pytest.mark.parametrize("name", WORKS)
def test_a_wrapper_does_what_it_does_in_gymnasium(name, is_driven, tmp_path, monkeypatch):
    """``is_driven``: between the wrapper and the simulator lies a simulator wrapper of ours, which changes nothing."""
    monkeypatch.chdir(tmp_path)
    form, options = WORKS[name]
    wrap = partial(getattr(wrappers, name), **options)
    if name == "TimeAwareObservation":  # it asks for one
        wrap = partial(timed, wrap)
    around = [partial(FrameSkip, num_frames=1)] if is_driven else []
    seen, rewards, actions = played(wrap(Painter(LENGTH, form, render_mode="rgb_array")))
    env = GymEnv(Painter(LENGTH, form, render_mode="rgb_array"), wrappers=[*around, wrap])
    root = env.reset(seed=[0])
    for at, action in enumerate(actions):
        transition, root = env.step_and_reset(root.set("action", torch.as_tensor(action)))
        outcome = transition["next"]
        assert outcome["reward"].item() == pytest.approx(float(rewards[at]))
        theirs = seen[at + 1] if isinstance(seen[at + 1], dict) else {"observation": seen[at + 1]}
        assert theirs.keys() == set(env.observation_spec.keys())
        for key, value in theirs.items():
            mine = outcome[key].numpy()
            assert np.array_equal(mine, np.asarray(value, mine.dtype)), key
    assert outcome["done"].item() and len(actions) < 2 * LENGTH


def test_wrappers_of_both_kinds_alternate_and_states_go_on():
    around = [partial(wrappers.FrameStackObservation, stack_size=2), partial(FrameSkip, num_frames=2)]
    around += [partial(wrappers.RepeatAction, num_repeats=2)]
    make = partial(gym_simulator, "CartPole-v1", wrappers=around)
    env, other = SerialEnv(make, 2), SerialEnv(make, 2)
    assert env.observation_spec["observation"].shape == (2, 2, 4)
    root = env.reset(seed=1)
    step = torch.ones(2, dtype=torch.int64)
    num_ended = 0
    for _ in range(12):
        twin = other.load_state_dict(env.state_dict())
        mine, root = env.step_and_reset(root.set("action", step))
        theirs, _ = other.step_and_reset(twin.set("action", step))
        assert torch.equal(mine["next", "observation"], theirs["next", "observation"])
        num_ended += int(mine["next", "done"].sum())
    assert mine["next", "reward"].max() <= 4 and num_ended > 2


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (wrappers.FlattenObservation, ConfigError, r"wrappers: expected a list, .*Write wrappers=\[...\]"),
        ([wrappers.Autoreset(Painter(2))], ConfigError, r"wrappers\[0\]: .*the class, or partial\(Wrapper"),
        ([partial(wrappers.vector.ClipReward)], ConfigError, "That of one simulator is gymnasium.wrappers.ClipReward"),
        ([VecNorm()], ConfigError, r"It is a transform, which wraps the batch: TransformedEnv\(GymEnv"),
        ([VecNorm], ConfigError, "It is a transform"),
        ([partial(FrameSkip, num_frames=1), lambda world: None], EnvError, r"wrappers\[1\]: .*which returned None"),
    ],
)
def test_what_is_no_wrapper_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        GymEnv("CartPole-v1", wrappers=given)


def test_what_a_wrapper_raises_says_which_it_was():
    with pytest.raises(TypeError) as caught:
        GymEnv("CartPole-v1", wrappers=[partial(FrameSkip, num_frames=1), wrappers.FrameStackObservation])
    assert "Raised by wrappers[1] around a FrameSkip." in caught.value.__notes__


def test_every_simulator_is_an_environment_of_gymnasium():
    simulator = gym_simulator("CartPole-v1", frame_skip=2)
    assert isinstance(simulator, gymnasium.Env) and simulator.spec.id == "CartPole-v1"
    assert type(simulator.unwrapped).__name__ == "CartPoleEnv"
    assert GymEnv(simulator).observation_spec["observation"].shape == (4,)
    assert isinstance(wrappers.FlattenObservation(simulator).action_space, spaces.Discrete)


def test_a_limit_below_a_wrapper_of_gymnasium_is_seen_above_it():
    around = [partial(TimeLimit, max_steps=5), wrappers.FlattenObservation]
    assert gym_simulator("CartPole-v1", wrappers=around).step_limit() == 5
    with pytest.raises(ConfigError, match="TimeLimit"):
        gym_simulator("CartPole-v1", wrappers=[*around, partial(TimeLimit, max_steps=7)])
