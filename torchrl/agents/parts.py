"""What an agent asks of its parts, as small protocols: any object with these members will do, none has to inherit.

    collector ── batch ──> store
        ^          └─────> advantage ──> optimise ── figures ──> hooks: evaluation, log, checkpoints, then yours
        └─────── update_policy_weights_() ──┘

An agent looks at its parts once, when it is made. An ability that not every part has (to be saved, to run beside the
training, to tell the size of its batches) is a protocol of its own, which :func:`has` asks for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.agents.statistics import Figures
from torchrl.errors import ConfigError, explain
from torchrl.keys import as_path, key_name


class BatchSource(Protocol):
    """Yields batches ``[*B, T]`` collected with ``policy``, counts them, and takes new weights, as collectors do.

    Attributes:
        policy: maps a root to a root with ``action``; it is what the agent trains.
        policy_version: how often ``update_policy_weights_`` was called.
        frames: valid rows of the batches so far.
        total_frames: where it stops; -1 never.
    """

    policy: Callable[[TensorDictBase], TensorDictBase]
    policy_version: int
    frames: int
    total_frames: int

    def __iter__(self) -> Iterator[TensorDict]:
        """Yield batches until ``total_frames`` frames were collected."""

    def update_policy_weights_(self) -> None:
        """Let the next batch act with the policy's present weights."""


class SizedBatches(Protocol):
    """Yields batches that all have ``frames_per_batch`` rows."""

    frames_per_batch: int


class LaunchedBatches(Protocol):
    """Collects in other processes while the caller does something else."""

    def launch(self) -> None:
        """Begin to collect the next batch, and return at once."""

    def is_ready(self) -> bool:
        """Answer whether the next batch has come."""


class GradientSteps(Protocol):
    """Takes gradient steps on a batch and returns their figures for the log."""

    @property
    def loss(self) -> nn.Module:
        """The loss that the steps minimise."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that moves the parameters."""

    def __call__(self, batch: TensorDictBase) -> Figures:
        """Train on a batch ``[*B, T]``."""


class MinibatchSteps(Protocol):
    """Takes gradient steps on parts of a batch, of ``minibatch_size`` rows."""

    minibatch_size: int


class EndlessSteps(Protocol):
    """Takes single gradient steps without a new batch, on data that it was given before."""

    is_learning: bool

    def once(self) -> None:
        """Take one gradient step."""


class Measure(Protocol):
    """Measures a policy: each ``every_frames`` frames of a training, or, where that is None, on demand alone."""

    every_frames: int | None

    def __call__(self, policy: Callable, *, learned: Sequence | None = None) -> Any:
        """Measure a policy and return an :class:`~torchrl.agents.Evaluation`."""

    def close(self) -> None:
        """Close the environments and end the processes that it holds."""


class LaunchedMeasure(Protocol):
    """Measures beside the training: launched now, taken later, one evaluation at a time."""

    is_pending: bool

    def launch(
        self, policy: Callable, *, learned: Sequence | None = None, version: int = 0, frames: int = 0, keep: Any = None
    ) -> None:
        """Begin an evaluation of the policy as it stands."""

    def poll(self) -> Any:
        """Return the :class:`~torchrl.agents.BesideResult` if it is there; None before."""

    def take(self) -> Any:
        """Wait for the result and return it."""

    def discard(self) -> None:
        """Drop the evaluation and its result."""


class Sink(Protocol):
    """Takes the figures of the log, as every :class:`~torchrl.record.Logger` does."""

    def log_scalars(self, metrics: dict[str, float], step: int) -> None:
        """Record figures, ``step`` being the number of frames they are logged over."""


class Saved(Protocol):
    """Keeps something from batch to batch that a resumed run needs."""

    def state_dict(self) -> dict:
        """Return what a resumed run needs, as tensors, numbers and texts."""

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned."""


class Trained(Protocol):
    """Names the parameters that gradient steps move, as every :class:`~torchrl.objectives.Loss` does."""

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that gradient steps move."""


class MovesParameters(Protocol):
    """Moves parameters in groups, as optimizers of torch and wrappers around them do."""

    param_groups: list[dict]


class WithActorTerms(Protocol):
    """Computes the losses of its actor apart from those of its critic."""

    actor_terms: Callable


class WithTargets(Protocol):
    """Has target networks."""

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs of a network and its target."""


class Sampled(Protocol):
    """Draws samples of what it holds, as every replay buffer does."""

    def sample(self, batch_size: int) -> TensorDictBase:
        """Draw ``batch_size`` items."""


def missing(part: object, protocol: type) -> list[str]:
    """Return the members of a protocol that a part lacks.

    The part itself is asked, and not its class as by ``isinstance``: a wrapper may pass attributes on.

    >>> missing(iter(()), SizedBatches)
    ['frames_per_batch']
    """
    members = [*inspect.get_annotations(protocol), *vars(protocol)]
    members = [name for name in members if name in ("__iter__", "__call__") or not name.startswith("_")]
    return [name for name in members if not hasattr(part, name)]


def has(part: object, protocol: type) -> bool:
    """Answer whether a part has all members of a protocol.

    >>> has(nn.Linear(1, 1), Saved), has(print, Saved)
    (True, False)
    """
    return not missing(part, protocol)


def require_part(who: str, part: object, protocol: type, *, expected: str, hint: str) -> None:
    """Refuse a part that lacks a member of its protocol.

    Args:
        who: takes the part, for the message: ``"Agent, collector"``.
        part: what was given.
        protocol: what is wanted.
        expected: the same in words.
        hint: what to write.

    Raises:
        ConfigError: naming the first members that the part lacks.
    """
    lacking = missing(part, protocol)
    if lacking:
        got = type(part).__name__ if isinstance(part, nn.Module) else repr(part)
        raise ConfigError(
            explain(who, expected=expected, got=f"{got}, which lacks {', '.join(lacking[:3])}", hint=hint)
        )


def require_parts(collector: object, optimise: object, evaluator: object, logger: object) -> None:
    """Refuse parts of an agent that lack members of their protocols, or do not fit each other.

    Minibatches are no larger than the batches, and what collects writes the states that the loss reads.

    Raises:
        ConfigError: naming the argument and what it takes.
    """
    hint = "Write Collector(env, policy, ...)."
    require_part("Agent, collector", collector, BatchSource, expected="a collector", hint=hint)
    hint = "Write MinibatchEpochs(loss, optimizer)."
    require_part("Agent, optimise", optimise, GradientSteps, expected="what takes gradient steps", hint=hint)
    if evaluator is not None:
        hint = "Write Evaluator(env)."
        require_part("Agent, evaluator", evaluator, Measure, expected="an Evaluator, or None", hint=hint)
    if logger is not None:
        hint = "Write CSVLogger(folder)."
        require_part("Agent, logger", logger, Sink, expected="a Logger, or None", hint=hint)
    _require_states(collector.policy, optimise.loss)
    rows = frames_per_batch(collector)
    if rows is not None and has(optimise, MinibatchSteps) and optimise.minibatch_size > rows:
        hint = "Minibatches are parts of a batch; raise frames_per_batch, or lower minibatch_size."
        expected = f"a minibatch_size of at most the collector's frames_per_batch={rows:,}"
        raise ConfigError(explain("Agent", expected=expected, got=f"{optimise.minibatch_size:,}", hint=hint))


def _require_states(policy: object, loss: object) -> None:
    """Refuse a policy that leaves the state of one of the loss's memories as it is, from the start of an episode on.

    The primer keeps such a state in the roots all the same, and a sequence in mid-episode would start from it.
    """
    modules = policy.modules() if isinstance(policy, nn.Module) else ()
    written = {as_path(key) for module in modules for key in getattr(module, "out_keys", ())}
    states = [key for key in getattr(loss, "state_keys", ()) if key in loss.in_keys]  # others are not read
    still = [key for key in states if ("next", *as_path(key)) not in written]
    if written and still:
        expected = f"a policy that writes the state {key_name(still[0])!r}, which the loss starts from"
        hint = "Let ActorCriticWrapper(actor, critic) collect, or give a loss of replayed slices zero_state=True."
        raise ConfigError(explain("Agent", expected=expected, got=type(policy).__name__, hint=hint))


def state_of(part: object) -> dict:
    """Return the state of a part; an empty dict for a part that keeps none, such as a plain function."""
    return part.state_dict() if has(part, Saved) else {}


def load_state_of(part: object, state: dict) -> None:
    """Load a part's saved state; do nothing where the part keeps no state or the saved one is empty."""
    if state and has(part, Saved):
        part.load_state_dict(state)


def frames_per_batch(collector: object) -> int | None:
    """Return how many frames each batch of a collector has; None where batches differ."""
    return collector.frames_per_batch if has(collector, SizedBatches) else None
