"""Build modules that remember, and the sequences that they learn from, by settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.collectors.checks import steps_of
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.modules import GRU, LSTM, Memory, ObservationNormalizer, Operator, Sequence, Transformer
from torchrl.recipes.memory_parts import Remembering, remembers
from torchrl.recipes.network_parts import Networks
from torchrl.recipes.networks import ACTIVATIONS, chain, initial_weights, make_encoder
from torchrl.recipes.parts import AsyncCollecting, Command, ReplayCommand

MEMORIES = {"gru": GRU, "lstm": LSTM, "transformer": Transformer}
MEMORY_KEYS = ("memory", "critic_memory")  # of the actor's state and of the critic's

Settings = TypeVar("Settings", bound=ReplayCommand)


def make_memory(settings: Remembering, num_features: int, **options: object) -> Memory:
    """Build the module that remembers, of the kind and size in the settings.

    >>> make_memory(Remembering(memory="lstm", memory_size=8), 4).state_shape
    torch.Size([1, 2, 8])

    Args:
        settings: with ``memory``.
        num_features: numbers that it reads.
        **options: of :class:`~torchrl.modules.Memory`.
    """
    if settings.memory == "transformer":
        options["window"] = settings.window
    return MEMORIES[settings.memory](num_features, settings.memory_size, **options)


def initial_memory(settings: Remembering, keys: Iterable[str] = MEMORY_KEYS) -> TensorDict:
    """Return the state that actor and critic start an episode from, for the primer of the environment.

    >>> sorted(initial_memory(Remembering(memory="gru")).keys())
    ['critic_memory', 'memory']

    Args:
        settings: with ``memory`` and ``memory_size``.
        keys: of the states; without a critic that remembers, the actor's alone.
    """
    state = TensorDict()
    with initial_weights(0):  # of modules that are only asked for their shapes
        for key in keys:
            state.update(make_memory(settings, 1, state_key=key).initial_state())
    return state


def make_remembering(
    settings: Networks,
    env: Env,
    *,
    state_key: str = "memory",
    normalizer: ObservationNormalizer | None = None,
    embeds: bool = False,
) -> tuple[Operator, Memory]:
    """Build what stands before a head that reads ``hidden``: the encoder of what is seen, and a memory of its features.

    >>> from torchrl.recipes import MemoryNetworks
    >>> encode, remember = make_remembering(MemoryNetworks(memory="gru", memory_size=8), env)
    >>> Sequence(encode, remember).in_keys
    ['observation', 'memory', 'is_init']

    Args:
        settings: with ``memory``, and how images are encoded.
        env: its observation is one vector, or one image, under ``observation``.
        state_key: of the memory.
        normalizer: comes first; None leaves observations as they are.
        embeds: whether a vector goes through a layer of ``memory_size`` units before the memory.
    """
    encoder, num_features = make_encoder(settings, env)
    if embeds and encoder is None:
        encoder = nn.Sequential(nn.Linear(num_features, settings.memory_size), ACTIVATIONS[settings.activation]())
        num_features = settings.memory_size
    seen = chain(normalizer, encoder, nn.Identity())
    encode = Operator(seen, in_keys=["observation"], out_keys=["features"])
    return encode, make_memory(settings, num_features, in_keys=["features"], state_key=state_key)


def put_memory_before(
    settings: Networks, env: Env, head: TensorDictModuleBase, *, state_key: str = "memory"
) -> TensorDictModuleBase:
    """Return a network with memory that ends with a head; without ``memory`` in the settings, the head.

    A layer stands before the memory of a vector: by it an LSTM finds the velocity of a pendulum from its positions in a
    third of the gradient steps.

    >>> put_memory_before(Networks(), env, actor) is actor
    True

    Args:
        settings: perhaps with ``memory``.
        env: its observation is one vector, or one image, under ``observation``.
        head: it reads what :func:`~torchrl.recipes.seen_key` says.
        state_key: of the memory.
    """
    if not remembers(settings):
        return head
    before = make_remembering(settings, env, state_key=state_key, embeds=True)
    return Sequence(*before, head, out_keys=head.out_keys)


def refuse_beside_memory(settings: Networks, **switches: bool) -> None:
    """Refuse switches that do not go with memory, by the names of their flags.

    >>> refuse_beside_memory(Networks(), gsde=True)

    Args:
        settings: perhaps with ``memory``.
        **switches: whether each is on.

    Raises:
        ConfigError: one is on, and the networks have a memory.
    """
    for name, is_on in switches.items():
        if is_on and remembers(settings):
            expected = f"--memory=none, or --no-{name}"
            raise ConfigError(explain("--memory", expected=expected, got=f"{settings.memory} with --{name}"))


def sequence_len_of(settings: Command) -> int | None:
    """Return the steps of the sequences that minibatches are made of; None where no network remembers.

    >>> sequence_len_of(settings) is None
    True

    Args:
        settings: of a command, with ``networks`` and ``minibatches``.

    Raises:
        ConfigError: the sequences do not divide the steps that a batch has of each environment, or a minibatch.
    """
    if settings.networks.memory is None:
        return None
    length, minibatch_size = settings.minibatches.sequence_len, settings.minibatches.minibatch_size
    num_steps = steps_of(settings.collecting.frames_per_batch, settings.environment.num_envs)
    if num_steps % length or minibatch_size % length:
        fit = max(n for n in range(1, num_steps + 1) if num_steps % n == 0 and minibatch_size % n == 0 and n <= length)
        expected = f"a divisor of the {num_steps} steps of a batch and of --minibatch_size={minibatch_size}"
        raise ConfigError(explain("--sequence_len", expected=expected, got=length, hint=f"Use {fit}."))
    return length


def whole_sequence_len(settings: Command) -> int | None:
    """Return the steps that a batch has of each environment, which are one sequence; None where no network remembers.

    >>> whole_sequence_len(settings) is None
    True

    Args:
        settings: of a command, with ``networks``; with ``async_collection`` a batch is one worker's.
    """
    if not remembers(settings.networks):
        return None
    collecting, num_envs = settings.collecting, settings.environment.num_envs
    is_async = isinstance(collecting, AsyncCollecting) and collecting.async_collection
    num_rows = num_envs // max(collecting.num_workers, 1) if is_async else num_envs
    return steps_of(collecting.frames_per_batch, num_rows)


def with_sequences(settings: Settings, *, sums_rewards: bool = False) -> tuple[Settings, dict[str, object]]:
    """Return settings whose samples of replay are sequences, and a loss's options for these.

    Where no network remembers, they are the same settings and no options.

    >>> with_sequences(settings) == (settings, {})
    True

    Args:
        settings: of a command, with ``networks``, and a ``replay`` that is a ``SequenceReplay``.
        sums_rewards: whether the loss sums ``n_steps`` rewards inside sequences, by which ``multi_step`` is then done.

    Raises:
        ConfigError: settings that do not go with memory, or not with each other.
    """
    if not remembers(settings.networks):
        return settings, {}
    replay, memory = settings.replay, f"--memory={settings.networks.memory}"
    length = replay.sequence_len
    if replay.sub_traj_len is not None:
        hint = f"Write --sequence_len={replay.sub_traj_len}."
        raise ConfigError(explain("--sub_traj_len", expected=f"none with {memory}", got=replay.sub_traj_len, hint=hint))
    if replay.burn_in >= length:
        expected = f"more steps than the {replay.burn_in} of --burn_in"
        raise ConfigError(explain("--sequence_len", expected=expected, got=length))
    if replay.batch_size % length:
        fit = max(n for n in range(1, length + 1) if replay.batch_size % n == 0)
        expected = f"a divisor of --batch_size={replay.batch_size}"
        raise ConfigError(explain("--sequence_len", expected=expected, got=length, hint=f"Use {fit}."))
    if not sums_rewards:  # what lies between a step and its n-step successor would not be remembered
        refuse_beside_memory(settings.networks, multi_step=replay.multi_step)
    due = length * settings.environment.num_envs
    frames_per_batch = settings.collecting.frames_per_batch
    if -(-max(settings.updates.start_frames, 1) // frames_per_batch) * frames_per_batch < due:
        expected = f"at least {due:,}, {length} steps of each environment for the first sequence"
        raise ConfigError(explain("--start_frames", expected=expected, got=settings.updates.start_frames))
    sampled = replace(replay, sub_traj_len=length, across_episodes=True, multi_step=False)
    options = {"burn_in": replay.burn_in, "zero_state": True}
    options |= {"n_steps": replay.n_steps_return} if replay.multi_step else {}
    return replace(settings, replay=sampled), options
