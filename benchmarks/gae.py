"""How fast advantages are, against the loop over torch rows that scripts write; both are held against float64.

    python benchmarks/gae.py

Prints one line per batch: the plain loop (everything inside), the lean loop (only the recurrence inside, one fused
operation per row), ours, and the ratio of the plain loop to ours. Budget: at least 10.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from torchrl.functional import gae

GAMMA, LAMBDA = 0.99, 0.95
SHAPES = [(64, 1000), (1, 2048), (8, 128)]


def make_batch(num_envs: int, num_steps: int, *, ending: float = 0.005) -> dict[str, Tensor]:
    """Draw a batch in float32, with both kinds of ending."""
    generator = torch.Generator().manual_seed(0)
    floats = ("reward", "value", "next_value")
    batch = {name: torch.randn(num_envs, num_steps, 1, generator=generator) for name in floats}
    for name in ("terminated", "truncated"):
        batch[name] = torch.rand(num_envs, num_steps, 1, generator=generator) < ending
    return batch


def plain_loop(reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """Walk backwards row by row, as the textbook and most scripts do; flags become numbers once."""
    goes_on, bootstrap = (~(terminated | truncated)).to(value.dtype), (~terminated).to(value.dtype)
    advantage, running = torch.zeros_like(reward), 0.0
    for t in reversed(range(reward.shape[1])):
        delta = reward[:, t] + GAMMA * next_value[:, t] * bootstrap[:, t] - value[:, t]
        running = delta + GAMMA * LAMBDA * goes_on[:, t] * running
        advantage[:, t] = running
    return advantage


def lean_loop(reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """The best that a loop over rows can do: all else is done on whole tensors, each row is one fused operation."""
    delta = (reward + GAMMA * next_value * ~terminated - value).unbind(1)
    decay = ((~(terminated | truncated)).to(value.dtype) * (GAMMA * LAMBDA)).unbind(1)
    rows, running = [None] * len(delta), torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        rows[t] = running = torch.addcmul(delta[t], decay[t], running)
    return torch.stack(rows, 1)


def ours(**batch: Tensor) -> Tensor:
    """Call the function under test."""
    return gae(**batch, gamma=GAMMA, lambda_=LAMBDA)[0]


def fastest_ms(call: Callable[[], object], *, seconds: float = 1.0) -> float:
    """Repeat a call for a while and return its fastest run in milliseconds."""
    call()
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def main() -> None:
    """Check each shape against float64, then time it."""
    torch.set_num_threads(1)
    print(f"{'batch':>12} {'plain loop':>12} {'lean loop':>12} {'ours':>10} {'ratio':>8} {'error':>10}")
    for shape in SHAPES:
        batch = make_batch(*shape)
        exact = {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}
        reference = plain_loop(**exact)
        torch.testing.assert_close(ours(**exact), reference, rtol=1e-10, atol=1e-10)
        error = (ours(**batch) - reference).abs().max().item()
        plain, lean, mine = (fastest_ms(partial(call, **batch)) for call in (plain_loop, lean_loop, ours))
        name = "[{}, {}]".format(*shape)
        print(f"{name:>12} {plain:9.2f} ms {lean:9.2f} ms {mine:7.3f} ms {plain / mine:7.1f}x {error:10.1e}")


if __name__ == "__main__":
    main()
