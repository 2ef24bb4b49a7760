"""Build replay buffers, what fills them, and the gradient steps on their samples, by a command's settings."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import unravel_key

from torchrl.agents import ReplayUpdates, RewardScale
from torchrl.data import ColorJitter, EpisodeStream, MultiStepStream, RandomShift
from torchrl.data.batch_functions import BatchFunction
from torchrl.data.replay import (
    MemmapStorage,
    PrioritizedSampler,
    PrioritizedSliceSampler,
    ReplayBuffer,
    SliceSampler,
    StackedFrames,
    TensorStorage,
    UniformSampler,
)
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key
from torchrl.modules.operator import read
from torchrl.objectives import HardUpdate, Loss, SoftUpdate
from torchrl.objectives.keys import MASK, TRAJ_IDS
from torchrl.recipes.observations import num_stacked, sees_images
from torchrl.recipes.optimisers import make_optimizer
from torchrl.recipes.parts import ActorUpdates, Replay, ReplayCommand
from torchrl.seeding import child_seeds

ADAM_EPSILON = 1e-8  # as in Adam's paper and the first implementations of these algorithms


def make_replay_buffer(settings: ReplayCommand, env: Env, *, seed: int) -> ReplayBuffer:
    """Build the replay buffer that a command's settings describe.

    >>> make_replay_buffer(settings, env, seed=0).storage.capacity
    100

    Each frame of stacked images is stored once, but not if the buffer lies in files, nor with ``multi_step``, whose
    next observation is that of a later step.

    Args:
        settings: of the command.
        env: its observation spec says whether observations are images.
        seed: of the draws.

    Raises:
        ConfigError: settings that contradict each other.
    """
    replay, recording = settings.replay, settings.recording
    if replay.multi_step and replay.sub_traj_len is not None:
        hint = "Sums of rewards are no steps of a trajectory any more."
        raise ConfigError(
            explain("--sub_traj_len", expected="none with --multi_step", got=replay.sub_traj_len, hint=hint)
        )
    if replay.sub_traj_len is not None and replay.batch_size % replay.sub_traj_len:
        expected = f"a number that divides the {replay.batch_size} of --batch_size"
        raise ConfigError(explain("--sub_traj_len", expected=expected, got=replay.sub_traj_len))
    pins = replay.pin_memory and not recording.evaluate
    if pins and not torch.cuda.is_available():
        raise ConfigError(explain("--pin_memory", expected="a CUDA device to pin for", got="none"))
    if replay.buffer_folder is None or recording.evaluate:
        num_frames = num_stacked(settings.environment, is_image=sees_images(env))
        is_stored_once = sees_images(env) and not replay.multi_step
        frames = [StackedFrames("observation", num_frames=num_frames)] if is_stored_once else []
        storage = TensorStorage(replay.buffer_size, frames=frames)
    elif recording.resume:
        storage = MemmapStorage.open(replay.buffer_folder)
    else:
        storage = MemmapStorage(replay.buffer_size, replay.buffer_folder)
    functions = _augmentations(settings, env, seed)
    if pins:
        functions.append(TensorDict.pin_memory)
    num_updates = max(int(settings.collecting.total_frames * settings.updates.updates_per_frame), 1)
    sampler = _sampler(replay, num_updates)
    return ReplayBuffer(
        storage,
        sampler=sampler,
        prefetch=replay.prefetch,
        transform=InTurn(*functions) if functions else None,
        seed=seed,
    )


def _augmentations(settings: ReplayCommand, env: Env, seed: int) -> list[BatchFunction]:
    """List the random changes of sampled pictures that settings ask for; none where observations are vectors."""
    replay, functions = settings.replay, []
    if not sees_images(env):
        return functions
    if replay.color_jitter and settings.environment.grayscale:
        raise ConfigError(explain("--color_jitter", expected="--no-grayscale", got="--grayscale"))
    of_shift, of_colors = (torch.Generator().manual_seed(own) for own in child_seeds(seed, 2))
    if replay.random_shift:
        functions.append(RandomShift(replay.random_shift, generator=of_shift))
    if share := replay.color_jitter:
        functions.append(ColorJitter(share, share, share, min(share, 0.5), generator=of_colors))
    return functions


class InTurn:
    """Call several functions of a batch one after another; its state is theirs.

    >>> InTurn(lambda batch: batch[0], lambda batch: batch.exclude("next"))(batch).batch_size
    torch.Size([8])

    Args:
        *functions: each takes a batch and returns one.
    """

    def __init__(self, *functions: BatchFunction) -> None:
        self.functions = functions

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        for function in self.functions:
            batch = function(batch)
        return batch

    def state_dict(self) -> dict:
        """Return the states of the functions that have one, by their place."""
        kept = enumerate(self.functions)
        return {str(place): function.state_dict() for place, function in kept if hasattr(function, "state_dict")}

    def load_state_dict(self, state: dict) -> None:
        """Load what :meth:`state_dict` of equal functions returned."""
        for place, own in state.items():
            self.functions[int(place)].load_state_dict(own)


def _sampler(settings: Replay, num_updates: int) -> UniformSampler | PrioritizedSampler | SliceSampler:
    slices = {"across": settings.across_episodes}
    if not settings.prb:
        return UniformSampler() if settings.sub_traj_len is None else SliceSampler(settings.sub_traj_len, **slices)
    priorities = PrioritizedSampler(alpha=settings.prb_alpha, beta=settings.prb_beta, beta_steps=num_updates)
    if settings.sub_traj_len is None:
        return priorities
    return PrioritizedSliceSampler(settings.sub_traj_len, priorities=priorities, **slices)


class Store:
    """Put each collected batch into a buffer: only the entries that the loss or slices need, or settings select.

    With ``multi_step`` it sums rewards first; its state holds the last steps, whose sums need rewards to come. So it is
    with ``hindsight``, and with the steps of episodes that have not ended.

    >>> from torchrl.modules import QValueActor
    >>> from torchrl.objectives import DQNLoss
    >>> store = Store(settings.replay, buffer, DQNLoss(QValueActor(nn.Linear(4, 2))), gamma=0.99)
    >>> store(batch)
    >>> len(buffer), "is_init" in buffer[:].keys()
    (16, False)

    Args:
        settings: which other entries to store, and over how many steps to sum rewards.
        buffer: where transitions go.
        loss: its keys are stored.
        gamma: discount within a sum of rewards.
        hindsight: adds copies with other goals; see :func:`~torchrl.recipes.make_hindsight`.

    Raises:
        KeyMissing: from a call, the batch lacks a selected entry.
        ConfigError: a selected entry is a nested TensorDict.
    """

    def __init__(
        self,
        settings: Replay,
        buffer: ReplayBuffer,
        loss: Loss,
        *,
        gamma: float,
        hindsight: EpisodeStream | None = None,
    ) -> None:
        facts: list[Key] = [MASK]
        if settings.sub_traj_len is not None or buffer.storage.needs_order:
            facts += ["is_init", TRAJ_IDS, ("next", "truncated"), ("next", "done")]
        self.buffer = buffer
        self.selected = [unravel_key(tuple(key.split("/"))) for key in settings.selected_keys]
        self.keys = [*loss.in_keys, *loss.optional_keys, *facts, *self.selected]
        self.stream = MultiStepStream(settings.n_steps_return, gamma) if settings.multi_step else hindsight

    def __call__(self, batch: TensorDictBase) -> None:
        for key, value in zip(self.selected, read(batch, self.selected, "--selected_keys"), strict=True):
            if isinstance(value, TensorDictBase):
                got = f"{key!r}, which holds others"
                raise ConfigError(explain("--selected_keys", expected="single entries", got=got))
        if self.stream is not None:
            batch = self.stream(batch)
        self.buffer.extend(batch.select(*self.keys, strict=False))

    def state_dict(self) -> dict:
        return {} if self.stream is None else self.stream.state_dict()

    def load_state_dict(self, state: dict) -> None:
        if self.stream is not None:
            self.stream.load_state_dict(state)


def make_replay_updates(settings: ReplayCommand, loss: Loss, buffer: ReplayBuffer, *, gamma: float) -> ReplayUpdates:
    """Build the object that takes gradient steps of a loss on samples of a replay buffer, with its optimizer.

    >>> from torchrl.modules import QValueActor
    >>> from torchrl.objectives import DQNLoss
    >>> loss = DQNLoss(QValueActor(nn.Linear(4, 2)))
    >>> make_replay_updates(settings, loss, buffer, gamma=0.99).batch_size
    4

    Args:
        settings: of the command.
        loss: what is minimised.
        buffer: what is sampled.
        gamma: discount of the returns by which ``normalize_rewards_online`` divides.
    """
    updates, optimising = settings.updates, settings.optimising
    if updates.hard_update:
        follow = HardUpdate(loss, interval=updates.target_update_interval)
    else:
        follow = SoftUpdate(loss, tau=updates.tau)
    return ReplayUpdates(
        loss,
        make_optimizer(optimising, loss, eps=ADAM_EPSILON),
        buffer,
        batch_size=settings.replay.batch_size,
        updates_per_frame=updates.updates_per_frame,
        start_frames=updates.start_frames,
        actor_interval=updates.actor_interval if isinstance(updates, ActorUpdates) else 1,
        target_update=follow,
        reward_scale=RewardScale(gamma) if updates.normalize_rewards_online else None,
        max_grad_norm=optimising.max_grad_norm,
        max_grad_value=optimising.max_grad_value,
        compile=optimising.compile,
    )
