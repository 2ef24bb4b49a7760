"""Native envs by flags: built as one batch, collected in processes, and what is refused."""

import pytest

from cases.examples import settings_of
from torchrl.envs import RepeatPrevious, TMaze, TransformedEnv
from torchrl.errors import ConfigError, EnvError

MAZE = ["--env_library=native", "--env_name=TMaze"]


def test_flags_build_it_as_one_batch(make_env):
    env = make_env(*MAZE, "--env_kwargs", "length=7", "--max_episode_steps=30", num_envs=5)
    assert type(env) is TMaze and env.batch_size == (5,) and (env.length, env.step_limit) == (7, 30)
    flags = ["--env_library=native", "--env_name=NarrowPath", "--env_kwargs", "length=4", "num_actions=3"]
    assert make_env(*flags).path.tolist() == [0, 1, 2, 0]
    flags = ["--env_library=native", "--env_name=RepeatPrevious", "--env_kwargs", "delay=2", "num_symbols=3"]
    env = make_env(*flags, "--frame_stack=3", training=False)
    assert isinstance(env, TransformedEnv) and type(env.env) is RepeatPrevious
    assert env.observation_spec["observation"].shape == (2, 9)


def test_velocities_of_native_envs_are_hidden(make_env):
    env = make_env("--env_library=native", "--env_name=CartPole", "--mask_velocity")
    assert env.reset()["observation"].shape == (2, 2)


@pytest.mark.usefixtures("leaves_nothing")
def test_processes_collect_in_their_own_batches(make_agent):
    flags = ["--num_envs=4", "--num_workers=2", "--frames_per_batch=16", "--num_cells", "8", "--no-progress_bar"]
    batch = make_agent("ppo", *MAZE, *flags).collector.collect()
    assert batch.shape == (4, 4) and len({tuple(row) for row in batch["action"].tolist()}) > 1


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (
            ["--env_workers=2"],
            ConfigError,
            "--env_workers: expected none for native, whose rows are one batch.*2",
        ),
        (["--frame_skip=2"], ConfigError, "--frame_skip: expected none for native"),
        (["--max_noops=2"], ConfigError, "--max_noops: expected none for native"),
        (["--init_with_lag=9"], ConfigError, "--init_with_lag: expected none for native"),
        (["--env_task=run"], ConfigError, "--env_task: expected none for native"),
        (["--from_pixels"], ConfigError, "--from_pixels: expected none for native"),
        (["--leave_out", "observation"], ConfigError, "--leave_out: expected none for native"),
        (["--env_kwargs", "lenght=3"], ConfigError, "TMaze: expected some of length, .*Did you mean 'length'"),
        (["--mask_velocity"], ConfigError, "--mask_velocity: expected a vector of one of"),
        (["--env_name=TMase"], EnvError, 'Did you mean "TMaze"'),
    ],
)
def test_what_is_done_with_simulators_is_refused(flags, error, message, make_env):
    with pytest.raises(error, match=message):
        make_env(*MAZE, *flags)


def test_it_draws_no_pictures_for_a_film():
    with pytest.raises(ConfigError, match="--record_video: expected an environment that draws pictures, got native"):
        settings_of("ppo", *MAZE).make_env(num_envs=1, training=False, filmed=True)
