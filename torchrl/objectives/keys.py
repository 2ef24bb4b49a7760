"""Reading a batch by key, with an error that says who needed the key and who would have written it. Writes nothing."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor, nn

from torchrl.data.batch_functions import require_batch
from torchrl.errors import KeyMissing, SpecError, explain, nearest
from torchrl.keys import Key

MASK = ("collector", "mask")
TRAJ_IDS = ("collector", "traj_ids")

_WRITTEN_BY = {
    "advantage": "An estimator writes it: run GAE on the batch first.",
    "value_target": "An estimator writes it: run GAE on the batch first.",
    "state_value": "An estimator writes it: run GAE on the batch first.",
    "action": "The policy writes it while it acts.",
    "action_log_prob": "The policy writes it while it acts: give ProbabilisticActor a log_prob_key.",
    "logits": "The policy writes it while it acts.",
    "loc": "The policy writes it while it acts.",
    "scale": "The policy writes it while it acts.",
    ("next", "reward"): "The environment writes it at each step.",
    ("next", "terminated"): "The environment writes it at each step.",
    ("next", "truncated"): "The environment writes it at each step.",
    "is_init": "The environment writes it at each step.",
}


def read(batch: TensorDictBase, key: Key, *, who: str) -> Tensor:
    """Return a batch's entry, or raise an error that names ``who`` reads it and which part should have written it.

    Raises:
        KeyMissing: naming the key, the reader, the keys that are there and what writes the missing one.
    """
    value = batch.get(key, None)
    if value is None:
        there = sorted(map(str, batch.keys(include_nested=True, leaves_only=True)))
        hint = _WRITTEN_BY.get(key, "A network reads it, so the environment or the policy must have written it.")
        close = _nearest(key, batch)
        hint = f"Did you mean {close!r}? {hint}" if close else hint
        raise KeyMissing(explain(who, expected=f"the key {key!r} in the batch", got=", ".join(there), hint=hint))
    return value


def decision_keys(actor: nn.Module) -> list[Key]:
    """List what an actor's ``build`` reads of a stored step beside its in keys: what it decided before the action."""
    return list(getattr(actor, "decision_keys", ()))


def require_writable(who: str, batch: TensorDictBase) -> None:
    """Refuse a batch that is no TensorDict or is locked, before an estimator computes what to write into it.

    Raises:
        SpecError: it is no TensorDict, or a locked one, as memory-mapped and shared ones are.
    """
    require_batch(who, batch)
    if batch.is_locked:
        hint = "Give it batch.copy(), which shares the tensors, and go on with what it returns."
        raise SpecError(explain(who, expected="a batch to write its results into", got="a locked one", hint=hint))


def _nearest(key: Key, batch: TensorDictBase) -> Key | None:
    """Return the key in the batch whose last name is spelt most like the last name of ``key``; None where none is."""
    last_of = {other: _last(other) for other in batch.keys(include_nested=True, leaves_only=True)}
    close = nearest(_last(key), last_of.values())
    same = [other for other, last in last_of.items() if last == close]
    return min(same, key=lambda other: isinstance(other, tuple) != isinstance(key, tuple), default=None)


def _last(key: Key) -> str:
    return key if isinstance(key, str) else key[-1]
