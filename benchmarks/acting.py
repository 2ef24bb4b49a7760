"""How long acting takes, against the bare network.

    python benchmarks/acting.py

One torch thread, a batch of 8 rows, a 64×64 tanh network; every call gets a fresh root TensorDict, as an environment
gives it, and writes the parameters, the action and its log-probability under ``no_grad``. The unit is the bare network:
``torch.nn.Sequential(Linear, Tanh, Linear, Tanh, Linear)`` called normally on the tensor, with the same number of
outputs. For comparison, the same with ``torch.distributions`` on plain tensors, which writes nothing anywhere.

Calls are timed in turn, two hundred at a time, many times over, and the fastest round of each counts: a machine that is
busy in between slows all of them. Budgets: Categorical at most 2.5 (aim 2), TanhNormal at most 4.5 (aim 3); none for
Normal. Exits with status 1 where one is missed.

Predicted from the price of the single operations (network 14 µs where nn.Sequential takes 20, log-softmax 1, race 5,
gather and squeezes 3, containers 2): 1.25 for Categorical, 1.8 for TanhNormal before its bounds had a probability, and
0.3 more for that. Every scalar operand costs 2 µs, every dimension of bounds that differ some more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from torchrl.modules import MLP, Categorical, Normal, NormalHead, ObservationNormalizer, ProbabilisticActor, TanhNormal
from torchrl.unchecked import new_tensordict

NUM_ROWS, NUM_FEATURES, NUM_OUTPUTS = 8, 4, 2
BUDGETS = {"Categorical": 2.5, "TanhNormal": 4.5}


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


def microseconds(calls: dict[str, Callable[[], object]], *, rounds: int = 50, repeats: int = 200) -> dict[str, float]:
    """Time every call in turn and return its fastest round, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            times[name].append((time.perf_counter() - start) / repeats * 1e6)
    return {name: min(values) for name, values in times.items()}


def main() -> int:
    """Print a table, and return how many budgets are missed."""
    torch.set_num_threads(1)
    observation, batch_size, bare = torch.randn(NUM_ROWS, NUM_FEATURES), torch.Size([NUM_ROWS]), bare_network()

    def discrete() -> MLP:
        return MLP(NUM_FEATURES, NUM_OUTPUTS)

    def continuous(*before: nn.Module) -> nn.Sequential:
        return nn.Sequential(*before, discrete(), NormalHead(NUM_OUTPUTS))

    def acting(actor: ProbabilisticActor) -> Callable[[], object]:
        return lambda: actor(new_tensordict({"observation": observation}, batch_size))

    mlp, normalizer = discrete(), ObservationNormalizer(NUM_FEATURES)
    per_dimension = TanhNormal.within(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 1.0]))
    calls = {
        "bare network": lambda: bare(observation),
        "MLP": lambda: mlp(observation),
        "ObservationNormalizer": lambda: normalizer(observation),
        "Categorical": acting(ProbabilisticActor(discrete(), Categorical)),
        "Normal": acting(ProbabilisticActor(continuous(), Normal)),
        "Normal, normalised": acting(ProbabilisticActor(continuous(normalizer), Normal)),
        "TanhNormal": acting(ProbabilisticActor(continuous(), TanhNormal)),
        "TanhNormal, ±2": acting(ProbabilisticActor(continuous(), TanhNormal.within(-2.0, 2.0))),
        "TanhNormal, by dimension": acting(ProbabilisticActor(continuous(), per_dimension)),
        "torch.distributions.Categorical": lambda: plain_discrete(bare, observation),
        "torch.distributions.Normal": lambda: plain_continuous(bare, observation),
    }
    with torch.no_grad():
        times = microseconds(calls)
    missed = 0
    print(f"{'':>32} {'µs':>8} {'ratio':>7} {'budget':>7}")
    for name, value in times.items():
        ratio, budget = value / times["bare network"], BUDGETS.get(name)
        missed += budget is not None and ratio > budget
        print(f"{name:>32} {value:8.1f} {ratio:7.2f} {'' if budget is None else budget:>7}")
    return missed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
