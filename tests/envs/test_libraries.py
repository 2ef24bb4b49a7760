"""Environments by name: batch sizes, specs, wrappers in their order, seeds, and refusals."""

import gymnasium
import numpy as np
import pytest
import torch

from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.envs import DMControlEnv, GymEnv
from torchrl.errors import ConfigError, EnvError


def steps(env, num_steps, seed):
    env.set_seed(seed)
    return env.rollout(num_steps)


def test_batch_sizes_and_specs():
    one, eight = GymEnv("CartPole-v1"), GymEnv("CartPole-v1", num_envs=8)
    assert one.batch_size == () and eight.batch_size == (8,)
    assert one.observation_spec["observation"].shape == (4,)
    assert eight.observation_spec["observation"].shape == (8, 4)
    assert isinstance(eight.action_spec, Categorical) and eight.action_spec.shape == (8,)
    assert isinstance(GymEnv("Pendulum-v1").action_spec, Bounded)


def test_transitions_are_those_of_gymnasium():
    ours = GymEnv("CartPole-v1")
    theirs = gymnasium.make("CartPole-v1")
    root = ours.reset(seed=[7])
    observation, _ = theirs.reset(seed=7)
    for action in [0, 1, 1, 0, 1] * 8:
        assert np.allclose(root["observation"], observation)
        transition, root = ours.step_and_reset(root.set("action", torch.tensor(action)))
        observation, reward, terminated, truncated, _ = theirs.step(action)
        assert np.allclose(transition["next", "observation"], observation)
        assert transition["next", "reward"].item() == reward
        assert transition["next", "terminated"].item() == terminated
        assert transition["next", "truncated"].item() == truncated
        if terminated or truncated:
            observation, _ = theirs.reset()


def test_a_seed_repeats_a_run_and_slots_differ():
    env = GymEnv("CartPole-v1", num_envs=3)
    first, second, other = steps(env, 40, 0), steps(env, 40, 0), steps(env, 40, 1)
    assert (first == second).all()
    assert not torch.equal(first["observation"], other["observation"])
    assert not torch.equal(first["observation"][0], first["observation"][1])


def test_a_slots_stream_does_not_depend_on_how_many_there_are():
    def starts(num_envs):
        return GymEnv("CartPole-v1", num_envs=num_envs).reset(seed=5)["observation"]

    assert torch.equal(starts(2), starts(5)[:2])


def test_a_given_env_is_wrapped():
    env = GymEnv(gymnasium.make("Pendulum-v1"), max_episode_steps=3)
    assert env.rollout(3)["next", "truncated"].squeeze(-1).tolist() == [False, False, True]
    with pytest.raises(ConfigError, match="num_envs=None"):
        GymEnv(gymnasium.make("Pendulum-v1"), num_envs=2)


def test_frame_skip_sums_rewards_and_the_time_limit_counts_agent_steps():
    def returns(frame_skip, num_steps):
        env = GymEnv("Pendulum-v1", frame_skip=frame_skip, max_episode_steps=num_steps)
        root, total = env.reset(seed=[3]), 0.0
        for _ in range(num_steps):
            transition, root = env.step_and_reset(root.set("action", torch.zeros(1)))
            total += transition["next", "reward"].item()
        return total, transition["next", "episode_length"].item(), transition["next", "truncated"].item()

    skipped, plain = returns(4, 5), returns(1, 20)
    assert skipped[0] == pytest.approx(plain[0], rel=1e-5)
    assert skipped[1:] == (5, True) and plain[1:] == (20, True)


def test_noops_delay_the_start():
    env = GymEnv("CartPole-v1", max_noops=5)
    assert env.reset(seed=[0])["episode_length"].item() == 0
    assert not torch.equal(env.reset(seed=[0])["observation"], GymEnv("CartPole-v1").reset(seed=[0])["observation"])


def test_unknown_names_name_the_nearest():
    with pytest.raises(EnvError, match="CartPole-v1"):
        GymEnv("CartPol-v1")


class TestDMControl:
    @pytest.fixture(autouse=True)
    def _needs_dm_control(self):
        pytest.importorskip("dm_control")

    def test_every_observation_keeps_its_key_and_is_float32(self):
        env = DMControlEnv("humanoid", "walk", num_envs=2)
        assert isinstance(env.observation_spec, Composite)
        root = env.reset()
        assert set(env.observation_spec.keys()) >= {"joint_angles", "head_height", "velocity"}
        for key, spec in env.observation_spec.items():
            assert root[key].dtype is torch.float32 and root[key].shape == spec.shape
        assert env.action_spec.low.min() == -1 and env.action_spec.high.max() == 1

    def test_the_suites_time_limit_truncates(self):
        env = DMControlEnv("cheetah", "run", task_kwargs={"time_limit": 0.1})
        batch = env.rollout(200, stop_when_done=True)
        last = batch["next"][-1]
        assert last["truncated"].item() and not last["terminated"].item()

    def test_seeds_repeat_and_the_environment_is_kept(self):
        env = DMControlEnv("cheetah", "run", num_envs=2)
        simulators = env.simulators
        first, second = steps(env, 5, 0), steps(env, 5, 0)
        assert (first == second).all() and env.simulators is simulators
        assert not torch.equal(first["position"][0], first["position"][1])

    def test_unknown_names_name_the_nearest(self):
        with pytest.raises(EnvError, match="walk"):
            DMControlEnv("humanoid", "wlk")
        with pytest.raises(ConfigError, match="num_envs=None"):
            from dm_control import suite

            DMControlEnv(suite.load("cheetah", "run"), num_envs=2)
