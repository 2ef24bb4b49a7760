"""Which devices this machine has, which one holds a batch, and how a batch is moved to another."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase

from torchrl.errors import ConfigError, explain


def available_devices() -> list[str]:
    """List the devices of this machine by name, ``cpu`` first."""
    names = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        names += [f"{kind}:{index}" for index in range(torch.accelerator.device_count())]
    return names


def find_device(name: str | torch.device) -> torch.device:
    """Return the device with the given name, or refuse one that this machine lacks; ``cuda`` means ``cuda:0``.

    Raises:
        ConfigError: no such device here; the message lists those there are.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is not None and device.type != "cpu" and device.index is None:
        device = torch.device(device.type, 0)
    if device is None or str(device) not in available_devices():
        raise ConfigError(explain("device", expected=f"one of {', '.join(available_devices())}", got=str(name)))
    return device


def device_of(tensordict: TensorDictBase) -> torch.device:
    """Return the device of the first tensor in a TensorDict; the CPU where it holds none.

    >>> device_of(TensorDict({"reward": torch.zeros(8, 1)}))
    device(type='cpu')
    """
    for leaf in tensordict.values(include_nested=True, leaves_only=True):
        if torch.is_tensor(leaf):
            return leaf.device
    return torch.device("cpu")


def to_device(transitions: TensorDictBase, device: torch.device) -> TensorDictBase:
    """Return transitions on a device: the same object if their reward (without one, first entry) is there already."""
    entry = transitions.get(("next", "reward"), None)
    if (next(iter(transitions.values(True, True))) if entry is None else entry).device == device:
        return transitions
    return transitions.to(device, non_blocking=device.type != "cpu")  # the CPU reads its copy at once
