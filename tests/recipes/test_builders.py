"""The recipes: each flag does what it says."""

import pytest
import torch
from torch import nn

from torchrl.data import specs
from torchrl.data.specs import Binary, Bounded, Unbounded
from torchrl.envs.transforms import (
    ActionClip,
    CatTensors,
    Compose,
    GSDENoise,
    RewardNorm,
    RewardScaling,
    TransformedEnv,
)
from torchrl.errors import ConfigError, EnvError
from torchrl.modules import Categorical, GSDENormal, MultiCategorical, Normal, TanhNormal, TruncatedNormal
from torchrl.objectives import A2CLoss, ClipPPOLoss, DiscountedReturn, KLPenaltyPPOLoss, PPOLoss, ReinforceLoss
from torchrl.recipes import (
    add_a2c_arguments,
    add_collector_arguments,
    add_env_arguments,
    add_minibatch_arguments,
    add_network_arguments,
    add_optimise_arguments,
    add_ppo_arguments,
    add_record_arguments,
    add_reinforce_arguments,
    make_a2c_loss,
    make_actor_critic,
    make_advantage,
    make_collector,
    make_env,
    make_evaluator,
    make_optimise,
    make_parser,
    make_ppo_loss,
    make_ppo_schedules,
    make_record_hooks,
    make_reinforce_loss,
    make_reporter,
    make_returns,
    make_run_folder,
    make_schedules,
    make_single_step,
)
from torchrl.recipes.config import save_config


def parse(*flags, add_loss_arguments=add_ppo_arguments):
    parser = make_parser("test")
    for add in (
        add_env_arguments,
        add_network_arguments,
        add_collector_arguments,
        add_loss_arguments,
        add_minibatch_arguments,
        add_optimise_arguments,
        add_record_arguments,
    ):
        add(parser)
    return parser.parse_args(list(flags))


def transforms_of(env):
    if not isinstance(env, TransformedEnv):
        return []
    assert isinstance(env.transform, Compose)
    return [type(transform) for transform in env.transform]


PENDULUM = "--env_name=Pendulum-v1"
MATCHING = ["--env_library=toy", "--env_name=Matching"]


@pytest.mark.parametrize(
    ("flags", "training", "expected"),
    [
        ([], True, []),
        (["--norm_rewards"], True, [RewardNorm]),
        (["--norm_rewards"], False, []),
        (["--reward_scaling=0.1"], True, [RewardScaling]),
        ([PENDULUM], True, [ActionClip]),
        ([PENDULUM, "--distribution=tanh_normal"], True, []),
        ([PENDULUM, "--gsde"], False, [ActionClip, GSDENoise]),
        (MATCHING, True, []),
        (["--env_library=dm_control", "--env_name=cheetah", "--env_task=run"], False, [CatTensors, ActionClip]),
    ],
)
def test_the_transforms_of_an_environment(flags, training, expected):
    assert transforms_of(make_env(parse(*flags), num_envs=2, training=training)) == expected


def test_reward_norm_takes_the_discount_of_the_loss():
    env = make_env(parse("--norm_rewards", "--gamma=0.5"), num_envs=1, training=True)
    assert next(iter(env.transform)).gamma == 0.5


def test_flags_of_the_simulator():
    env = make_env(parse(PENDULUM, "--max_episode_steps=7", "--frame_skip=3"), num_envs=1, training=False)
    assert env.rollout(7)["next", "truncated"].squeeze().tolist() == [False] * 6 + [True]


def test_first_episodes_end_apart_on_request_while_training():
    args = parse(PENDULUM, "--init_with_lag=50")
    env = make_env(args, num_envs=8, training=True)
    first = [row.nonzero()[0, 0].item() for row in env.rollout(50)["next", "truncated"].squeeze(-1)]
    assert len(set(first)) > 4
    assert not make_env(args, num_envs=8, training=False).rollout(50)["next", "truncated"].any()


def test_a_task_belongs_to_dm_control():
    with pytest.raises(ConfigError, match="--env_task"):
        make_env(parse("--env_task=run"), num_envs=1, training=True)


def networks(*flags, num_envs=2):
    args = parse(*flags)
    env = make_env(args, num_envs=num_envs, training=True)
    return args, env, make_actor_critic(args, env, seed=0)


@pytest.mark.parametrize(
    ("flags", "distribution"),
    [
        ([], Categorical),
        (MATCHING, MultiCategorical),
        ([PENDULUM], Normal),
        ([PENDULUM, "--distribution=tanh_normal"], TanhNormal),
        ([PENDULUM, "--distribution=truncated_normal"], TruncatedNormal),
        ([PENDULUM, "--gsde"], GSDENormal),
    ],
)
@pytest.mark.parametrize("shared", ["--shared_mapping", "--no-shared_mapping"])
def test_networks_act_and_value(flags, distribution, shared):
    _, env, built = networks(*flags, shared, "--norm_observations")
    root = env.reset()
    assert type(built.actor.build(root)) is distribution
    assert built.critic(root.copy())["state_value"].shape == (2, 1)
    transition, _ = env.step_and_reset(built.actor(root))
    assert transition["action"].shape == env.action_spec.shape
    assert isinstance(env.action_spec, Unbounded) == (distribution in (Normal, GSDENormal))
    if distribution in (TanhNormal, TruncatedNormal):
        assert isinstance(env.action_spec, Bounded) and env.action_spec.contains(transition["action"])
    trunk = {id(p) for p in built.actor.parameters()} & {id(p) for p in built.critic.parameters()}
    assert bool(trunk) == (shared == "--shared_mapping")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.int64])
def test_binary_actions_have_the_dtype_of_their_spec(dtype):
    env = make_env(parse(*MATCHING), num_envs=2, training=True)
    env.action_spec = Binary((2, 3), dtype)
    root = env.reset()
    action = make_actor_critic(parse(), env, seed=0).actor(root)["action"]
    assert env.action_spec.contains(action)


@pytest.mark.parametrize("spec", [specs.Categorical(4, (2, 3)), specs.OneHot(4, (2, 3, 4))])
def test_choices_of_one_kind_in_several_places_are_composed_in_python(spec):
    env = make_env(parse(*MATCHING), num_envs=2, training=True)
    env.action_spec = spec
    with pytest.raises(ConfigError, match="composed in Python"):
        make_actor_critic(parse(), env, seed=0)


def test_one_normaliser_stands_in_both_networks():
    _, _, built = networks("--norm_observations")
    assert built.normalizer is not None
    for network in (built.actor, built.critic):
        assert any(module is built.normalizer for module in network.modules())
    assert networks()[2].normalizer is None


def test_shapes_and_initial_values_of_the_networks():
    _, _, built = networks(PENDULUM, "--num_cells", "8", "16", "--activation=relu", "--init_log_std=-2")
    linears = [layer for layer in built.actor.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linears] == [8, 16, 1]
    assert any(isinstance(module, nn.ReLU) for module in built.actor.modules())
    log_std = dict(built.actor.named_parameters())
    assert next(value for name, value in log_std.items() if name.endswith("log_std")).tolist() == [-2]


def test_orthogonal_init_is_a_choice():
    def first_layer(flag):
        return next(m for m in networks(flag)[2].actor.modules() if isinstance(m, nn.Linear)).weight.detach()

    gram = first_layer("--orthogonal_init").T @ first_layer("--orthogonal_init")
    assert torch.allclose(gram, 2 * torch.eye(4), atol=1e-5)
    plain = first_layer("--no-orthogonal_init")
    assert not torch.allclose(plain.T @ plain, 2 * torch.eye(4), atol=1e-2)


def test_weights_repeat_by_seed_and_leave_the_global_stream_alone():
    state = torch.get_rng_state()
    one, two = (networks()[2].actor.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(torch.get_rng_state(), state)


def test_loss_advantage_and_optimise_take_their_flags():
    args, _, built = networks(
        "--gamma=0.9", "--gae_lambda=0.8", "--clip_epsilon=0.3", "--entropy_coef=0.02", "--critic_coef=0.7",
        "--value_clip=0.4", "--loss_function=smooth_l1", "--no-normalize_advantage", "--lr=0.01", "--weight_decay=0.1",
        "--num_epochs=3", "--minibatch_size=7", "--max_grad_norm=0.9", "--target_kl=0.05", "--optimizer=adamw",
    )  # fmt: skip
    advantage, loss = make_advantage(args, built), make_ppo_loss(args, built)
    assert (advantage.gamma, advantage.lambda_) == (0.9, 0.8)
    assert float(loss.clip_epsilon) == pytest.approx(0.3) and float(loss.entropy_coef) == pytest.approx(0.02)
    assert float(loss.critic_coef) == pytest.approx(0.7) and loss.value_clip == 0.4
    assert loss.critic_distance == "smooth_l1" and not loss.normalize_advantage
    optimise = make_optimise(args, loss, seed=0)
    assert (optimise.num_epochs, optimise.minibatch_size, optimise.max_grad_norm) == (3, 7, 0.9)
    assert optimise.target_kl == 0.05 and isinstance(optimise.optimizer, torch.optim.AdamW)
    group = optimise.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimizer_takes_a_step(name):
    args, env, built = networks(f"--optimizer={name}", "--frames_per_batch=8", "--minibatch_size=8", "--num_epochs=1")
    loss = make_ppo_loss(args, built)
    before = [parameter.detach().clone() for parameter in loss.trainable_parameters()]
    batch = make_collector(args, env, built.actor, seed=0).collect()
    make_optimise(args, loss, seed=0)(make_advantage(args, built)(batch))
    assert any(not torch.equal(a, b) for a, b in zip(before, loss.trainable_parameters(), strict=True))


def test_schedules_and_hooks_are_made_on_request():
    def hooks(*flags):
        args, _, built = networks(*flags)
        loss = make_ppo_loss(args, built)
        schedules = make_schedules(args, make_optimise(args, loss, seed=0), built.normalizer)
        return [type(hook).__name__ for hook in [*make_ppo_schedules(args, loss), *schedules, *make_record_hooks(args)]]

    assert hooks("--no-progress_bar") == []
    assert hooks() == ["ProgressBar"]
    every = hooks("--lr_schedule=linear", "--clip_schedule=linear", "--norm_observations", "--target_return=5")
    assert every == ["Anneal", "Anneal", "UpdateNormalizer", "ProgressBar", "StopAtReturn"]
    assert hooks("--objective=kl_penalty", "--no-progress_bar") == ["AdaptPenalty"]
    assert hooks("--objective=plain", "--clip_schedule=linear", "--no-progress_bar") == []


@pytest.mark.parametrize(
    ("objective", "kind"), [("clip", ClipPPOLoss), ("kl_penalty", KLPenaltyPPOLoss), ("plain", PPOLoss)]
)
def test_the_objective_of_ppo(objective, kind):
    args, _, built = networks(f"--objective={objective}", "--kl_target=0.02", "--clip_epsilon=0.3")
    loss = make_ppo_loss(args, built)
    assert type(loss) is kind
    assert getattr(loss, "kl_target", 0.02) == 0.02 and getattr(loss, "clip_epsilon", 0.3) == 0.3


def test_a2c_and_reinforce_take_their_flags():
    args = parse("--gamma=0.9", "--entropy_coef=0.02", add_loss_arguments=add_a2c_arguments)
    env = make_env(args, num_envs=2, training=True)
    built = make_actor_critic(args, env, seed=0)
    advantage, loss = make_advantage(args, built), make_a2c_loss(args, built)
    assert (advantage.gamma, advantage.lambda_, loss.entropy_coef) == (0.9, 1.0, 0.02)
    assert isinstance(loss, A2CLoss) and not loss.normalize_advantage
    args = parse("--no-baseline", "--gamma=0.9", add_loss_arguments=add_reinforce_arguments)
    returns, loss = make_returns(args, built), make_reinforce_loss(args, built)
    assert isinstance(loss, ReinforceLoss) and loss.critic is None
    assert isinstance(returns, DiscountedReturn) and returns.critic is None and returns.gamma == 0.9
    args = parse(add_loss_arguments=add_reinforce_arguments)
    assert make_reinforce_loss(args, built).critic is built.critic is make_returns(args, built).critic


def test_a_single_step_takes_the_batch_as_a_whole():
    args, env, built = networks("--optimizer=rmsprop", "--frames_per_batch=8")
    step = make_single_step(args, make_ppo_loss(args, built))
    assert (step.num_epochs, step.minibatch_size) == (1, 8)
    assert step.optimizer.param_groups[0]["eps"] == 1e-5
    batch = make_collector(args, env, built.actor, seed=0).collect()
    step(make_advantage(args, built)(batch))
    assert step.optimizer.state[step.optimizer.param_groups[0]["params"][0]]["step"] == 1


def test_noise_that_depends_on_the_state_is_for_continuous_actions():
    with pytest.raises(ConfigError, match="--gsde: expected continuous actions"):
        make_env(parse("--gsde"), num_envs=1, training=True)
    with pytest.raises(ConfigError, match="--gsde: expected --distribution=normal"):
        networks(PENDULUM, "--gsde", "--distribution=tanh_normal")
    with pytest.raises(ConfigError, match="--gsde_every: expected --gsde with it"):
        networks(PENDULUM, "--gsde_every=4")
    with pytest.raises(ConfigError, match="--distribution=tanh_normal: expected continuous actions"):
        networks("--distribution=tanh_normal")


def test_the_collector_takes_its_flags():
    args, env, built = networks("--frames_per_batch=10", "--total_frames=30")
    collector = make_collector(args, env, built.actor, seed=0)
    assert [batch.batch_size for batch in collector] == [(2, 5)] * 3


@pytest.mark.parametrize(("devices", "message"), [(["cuda:63"], "cpu"), (["cpu", "cpu"], "one device")])
def test_collection_devices_are_checked(devices, message):
    args, env, built = networks("--collection_devices", *devices)
    with pytest.raises(ConfigError, match=message):
        make_collector(args, env, built.actor, seed=0)


def test_evaluations_that_choose_and_that_report_start_elsewhere():
    args = parse("--record_episodes=3", "--eval_episodes=4", "--record_interval=77")
    evaluator, reporter = make_evaluator(args), make_reporter(args)
    assert (evaluator.num_episodes, evaluator.every_frames) == (3, 77)
    assert (reporter.num_episodes, reporter.every_frames) == (4, None)
    assert not set(evaluator.start_seeds) & set(reporter.start_seeds)


def test_a_run_folder_is_never_one_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = parse("--name=try")
    folders = [make_run_folder("ppo", args) for _ in range(3)]
    assert len(set(folders)) == 3 and all(folder.is_dir() for folder in folders)
    assert all(folder.parts[0] == "ppo_logging" and folder.name.startswith("try_") for folder in folders)
    elsewhere = make_run_folder("ppo", parse("--name=try", f"--folder={tmp_path}/a/b"))
    assert elsewhere.parent == tmp_path / "a" / "b" and elsewhere.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--folder: expected a folder that can be made"):
        make_run_folder("ppo", parse(f"--folder={tmp_path}/file"))


def test_arguments_reach_the_environment_typed_and_stand_in_the_configuration(tmp_path):
    args = parse("--env_name=FrozenLake-v1", "--env_kwargs", "map_name=8x8", "is_slippery=false")
    env = make_env(args, num_envs=1, training=True)
    assert env.observation_spec["observation"].shape == (1, 64)
    save_config(args, tmp_path / "config.txt")
    assert "env_kwargs = map_name=8x8 is_slippery=false" in (tmp_path / "config.txt").read_text()
    with pytest.raises(EnvError, match="wind"):
        make_env(parse("--env_kwargs", "wind=true"), num_envs=1, training=True)
    with pytest.raises(ConfigError, match="--env_kwargs: expected none for toy"):
        make_env(parse("--env_library=toy", "--env_name=matching", "--env_kwargs", "a=1"), num_envs=1, training=True)
