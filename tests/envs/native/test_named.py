"""Native envs by their names."""

import pytest

from torchrl.envs import TMaze, native_env
from torchrl.errors import ConfigError, EnvError


def test_a_name_and_options_build_it():
    env = native_env("TMaze", (2, 3), length=7, max_episode_steps=30)
    assert type(env) is TMaze and env.batch_size == (2, 3) and (env.length, env.step_limit) == (7, 30)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "tmaze",
            {},
            EnvError,
            "one of Acrobot, .*, got 'tmaze'. Did you mean \"TMaze\"",
        ),
        ("TMaze", {"lenght": 3}, ConfigError, "TMaze: expected some of length, .*got 'lenght'. Did you mean 'length'"),
        ("TMaze", {"length": 0}, ConfigError, "length of at least 1"),
    ],
)
def test_other_names_and_options_are_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        native_env(name, 2, **options)
