"""Atari games by flags: what is seen, what is learned from, and that an evaluation plays whole games."""

import numpy as np
import pytest
import torch

from cases.examples import settings_of
from torchrl.data.specs import Bounded
from torchrl.envs.simulators import atari_simulator
from torchrl.errors import ConfigError
from torchrl.recipes.atari import frame_skip_of, max_noops_of
from torchrl.recipes.sense import remarks
from torchrl.seeding import child_seeds

pytest.importorskip("ale_py")
pytest.importorskip("cv2")

BREAKOUT = ["--atari", "--env_name=BreakoutNoFrameskip-v4"]


@pytest.mark.parametrize(
    ("flags", "skip", "noops"),
    [
        ([], 1, 0),
        (["--atari"], 4, 30),
        (["--atari", "--frame_skip=3", "--max_noops=0"], 3, 0),
        (["--max_noops=7"], 1, 7),
    ],
)
def test_frames_are_repeated_and_starts_differ_by_default_in_atari_games_alone(flags, skip, noops):
    environment = settings_of("ppo", *flags).environment
    assert (frame_skip_of(environment), max_noops_of(environment)) == (skip, noops)


def test_the_observation_is_a_stack_of_small_grey_pictures(make_env):
    assert make_env(*BREAKOUT).observation_spec["observation"] == Bounded(0, 255, (2, 4, 84, 84), torch.uint8)
    flags = ["--image_size=40", "--no-grayscale", "--frame_stack=2"]
    assert make_env(*BREAKOUT, *flags).observation_spec["observation"].shape == (2, 6, 40, 40)


def test_flags_reach_the_game(make_env):
    flags = ["--max_noops=0", "--frame_skip=2", "--no-fire_reset", "--env_kwargs", "repeat_action_probability=0.5"]
    env = make_env(*BREAKOUT, *flags, num_envs=1, training=False)
    ours = atari_simulator(
        "BreakoutNoFrameskip-v4",
        max_noops=0,
        frame_skip=2,
        fire_reset=False,
        env_kwargs={"repeat_action_probability": 0.5},
    )
    env.set_seed(3)
    root = env.reset()
    ours.reset(seed=child_seeds(3, 1)[0])
    for action in (1, 2, 3, 2) * 6:
        root = env.step_and_reset(root.set("action", torch.tensor([action])))[1]
        assert np.array_equal(root["observation"][0, -1].numpy(), ours.step(action)[0])


@pytest.mark.parametrize("training", [True, False])
def test_training_ends_episodes_at_lives_and_learns_from_signs_and_evaluation_plays_whole_games(training, make_env):
    env = make_env("--atari", "--env_name=SeaquestNoFrameskip-v4", num_envs=1, training=training)
    env.set_seed(0)
    root, generator, rewards, lives = env.reset(), torch.Generator().manual_seed(0), set(), 0
    returns = 0.0
    while not lives:
        root["action"] = torch.randint(18, (1,), generator=generator)
        now, root = env.step_and_reset(root)
        rewards.add(now["next", "reward"].item())
        returns += now["next", "reward"].item()
        lives += now["next", "terminated"].item()
    assert rewards <= ({0.0, 1.0} if training else {0.0, 20.0})
    assert len(rewards) == 2
    raw = now["next", "episode_return"].item()
    assert raw == (20 * returns if training else returns)


@pytest.mark.parametrize("flag", ["--no-episodic_life", "--no-fire_reset", "--no-sign_rewards"])
def test_what_has_no_effect_without_atari_is_named(flag):
    name = flag.removeprefix("--no-")
    assert any(name in line for line in remarks(settings_of("ppo", flag), [flag]))
    assert not any(name in line for line in remarks(settings_of("ppo", *BREAKOUT, flag), [flag]))


def test_a_game_that_is_played_as_it_is_is_named():
    def is_said(*flags):
        line = "ALE/Pong-v5 is played as it is: --atari plays it by the rules of the field"
        return line in remarks(settings_of("ppo", "--env_name=ALE/Pong-v5", *flags), [])

    assert is_said() and not is_said("--atari") and not is_said("--env_library=toy")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env_library=toy", "--env_name=Matching"], "--env_library: expected gym or ale with --atari"),
        (["--env_library=native", "--env_name=CartPole"], "--atari: expected none for native"),
        (["--from_pixels"], "--from_pixels: expected none with --atari, whose only observation is a picture"),
        (["--leave_out", "observation"], "--leave_out: expected none with --atari"),
        (["--env_task=run"], "--env_task: expected none for gym"),
        (["--env_library=ale", "--no-atari"], "--env_library=ale: expected --atari with it"),
        (["--env_library=ale", "--env_workers=2"], "--env_workers: expected none with --env_library=ale"),
        (["--env_library=ale", "--from_pixels"], "--from_pixels: expected none with --atari"),
    ],
)
def test_what_does_not_fit_is_refused(flags, message, make_env):
    with pytest.raises(ConfigError, match=message):
        make_env(*BREAKOUT, *flags)


def test_an_evaluation_of_games_in_threads_plays_simulators(make_env):
    env = make_env(*BREAKOUT, "--env_library=ale", num_envs=1, training=False)
    assert "ALEEnv" not in repr(env) and "SerialEnv" in repr(env)


def test_games_in_threads_have_the_pictures_and_rewards_of_games_in_turn(make_env):
    flags = ["--atari", "--env_name=SpaceInvadersNoFrameskip-v4", "--max_noops=0", "--max_episode_steps=200"]
    flags.append("--no-fire_reset")  # FIRE is one frame there, a whole step here
    steps = []
    for library in ("gym", "ale"):
        env = make_env(*flags, f"--env_library={library}", num_envs=1, training=True)
        root, generator = env.reset(seed=[3]), torch.Generator().manual_seed(0)
        for _ in range(60):
            now, root = env.step_and_reset(root.set("action", torch.randint(6, (1,), generator=generator)))
        steps.append(now.clone())
        assert env.step_limit == 200
    one, other = steps
    assert torch.equal(one["observation"], other["observation"])
    assert torch.equal(one["next", "episode_return"], other["next", "episode_return"])


def test_a_film_shows_the_game_itself():
    env = settings_of("ppo", *BREAKOUT, "--env_library=ale").make_env(num_envs=1, training=False, filmed=True)
    assert env.observation_spec["film"].shape == (1, 210, 160, 3)
    assert env.observation_spec["observation"].shape == (1, 4, 84, 84)
    env.close()
