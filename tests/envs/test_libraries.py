"""Environments by name: batch sizes, specs, wrappers in their order, seeds, and refusals."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from fakes import CountingEnv
from torchrl.data.specs import Bounded, Categorical, Composite, MultiCategorical, Unbounded
from torchrl.envs import Compose, DMControlEnv, GymEnv, SerialEnv, ToyEnv, TransformedEnv, check_env
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


def test_a_seed_repeats_a_run_and_rows_differ():
    env = GymEnv("CartPole-v1", num_envs=3)
    first, second, other = steps(env, 40, 0), steps(env, 40, 0), steps(env, 40, 1)
    assert (first == second).all()
    assert not torch.equal(first["observation"], other["observation"])
    assert not torch.equal(first["observation"][0], first["observation"][1])


def test_a_rows_stream_does_not_depend_on_how_many_there_are():
    def starts(num_envs):
        return GymEnv("CartPole-v1", num_envs=num_envs).reset(seed=5)["observation"]

    assert torch.equal(starts(2), starts(5)[:2])


def test_a_given_env_is_wrapped():
    env = GymEnv(gymnasium.make("Pendulum-v1"), max_episode_steps=3)
    assert env.rollout(3)["next", "truncated"].squeeze(-1).tolist() == [False, False, True]
    with pytest.raises(ConfigError, match="num_envs=None"):
        GymEnv(gymnasium.make("Pendulum-v1"), num_envs=2)


@pytest.mark.parametrize("num_envs", [None, 2])
def test_observations_may_be_a_tuple(num_envs):
    env = GymEnv("Blackjack-v1", num_envs=num_envs)
    assert env.observation_spec == Composite(
        {
            "0": Categorical(32, env.batch_size),
            "1": Categorical(11, env.batch_size),
            "2": Categorical(2, env.batch_size),
        },
        env.batch_size,
    )
    check_env(env, num_steps=40)


def test_noops_delay_the_start():
    env = GymEnv("CartPole-v1", max_noops=5)
    assert env.reset(seed=[0])["episode_length"].item() == 0
    assert not torch.equal(env.reset(seed=[0])["observation"], GymEnv("CartPole-v1").reset(seed=[0])["observation"])


class TestInfo:
    """HalfCheetah leaves its own position out of the observation and tells it in ``info``."""

    keys = {"x_position": spaces.Box(-np.inf, np.inf, ()), "x_velocity": spaces.Box(-np.inf, np.inf, (), np.float64)}

    @pytest.fixture(autouse=True)
    def _needs_mujoco(self):
        pytest.importorskip("mujoco")

    def test_entries_of_info_are_observed(self):
        env = GymEnv("HalfCheetah-v5", num_envs=2, info_keys=self.keys, info_defaults={"x_velocity": 0.0})
        assert env.observation_spec["x_position"] == Unbounded([2]) == env.observation_spec["x_velocity"]
        batch = steps(env, 5, 0)
        assert batch["x_velocity"][:, 0].tolist() == [0, 0]
        moved = batch["next", "x_position"] - batch["x_position"]
        assert torch.allclose(moved, 0.05 * batch["next", "x_velocity"], atol=1e-5)
        plain = steps(GymEnv("HalfCheetah-v5", num_envs=2), 5, 0)
        assert torch.equal(batch["next", "observation"], plain["next", "observation"])

    def test_a_missing_entry_is_an_error(self):
        env = GymEnv("HalfCheetah-v5", info_keys=self.keys)
        with pytest.raises(EnvError, match="'x_velocity'.*info_defaults"):
            env.reset()

    def test_a_mask_of_legal_actions_can_be_observed(self):
        mask = spaces.Box(0, 1, (6,), np.bool_)
        env = GymEnv("Taxi-v4", num_envs=3, info_keys={"action_mask": mask}, max_episode_steps=20)
        env.action_mask_key = "action_mask"
        env.set_seed(0)
        batch = env.rollout(100)
        assert batch["action_mask"].dtype is torch.bool and not batch["action_mask"].all()
        assert batch["action_mask"].gather(-1, batch["action"].unsqueeze(-1)).all()
        check_env(env, num_steps=40)


class TestPixels:
    @pytest.fixture(autouse=True)
    def _needs_pygame(self):
        pytest.importorskip("pygame")  # gymnasium draws classic control with it

    @pytest.mark.parametrize("num_envs", [None, 2])
    def test_pictures_are_observed_and_drawn_on_request(self, num_envs):
        env = GymEnv("CartPole-v1", num_envs=num_envs, from_pixels=True)
        shape = (*env.batch_size, 400, 600, 3)
        assert list(env.observation_spec.keys()) == ["pixels"]
        assert env.observation_spec["pixels"] == Bounded(0, 255, shape, torch.uint8)
        first = root = env.reset(seed=0)
        assert torch.equal(env.render(), first["pixels"])
        for _ in range(6):
            transition, root = env.step_and_reset(root.set("action", torch.ones(env.batch_size, dtype=torch.int64)))
        assert torch.equal(env.render(), transition["next", "pixels"])
        assert not torch.equal(first["pixels"], transition["next", "pixels"])

    def test_beside_the_observation_they_change_nothing(self):
        both = GymEnv("CartPole-v1", from_pixels=True, pixels_only=False, pixels_key="camera", frame_skip=2)
        plain = GymEnv("CartPole-v1", frame_skip=2)
        first, second = steps(both, 12, 4), steps(plain, 12, 4)
        assert torch.equal(first["next", "observation"], second["next", "observation"])
        assert first["next", "camera"].shape == (12, 400, 600, 3)

    def test_the_contract_is_kept(self):
        check_env(GymEnv("CartPole-v1", from_pixels=True, pixels_only=False, max_episode_steps=3), num_steps=8)

    def test_an_env_that_was_made_to_return_pictures_can_be_given(self):
        env = GymEnv(gymnasium.make("Pendulum-v1", render_mode="rgb_array"), from_pixels=True)
        assert env.reset()["pixels"].shape == (500, 500, 3)
        with pytest.raises(EnvError, match="rgb_array"), pytest.warns(UserWarning, match="render mode"):
            GymEnv(gymnasium.make("Pendulum-v1"), from_pixels=True)

    def test_a_transformed_env_is_drawn_too(self):
        env = TransformedEnv(GymEnv("CartPole-v1", env_kwargs={"render_mode": "rgb_array"}), Compose())
        env.reset()
        assert env.render().shape == (400, 600, 3)

    def test_pictures_of_different_sizes_are_refused(self):
        class Wide(CountingEnv):
            def render(self):
                return np.zeros((2, 4, 3), np.uint8)

        with pytest.raises(EnvError, match=r"uint8 \[2, 3, 3\], of every row, got uint8 \[2, 4, 3\] in row 1"):
            SerialEnv([CountingEnv, Wide]).render()


def test_a_simulator_is_closed_if_a_wrapper_fails():
    closed = []

    class Closing(CountingEnv):
        def close(self):
            closed.append(self)

    env = Closing(form="dict")
    with pytest.raises(ConfigError, match="names other than"):
        GymEnv(env, info_keys={"episode": spaces.Discrete(2)})
    assert closed == [env]


class TestToys:
    @pytest.mark.parametrize("num_envs", [None, 3])
    def test_matching_is_several_choices_at_once(self, num_envs):
        env = ToyEnv("Matching", num_envs=num_envs)
        assert env.action_spec == MultiCategorical([3, 4, 2], (*env.batch_size, 3))
        assert env.observation_spec["observation"].shape == (*env.batch_size, 9)
        check_env(env, num_steps=40)


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


def test_a_wrong_argument_is_refused_by_the_name_of_the_env():
    for make, message in (
        (lambda: GymEnv("CartPole-v1", foo=3), r"^GymEnv\(\) got an unexpected keyword argument 'foo'"),
        (lambda: GymEnv(), r"^GymEnv\(\) missing a required argument: 'name_or_env'"),
        (lambda: DMControlEnv("cartpole", "balance", 3), r"^DMControlEnv\(\) too many positional arguments"),
    ):
        with pytest.raises(TypeError, match=message):
            make()
