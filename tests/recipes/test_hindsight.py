"""Hindsight by flags: whole episodes, with goals that they reached, in a vector that joins goals and the rest."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from torchrl.errors import ConfigError

ID = "TorchrlTest/Line-v0"
FLAGS = [f"--env_name={ID}", "--hindsight_goals=2", "--num_envs=1", "--num_cells", "8", "8", "--total_frames=24"]
FLAGS += ["--frames_per_batch=1", "--batch_size=4", "--init_random_frames=0", "--start_frames=4"]


class Line(gymnasium.Env):
    """Walk one step to the right at a time, for three steps; the goal is at 7. Its reward is 0 there, else -1."""

    point = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    observation_space = spaces.Dict(achieved_goal=point, desired_goal=point, observation=spaces.Box(-1, 9, (2,)))
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0.0
        return self._seen(), {}

    def step(self, action):
        self.place += 1
        seen = self._seen()
        reward = self.compute_reward(seen["achieved_goal"], seen["desired_goal"], {})
        return seen, float(reward), False, False, {}

    def compute_reward(self, achieved, desired, info):
        return -(np.abs(achieved - desired)[..., 0] > 0.5).astype(np.float64)

    def _seen(self):
        place = np.array([self.place])
        return {"achieved_goal": place, "desired_goal": np.array([7.0]), "observation": np.full(2, 5, np.float32)}


class Ending(Line):
    """Ends as soon as it is at its goal."""

    def compute_terminated(self, achieved, desired, info):
        return bool(abs(achieved - desired) <= 0.5)


class Telling(Line):
    """Tells in every second episode that it succeeded, from its last step on."""

    episode = 0

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        return super().reset(seed=seed)

    def step(self, action):
        seen, reward, terminated, truncated, _ = super().step(action)
        return seen, reward, terminated, truncated, {"is_success": np.float32(self.place == 3 and self.episode % 2)}


@pytest.fixture(autouse=True)
def lines():
    worlds = {ID: Line, "TorchrlTest/Ending-v0": Ending, "TorchrlTest/Telling-v0": Telling}
    for name, world in worlds.items():
        gymnasium.register(name, world, max_episode_steps=3)
    yield
    for name in worlds:
        del gymnasium.registry[name]


@pytest.fixture
def stored(make_agent):
    """Return what lies in the buffer after an episode of three steps by these flags."""

    def run(*flags, num_frames=3):
        agent = make_agent("sac", *FLAGS, f"--total_frames={num_frames}", *flags)
        agent.train()
        return agent.optimise.buffer[:]

    return run


def test_an_episode_is_stored_once_it_ends_with_copies_of_reached_goals(make_agent, stored):
    agent = make_agent("sac", *FLAGS, "--total_frames=2")
    agent.train()
    assert len(agent.optimise.buffer) == 0
    steps = stored()
    assert steps["observation"].shape == (9, 4)
    achieved, goal = steps["observation"][:, 0], steps["observation"][:, 1]
    assert sorted(achieved.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2] and (steps["observation"][:, 2:] == 5).all()
    assert torch.equal(steps["next", "observation"][:, 0], achieved + 1)
    assert torch.equal(steps["next", "observation"][:, 1], goal)
    copied = goal != 7
    assert copied.sum() == 6 and (goal[copied] > achieved[copied]).all() and (goal[copied] <= 3).all()
    reached = goal == achieved + 1
    assert (
        torch.equal(steps["next", "reward"][:, 0], torch.where(reached, 0.0, -1.0))
        and reached[achieved == 2].sum() == 2
    )


def test_the_goal_of_the_last_step(stored):
    steps = stored("--hindsight_goals=1", "--hindsight_strategy=final")
    assert sorted(steps["observation"][:, 1].tolist()) == [3, 3, 3, 7, 7, 7]


def test_a_copy_ends_where_the_simulator_says_that_it_is_over(stored):
    steps = stored("--env_name=TorchrlTest/Ending-v0")
    reached = steps["next", "observation"][:, 0] == steps["next", "observation"][:, 1]
    assert torch.equal(steps["next", "terminated"][:, 0], reached) and reached.any()


TELLING = ["--env_name=TorchrlTest/Telling-v0", "--success_key=is_success"]


def test_the_share_of_successes_is_logged_of_training_and_evaluation_and_unseen_by_networks(make_agent):
    agent = make_agent("sac", *FLAGS, *TELLING, "--total_frames=12", "--record_interval=12", "--record_episodes=5")
    lines = []
    agent.logger = type("Lines", (), {"log_scalars": lambda self, values, frames: lines.append(dict(values))})()
    agent.train()
    shares = [line["train/success_share"] for line in lines if "train/success_share" in line]
    assert shares == [0.5] and lines[-1]["eval/success_share"] == 1  # the first episode of each of five worlds
    stored = agent.optimise.buffer[:]
    assert stored["observation"].shape == (36, 4) and "is_success" not in stored.keys()
    assert (stored["observation"][:, 2:] == 5).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env_library=toy", "--env_name=Matching"], "--success_key: expected a simulator of gym.*toy"),
        (["--env_library=native", "--env_name=Pendulum"], "--success_key: expected none for native"),
        (["--env_name=ALE/Pong-v5", "--atari"], "--success_key: expected a simulator of gym.*--atari"),
    ],
)
def test_successes_are_told_by_gym_alone(make_agent, flags, message):
    with pytest.raises(ConfigError, match=message):
        make_agent("sac", *FLAGS, *TELLING, "--hindsight_goals=0", *flags)


def test_a_run_trains_and_its_waiting_episode_is_saved(make_agent):
    agent = make_agent("sac", *FLAGS, "--total_frames=8")
    agent.train()
    assert len(agent.optimise.buffer) == 18
    state, other = agent.store.state_dict(), make_agent("sac", *FLAGS)
    other.store.load_state_dict(state)
    assert other.store.state_dict()["waiting"].keys() == state["waiting"].keys() != set()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--multi_step"], "--hindsight_goals: expected --multi_step=False, since sums would mix goals"),
        (["--sub_traj_len=4"], "expected --sub_traj_len=None"),
        (["--memory=gru", "--batch_size=32", "--start_frames=64"], "expected --memory=None"),
        (["--reward_scaling=2"], "expected --reward_scaling=None, since new rewards"),
        (["--env_workers=1"], "expected --env_workers=0"),
        (["--frame_stack=2"], "expected --frame_stack=1"),
        (["--env_name=Pendulum-v1"], "observes 'achieved_goal' and 'desired_goal'.*FetchReach"),
    ],
)
def test_what_does_not_go_with_it_is_refused(make_agent, flags, message):
    with pytest.raises(ConfigError, match=message):
        make_agent("sac", *FLAGS, *flags)


def test_a_simulator_that_tells_no_rewards_is_refused(make_agent, monkeypatch):
    monkeypatch.delattr(Line, "compute_reward")
    with pytest.raises(ConfigError, match="compute_reward.*got Line"):
        make_agent("sac", *FLAGS)


def test_fetch_reach_and_its_own_rewards(stored):
    pytest.importorskip("gymnasium_robotics")
    try:
        steps = stored("--env_name=gymnasium_robotics:FetchReach-v4", num_frames=50)
    except AssertionError:
        pytest.skip("its hands cannot be built with mujoco 3.12 and later")
    far = (steps["next", "observation"][:, :3] - steps["next", "observation"][:, 3:6]).norm(dim=-1) > 0.05
    assert torch.equal(steps["next", "reward"][:, 0], -far.float()) and len(steps) == 150
