"""What a checkpoint holds of an agent, and how an agent is restored from it. The file format is in ``checkpoint``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from torchrl.agents.checkpoint import load_optimizer, match_compiled, require_fit, strip_compiled
from torchrl.agents.parts import load_state_of, state_of
from torchrl.errors import CheckpointError, SpecError, explain
from torchrl.modules.randomness import generators_of

if TYPE_CHECKING:
    from torchrl.agents.agent import Agent


def agent_state(agent: Agent) -> dict:
    """Return what a resumed run needs: networks, optimizer, collector, environments, random streams, counters."""
    return {
        "networks": {name: strip_compiled(module.state_dict()) for name, module in agent.networks.items()},
        "optimizer": agent.optimizer.state_dict(),
        "optimise": state_of(agent.optimise),
        "collector": agent.collector.state_dict(),
        "learned": agent.collector.learned_states(),  # of transforms: a policy sees with it
        "store": state_of(agent.store),
        "generators": {name: generator.get_state() for name, generator in _generators(agent).items()},
        "torch_rng": torch.get_rng_state(),
        "counters": {"frames": agent.frames, "best_return": agent.best_return, "seconds": dict(agent.seconds)},
        "configuration": agent.configuration,
    }


def load_agent_state(agent: Agent, state: dict) -> None:
    """Restore :func:`agent_state`; refuse generators, networks or an optimizer that do not fit before any change.

    A collector that does not fit is refused when networks and optimizer have been loaded.

    Raises:
        CheckpointError: naming the parameters or parts that do not fit.
    """
    generators, states = _generators(agent), strip_compiled(state["generators"])
    require_fit("random generators", dict.fromkeys(generators), dict.fromkeys(states))
    _require_networks_fit(agent.networks, state["networks"])
    load_optimizer(agent.optimizer, state["optimizer"])
    _load_networks(agent.networks, state["networks"])
    load_state_of(agent.optimise, state["optimise"])
    try:
        agent.collector.load_state_dict(state["collector"])
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        expected = "the environments it was saved with, as many of them"
        got = f"others: {str(error).rstrip('.')}"
        raise CheckpointError(explain("checkpoint, collector", expected=expected, got=got)) from error
    load_state_of(agent.store, state.get("store", {}))
    for name, generator in generators.items():
        generator.set_state(states[name])
    torch.set_rng_state(state["torch_rng"])
    counters = state["counters"]
    agent.frames, agent.best_return = counters["frames"], counters["best_return"]
    agent.seconds = dict(counters["seconds"])
    agent.configuration = state["configuration"]


def load_agent_networks(agent: Agent, state: dict) -> None:
    """Load into an agent only the networks of a state, and the transforms' statistics of observations.

    Raises:
        CheckpointError: naming the parameters that do not fit.
    """
    _require_networks_fit(agent.networks, state["networks"])
    try:
        agent.collector.load_learned_states(state["learned"], for_acting=True)
    except SpecError as error:
        raise CheckpointError(f"checkpoint, {error}") from error
    _load_networks(agent.networks, state["networks"])


def _require_networks_fit(networks: dict[str, nn.Module], came: dict[str, dict]) -> None:
    require_fit("networks", dict.fromkeys(networks), dict.fromkeys(came))
    for name, module in networks.items():
        have = module.state_dict()
        require_fit(name, have, match_compiled(came[name], have))


def _load_networks(networks: dict[str, nn.Module], came: dict[str, dict]) -> None:
    for name, module in networks.items():
        module.load_state_dict(match_compiled(came[name], module.state_dict()))


def _generators(agent: Agent) -> dict[str, torch.Generator]:
    """Return each random generator of an agent once, by the path of its owner, as if no module were compiled."""
    owners = {"policy": agent.collector.policy, "loss": agent.loss, "optimise": agent.optimise}
    found: dict[str, torch.Generator] = {}
    for owner, part in owners.items():
        for path, generator in generators_of(part).items():
            if not any(generator is known for known in found.values()):
                found[f"{owner}.{path}"] = generator
    return strip_compiled(found)
