"""Time the updates of several agents together against those of one: ``updates``, with ``--members`` and ``--threads``.

PPO on CartPole's shapes, minibatches of 256 rows, two 64×64 tanh networks: the epochs of one eager agent, of one with
``compile=True``, and of S together by one program. Times are those of a gradient step (of all members), as ratios in
one run, the three sides alternating.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from ppo_update import NUM_UPDATES, make_batch, make_ours

from torchrl.population import join_updates


def seconds_of(call: Callable[[], object], calls: int) -> float:
    """Time a gradient step, by the mean of several calls."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / (calls * NUM_UPDATES)


def spread(numbers: list[float], unit: str = "×") -> str:
    """Write the median of some numbers, and their range."""
    return f"{statistics.median(numbers):.2f} {unit} ({min(numbers):.2f}–{max(numbers):.2f})"


def updates(num: int, *, rounds: int, calls: int) -> None:
    """Print how many times as long as one member's step the steps of all take, against the eager and the compiled."""
    batches = [make_batch() for _ in range(num)]
    eager, compiled = make_ours(), make_ours(compile=True)
    start = time.perf_counter()
    together = join_updates([make_ours(compile=True) for _ in range(num)])
    together(batches)
    first_s = time.perf_counter() - start
    sides = [lambda: eager(batches[0]), lambda: compiled(batches[0]), lambda: together(batches)]
    for side in sides:
        side()
    times = [[seconds_of(side, calls) for side in sides] for _ in range(rounds)]
    one, graph, all_ = zip(*times, strict=True)
    print(f"{num} members, {torch.get_num_threads()} threads; the first call, which may compile, took {first_s:.1f} s")
    for name, own in (("one, eager", one), ("one, compiled", graph), ("all together", all_)):
        print(f"  {name:<14}{spread([x * 1e3 for x in own], 'ms')}")
    print(f"  all to one eager    {spread([x / y for x, y in zip(all_, one, strict=True)])}")
    print(f"  all to one compiled {spread([x / y for x, y in zip(all_, graph, strict=True)])}")


def main() -> None:
    """Run the part that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("part", choices=["updates"], nargs="?", default="updates")
    parser.add_argument("--members", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2)
    args = parser.parse_args()
    for threads in args.threads:
        torch.set_num_threads(threads)
        for num in args.members:
            updates(num, rounds=args.rounds, calls=args.calls)


if __name__ == "__main__":
    main()
