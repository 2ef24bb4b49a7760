"""The settings of networks that remember their episode, as data: parts as in :mod:`torchrl.recipes.parts`.

What is built by them is in :mod:`torchrl.recipes.memories`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchrl.modules import LSTM, Transformer
from torchrl.recipes.network_parts import ActorCriticNetworks, Networks, SquashedNetworks
from torchrl.recipes.parts import Minibatches, Replay
from torchrl.recipes.settings import NonNegativeInt, PositiveInt
from torchrl.recipes.value_types import default_of


@dataclass(frozen=True)
class Remembering:
    """What networks remember their episode with, before their hidden layers.

    >>> Remembering(memory="lstm").memory_size
    64
    """

    memory: Literal["gru", "lstm", "transformer"] | None = None
    "what networks remember their episode with, before the hidden layers; none sees each observation alone"
    memory_size: PositiveInt = default_of(LSTM, "num_cells")
    "units of each memory; needs --memory"
    window: PositiveInt = default_of(Transformer, "window")
    "steps that attention looks back, the present one included; needs --memory=transformer"


def remembers(settings: Networks) -> bool:
    """Answer whether networks of these settings have a memory.

    >>> remembers(MemoryNetworks()), remembers(MemoryNetworks(memory="gru"))
    (False, True)
    """
    return isinstance(settings, Remembering) and settings.memory is not None


def seen_key(settings: Networks) -> str:
    """Return the key that a network's head reads: what its memory writes, or the observation where it has none.

    >>> seen_key(MemoryNetworks()), seen_key(MemoryNetworks(memory="gru"))
    ('observation', 'hidden')
    """
    return "hidden" if remembers(settings) else "observation"


@dataclass(frozen=True)
class MemoryNetworks(Remembering, ActorCriticNetworks):
    """The networks of an actor and a critic which may remember their episode, each in a memory of its own.

    >>> MemoryNetworks(memory="lstm").memory_size
    64
    """


@dataclass(frozen=True)
class SquashedMemoryNetworks(Remembering, SquashedNetworks):
    """The networks of an actor within bounds and of its critics, which may remember their episode.

    >>> SquashedMemoryNetworks(memory="gru").distribution
    'tanh_normal'
    """


@dataclass(frozen=True)
class SequenceMinibatches(Minibatches):
    """As :class:`Minibatches`; where networks have memory, of whole sequences.

    >>> SequenceMinibatches(num_epochs=4).sequence_len
    32
    """

    sequence_len: PositiveInt = 32
    """steps of the sequences that are shuffled in the place of frames, a divisor of --minibatch_size and of the steps
    that a batch has of each environment; needs --memory"""


@dataclass(frozen=True)
class SequenceReplay(Replay):
    """As :class:`Replay`; where networks have memory, samples are sequences, which may begin in mid-episode.

    >>> SequenceReplay(batch_size=64).sequence_len
    32
    """

    sequence_len: PositiveInt = 32
    """steps of the sequences that are sampled in the place of frames, a divisor of --batch_size; they run on over
    endings, where the memory begins anew, and begin from the initial state; needs --memory"""
    burn_in: NonNegativeInt = 0
    "first steps of each sequence that only warm the memory up; less than --sequence_len; needs --memory"
