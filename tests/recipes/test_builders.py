"""The recipes and the examples on policy: each flag does what it says."""

import pytest
import torch
from torch import nn

from cases.examples import ALONE, settings_of
from torchrl.collectors import Collector, MultiAsyncCollector, MultiSyncCollector
from torchrl.data import last_step, specs
from torchrl.data.specs import Binary, Bounded, Unbounded
from torchrl.envs.transforms import (
    ActionClip,
    CatTensors,
    Compose,
    Flatten,
    GSDENoise,
    RewardNorm,
    RewardScaling,
    TransformedEnv,
)
from torchrl.errors import ConfigError, EnvError
from torchrl.modules import (
    Categorical,
    GSDENormal,
    MultiCategorical,
    Normal,
    OneHotCategorical,
    TanhNormal,
    TruncatedNormal,
)
from torchrl.objectives import A2CLoss, ClipPPOLoss, DiscountedReturn, KLPenaltyPPOLoss, PPOLoss, ReinforceLoss, VTrace
from torchrl.recipes import ActorCriticNetworks, make_action_head, make_evaluator
from torchrl.recipes.record import make_reporter, make_run_folder

PENDULUM = "--env_name=Pendulum-v1"
MATCHING = ["--env_library=toy", "--env_name=Matching"]


def transforms_of(env):
    if not isinstance(env, TransformedEnv):
        return []
    assert isinstance(env.transform, Compose)
    return [type(transform) for transform in env.transform]


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
        (
            ["--env_library=dm_control", "--env_name=manipulator", "--env_task=bring_ball"],
            False,
            [Flatten, CatTensors, ActionClip],
        ),
    ],
)
def test_the_transforms_of_an_environment(flags, training, expected, make_env):
    assert transforms_of(make_env(*flags, training=training)) == expected


def test_reward_norm_takes_the_discount_of_the_loss(make_env):
    assert next(iter(make_env("--norm_rewards", "--gamma=0.5").transform)).gamma == 0.5


def test_flags_of_the_simulator(make_env):
    env = make_env(PENDULUM, "--max_episode_steps=7", "--frame_skip=3", num_envs=1, training=False)
    assert env.rollout(7)["next", "truncated"].squeeze().tolist() == [False] * 6 + [True]


def test_first_episodes_end_apart_on_request_while_training(make_env):
    flags = [PENDULUM, "--init_with_lag=50"]
    env = make_env(*flags, num_envs=8)
    first = [row.nonzero()[0, 0].item() for row in env.rollout(50)["next", "truncated"].squeeze(-1)]
    assert len(set(first)) > 4
    assert not make_env(*flags, num_envs=8, training=False).rollout(50)["next", "truncated"].any()


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (["--env_task=run"], ConfigError, "--env_task"),
        (["--gsde"], ConfigError, "--gsde: expected continuous actions"),
        ([PENDULUM, "--gsde_every=4"], ConfigError, "--gsde_every: expected --gsde with it"),
        (["--env_kwargs", "wind=true"], EnvError, "wind"),
        ([*MATCHING, "--env_kwargs", "a=1"], ConfigError, "--env_kwargs: expected none for toy"),
        ([*MATCHING, "--max_noops=3"], ConfigError, "--max_noops: expected 0 for toy, got 3"),
    ],
)
def test_an_environment_refuses_settings_that_do_not_go_together(flags, error, message, make_env):
    with pytest.raises(error, match=message):
        make_env(*flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([PENDULUM, "--gsde", "--distribution=tanh_normal"], "--gsde: expected --distribution=normal"),
        (["--distribution=tanh_normal"], "--distribution=tanh_normal: expected continuous actions"),
        (["--collection_devices=cuda:63"], "cpu"),
        (["--collection_devices", "cpu", "cpu"], "one device"),
    ],
)
def test_an_agent_refuses_settings_that_do_not_go_together(flags, message, make_agent):
    with pytest.raises(ConfigError, match=message):
        make_agent("ppo", *flags)


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
def test_networks_act_and_value(flags, distribution, shared, make_agent):
    agent = make_agent("ppo", *flags, shared, "--norm_observations", "--num_envs=2")
    env, actor, critic = agent.collector.env, agent.loss.actor, agent.loss.critic
    root = env.reset()
    assert type(actor.build(root)) is distribution
    assert critic(root.copy())["state_value"].shape == (2, 1)
    transition, _ = env.step_and_reset(actor(root))
    assert transition["action"].shape == env.action_spec.shape
    assert isinstance(env.action_spec, Unbounded) == (distribution in (Normal, GSDENormal))
    if distribution in (TanhNormal, TruncatedNormal):
        assert isinstance(env.action_spec, Bounded) and env.action_spec.contains(transition["action"])
    trunk = {id(p) for p in actor.parameters()} & {id(p) for p in critic.parameters()}
    assert bool(trunk) == (shared == "--shared_mapping")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.int64])
def test_binary_actions_have_the_dtype_of_their_spec(dtype, make_env):
    env = make_env(*MATCHING)
    env.action_spec = Binary((2, 3), dtype)
    head = make_action_head(ActorCriticNetworks(), env)
    assert head.num_inputs == 3 and env.action_spec.contains(head.distribution(torch.zeros(2, 3)).sample())


def test_one_hot_choices_have_a_distribution_of_one_hot_vectors(make_env):
    env = make_env(*MATCHING)
    env.action_spec = specs.OneHot(4, (2, 4))
    head = make_action_head(ActorCriticNetworks(), env)
    assert head.num_inputs == 4 and head.distribution is OneHotCategorical


def test_squashed_actions_need_bounds(make_env):
    env = make_env(PENDULUM)
    env.action_spec = Unbounded((2, 1))
    with pytest.raises(ConfigError, match="--distribution=tanh_normal: expected bounded actions, got Unbounded"):
        make_action_head(ActorCriticNetworks(distribution="tanh_normal"), env)


@pytest.mark.parametrize("spec", [specs.Categorical(4, (2, 3)), specs.OneHot(4, (2, 3, 4))])
def test_choices_of_one_kind_in_several_places_are_composed_in_python(spec, make_env):
    env = make_env(*MATCHING)
    env.action_spec = spec
    with pytest.raises(ConfigError, match="composed in Python"):
        make_action_head(ActorCriticNetworks(), env)


def test_one_normaliser_stands_in_both_networks(make_agent):
    agent = make_agent("ppo", "--norm_observations", "--no-progress_bar")
    (hook,) = agent.hooks
    for network in (agent.loss.actor, agent.loss.critic):
        assert any(module is hook.normalizer for module in network.modules())


def test_shapes_and_initial_values_of_the_networks(make_agent):
    agent = make_agent("ppo", PENDULUM, "--num_cells", "8", "16", "--activation=relu", "--init_log_std=-2")
    actor = agent.loss.actor
    assert [layer.out_features for layer in actor.modules() if isinstance(layer, nn.Linear)] == [8, 16, 1]
    assert any(isinstance(module, nn.ReLU) for module in actor.modules())
    log_std = dict(actor.named_parameters())
    assert next(value for name, value in log_std.items() if name.endswith("log_std")).tolist() == [-2]


def test_orthogonal_init_is_a_choice(make_agent):
    def first_layer(flag):
        modules = make_agent("ppo", flag).loss.actor.modules()
        return next(module for module in modules if isinstance(module, nn.Linear)).weight.detach()

    gram = first_layer("--orthogonal_init").T @ first_layer("--orthogonal_init")
    assert torch.allclose(gram, 2 * torch.eye(4), atol=1e-5)
    plain = first_layer("--no-orthogonal_init")
    assert not torch.allclose(plain.T @ plain, 2 * torch.eye(4), atol=1e-2)


@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "impala", "reinforce", "dqn", "r2d2", "sac"])
def test_weights_repeat_by_seed_and_leave_the_global_stream_alone(algorithm, make_agent):
    state = torch.get_rng_state()
    one, two = (make_agent(algorithm, *ALONE.get(algorithm, [])).loss.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(torch.get_rng_state(), state)


def test_loss_advantage_and_optimise_take_their_flags(make_agent):
    agent = make_agent(
        "ppo",
        "--gamma=0.9", "--gae_lambda=0.8", "--clip_epsilon=0.3", "--entropy_coef=0.02", "--critic_coef=0.7",
        "--value_clip=0.4", "--loss_function=smooth_l1", "--no-normalize_advantage", "--lr=0.01", "--weight_decay=0.1",
        "--num_epochs=3", "--minibatch_size=7", "--max_grad_norm=0.9", "--target_kl=0.05", "--optimizer=adamw",
    )  # fmt: skip
    advantage, loss, optimise = agent.advantage, agent.loss, agent.optimise
    assert (advantage.gamma, advantage.lambda_) == (0.9, 0.8)
    assert float(loss.clip_epsilon) == pytest.approx(0.3) and float(loss.entropy_coef) == pytest.approx(0.02)
    assert float(loss.critic_coef) == pytest.approx(0.7) and loss.value_clip == 0.4
    assert loss.critic_distance == "smooth_l1" and not loss.normalize_advantage
    assert (optimise.num_epochs, optimise.minibatch_size, optimise.max_grad_norm) == (3, 7, 0.9)
    assert optimise.target_kl == 0.05 and isinstance(optimise.optimizer, torch.optim.AdamW)
    group = optimise.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimizer_takes_a_step(name, make_agent):
    flags = [f"--optimizer={name}", "--frames_per_batch=8", "--minibatch_size=8", "--num_epochs=1"]
    agent = make_agent("ppo", *flags)
    before = [parameter.detach().clone() for parameter in agent.loss.trainable_parameters()]
    agent.optimise(agent.advantage(agent.collector.collect()))
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.loss.trainable_parameters(), strict=True))


def test_schedules_and_hooks_are_made_on_request(make_agent):
    def hooks(*flags):
        return [type(hook).__name__ for hook in make_agent("ppo", *flags).hooks]

    assert hooks("--no-progress_bar") == []
    assert hooks() == ["ProgressBar"]
    every = hooks("--lr_schedule=linear", "--clip_schedule=linear", "--norm_observations", "--target_return=5")
    assert every == ["UpdateNormalizer", "Anneal", "Anneal", "ProgressBar", "StopAtReturn"]
    assert hooks("--checkpoint_interval=50", "--target_return=5")[-1] == "KeepCheckpoints"  # behind all that change
    assert hooks("--objective=kl_penalty", "--no-progress_bar") == ["AdaptPenalty"]
    both = hooks("--objective=kl_penalty", "--norm_observations", "--no-progress_bar")
    assert both == ["AdaptPenalty", "UpdateNormalizer"]  # in this order: new statistics would count as divergence
    assert hooks("--objective=plain", "--clip_schedule=linear", "--no-progress_bar") == []


@pytest.mark.parametrize(
    ("objective", "kind"), [("clip", ClipPPOLoss), ("kl_penalty", KLPenaltyPPOLoss), ("plain", PPOLoss)]
)
def test_the_objective_of_ppo(objective, kind, make_agent):
    loss = make_agent("ppo", f"--objective={objective}", "--kl_target=0.02", "--clip_epsilon=0.3").loss
    assert type(loss) is kind
    assert getattr(loss, "clip_epsilon", 0.3) == 0.3
    assert objective != "kl_penalty" or loss.objective.rule["target"] == 0.02


def test_a2c_and_reinforce_take_their_flags(make_agent):
    agent = make_agent("a2c", "--gamma=0.9", "--entropy_coef=0.02")
    assert (agent.advantage.gamma, agent.advantage.lambda_, agent.loss.entropy_coef) == (0.9, 1.0, 0.02)
    assert isinstance(agent.loss, A2CLoss) and not agent.loss.normalize_advantage
    agent = make_agent("reinforce", "--no-baseline", "--gamma=0.9")
    assert isinstance(agent.loss, ReinforceLoss) and agent.loss.critic is None
    assert isinstance(agent.advantage, DiscountedReturn) and agent.advantage.critic is None
    assert agent.advantage.gamma == 0.9
    agent = make_agent("reinforce")
    assert agent.loss.critic is agent.advantage.critic is not None


def test_reinforce_learns_from_whole_episodes_by_one_gradient_step(make_agent):
    flags = ["--num_envs=2", "--max_episode_steps=9", "--frames_per_batch=16", "--total_frames=40"]
    agent = make_agent("reinforce", *flags, "--episodes_per_batch=4")
    batch = agent.collector.collect()
    assert batch.batch_size == (4, 9) and batch["collector", "mask"].sum() > 16
    assert last_step(batch)["next", "done"].all() and batch["is_init"][:, 0].all()
    assert agent.optimise(agent.advantage(batch)).weights["grad_norm"] == 1
    assert type(make_agent("reinforce", *flags).collector) is Collector
    with pytest.raises(ConfigError, match="--episodes_per_batch: expected --num_workers=0 with it, got 2"):
        make_agent("reinforce", *flags, "--episodes_per_batch=4", "--num_workers=2")


def test_impala_takes_its_flags(make_agent):
    flags = ["--gamma=0.9", "--trace_lambda=0.8", "--rho_clip=none", "--c_clip=0.5", "--entropy_coef=0.02", "--lr=0.1"]
    agent = make_agent("impala", *flags, "--critic_coef=0.7", "--loss_function=l1", *ALONE["impala"])
    advantage, loss, optimise = agent.advantage, agent.loss, agent.optimise
    assert (advantage.gamma, advantage.lambda_, advantage.rho_clip, advantage.c_clip) == (0.9, 0.8, None, 0.5)
    assert isinstance(advantage, VTrace) and advantage.actor is loss.actor is agent.policy
    assert (loss.entropy_coef, loss.critic_coef, loss.critic_distance) == (0.02, 0.7, "l1")
    assert isinstance(loss, A2CLoss) and advantage.critic is loss.critic
    assert (optimise.num_epochs, optimise.minibatch_size) == (1, 80)
    assert isinstance(optimise.optimizer, torch.optim.RMSprop) and optimise.optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.usefixtures("leaves_nothing")
def test_the_workers_of_impala_do_not_wait(make_agent):
    agent = make_agent("impala", "--lr_schedule=constant")
    assert type(agent.collector) is MultiAsyncCollector and agent.collector.num_envs == 8
    assert type(make_agent("impala", "--no-async_collection").collector) is MultiSyncCollector


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_workers=0"], "--async_collection: expected --num_workers with it, got none.*--no-async_collection"),
        (["--rho_clip=0.5"], "0 < c_clip <= rho_clip"),
        (["--num_workers=3"], "--num_workers: expected a number that divides the 8 of --num_envs, got 3"),
    ],
)
def test_what_impala_cannot_combine(flags, message, make_agent):
    with pytest.raises(ConfigError, match=message):
        make_agent("impala", *flags)


def test_a_single_step_takes_the_batch_as_a_whole(make_agent):
    agent = make_agent("a2c", "--optimizer=rmsprop", "--frames_per_batch=8")
    step = agent.optimise
    assert (step.num_epochs, step.minibatch_size) == (1, 8)
    assert step.optimizer.param_groups[0]["eps"] == 1e-5
    step(agent.advantage(agent.collector.collect()))
    assert step.optimizer.state[step.optimizer.param_groups[0]["params"][0]]["step"] == 1


def test_the_collector_takes_its_flags(make_agent):
    collector = make_agent("ppo", "--frames_per_batch=10", "--total_frames=30", "--num_envs=2").collector
    assert [batch.batch_size for batch in collector] == [(2, 5)] * 3


def test_evaluations_that_choose_and_that_report_start_elsewhere():
    settings = settings_of("ppo", "--record_episodes=3", "--eval_episodes=4", "--record_interval=77")
    evaluator, reporter = make_evaluator(settings), make_reporter(settings)
    assert (evaluator.num_episodes, evaluator.every_frames) == (3, 77)
    assert (reporter.num_episodes, reporter.every_frames) == (4, None)
    assert not set(evaluator.start_seeds) & set(reporter.start_seeds)


def test_a_run_folder_is_never_one_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = settings_of("ppo", "--name=try")
    folders = [make_run_folder("ppo", settings) for _ in range(3)]
    assert len(set(folders)) == 3 and all(folder.is_dir() for folder in folders)
    assert all(folder.parts[0] == "ppo_logging" and folder.name.startswith("try_") for folder in folders)
    elsewhere = make_run_folder("ppo", settings_of("ppo", "--name=try", f"--folder={tmp_path}/a/b"))
    assert elsewhere.parent == tmp_path / "a" / "b" and elsewhere.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--folder: expected a folder that can be made"):
        make_run_folder("ppo", settings_of("ppo", f"--folder={tmp_path}/file"))


def test_arguments_reach_the_environment_typed_and_stand_in_the_configuration(tmp_path, make_env):
    flags = ["--env_name=FrozenLake-v1", "--env_kwargs", "map_name=8x8", "is_slippery=false"]
    assert make_env(*flags).observation_spec["observation"].shape == (2, 64)
    cheetah = ["--env_library=dm_control", "--env_name=cheetah", "--env_task=run", "--env_kwargs", "random=3"]
    assert make_env(*cheetah).observation_spec["observation"].shape == (2, 17)
    folder = make_run_folder("ppo", settings_of("ppo", *flags, f"--folder={tmp_path}"))
    assert "env_kwargs = map_name=8x8 is_slippery=false" in (folder / "config.txt").read_text()
