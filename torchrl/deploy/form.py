"""What goes into a saved policy and what comes out, as plain data: names, shapes, dtypes, spaces. No tensors here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch

from torchrl.data.specs import Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, TensorSpec
from torchrl.errors import CheckpointError, explain
from torchrl.keys import Key, as_path

FORMAT = "torchrl policy"
VERSION = 1
OBSERVATION, STATE, NOISE, ACTION = "observation", "state", "noise", "action"


@dataclass(frozen=True)
class Entry:
    """One input or output of a policy's program, of one row; the program's tensors have ``N`` rows in front.

    >>> Entry("observation", "observation", ("observation",), (4,), "float32").shape
    (4,)

    Attributes:
        name: unique among the inputs, or the outputs.
        kind: ``"observation"``, ``"state"``, ``"noise"`` or ``"action"``. The output of a state is the next one.
        path: levels of the key in nested observations or actions.
        shape: of one row.
        dtype: numpy's name of it.
        initial: of a state, its value when an episode begins: a number for all entries, or nested lists.
        law: of noise: ``"normal"``, ``"gumbel"`` or ``"logistic"``, of location 0 and scale 1.
        lasts: of noise, for how many steps of a row it is kept; None: for an episode.
    """

    name: str
    kind: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    initial: Any = None
    law: str | None = None
    lasts: int | None = None


@dataclass(frozen=True)
class Form:
    """Describe a saved policy without its weights; what ``policy.json`` holds.

    >>> from torchrl.deploy import load_policy
    >>> agent.save_policy(folder / "policy.pt2", env=env)
    >>> [entry.name for entry in load_policy(folder / "policy.pt2").form.inputs]
    ['observation', 'noise']

    Attributes:
        inputs: of the program, in order.
        outputs: likewise: actions, then the next states, in the order of the states among the inputs.
        observation_space: of one simulator, as plain data.
        action_space: likewise.
        samples: whether noise drawn by its law gives the actions that the policy would draw.
        task: id of the environment; empty where it is not known.
        origin: settings of the run that trained it, and the library's versions.
    """

    inputs: tuple[Entry, ...]
    outputs: tuple[Entry, ...]
    observation_space: dict
    action_space: dict
    samples: bool = True
    task: str = ""
    origin: dict = field(default_factory=dict)

    def of_kind(self, kind: str) -> tuple[Entry, ...]:
        """Return the inputs of a kind."""
        return tuple(entry for entry in self.inputs if entry.kind == kind)

    def plain(self) -> dict:
        """Return all as a dict that JSON can hold."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def of_plain(cls, plain: object, where: str) -> Form:
        """Return what :meth:`plain` gave; unknown fields of a later minor change are ignored.

        Raises:
            CheckpointError: it is of something else, or of a later version.
        """
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            got = f"other content: {where!r}"
            raise CheckpointError(explain("load_policy", expected="a file of save_policy", got=got))
        if plain.get("version") != VERSION:
            hint = "It was written by another version of torchrl; load it with that one, or save the policy anew."
            got = f"version {plain.get('version')}: {where!r}"
            raise CheckpointError(explain("load_policy", expected=f"version {VERSION}", got=got, hint=hint))
        known = {one.name for one in fields(cls)}
        values = {name: value for name, value in plain.items() if name in known}
        for side in ("inputs", "outputs"):
            values[side] = tuple(
                Entry(**{**one, "path": tuple(one["path"]), "shape": tuple(one["shape"])}) for one in values[side]
            )
        return cls(**values)


def space_of(spec: TensorSpec) -> dict:
    """Return the spec of one row as plain data: kind, shape, dtype, and bounds or numbers of choices.

    >>> space_of(env.action_spec[0])
    {'kind': 'Categorical', 'shape': [], 'dtype': 'int64', 'n': 2}
    """
    if isinstance(spec, Composite):
        return {"kind": "Composite", "parts": {key: space_of(part) for key, part in spec.items()}}
    plain = {"kind": type(spec).__name__, "shape": list(spec.shape), "dtype": dtype_of(spec.dtype)}
    if isinstance(spec, Bounded):
        plain |= {side: compact(getattr(spec, side)) for side in ("low", "high")}
    elif isinstance(spec, Categorical):
        plain["n"] = spec.n
    elif isinstance(spec, (MultiCategorical, MultiOneHot)):
        plain["nvec"] = torch.as_tensor(spec.nvec).tolist()
    return plain


def dtype_of(dtype: torch.dtype) -> str:
    """Return numpy's name of a dtype of torch."""
    return str(dtype).removeprefix("torch.")


def compact(value: torch.Tensor) -> Any:
    """Return a tensor as one number where all its entries are equal, else as nested lists; infinity as a text."""
    value = value.detach().cpu()
    first = value.flatten()[:1]
    is_one = bool(value.numel()) and bool((value == first).all())
    return _finite(first.item() if is_one else value.tolist())


def filled(entry: Entry) -> np.ndarray:
    """Return a state's initial value, as an array of the entry's shape and dtype."""
    return np.broadcast_to(np.asarray(entry.initial, entry.dtype), entry.shape)


def path_of(key: Key) -> tuple[str, ...]:
    """Return a key as a tuple of names."""
    return as_path(key)


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value if not isinstance(value, float) or np.isfinite(value) else str(value)
