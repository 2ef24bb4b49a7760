"""How long acting takes, against the bare network.

    python benchmarks/acting.py

One torch thread, a batch of 8 rows, a 64×64 tanh network; every call gets a fresh root TensorDict, as an environment
gives it, and writes the parameters, the action and its log-probability under ``no_grad``. The unit is the bare network:
``torch.nn.Sequential(Linear, Tanh, Linear, Tanh, Linear)`` called normally on the tensor, with the same number of
outputs. For comparison, the same with ``torch.distributions`` on plain tensors, which writes nothing anywhere.

Calls are timed in turn, two hundred at a time, many times over, and the fastest round of each counts: a machine that is
busy in between slows all of them. Budgets: 2.5 for the choices (aim 2), 4.5 for the continuous families (aim 3) that a
shipped config uses; none for the others. Exits with status 1 where one is missed. ``--process_time`` counts the time of
this process instead of the clock's, for a machine that others use, too.

Predicted from the price of the single operations (network 14 µs where nn.Sequential takes 20, log-softmax 1, race 5,
gather and squeezes 3, containers 2): 1.25 for Categorical, 1.8 for TanhNormal before its bounds had a probability, and
0.3 more for that. Every scalar operand costs 2 µs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from torchrl.modules import (
    MLP,
    Bernoulli,
    Categorical,
    CompositeDistribution,
    Delta,
    GSDEHead,
    GSDENormal,
    MaskedCategorical,
    MaskedOneHotCategorical,
    MultiCategorical,
    Normal,
    NormalHead,
    ObservationNormalizer,
    OneHotCategorical,
    ParallelHeads,
    ProbabilisticActor,
    TanhDelta,
    TanhNormal,
    TruncatedNormal,
)
from torchrl.unchecked import new_tensordict

NUM_ROWS, NUM_FEATURES, NUM_OUTPUTS = 8, 4, 2
CHOICES, CONTINUOUS = 2.5, 4.5
BUDGETS = {
    "Categorical": CHOICES,
    "MultiCategorical [3, 3]": CHOICES,
    "MultiCategorical [4, 2]": CHOICES,
    "Normal": CONTINUOUS,
    "Normal, normalised": CONTINUOUS,
    "GSDENormal": CONTINUOUS,
    "TanhNormal": CONTINUOUS,
    "TanhNormal, ±2": CONTINUOUS,
    "TanhNormal, by dimension": CONTINUOUS,
}


def bare_network() -> nn.Sequential:
    """Build the network that is the unit."""
    return nn.Sequential(
        nn.Linear(NUM_FEATURES, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, NUM_OUTPUTS)
    )


def plain_discrete(network: nn.Module, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample as scripts do."""
    distribution = torch.distributions.Categorical(logits=network(observation))
    action = distribution.sample()
    return action, distribution.log_prob(action)


def plain_continuous(network: nn.Module, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample as scripts do."""
    loc = network(observation)
    distribution = torch.distributions.Normal(loc, torch.ones_like(loc))
    action = distribution.sample()
    return action, distribution.log_prob(action).sum(-1)


def microseconds(
    calls: dict[str, Callable[[], object]], clock: Callable[[], float], *, rounds: int = 50, repeats: int = 200
) -> dict[str, float]:
    """Time every call in turn and return its fastest round, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            for _ in range(repeats):
                call()
            times[name].append((clock() - start) / repeats * 1e6)
    return {name: min(values) for name, values in times.items()}


def acting_calls(observation: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Build an actor of every family, and return its steps by name."""
    batch_size = torch.Size([NUM_ROWS])
    legal = torch.tensor([True, False, True]).expand(NUM_ROWS, 3)
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 1.0])
    noise = torch.randn(NUM_ROWS, 64, NUM_OUTPUTS)

    def network(num_outputs: int = NUM_OUTPUTS) -> MLP:
        return MLP(NUM_FEATURES, num_outputs)

    def normal(*before: nn.Module) -> nn.Sequential:
        return nn.Sequential(*before, network(), NormalHead(NUM_OUTPUTS))

    def acting(module: nn.Module, family: Callable) -> Callable[[], object]:
        actor = ProbabilisticActor(module, family)
        return lambda: actor(new_tensordict({"observation": observation}, batch_size))

    def masked(module: nn.Module, family: Callable) -> Callable[[], object]:
        actor = ProbabilisticActor(module, family, mask_key="legal")
        return lambda: actor(new_tensordict({"observation": observation, "legal": legal}, batch_size))

    class GSDENetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(MLP(NUM_FEATURES, 64, num_cells=(64,)), nn.Tanh())
            self.head = GSDEHead(64, NUM_OUTPUTS)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.head(self.trunk(x), noise)

    features = nn.Sequential(MLP(NUM_FEATURES, 64, num_cells=(64,)), nn.Tanh())
    heads = ParallelHeads(nn.Linear(64, 3), nn.Sequential(nn.Linear(64, NUM_OUTPUTS), NormalHead(NUM_OUTPUTS)))
    composite = CompositeDistribution.of(steer=Categorical, gas=TanhNormal)
    return {
        "Categorical": acting(network(), Categorical),
        "MaskedCategorical": masked(network(3), MaskedCategorical),
        "OneHotCategorical": acting(network(3), OneHotCategorical),
        "MaskedOneHotCategorical": masked(network(3), MaskedOneHotCategorical),
        "MultiCategorical [3, 3]": acting(network(6), MultiCategorical.of([3, 3])),
        "MultiCategorical [4, 2]": acting(network(6), MultiCategorical.of([4, 2])),
        "MultiCategorical [2, 1], masked": masked(network(3), MultiCategorical.of([2, 1])),
        "Bernoulli": acting(network(), Bernoulli),
        "Normal": acting(normal(), Normal),
        "Normal, normalised": acting(normal(ObservationNormalizer(NUM_FEATURES)), Normal),
        "GSDENormal": acting(GSDENetwork(), GSDENormal),
        "TanhNormal": acting(normal(), TanhNormal),
        "TanhNormal, ±2": acting(normal(), TanhNormal.within(-2.0, 2.0)),
        "TanhNormal, by dimension": acting(normal(), TanhNormal.within(low, high)),
        "TruncatedNormal": acting(normal(), TruncatedNormal.within(-1.0, 1.0)),
        "Delta": acting(network(), Delta),
        "TanhDelta": acting(network(), TanhDelta),
        "CompositeDistribution": acting(nn.Sequential(features, heads), composite),
    }


def main() -> int:
    """Print a table, and return how many budgets are missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--process_time", action="store_true", help="time of this process instead of the clock's")
    clock = time.process_time if parser.parse_args().process_time else time.perf_counter
    torch.set_num_threads(1)
    observation, bare = torch.randn(NUM_ROWS, NUM_FEATURES), bare_network()
    mlp, normalizer = MLP(NUM_FEATURES, NUM_OUTPUTS), ObservationNormalizer(NUM_FEATURES)
    calls = {
        "bare network": lambda: bare(observation),
        "MLP": lambda: mlp(observation),
        "ObservationNormalizer": lambda: normalizer(observation),
        **acting_calls(observation),
        "torch.distributions.Categorical": lambda: plain_discrete(bare, observation),
        "torch.distributions.Normal": lambda: plain_continuous(bare, observation),
    }
    with torch.no_grad():
        times = microseconds(calls, clock)
    missed = 0
    print(f"{'':>32} {'µs':>8} {'ratio':>7} {'budget':>7}")
    for name, value in times.items():
        ratio, budget = value / times["bare network"], BUDGETS.get(name)
        missed += budget is not None and ratio > budget
        print(f"{name:>32} {value:8.1f} {ratio:7.2f} {'' if budget is None else budget:>7}")
    return missed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
