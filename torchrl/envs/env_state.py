"""State of an env beside that of its rows: one object shared with envs around it, and extra entries of its roots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.data.specs import Composite
from torchrl.envs.vector.building import RESERVED
from torchrl.errors import ConfigError, SpecError, explain


def _new_generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@dataclass
class SharedState:
    """Hold what an env and all envs around it share: the generator of actions, the next seed, a count of uses.

    Attributes:
        generator: draws random actions.
        pending_seed: the seed of the last ``set_seed``, until a reset of all rows uses it; None without one.
        num_moves: how often any of these envs was reset, stepped, frozen or given a state.
    """

    generator: torch.Generator = field(default_factory=_new_generator)
    pending_seed: int | Sequence[int | None] | None = None
    num_moves: int = 0


class CarriedState:
    """Hold the entries that a root has beside observations: a policy's initial state, and each row's parameters.

    Each env has its own object: an env around another one copies the inner's and adds its transform's initial state.
    The object is never edited, only replaced.

    Args:
        batch_size: ``[*B]``.
        primed: the policy's state at the start of an episode, ``[*B]``; see ``Transform.initial_state``.
        agent_info: parameters for the policy, ``[*B]``; see ``Env.set_info_``.
        env_info: parameters for the simulators' resets, ``[*B]``.

    Attributes:
        initial: all these entries, as a root has them at the start of an episode, ``[*B]``; None without any.
        options: ``env_info`` as one dict of reset options per row; None without ``env_info``.
    """

    def __init__(
        self,
        batch_size: torch.Size,
        primed: TensorDict | None = None,
        agent_info: TensorDict | None = None,
        env_info: TensorDict | None = None,
    ) -> None:
        self.primed, self.agent_info, self.env_info = primed, agent_info, env_info
        entries = {key: value for part in (primed, agent_info) if part is not None for key, value in part.items()}
        self.options = None
        if env_info is not None:
            entries["env_info"] = env_info
            self.options = options_of(env_info, batch_size)
        self.initial = TensorDict(entries, batch_size=batch_size) if entries else None

    def require_free_names(self, observation_spec: Composite) -> None:
        """Refuse parameters whose names an observation, a policy's state or the env itself already uses.

        Raises:
            ConfigError: the name is that of an observation, of a policy's state, or of the env itself.
        """
        taken = {*observation_spec.keys(), *(() if self.primed is None else self.primed.keys())}
        agent = () if self.agent_info is None else self.agent_info.keys()
        names = {
            "agent_info": taken.union(RESERVED).intersection(agent),
            "env_info": taken.intersection(() if self.env_info is None else ["env_info"]),
        }
        for what, found in names.items():
            if found:
                hint = "Give it another key, or a level of its own."
                expected = "names beside those of observations, of a policy's state and of the env itself"
                raise ConfigError(explain(f"set_info_, {what}", expected=expected, got=sorted(found), hint=hint))


def copy_info(
    name: str, info: TensorDictBase, before: TensorDict | None, *, batch_size: torch.Size, device: torch.device
) -> TensorDict:
    """Check a TensorDict of each row's parameters, ``[*B]``, and return a copy of it on a device.

    Args:
        name: of the TensorDict, for messages.
        info: tensors, ``[*B, ...]`` each.
        before: the TensorDict set before, whose keys, shapes and dtypes ``info`` must have; None at the first time.
        batch_size: ``[*B]``.
        device: where the environment's tensors live.

    Raises:
        SpecError: ``info`` is no TensorDict of tensors, or has another batch size, or other entries than ``before``.
    """
    who = f"set_info_, {name}"
    expected = f"a TensorDict of batch size {list(batch_size)}"
    if not isinstance(info, TensorDictBase):
        raise SpecError(explain(who, expected=expected, got=type(info).__name__))
    if info.batch_size != batch_size:
        hint = "Give one entry for each row: TensorDict({...}, batch_size=env.batch_size)."
        raise SpecError(explain(who, expected=expected, got=f"one of {list(info.batch_size)}", hint=hint))
    form = _form(who, info)
    if not form:
        raise SpecError(explain(who, expected="at least one tensor", got="none"))
    if before is not None and form != _form(who, before):
        hint = "Other values may follow, but not another form: it is that of recorded rows."
        raise SpecError(explain(who, expected=f"the form it had before, {_form(who, before)}", got=form, hint=hint))
    return info.detach().to_tensordict().to(device).clear_device_()


def options_of(env_info: TensorDict, batch_size: torch.Size) -> list[dict]:
    """Turn ``env_info`` into one dict of reset options per row: Python scalars from leaves ``[*B]``, else arrays."""
    num = batch_size.numel()
    columns = {}
    for key, value in env_info.items():
        if isinstance(value, TensorDictBase):
            columns[key] = options_of(value, batch_size)
        else:
            column = value.cpu().numpy().reshape(num, *value.shape[len(batch_size) :])
            columns[key] = column.tolist() if column.ndim == 1 else list(column)
    return [{key: column[row] for key, column in columns.items()} for row in range(num)]


def copy_options(options: dict | None) -> dict | None:
    """Copy the options of one reset for a simulator, which may keep them and write to them."""
    return None if options is None else {key: _copy_value(value) for key, value in options.items()}


def put_info_(root: TensorDictBase, info: TensorDictBase) -> None:
    """Set entries of a root, ``[*B]``, to copies of parameters; the root's old tensors are not written to."""
    for path, leaf in _leaves("apply_info_", info, ()):
        root.set(path, leaf.clone())


def _copy_value(value: Any) -> Any:
    if isinstance(value, dict):
        return copy_options(value)
    return value.copy() if isinstance(value, np.ndarray) else value


def _form(who: str, info: TensorDictBase) -> dict[str, tuple[list[int], torch.dtype]]:
    return {"/".join(path): (list(leaf.shape), leaf.dtype) for path, leaf in _leaves(who, info, ())}


def _leaves(who: str, info: TensorDictBase, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    for key, value in info.items():
        if isinstance(value, TensorDictBase):
            yield from _leaves(who, value, (*above, key))
        elif isinstance(value, torch.Tensor):
            yield (*above, key), value
        else:
            got = f"{type(value).__name__} under {key!r}"
            raise SpecError(explain(who, expected="tensors", got=got))
