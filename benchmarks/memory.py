"""Policies with memory against plain torch and sb3-contrib's RecurrentPPO, in one run, one torch thread.

    python benchmarks/memory.py [--frames=20480]

Each comparison times both sides in turn; the median ratio of the rounds counts, its range stands beside it. Needs the
extra ``benchmarks``.

Update: forward and backward over [64, 128] with an LSTM of 64, resets at 5 % of the steps. Predicted from the layout
(one step more for each reset, rows padded to the row with most): 1.15 times torch's LSTM without resets. The step loop
could not be 8 times slower: torch's fused kernel is 2.5 times as fast as a loop over torch's own LSTMCell here, on the
same machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from torchrl.modules import LSTM, Categorical, Operator, ProbabilisticActor, Sequence
from torchrl.recipes import from_flags, parser_of
from torchrl.unchecked import new_tensordict

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 7
N, T, F, H, NUM_ROWS = 64, 128, 4, 64, 8


def ratios(one: Callable[[], object], other: Callable[[], object], *, num: int, rounds: int = ROUNDS) -> list[float]:
    """Time ``num`` calls of both in turn; return the ratios of their times."""

    def seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        for _ in range(num):
            call()
        return time.perf_counter() - start

    one(), other()
    return [seconds(one) / seconds(other) for _ in range(rounds)]


def report(label: str, values: list[float], budget: str) -> None:
    """Print the median and the range."""
    values = sorted(values)
    print(f"{label:<66}{statistics.median(values):>7.2f}  {values[0]:.2f}–{values[-1]:.2f}{budget:>10}", flush=True)


def update() -> None:
    """Compare a forward and backward pass over sequences with torch's LSTM, a loop over its cell, and our steps."""
    torch.manual_seed(0)
    memory, plain, cell = LSTM(F, H), nn.LSTM(F, H), nn.LSTMCell(F, H)
    x, state = torch.randn(N, T, F), torch.zeros(N, *memory.state_shape)
    is_init = torch.rand(N, T) < 0.05
    time_first, keep = x.transpose(0, 1).contiguous(), (~is_init).float().transpose(0, 1).unsqueeze(-1)

    def loop() -> torch.Tensor:
        hidden, inner, outputs = torch.zeros(N, H), torch.zeros(N, H), []
        for inputs, stays in zip(time_first, keep, strict=True):
            hidden, inner = cell(inputs, (hidden * stays, inner * stays))
            outputs.append(hidden)
        return torch.stack(outputs)

    def ours() -> None:
        memory.unroll(x, state, is_init).sum().backward()

    report(
        "update [64, 128] with resets / torch's LSTM without",
        ratios(ours, lambda: plain(time_first)[0].sum().backward(), num=3),
        "<= 1.3",
    )
    report("loop over torch's LSTMCell / update", ratios(lambda: loop().sum().backward(), ours, num=2), "")
    stepwise = lambda: memory.unroll_stepwise(x, state, is_init).sum().backward()  # noqa: E731
    report("our step loop / update", ratios(stepwise, ours, num=2), ">= 8")


def acting() -> None:
    """Compare an actor with memory with the same one without, and with a cell and a head by hand."""
    torch.manual_seed(0)
    head = lambda: ProbabilisticActor(nn.Linear(H, 2), Categorical, in_keys=["hidden"])  # noqa: E731
    lstm = LSTM(F, H)
    with_memory = Sequence(lstm, head())
    layers = nn.Sequential(nn.Linear(F, H), nn.Tanh(), nn.Linear(H, H), nn.Tanh())
    without = Sequence(Operator(layers, in_keys=["observation"], out_keys=["hidden"]), head())
    cell, linear = nn.LSTMCell(F, H), nn.Linear(H, 2)
    observation, is_init = torch.randn(NUM_ROWS, F), torch.zeros(NUM_ROWS, 1, dtype=torch.bool)
    state = torch.zeros(NUM_ROWS, *lstm.state_shape)
    size, parts = torch.Size([NUM_ROWS]), (torch.zeros(NUM_ROWS, H), torch.zeros(NUM_ROWS, H))

    def remember() -> None:
        with_memory(new_tensordict({"observation": observation, "memory": state, "is_init": is_init}, size))

    def forget() -> None:
        without(new_tensordict({"observation": observation, "is_init": is_init}, size))

    def by_hand() -> None:
        hidden, _ = cell(observation, parts)
        distribution = torch.distributions.Categorical(logits=linear(hidden))
        distribution.log_prob(distribution.sample())

    with torch.no_grad():
        report("acting on 8 rows: LSTM of 64 / two layers of 64", ratios(remember, forget, num=200), "<= 2")
        report("acting on 8 rows: LSTM of 64 / LSTMCell and head by hand", ratios(remember, by_hand, num=200), "<= 1.3")


def end_to_end(frames: int) -> None:
    """Compare recurrent PPO on CartPole without velocities with sb3-contrib's, with the same settings and frames."""
    import gymnasium
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    path = ROOT / "examples" / "ppo" / "ppo.py"
    spec = importlib.util.spec_from_file_location("ppo", path)
    example = sys.modules["ppo"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    words = [f"--config={ROOT / 'configs/ppo/cartpole_memory.txt'}", f"--total_frames={frames}", "--no-progress_bar"]
    words += ["--no-norm_observations", "--record_interval=100000000"]

    class Positions(gymnasium.ObservationWrapper):
        """CartPole without its velocities."""

        def __init__(self) -> None:
            super().__init__(gymnasium.make("CartPole-v1"))
            self.observation_space = gymnasium.spaces.Box(-5, 5, (2,))

        def observation(self, observation: object) -> object:
            return observation[[0, 2]]

    def ours() -> float:
        agent = example.make_agent(from_flags(example.PPO, parser_of(example.PPO).parse_args(words)))
        agent.evaluator = None
        start = time.perf_counter()
        agent.train()
        seconds = time.perf_counter() - start
        agent.close()
        return seconds

    def theirs() -> float:
        networks = {"lstm_hidden_size": 64, "net_arch": [64], "activation_fn": nn.ReLU, "ortho_init": False}
        options = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8}
        env = DummyVecEnv([Positions] * 8)
        model = RecurrentPPO(
            "MlpLstmPolicy", env, learning_rate=1e-3, policy_kwargs=networks, seed=0, device="cpu", **options
        )
        start = time.perf_counter()
        model.learn(frames)
        return time.perf_counter() - start

    values = [theirs() / ours() for _ in range(3)]
    report(f"recurrent PPO, {frames:,} frames: sb3-contrib / ours", values, ">= 3")


def main() -> None:
    """Print one line per comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_480)
    torch.set_num_threads(1)
    print(f"{'':<66}{'median':>7}  range{'budget':>14}")
    update()
    acting()
    end_to_end(parser.parse_args().frames)


if __name__ == "__main__":
    main()
