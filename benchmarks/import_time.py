"""Import time of the package and of each subpackage against ``import tensordict``, in fresh processes, interleaved."""

from __future__ import annotations

import subprocess
import sys
import time

MODULES = [
    "torchrl",
    "torchrl.functional",
    "torchrl.data",
    "torchrl.record",
    "torchrl.envs",
    "torchrl.envs.base",
    "torchrl.envs.libraries",
    "torchrl.modules",
    "torchrl.collectors",
    "torchrl.objectives",
    "torchrl.agents",
    "torchrl.population",
    "torchrl.recipes",
]
ROUNDS = 5


def seconds_to_import(module: str) -> float:
    """Time a fresh process that imports one module."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the best of several rounds and its ratio; the budget is 1.15."""
    best = dict.fromkeys(["tensordict", *MODULES], float("inf"))
    for _ in range(ROUNDS):
        for module in best:
            best[module] = min(best[module], seconds_to_import(module))
    for module, seconds in best.items():
        print(f"{module:<26}{seconds:>7.2f} s{seconds / best['tensordict']:>7.2f}")


if __name__ == "__main__":
    main()
