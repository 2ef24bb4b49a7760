"""How long a policy takes that was handed over, against the live actor on its TensorDict; one row, one thread.

    python benchmarks/handover.py

Live is the actor under ``no_grad`` and the exploration type ``DETERMINISTIC``, called on a fresh copy of the root,
without its environment's transforms, which the handed-over one includes. ``load_policy`` is called with an array and
returns one; onnxruntime (extra: onnx) likewise. Budgets: 0.7 and 0.25 of the live time. Predicted: 0.6, since half of
the live time are the TensorDict, the distribution and the log-probability. Exits with status 1 where one is missed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from torchrl.deploy import export_onnx, load_policy, save_policy
from torchrl.envs import GymEnv, TransformedEnv
from torchrl.envs.transforms import ActionClip
from torchrl.modules import (
    MLP,
    Categorical,
    DuelingMLP,
    ExplorationType,
    Normal,
    NormalHead,
    ObservationNormalizer,
    ProbabilisticActor,
    QValueActor,
    StateDependentNormalHead,
    TanhNormal,
    set_exploration_type,
)

BUDGETS = {"load_policy": 0.7, "onnxruntime": 0.25}
POLICIES = {
    "PPO, Categorical, 64 × 64": (
        "CartPole-v1",
        lambda: ProbabilisticActor(nn.Sequential(ObservationNormalizer(4), MLP(4, 2)), Categorical),
    ),
    "PPO, Normal and clip, 64 × 64": (
        "Pendulum-v1",
        lambda: ProbabilisticActor(nn.Sequential(ObservationNormalizer(3), MLP(3, 1), NormalHead(1)), Normal),
    ),
    "SAC, TanhNormal, 256 × 256": (
        "Pendulum-v1",
        lambda: ProbabilisticActor(
            nn.Sequential(MLP(3, 2, num_cells=(256, 256), activation=nn.ReLU), StateDependentNormalHead()),
            TanhNormal.within(-2.0, 2.0),
        ),
    ),
    "DQN, dueling, 64 × 64": ("CartPole-v1", lambda: QValueActor(DuelingMLP(4, 2, num_cells=(64, 64)))),
}


def fastest(function: Callable[[], object], num_rounds: int = 20, num_calls: int = 200) -> float:
    """Return the microseconds of a call in the fastest round."""
    best = float("inf")
    for _ in range(num_rounds):
        start = time.perf_counter()
        for _ in range(num_calls):
            function()
        best = min(best, time.perf_counter() - start)
    return best / num_calls * 1e6


def measure(task: str, policy: nn.Module, folder: Path) -> dict[str, float]:
    """Return microseconds of one row: live, by ``load_policy`` and by onnxruntime."""
    env = GymEnv(task, num_envs=1)
    if task == "Pendulum-v1":
        env = TransformedEnv(env, ActionClip())
    root = env.reset(seed=0)
    rows = root["observation"].numpy().copy()
    form = save_policy(policy, folder / "policy.pt2", env=env)
    export_onnx(folder / "policy.pt2", folder / "policy.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "policy.onnx", options)
    inputs = {one.name: np.zeros((1, *one.shape), one.dtype) for one in form.inputs} | {"observation": rows}
    saved = load_policy(folder / "policy.pt2")
    policy.eval()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        figures = {"live": fastest(lambda: policy(root.copy()))}
    figures["load_policy"] = fastest(lambda: saved(rows[0]))
    figures["onnxruntime"] = fastest(lambda: session.run(None, inputs))
    env.close()
    return figures


def main() -> int:
    """Print a line for each policy; return the number of missed budgets."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (task, make_policy) in POLICIES.items():
            figures = measure(task, make_policy(), Path(folder))
            ratios = {key: figures[key] / figures["live"] for key in BUDGETS}
            missed += sum(ratio > BUDGETS[key] for key, ratio in ratios.items())
            parts = [f"{key} {figures[key]:5.1f} µs = {ratio:.2f} ×" for key, ratio in ratios.items()]
            print(f"{name:31} live {figures['live']:5.1f} µs, {', '.join(parts)}")
    return missed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
