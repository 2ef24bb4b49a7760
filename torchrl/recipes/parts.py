"""The settings that several commands share, as data: each class is a heading of ``--help``, each field a flag.

The text under a field is its explanation. Where it ends in ``needs ...``, the flag has no effect without that
condition, and a run that sets it all the same prints a remark (:mod:`torchrl.recipes.sense`). Settings of one algorithm
alone are in its example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torchrl.agents import Evaluator, KeepCheckpoints, MinibatchEpochs
from torchrl.collectors import MultiSyncCollector
from torchrl.data.replay import PrioritizedSampler, ReplayBuffer
from torchrl.envs import Env
from torchrl.envs.simulators import gym_simulator
from torchrl.objectives import HardUpdate, SoftUpdate
from torchrl.recipes.atari import AtariGames
from torchrl.recipes.settings import (
    FileName,
    Fraction,
    Keyword,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Real,
    Share,
)
from torchrl.recipes.value_types import default_of
from torchrl.record import MLflowLogger, WandbLogger


@dataclass(frozen=True)
class Environment(AtariGames):
    """Which simulator a run uses, in how many copies, and what its networks see of it.

    >>> Environment(env_name="Pendulum-v1").num_envs
    8
    """

    env_library: Literal[
        "ale",
        "brax",
        "craftax",
        "dm_control",
        "gym",
        "gymnax",
        "jumanji",
        "native",
        "pgx",
        "playground",
        "python",
        "toy",
    ] = "gym"
    """library of the simulator; python is a function of yours that returns a gymnasium.Env, a dm_env or a simulator;
    ale trains on the games of --atari in C++ threads; native is one batch in torch: Acrobot, CartPole, ChainMDP,
    FourRooms, GridWorld, MountainCar, MountainCarContinuous, NarrowPath, Pendulum, Plane, RepeatPrevious, TMaze; brax,
    craftax, gymnax, jumanji, pgx and (MuJoCo) playground are one batch in jax"""
    env_name: str = "CartPole-v1"
    "registered id (gym, ale), domain (dm_control), module:function or file.py:function (python), or name (the others)"
    env_task: str = ""
    "task of the domain (dm_control only)"
    env_kwargs: tuple[Keyword, ...] = ()
    "arguments of the environment, or of the task (dm_control), as name=value: numbers, true, lists in JSON"
    num_envs: PositiveInt = 8
    "environments, over all processes"
    env_workers: NonNegativeInt = 0
    "processes that step slow environments for one policy; 0 steps them in this process"
    frame_skip: PositiveInt | None = None
    "simulator steps per frame, by default 4 with --atari and 1 without; all counts of frames are counts of agent steps"
    max_episode_steps: PositiveInt | None = default_of(gym_simulator, "max_episode_steps")
    "frames after which an episode is truncated, instead of the task's own limit; none keeps the task's"
    max_noops: NonNegativeInt | None = None
    "begin episodes with up to this many no-op actions (gym only), by default 30 with --atari and none without"
    init_with_lag: PositiveInt | None = None
    """cut the first episode of each environment after a random number of frames, at most this many, so that the
    environments do not all end together"""
    leave_out: tuple[str, ...] = ()
    "names of observations that the networks do not see: text, which is no number, or what a policy must not see"
    success_key: str | None = None
    """entry of info that is 1 at the end of an episode that succeeded, such as is_success (gym only): the share of
    those is logged; networks do not see it, and where info lacks it, it is 0"""
    mask_velocity: bool = False
    """hide velocities, which a policy with memory or --frame_stack has to work out (CartPole, Pendulum, MountainCar,
    Acrobot, LunarLander)"""
    from_pixels: bool = False
    "observe pictures that the simulator draws, nothing else (gym and dm_control); drawing may take OpenGL"
    camera_id: NonNegativeInt = 0
    "number of the task's camera that draws them; needs --from_pixels and --env_library=dm_control"
    shadows: bool = True
    """draw shadows and reflections, three quarters of the time of a picture without a GPU; needs --from_pixels and
    --env_library=dm_control"""
    pictures: str = "auto"
    """which observation is a picture, for convolutions: auto takes uint8 [H, W] or [H, W, C] from 0 to 255, as large as
    they need; a name takes that one; none takes all as numbers"""
    image_size: PositiveInt = 84
    "height and width of images, in pixels; needs pictures"
    grayscale: bool = True
    "take the colour out of images; needs pictures"
    frame_stack: PositiveInt | None = None
    "stack the last X observations into one; by default 4 for images and 1 for vectors"
    reward_scaling: PositiveFloat | None = None
    "multiply rewards for the learner; reported returns stay raw"
    norm_rewards: bool = False
    "divide rewards for the learner by the running std of the discounted return"


@dataclass(frozen=True)
class Collecting:
    """How many frames a run collects, and the processes and devices that collect them.

    >>> Collecting(num_workers=4).frames_per_batch
    2048
    """

    frames_per_batch: PositiveInt = 2048
    "frames of one batch, over all environments"
    total_frames: PositiveInt = 1_000_000
    "frames of the whole run, rounded up to whole batches"
    num_workers: NonNegativeInt = 0
    "processes that collect, each with its share of the environments; 0 collects in this process"
    on_worker_failure: Literal["raise", "restart"] = default_of(MultiSyncCollector, "on_worker_failure")
    "what to do where a process of --num_workers dies; restart drops its part of the batch"
    collection_devices: tuple[str, ...] = ("cpu",)
    "device on which the policy acts while collecting, or one for each worker"
    exploration_type: Literal["random", "deterministic", "mean"] = "random"
    "how actions are chosen while collecting: drawn, or without chance (but --noisy layers keep theirs)"


@dataclass(frozen=True)
class EpisodeCollecting(Collecting):
    """How many frames a run collects, in batches of as many frames or of as many whole episodes.

    >>> EpisodeCollecting(episodes_per_batch=16).num_workers
    0
    """

    episodes_per_batch: PositiveInt | None = None
    "whole episodes of one batch, in place of --frames_per_batch; none cuts episodes where a batch ends"


@dataclass(frozen=True)
class AsyncCollecting(Collecting):
    """How many frames a run collects, and the processes that collect them, also while the learner trains.

    >>> AsyncCollecting(num_workers=2, async_collection=True).frames_per_batch
    2048
    """

    async_collection: bool = False
    "let workers go on while the learner trains; every batch is one worker's"


@dataclass(frozen=True)
class ReplayCollecting(AsyncCollecting):
    """How many frames a run collects for a replay buffer, how many of them at random, and by which processes.

    >>> ReplayCollecting(init_random_frames=100).frames_per_batch
    1
    """

    frames_per_batch: PositiveInt = 1
    init_random_frames: NonNegativeInt = 0
    "frames at the start with actions drawn uniformly"


@dataclass(frozen=True)
class Replay:
    """Which frames and entries a replay buffer keeps, and how it is sampled.

    >>> Replay(prb=True).prb_alpha
    0.6
    """

    buffer_size: PositiveInt = 1_000_000
    "frames the buffer keeps"
    batch_size: PositiveInt = 256
    "frames of a gradient step"
    save_buffer: bool = False
    """save the buffer in the checkpoints of --checkpoint_interval, without that flag when training ends; where it is
    not saved, --resume collects anew first"""
    buffer_folder: str | None = None
    "keep the buffer in memory-mapped files in this new folder; --resume opens it"
    prb: bool = False
    "sample frames in proportion to their last error (prioritised replay)"
    prb_alpha: NonNegativeFloat = default_of(PrioritizedSampler, "alpha")
    "how much priorities matter; needs --prb"
    prb_beta: Fraction = default_of(PrioritizedSampler, "beta")
    """importance weights undo this share of the sampling's bias at the start, all of it at the end of the run; needs
    --prb"""
    sub_traj_len: PositiveInt | None = None
    "sample pieces of trajectories of this length; none samples frames"
    across_episodes: bool = False
    """let these pieces run on from an episode into the next one of its environment, for networks with memory, which
    begin anew there; needs --sub_traj_len"""
    multi_step: bool = False
    "store sums of several rewards, and the observation after them"
    n_steps_return: PositiveInt = 3
    "rewards in a sum; needs --multi_step"
    selected_keys: tuple[str, ...] = ()
    "entries that are stored beside those that the loss reads, such as next/episode_return"
    random_shift: NonNegativeInt = 0
    "shift sampled pictures at random, by up to this many pixels each way; needs pictures"
    color_jitter: NonNegativeFloat = 0.0
    """change brightness, contrast and saturation of sampled pictures at random, by up to this share each, and the hue
    by up to as much of the circle; needs pictures"""
    pin_memory: bool = False
    "put samples into pinned memory, from which a GPU copies without waiting"
    prefetch: NonNegativeInt = default_of(ReplayBuffer, "prefetch")
    "samples drawn in advance"


@dataclass(frozen=True)
class Updates:
    """When gradient steps are taken on samples of a replay buffer, and how target networks follow.

    >>> Updates(updates_per_frame=0.5).tau
    0.005
    """

    updates_per_frame: PositiveFloat = 1.0
    "gradient steps for each frame"
    start_frames: NonNegativeInt = 0
    "frames before the first gradient step"
    hard_update: bool = False
    "copy the networks into their targets, instead of --tau"
    target_update_interval: PositiveInt = default_of(HardUpdate, "interval")
    "gradient steps from one copy to the next; needs --hard_update"
    tau: Share = default_of(SoftUpdate, "tau")
    "share of the way that targets move at each step; needs --no-hard_update"
    normalize_rewards_online: bool = False
    "divide sampled rewards by the running std of the discounted return"
    keep_learning: bool = False
    "take more gradient steps while workers collect: learn as fast as possible; needs --num_workers"
    log_interval: PositiveInt = 1000
    "frames from one line of the log to the next"


@dataclass(frozen=True)
class ActorUpdates(Updates):
    """When gradient steps are taken for an actor and its critics, on samples of a replay buffer.

    >>> ActorUpdates(actor_interval=2).updates_per_frame
    1.0
    """

    actor_interval: PositiveInt = 1
    "critic steps for each actor step"


@dataclass(frozen=True)
class Minibatches:
    """How many epochs each collected batch is trained on, and in minibatches of which size.

    >>> Minibatches(num_epochs=4).minibatch_size
    256
    """

    num_epochs: PositiveInt = 10
    "passes over each batch"
    minibatch_size: PositiveInt = 256
    "frames per gradient step"
    target_kl: PositiveFloat | None = default_of(MinibatchEpochs, "target_kl")
    """stop training on a batch after the first epoch whose mean approximate KL exceeds this (other libraries stop
    inside an epoch, at 1.5 times it); needs --num_epochs above 1"""


@dataclass(frozen=True)
class Optimising:
    """The optimizer, its limits on gradients, and the device and threads of the learner.

    >>> Optimising(lr=1e-3).optimizer
    'adam'
    """

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    "kind of optimizer"
    lr: PositiveFloat = 3e-4
    "learning rate"
    lr_schedule: Literal["constant", "linear"] = "constant"
    "linear goes to 0 over the run"
    weight_decay: NonNegativeFloat = 0.0
    "weight decay of the optimizer"
    max_grad_norm: PositiveFloat | None = 0.5
    "scale gradients down to this joint norm; none leaves them"
    max_grad_value: PositiveFloat | None = default_of(MinibatchEpochs, "max_grad_value")
    "clip each entry of the gradients; needs --max_grad_norm=none"
    device: str = "cpu"
    "device of the learner"
    num_threads: PositiveInt = 1
    "threads of torch; one is fastest for small networks"
    compile: bool = default_of(MinibatchEpochs, "compile")
    "take each step, and act here, by a compiled graph, made within seconds in the first run and kept for later ones"


@dataclass(frozen=True)
class Recording:
    """Seeds, evaluations, logs, and when to stop early.

    >>> Recording(seed=1).loggers
    ('csv', 'tensorboard')
    """

    folder: str | None = None
    "where the runs' folders go; none takes <algorithm>_logging below the current folder"
    name: FileName = ""
    "name of the run's folder; empty takes the task's"
    loggers: tuple[Literal["csv", "tensorboard", "jsonlines", "wandb", "mlflow"], ...] = field(
        default=("csv", "tensorboard"), metadata={"nargs": "*"}
    )
    """where the numbers of the run go, beside its summary, as csv,wandb; csv is the table that the curve is drawn from;
    wandb and mlflow are extras"""
    wandb_mode: Literal["offline", "online"] = default_of(WandbLogger, "mode")
    "offline writes files for a later `wandb sync`; online takes the login of `wandb login`; needs --loggers=wandb"
    mlflow_uri: str | None = default_of(MLflowLogger, "uri")
    "database or server of MLflow; none takes mlflow.db in the run's folder; needs --loggers=mlflow"
    seed: NonNegativeInt = 0
    "all random streams derive from it"
    record_interval: PositiveInt = 50_000
    "frames between two evaluations"
    record_episodes: PositiveInt = default_of(Evaluator, "num_episodes")
    "episodes of these evaluations, which choose the best checkpoint"
    evaluate_beside: bool = False
    "run these evaluations in a process of their own while training goes on"
    eval_episodes: PositiveInt = 20
    "episodes of the last report, from other starts"
    record_video: bool = False
    "film an episode of the policy after each of these evaluations (with the extra: video)"
    checkpoint_interval: PositiveInt | None = None
    """frames from one checkpoint folder to the next, RUN/checkpoints/FRAMES, from which --resume goes on as if nothing
    had been, also after a kill; none writes last.pt, after evaluations and at the end, and best.pt alone"""
    keep_checkpoints: PositiveInt = default_of(KeepCheckpoints, "keep")
    "how many of these folders to keep, the newest ones; needs --checkpoint_interval"
    target_return: Real | None = None
    "stop when an evaluation reaches this mean return; needs --record_interval below --total_frames"
    progress_bar: bool = True
    "show a progress bar"
    evaluate: str | None = field(default=None, metadata={"metavar": "RUN"})
    "train nothing: evaluate the run saved in this folder, or one checkpoint, RUN/best.pt"
    export: str | None = field(default=None, metadata={"metavar": "FILE"})
    "write the policy to FILE.pt2 or FILE.onnx, for load_policy, torch alone or onnxruntime; needs --evaluate"
    resume: str | None = field(default=None, metadata={"metavar": "RUN"})
    """go on with the newest whole checkpoint of the run in this folder, or with one, RUN/last.pt, in a new folder; with
    more --total_frames where that run had come to its end"""


class Command(Protocol):
    """Interface of a command's settings: a dataclass with at least these parts; its algorithm adds more.

    >>> settings.environment.env_name, settings.make_env(num_envs=3, training=True).batch_size
    ('CartPole-v1', torch.Size([3]))

    Attributes:
        make_env: builds an environment of the run, as ``make_env(num_envs=..., training=..., filmed=...)``; it can be
            pickled for other processes.
    """

    environment: Environment
    collecting: Collecting
    optimising: Optimising
    recording: Recording
    make_env: Callable[..., Env]


class ReplayCommand(Command, Protocol):
    """Interface of the settings of a command with a replay buffer: those of :class:`Command`, and two more parts.

    >>> settings.replay.batch_size, settings.updates.updates_per_frame
    (4, 1.0)
    """

    collecting: ReplayCollecting
    replay: Replay
    updates: Updates
