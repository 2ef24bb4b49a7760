"""Flags that do not go together: refused, or said to have no effect; and what other libraries call them."""

import pytest

from cases.examples import parser, settings_of
from torchrl.envs import GymEnv
from torchrl.errors import ConfigError
from torchrl.recipes import synonyms
from torchrl.recipes.collectors import num_trained
from torchrl.recipes.sense import remarks, remarks_on_env, require_sense
from torchrl.recipes.synonyms import same_meaning
from torchrl.recipes.value_types import keywords


def said(algorithm, *flags):
    settings = settings_of(algorithm, *flags)
    require_sense(settings, flags)
    return remarks(settings, flags)


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce", "dqn", "td3", "sac"])
def test_defaults_have_their_effect(algorithm):
    frames_per_batch = settings_of(algorithm).collecting.frames_per_batch
    assert said(algorithm, f"--total_frames={20_480 * frames_per_batch}") == []


EARLY = ["--start_frames=10", "--init_random_frames=10"]
WHOLE = "--total_frames=20480"


@pytest.mark.parametrize(
    ("algorithm", "flags", "name", "needs"),
    [
        ("ppo", ["--objective=plain", "--clip_schedule=linear"], "clip_schedule", "--objective=clip"),
        ("ppo", ["--objective=kl_penalty", "--clip_epsilon=0.1"], "clip_epsilon", "--objective=clip"),
        ("ppo", ["--kl_target=0.1"], "kl_target", "--objective=kl_penalty"),
        ("ppo", ["--num_epochs=1", "--target_kl=0.1"], "target_kl", "--num_epochs above 1"),
        ("reinforce", ["--no-baseline", "--critic_coef=0.1"], "critic_coef", "--baseline"),
        ("reinforce", ["--no-baseline", "--loss_function=l1"], "loss_function", "--baseline"),
        ("dqn", ["--prb_alpha=0.1"], "prb_alpha", "--prb"),
        ("dqn", ["--n_steps_return=5"], "n_steps_return", "--multi_step"),
        ("dqn", ["--target_update_interval=9"], "target_update_interval", "--hard_update"),
        ("dqn", ["--hard_update", "--tau=0.1"], "tau", "--no-hard_update"),
        ("dqn", ["--noisy", "--eps_end=0.1"], "eps_end", "--no-noisy"),
        ("dqn", ["--atoms=9"], "atoms", "--distributional or --quantiles"),
        ("dqn", ["--quantiles", "--value_low=-1"], "value_low", "--distributional"),
        ("dqn", ["--quantiles", "--loss_function=l1"], "loss_function", "--no-quantiles"),
        ("td3", ["--ou_theta=0.1", *EARLY], "ou_theta", "--ou_exploration"),
        ("sac", ["--gsde_log_std=-1"], "gsde_log_std", "--gsde"),
        ("reinforce", ["--no-baseline", "--shared_mapping"], "shared_mapping", "--baseline"),
        ("td3", ["--target_noise=0", "--noise_clip=1", *EARLY], "noise_clip", "--target_noise above 0"),
        (
            "td3",
            ["--exploration_type=mean", "--ou_exploration", *EARLY],
            "ou_exploration",
            "--exploration_type=random",
        ),
        ("dqn", ["--exploration_type=deterministic", "--eps_end=0.1"], "eps_end", "--exploration_type=random"),
        (
            "ppo",
            ["--target_return=9", "--record_interval=20480"],
            "target_return",
            "--record_interval below --total_frames",
        ),
        ("sac", ["--no-learn_temperature", "--target_entropy=1"], "target_entropy", "--learn_temperature"),
    ],
)
def test_a_flag_that_does_nothing_beside_another_is_named_with_what_it_needs(algorithm, flags, name, needs):
    assert said(algorithm, WHOLE, *flags) == [f"no effect: --{name}, which needs {needs}"]


def test_what_an_environment_leaves_without_effect_is_named_once_it_is_known():
    choices, forces = GymEnv("CartPole-v1", num_envs=1), GymEnv("Pendulum-v1", num_envs=1)

    def said_on(algorithm, env, *flags):
        return remarks_on_env(settings_of(algorithm, *flags), env)

    lines = [f"no effect: --{name}, which needs pictures" for name in ("image_size", "grayscale")]
    assert said_on("ppo", choices, "--image_size=40", "--no-grayscale") == lines
    assert said_on("ppo", choices, "--init_log_std=-1") == ["no effect: --init_log_std, which needs continuous actions"]
    assert said_on("sac", choices, "--init_std=2") == ["no effect: --init_std, which needs continuous actions"]
    assert said_on("ppo", choices, "--target_kl=0.1", "--num_epochs=1") == []  # which needs more epochs, not an env
    assert said_on("ppo", forces, "--init_log_std=-1") == said_on("sac", choices) == []


def test_runs_too_short_for_an_update_or_a_copy_of_the_targets_are_named():
    flags = ["--total_frames=1024", "--start_frames=512", "--hard_update", "--init_random_frames=0"]
    [line] = said("dqn", *flags, "--updates_per_frame=0.5", "--target_update_interval=257")
    assert line == ("the target networks never move: --target_update_interval=257 is above the 256 updates of this run")
    assert said("dqn", *flags, "--updates_per_frame=0.5", "--target_update_interval=256") == []
    [line] = said("dqn", *flags[:2], "--updates_per_frame=0.001", "--init_random_frames=0")
    assert line == "nothing is learned: --updates_per_frame=0.001 gives no update in this run"


def test_a_distribution_on_one_atom_is_refused_before_anything_is_built():
    with pytest.raises(ConfigError, match="--atoms: expected at least 2 with --distributional, got 1"):
        said("dqn", "--distributional", "--atoms=1")
    said("dqn", "--quantiles", "--atoms=1")


def test_frames_are_rounded_up_to_whole_batches_and_minibatches_down_to_the_batch_and_said_to_be():
    flags = ["--total_frames=512", "--frames_per_batch=2048", "--minibatch_size=4096"]
    small, rounded = said("ppo", *flags)
    assert small.startswith("no effect: --minibatch_size=4,096 above the 2,048 of --frames_per_batch")
    assert rounded == "--total_frames=512 is rounded up to whole batches of 2,048: 2,048 frames"
    assert num_trained(settings_of("ppo", "--total_frames=2049", "--frames_per_batch=2048").collecting) == 4096


def test_what_an_evaluation_does_not_read_is_said_and_a_film_refused():
    flags = ["--evaluate=run", "--num_workers=2", "--eval_episodes=3", "--lr=1", "--no-progress_bar", "--frame_skip=2"]
    assert said("ppo", *flags) == ["no effect on an evaluation: --num_workers", "no effect on an evaluation: --lr"]
    with pytest.raises(ConfigError, match="--record_video: expected a run that trains, got --evaluate"):
        said("ppo", "--evaluate=run", "--record_video")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--batch_size=64", "--buffer_size=32"], ["--batch_size=64 is above the 32 of --buffer_size: items repeat"]),
        (
            ["--total_frames=1000"],
            [
                "nothing is learned: --start_frames=10,000 is not below the 1,000 of --total_frames",
                "the policy never acts: --init_random_frames=10,000 is not below the 1,000 of --total_frames",
            ],
        ),
    ],
)
def test_numbers_with_which_nothing_would_be_learned_are_named(flags, expected):
    assert said("td3", *flags) == expected


@pytest.mark.parametrize(
    ("algorithm", "flag"),
    [
        ("ppo", "--clip_epsilon=20"),
        ("ppo", "--clip_epsilon=1"),
        ("ppo", "--gamma=1.5"),
        ("ppo", "--gae_lambda=-0.1"),
        ("ppo", "--lr=-1"),
        ("ppo", "--entropy_coef=-1"),
        ("ppo", "--name=../x"),
        ("ppo", "--name=/tmp/x"),
        ("ppo", "--name=.."),
        ("ppo", "--loggers=csv,wandbb"),
        ("ppo", "--loggers=csv,"),
        ("ppo", "--wandb_mode=disabled"),
        ("ppo", "--env_kwargs=continuous"),
        ("dqn", "--tau=5"),
        ("dqn", "--tau=0"),
        ("dqn", "--eps_end=2"),
        ("dqn", "--prb_beta=1.1"),
    ],
)
def test_numbers_and_names_that_mean_nothing_are_refused(algorithm, flag):
    with pytest.raises(ConfigError, match=f"command line: {flag.partition('=')[0]}"):
        settings_of(algorithm, flag)


@pytest.mark.parametrize(
    ("algorithm", "theirs", "ours"),
    [
        ("ppo", "env", "env_name"),
        ("ppo", "learning_rate", "lr"),
        ("ppo", "log_dir", "folder"),
        ("ppo", "n_steps", "frames_per_batch"),
        ("ppo", "ent_coef", "entropy_coef"),
        ("ppo", "vf_coef", "critic_coef"),
        ("ppo", "total_timesteps", "total_frames"),
        ("ppo", "num_timesteps", "total_frames"),
        ("ppo", "batch_size", "minibatch_size"),
        ("ppo", "clip_range", "clip_epsilon"),
        ("ppo", "n_epochs", "num_epochs"),
        ("ppo", "lmbda", "gae_lambda"),
        ("ppo", "Learning-Rate", "lr"),
        ("ppo", "env_args", "env_kwargs"),
        ("sac", "ent_coef", "temperature"),
        ("sac", "learning_starts", "start_frames"),
        ("sac", "minibatch_size", "batch_size"),
        ("sac", "replay_buffer_size", "buffer_size"),
        ("dqn", "n_step", "n_steps_return"),
        ("ppo", "n-timesteps", "total_frames"),
        ("ppo", "num_gpus", "device"),
        ("ppo", "num_env_runners", "num_workers"),
        ("ppo", "normalize_obs", "norm_observations"),
        ("ppo", "hidden_layers", "num_cells"),
        ("ppo", "tensorboard_dir", "folder"),
        ("ppo", "optim.lr", "lr"),
        ("ppo", "use_linear_lr_decay", "lr_schedule"),
        ("dqn", "initial_epsilon", "eps_start"),
        ("sac", "critic_target_tau", "tau"),
    ],
)
def test_a_hint_knows_what_other_libraries_call_a_flag(algorithm, theirs, ours):
    with pytest.raises(ConfigError, match=f"Did you mean --{ours}\\?"):
        settings_of(algorithm, f"--{theirs}=1")


@pytest.mark.parametrize("name", ["algo", "save_model", "use_gae", "mode", "torch-deterministic", "framework"])
def test_a_flag_that_has_no_counterpart_is_not_guessed(name):
    with pytest.raises(ConfigError, match=r"--help lists them\.$"):
        settings_of("ppo", f"--{name}=1")


def test_a_name_that_means_nothing_has_no_synonym_and_every_hint_names_a_flag():
    assert same_meaning("gama", {"gamma"}) is None and same_meaning("env", {"gamma"}) is None
    algorithms = ("ppo", "reinforce", "dqn", "td3", "sac", "redq")
    known = {action.dest for name in algorithms for action in parser(name)._actions}
    assert not synonyms._NAMES.keys() - known


def test_arguments_of_an_environment_are_typed():
    words = ["a=1", "b=1.5", "c=true", "d=none", "e=[1, 2]", 'f={"x": 0.5}', "g=text", 'h="1"', "i=1_000"]
    expected = {"a": 1, "b": 1.5, "c": True, "d": None, "e": [1, 2], "f": {"x": 0.5}, "g": "text", "h": "1", "i": 1000}
    assert keywords(words) == expected
    assert keywords(["j=", "k=x=y"]) == {"j": "", "k": "x=y"}
    assert type(keywords(words)["a"]) is int
    with pytest.raises(ConfigError, match="each name once, got 'a' again"):
        keywords(["a=1", "a=2"])
