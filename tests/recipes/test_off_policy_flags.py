"""Every flag of the off-policy examples does what it says: each is flipped, and its effect observed on the parts."""

import math

import pytest
import torch
from tensordict import TensorDict

from cases.devices import needs_cuda
from cases.examples import load, parser
from torchrl.agents import SaveBuffer
from torchrl.collectors import Collector, MultiAsyncCollector, WarmUp
from torchrl.data import ColorJitter, RandomShift
from torchrl.data.replay import (
    MemmapStorage,
    PrioritizedSampler,
    PrioritizedSliceSampler,
    SliceSampler,
    UniformSampler,
)
from torchrl.envs import DMControlEnv
from torchrl.envs.transforms import GSDENoise
from torchrl.errors import ConfigError, KeyMissing
from torchrl.modules import (
    GRU,
    LSTM,
    AdditiveGaussian,
    DistributionalQValueActor,
    DuelingMLP,
    EGreedy,
    ExplorationType,
    GSDEHead,
    NoisyLinear,
    OrnsteinUhlenbeck,
    QuantileQValueActor,
    QValueActor,
    TanhNormal,
    Transformer,
    TruncatedNormal,
    exploration_type,
)
from torchrl.objectives import DiscreteSACLoss, HardUpdate, SACLoss, SoftUpdate
from torchrl.recipes.config import load_config, save_config

SMALL = ["--num_envs=1", "--num_cells", "8", "8", "--buffer_size=64", "--batch_size=8", "--total_frames=64"]
SMALL += ["--frames_per_batch=32"]
SEES = ["--from_pixels", "--image_size=36"]
VECTOR = ["--env_name=Pendulum-v1"]
PIECES = ["--sub_traj_len=4", "--burn_in=1"]
ENVIRONMENT = {"dqn": [], "ddpg": VECTOR, "td3": VECTOR, "sac": VECTOR, "redq": VECTOR, "r2d2": PIECES}
GROUPS = ("networks", "exploration", "replay", "loss", "updates")
OF_COLLECTING = {"init_random_frames", "async_collection"}


@pytest.fixture
def make_agent(make_agent):
    """Build the agent of an example from flags, which stand behind small ones."""
    return lambda algorithm, *flags: make_agent(algorithm, *SMALL, *ENVIRONMENT[algorithm], *flags)


def network(agent):
    return agent.loss.actor.module


def widths(agent):
    return [part.out_features for part in network(agent).modules() if hasattr(part, "out_features")]


def activations(agent):
    return {type(part).__name__ for part in network(agent).modules()} & {"Tanh", "ReLU", "ELU"}


def head_of(agent):
    return network(agent)[-1]


def std_at_zero(agent):
    loc, scale = head_of(agent)(torch.zeros(1, 2))
    return scale.item()


def loc_of_large(agent):
    loc, scale = head_of(agent)(torch.full((1, 2), 100.0))
    return loc.item()


def redrawn_every(agent):
    transforms = getattr(agent.collector.env, "transform", None)
    return next((part.resample_every for part in transforms or () if isinstance(part, GSDENoise)), None)


def gsde_log_std(agent):
    heads = [part for part in agent.policy.modules() if type(part) is GSDEHead]
    return heads[0].log_std[0, 0].item() if heads else None


def convolutions(module):
    return [part for part in module.modules() if type(part) is torch.nn.Conv2d]


def channels(agent):
    return [part.out_channels for part in convolutions(agent.loss.actor)]


def critic_channels(agent):
    return [len(part.weight) for part in convolutions(agent.loss.critic)]


def reduced_to(agent):
    return [part.normalized_shape[0] for part in agent.loss.actor.modules() if type(part) is torch.nn.LayerNorm]


def changes(agent):
    return [type(function) for function in getattr(agent.optimise.buffer.transform, "functions", ())]


def window(agent):
    return next((part.window for part in agent.loss.modules() if type(part) is Transformer), None)


def stored(agent):
    """Return what a batch becomes in the buffer."""
    batch = agent.collector.collect()
    agent.store(batch)
    return agent.optimise.buffer[:]


def num_steps(agent):
    items = stored(agent)
    return round(math.log(items["next", "gamma"].min().item(), 0.99)) if ("next", "gamma") in items.keys(True) else 1


def acted(agent):
    policy = agent.collector.policy
    return policy.frames if isinstance(policy, WarmUp) else 0


def sampler(agent):
    return agent.optimise.buffer.sampler


def follow(agent):
    return agent.optimise.target_update


# flag -> algorithm, what is observed, what it is without, and the flags with what it is then
EFFECTS = {
    # networks
    "num_cells": ("dqn", widths, [8, 8, 2], ["--num_cells", "6", "5"], [6, 5, 2]),
    "activation": ("dqn", activations, {"ReLU"}, ["--activation=tanh"], {"Tanh"}),
    "dueling": ("dqn", lambda a: type(network(a)) is DuelingMLP, False, ["--dueling"], True),
    "noisy": ("dqn", lambda a: any(type(m) is NoisyLinear for m in network(a).modules()), False, ["--noisy"], True),
    "distributional": (
        "dqn",
        lambda a: type(a.loss.actor),
        QValueActor,
        ["--distributional"],
        DistributionalQValueActor,
    ),
    "quantiles": ("dqn", lambda a: type(a.loss.actor), QValueActor, ["--quantiles"], QuantileQValueActor),
    "atoms": ("dqn", widths, [8, 8, 2], ["--quantiles", "--atoms=7"], [8, 8, 14]),
    "value_low": (
        "dqn",
        lambda a: getattr(a.loss.actor, "low", None),
        None,
        ["--distributional", "--value_low=-3"],
        -3,
    ),
    "value_high": (
        "dqn",
        lambda a: getattr(a.loss.actor, "high", None),
        None,
        ["--distributional", "--value_high=3"],
        3,
    ),
    "distribution": (
        "sac",
        lambda a: a.loss.actor.distribution.func,
        TanhNormal,
        ["--distribution=truncated_normal"],
        TruncatedNormal,
    ),
    "init_std": ("sac", std_at_zero, 1.0, ["--init_std=0.5"], 0.5),
    "tanh_loc": ("sac", loc_of_large, 100.0, ["--tanh_loc"], 5.0),
    "gsde": ("sac", lambda a: any(type(m) is GSDEHead for m in a.policy.modules()), False, ["--gsde"], True),
    "gsde_every": ("redq", redrawn_every, None, ["--gsde", "--gsde_every=4"], 4),
    "gsde_log_std": ("sac", gsde_log_std, None, ["--gsde", "--gsde_log_std=-1"], -1),
    "share_encoder": ("sac", critic_channels, [], [*SEES, "--share_encoder"], [32, 64, 64]),  # not of each critic
    "image_features": ("sac", reduced_to, [], [*SEES, "--share_encoder", "--image_features=9"], [9]),
    "encoder": ("dqn", channels, [], [*SEES, "--encoder=drq"], [32, 32, 32, 32]),
    "encoder_width": ("dqn", channels, [], [*SEES, "--encoder_width=0.25"], [8, 16, 16]),
    "memory": ("r2d2", lambda a: type(a.loss.actor[1]), LSTM, ["--memory=gru"], GRU),
    "window": ("sac", window, None, ["--memory=transformer", "--window=5", "--sequence_len=4"], 5),
    "memory_size": ("r2d2", lambda a: a.loss.actor[1].state_shape[-1], 64, ["--memory_size=6"], 6),
    # exploration
    "eps_start": ("dqn", lambda a: a.policy.start, 1.0, ["--eps_start=0.5"], 0.5),
    "eps_end": ("dqn", lambda a: a.policy.end, 0.05, ["--eps_end=0.2"], 0.2),
    "annealing_frames": ("dqn", lambda a: a.policy.num_frames, 1_000_000, ["--annealing_frames=9"], 9),
    "noise_start": ("td3", lambda a: a.policy.start, 0.1, ["--noise_start=0.7"], 0.7),
    "noise_end": ("ddpg", lambda a: a.policy.end, 0.1, ["--noise_end=0.7"], 0.7),
    "ou_exploration": ("ddpg", lambda a: type(a.policy), AdditiveGaussian, ["--ou_exploration"], OrnsteinUhlenbeck),
    "ou_theta": ("td3", lambda a: getattr(a.policy, "theta", 0), 0, ["--ou_exploration", "--ou_theta=0.3"], 0.3),
    "ou_sigma": ("td3", lambda a: getattr(a.policy, "sigma", 0), 0, ["--ou_exploration", "--ou_sigma=0.3"], 0.3),
    # collecting
    "init_random_frames": ("sac", acted, 100, ["--init_random_frames=7"], 7),
    "async_collection": (
        "dqn",
        lambda a: type(a.collector) is MultiAsyncCollector,
        False,
        ["--async_collection", "--num_workers=1"],
        True,
    ),
    "multi_step": ("dqn", lambda a: ("next", "gamma") in stored(a).keys(True), False, ["--multi_step"], True),
    "n_steps_return": ("dqn", num_steps, 1, ["--multi_step", "--n_steps_return=5"], 5),
    # replay
    "buffer_size": ("sac", lambda a: a.optimise.buffer.storage.capacity, 64, ["--buffer_size=99"], 99),
    "batch_size": ("sac", lambda a: a.optimise.batch_size, 8, ["--batch_size=16"], 16),
    "buffer_folder": (
        "sac",
        lambda a: type(a.optimise.buffer.storage) is MemmapStorage,
        False,
        ["--buffer_folder=here"],
        True,
    ),
    "save_buffer": ("dqn", lambda a: any(type(h) is SaveBuffer for h in a.hooks), False, ["--save_buffer"], True),
    "prb": ("redq", lambda a: type(sampler(a)), UniformSampler, ["--prb"], PrioritizedSampler),
    "prb_alpha": ("dqn", lambda a: getattr(sampler(a), "alpha", 0), 0, ["--prb", "--prb_alpha=0.3"], 0.3),
    "prb_beta": ("dqn", lambda a: getattr(sampler(a), "beta", 0), 0, ["--prb", "--prb_beta=0.3"], 0.3),
    "sub_traj_len": ("td3", lambda a: type(sampler(a)), UniformSampler, ["--sub_traj_len=4"], SliceSampler),
    "across_episodes": ("r2d2", lambda a: sampler(a).across, True, ["--no-across_episodes"], False),
    "sequence_len": ("dqn", lambda a: sampler(a).slice_len, 0, ["--memory=gru", "--sequence_len=4"], 4),
    "selected_keys": (
        "dqn",
        lambda a: ("next", "episode_return") in stored(a).keys(True),
        False,
        ["--selected_keys", "is_init", "next/episode_return"],
        True,
    ),
    "random_shift": ("dqn", changes, [], [*SEES, "--random_shift=4"], [RandomShift]),
    "color_jitter": ("dqn", changes, [], [*SEES, "--no-grayscale", "--color_jitter=0.4"], [ColorJitter]),
    "prefetch": ("sac", lambda a: a.optimise.buffer.prefetch, 0, ["--prefetch=2"], 2),
    # losses
    "gamma": ("dqn", lambda a: a.loss.gamma, 0.99, ["--gamma=0.5"], 0.5),
    "double": ("dqn", lambda a: a.loss.is_double, True, ["--no-double"], False),
    "loss_function": ("ddpg", lambda a: a.loss.distance, "l2", ["--loss_function=l1"], "l1"),
    "burn_in": ("r2d2", lambda a: a.loss.burn_in, 1, ["--burn_in=2"], 2),
    "zero_state": ("r2d2", lambda a: "memory" in stored(a).keys(), False, ["--no-zero_state"], True),
    "n_steps": ("r2d2", lambda a: a.loss.n_steps, 3, ["--n_steps=2"], 2),
    "target_noise": ("td3", lambda a: a.loss.target_noise, 0.2, ["--target_noise=0.1"], 0.1),
    "noise_clip": ("td3", lambda a: a.loss.noise_clip, 0.5, ["--noise_clip=0.1"], 0.1),
    "temperature": ("sac", lambda a: round(a.loss.temperature().item(), 6), 1.0, ["--temperature=0.2"], 0.2),
    "learn_temperature": ("redq", lambda a: a.loss.learn_temperature, True, ["--no-learn_temperature"], False),
    "target_entropy": ("sac", lambda a: round(a.loss.target_entropy, 3), -0.307, ["--target_entropy=-3"], -3),
    "num_q_values": ("redq", lambda a: a.loss.critic.num, 10, ["--num_q_values=4"], 4),
    "num_sampled": ("redq", lambda a: a.loss.num_sampled, 2, ["--num_sampled=3"], 3),
    "state_value": ("sac", lambda a: a.loss.value is None, True, ["--state_value"], False),
    # updates
    "updates_per_frame": ("sac", lambda a: a.optimise.updates_per_frame, 1.0, ["--updates_per_frame=0.5"], 0.5),
    "start_frames": ("td3", lambda a: a.optimise.start_frames, 10_000, ["--start_frames=7"], 7),
    "actor_interval": ("td3", lambda a: a.optimise.actor_interval, 2, ["--actor_interval=3"], 3),
    "hard_update": ("dqn", lambda a: type(follow(a)), SoftUpdate, ["--hard_update"], HardUpdate),
    "target_update_interval": (
        "dqn",
        lambda a: getattr(follow(a), "interval", 0),
        0,
        ["--hard_update", "--target_update_interval=7"],
        7,
    ),
    "tau": ("sac", lambda a: follow(a).tau, 0.005, ["--tau=0.1"], 0.1),
    "normalize_rewards_online": (
        "dqn",
        lambda a: a.optimise.reward_scale is None,
        True,
        ["--normalize_rewards_online"],
        False,
    ),
    "keep_learning": ("dqn", lambda a: a.keep_learning, False, ["--keep_learning", "--num_workers=1"], True),
    "log_interval": ("dqn", lambda a: a.log_interval, 1000, ["--log_interval=7"], 7),
}


def test_every_flag_is_among_the_effects():
    groups = [group for algorithm in ENVIRONMENT for group in parser(algorithm)._action_groups if group.title in GROUPS]
    flags = {action.dest for group in groups for action in group._group_actions}
    assert flags - {"pin_memory"} == EFFECTS.keys() - OF_COLLECTING


@pytest.mark.parametrize("flag", EFFECTS)
def test_a_flag_has_its_effect(flag, make_agent):
    algorithm, observe, without, flags, expected = EFFECTS[flag]
    for got, due in ((observe(make_agent(algorithm)), without), (observe(make_agent(algorithm, *flags)), expected)):
        assert got == (pytest.approx(due, abs=1e-6) if isinstance(due, float) else due)


@pytest.mark.parametrize("algorithm", ENVIRONMENT)
@pytest.mark.parametrize("flags", [[], ["--selected_keys", "is_init", "next/episode_return", "--frame_stack=2"]])
def test_a_saved_configuration_is_the_one_that_ran(algorithm, flags, tmp_path):
    ran = parser(algorithm).parse_args(flags)
    save_config(ran, tmp_path / "config.txt")
    again = load_config(parser(algorithm), tmp_path / "config.txt")
    assert {**vars(again), "config": None} == vars(ran)


@pytest.mark.parametrize(
    ("algorithm", "flags", "message"),
    [
        ("dqn", ["--distributional", "--quantiles"], "--distributional: expected it or --quantiles, got both"),
        ("dqn", ["--env_name=Pendulum-v1"], "one choice as the action.*DDPG, TD3 and SAC"),
        ("td3", ["--env_name=CartPole-v1"], "a vector of bounded actions.*dqn"),
        (
            "sac",
            ["--env_library=dm_control", "--env_name=lqr", "--env_task=lqr_2_1", "--max_episode_steps=5"],
            "a vector of bounded actions, got Unbounded.*without bounds are learned by the examples ppo",
        ),
        ("dqn", ["--async_collection"], "--async_collection: expected --num_workers with it"),
        ("dqn", ["--keep_learning"], "keep_learning with ReplayUpdates and a collector over processes"),
        ("dqn", ["--multi_step", "--sub_traj_len=4"], "--sub_traj_len: expected none with --multi_step, got 4"),
        pytest.param(
            "dqn",
            ["--pin_memory"],
            "--pin_memory: expected a CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        ("r2d2", ["--sub_traj_len=none"], "--sub_traj_len: expected more steps than the 1 of --burn_in, got None"),
        ("r2d2", ["--burn_in=4"], "--sub_traj_len: expected more steps than the 4 of --burn_in, got 4"),
        ("dqn", ["--sub_traj_len=3"], "a number that divides the 8 of --batch_size"),
        ("sac", ["--env_name=CartPole-v1", "--state_value"], "--state_value: expected continuous actions"),
        ("sac", ["--memory=gru", "--sequence_len=4", "--gsde"], "--memory: .* --no-gsde, got gru with --gsde"),
        (
            "sac",
            ["--memory=gru", "--sequence_len=4", "--state_value"],
            "--memory: .* --no-state_value",
        ),
        ("sac", ["--memory=gru", "--sequence_len=4", "--share_encoder"], "--memory: .* --no-share_encoder"),
        ("sac", ["--memory=gru", "--multi_step", "--sequence_len=4"], "--memory=none, or --no-multi_step, got gru"),
        ("dqn", ["--memory=gru", "--sub_traj_len=4"], "--sub_traj_len: .*--memory=gru, got 4. Write --sequence_len=4"),
        ("dqn", ["--memory=gru", "--sequence_len=3"], "a divisor of --batch_size=8, got 3. Use 2"),
        (
            "dqn",
            ["--memory=gru", "--sequence_len=4", "--burn_in=4"],
            "--sequence_len: expected more steps than the 4 of --burn_in, got 4",
        ),
        (
            "dqn",
            ["--memory=gru", "--sequence_len=8", "--num_envs=8", "--start_frames=32"],
            "--start_frames: expected at least 64, 8 steps of each environment for the first sequence, got 32",
        ),
        ("sac", ["--gsde", "--distribution=truncated_normal"], "--gsde: expected --distribution=tanh_normal"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(algorithm, flags, message, make_agent):
    with pytest.raises(ConfigError, match=message):
        make_agent(algorithm, *flags)


def test_actors_reach_the_bounds_of_their_task_and_no_further(make_agent):
    flags = ["--env_library=dm_control", "--env_name=quadruped", "--env_task=run", "--num_cells", "64", "64"]
    spec = DMControlEnv("quadruped", "run", num_envs=1).action_spec
    root = TensorDict(observation=torch.randn(2000, 78), batch_size=[2000])
    for algorithm in ("sac", "ddpg"):
        agent = make_agent(algorithm, *flags, "--init_random_frames=0")
        policy = agent.collector.policy
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(4.0)  # far into the bends of tanh
            actions = policy(root)["action"]
        reached = torch.stack([actions.amin(0), actions.amax(0)])
        assert torch.allclose(reached, torch.cat([spec.low, spec.high]), atol=0.02), algorithm


def test_pieces_of_trajectories_are_stored_with_what_tells_episodes_apart(make_agent):
    facts = {"is_init", ("collector", "traj_ids"), ("next", "done"), ("next", "terminated"), ("next", "truncated")}
    assert facts <= set(stored(make_agent("dqn", "--sub_traj_len=4")).keys(True, True))
    assert not {"is_init", ("next", "done")} & set(stored(make_agent("dqn")).keys(True, True))


def test_a_resumed_run_opens_its_folder_of_frames(make_agent):
    stored(make_agent("dqn", "--buffer_folder=frames"))
    assert len(make_agent("dqn", "--buffer_folder=frames", "--resume=run").optimise.buffer) == 32


def test_rows_that_wait_for_their_sum_are_saved_and_come_back(make_agent):
    one, two = (make_agent("dqn", "--multi_step", "--n_steps_return=5") for _ in range(2))
    assert len(stored(one)) == 32 - 4
    two.store.load_state_dict(one.store.state_dict())
    two.store(one.collector.collect())
    assert len(two.optimise.buffer) == 4 + 32 - 4


def test_entries_that_no_batch_has_are_not_stored(make_agent):
    with pytest.raises(KeyMissing, match=r"--selected_keys: expected the key .*episode_retur.*episode_return"):
        stored(make_agent("dqn", "--selected_keys", "next/episode_retur"))
    with pytest.raises(ConfigError, match="--selected_keys: expected single entries, got 'next', which holds others"):
        stored(make_agent("dqn", "--selected_keys", "next"))


@needs_cuda
def test_samples_are_pinned(make_agent):
    agent = make_agent("dqn", "--pin_memory")
    stored(agent)
    assert agent.optimise.buffer.sample(4)["observation"].is_pinned()


@pytest.mark.parametrize("kind", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
def test_collecting_is_told_how_to_act(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []
    monkeypatch.setattr(Collector, "collect", lambda self: told.append(exploration_type()) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load("dqn").main([*SMALL, f"--exploration_type={kind.name.lower()}"])
    assert told == [kind]


def test_gradients_are_clipped_by_value_on_request(make_agent):
    assert make_agent("sac").optimise.max_grad_value is None
    assert make_agent("sac", "--max_grad_value=0.5").optimise.max_grad_value == 0.5


def test_sac_takes_choices_as_well(make_agent):
    assert type(make_agent("sac").loss) is SACLoss
    agent = make_agent("sac", "--env_name=CartPole-v1")
    assert type(agent.loss) is DiscreteSACLoss and agent.loss.critic.out_keys == ["action_value"]


def test_noisy_networks_explore_without_epsilon(make_agent):
    assert type(make_agent("dqn").policy) is EGreedy and type(make_agent("dqn", "--noisy").policy) is QValueActor


@pytest.mark.parametrize(
    ("algorithm", "flags"),
    [
        ("dqn", ["--dueling", "--noisy", "--distributional", "--prb", "--multi_step", "--double"]),
        ("dqn", ["--quantiles", "--prb", "--sub_traj_len=4"]),
        ("r2d2", ["--prb", "--memory=gru", "--no-zero_state", "--no-dueling"]),
        ("r2d2", ["--env_library=native", "--env_name=RepeatPrevious", "--no-across_episodes"]),
        ("sac", ["--state_value", "--prb", "--multi_step"]),
        ("sac", ["--gsde", "--gsde_every=4"]),
        ("ddpg", ["--ou_exploration", "--normalize_rewards_online", "--sub_traj_len=4"]),
    ],
)
def test_flags_together_train(algorithm, flags, make_agent):
    common = ["--frames_per_batch=16", "--start_frames=16", "--init_random_frames=16", "--prefetch=1"]
    agent = make_agent(algorithm, *common, *flags, "--updates_per_frame=0.5")
    before = [parameter.clone() for parameter in agent.loss.trainable_parameters()]
    agent.train()
    assert agent.optimise.num_updates == 32 and agent.frames == 64
    after = agent.loss.trainable_parameters()
    assert all(value.isfinite().all() for value in after) and not any(map(torch.equal, before, after))
    if "--sub_traj_len=4" in flags:
        kind = PrioritizedSliceSampler if "--prb" in flags else SliceSampler
        assert type(sampler(agent)) is kind
