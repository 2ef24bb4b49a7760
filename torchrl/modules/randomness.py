"""Calls of a policy that leave no trace: its random streams, counters and statistics are restored. Seeds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def generators_of(policy: object) -> dict[str, torch.Generator]:
    """Find the torch generators that the modules of a policy hold as attributes, by path, each once."""
    found: dict[str, torch.Generator] = {}
    modules = policy.named_modules() if isinstance(policy, nn.Module) else [("", policy)]
    for path, module in modules:
        for name, value in getattr(module, "__dict__", {}).items():
            if isinstance(value, torch.Generator) and not any(value is known for known in found.values()):
                found[f"{path}.{name}" if path else name] = value
    return found


@contextmanager
def keep_randomness(policy: object) -> Iterator[list[torch.Generator]]:
    """Restore a policy's generators and torch's global streams on exit from the context; nothing is seeded at entry.

    Yields:
        The policy's generators.
    """
    generators = list(generators_of(policy).values())
    states = [generator.get_state() for generator in generators]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield generators
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


@contextmanager
def keep_module_state(policy: object) -> Iterator[None]:
    """Restore the buffers and extra state of a policy's modules on exit: counters, running statistics.

    Not restored: parameters, and attributes that are neither buffers nor extra state.
    """
    modules = list(policy.modules()) if isinstance(policy, nn.Module) else []
    buffers = [(module, dict(module._buffers)) for module in modules if module._buffers]
    copies = [{name: None if x is None else x.clone() for name, x in mine.items()} for _, mine in buffers]
    counting = [module for module in modules if type(module).get_extra_state is not nn.Module.get_extra_state]
    extra = [module.get_extra_state() for module in counting]
    try:
        yield
    finally:
        for (module, mine), values in zip(buffers, copies, strict=True):
            for name, value in values.items():
                if value is not None and not torch.equal(mine[name], value):
                    mine[name].copy_(value)
            module._buffers.update(mine)  # also where the module put another tensor in its place
        for module, state in zip(counting, extra, strict=True):
            module.set_extra_state(state)
