"""Time one PPO gradient step of ours against the same step in plain PyTorch, and show where ours goes.

CartPole's shapes: minibatches of 256 rows, two 64×64 tanh networks. ``--compile`` adds the compiled step, ``--profile``
a table of operators.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from _plain import tanh_mlp
from tensordict import TensorDict
from torch import nn
from torch.profiler import ProfilerActivity, profile

from torchrl.agents import MinibatchEpochs
from torchrl.modules import Categorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss

NUM_ENVS, NUM_STEPS, NUM_EPOCHS, MINIBATCH = 8, 128, 4, 256
NUM_UPDATES = NUM_EPOCHS * NUM_ENVS * NUM_STEPS // MINIBATCH


def make_batch() -> TensorDict:
    """Make a batch as GAE leaves it."""
    shape = (NUM_ENVS, NUM_STEPS)
    batch = TensorDict(
        {
            "observation": torch.randn(*shape, 4),
            "action": torch.randint(2, shape),
            "action_log_prob": torch.full(shape, -0.693),
            "advantage": torch.randn(*shape, 1),
            "value_target": torch.randn(*shape, 1),
            "state_value": torch.randn(*shape, 1),
        },
        batch_size=shape,
    )
    outcome = {"observation": torch.randn(*shape, 4), "reward": torch.ones(*shape, 1)}
    batch["next"] = TensorDict(outcome, batch_size=shape)
    return batch


def make_ours(**options) -> MinibatchEpochs:
    """Make our update as the shipped CartPole recipe does."""
    torch.manual_seed(0)
    actor = ProbabilisticActor(tanh_mlp(4, 2), Categorical)
    loss = ClipPPOLoss(actor, ValueOperator(tanh_mlp(4, 1)), entropy_coef=0.01)
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=3e-4, fused=True)
    sizes = {"num_epochs": NUM_EPOCHS, "minibatch_size": MINIBATCH, "max_grad_norm": 0.5}
    return MinibatchEpochs(loss, optimizer, **sizes, **options)


class PlainUpdate:
    """The same epochs by hand: ``torch.distributions``, default Adam, an index per minibatch and key."""

    def __init__(self, batch: TensorDict) -> None:
        self.network, self.critic = tanh_mlp(4, 2), tanh_mlp(4, 1)
        self.parameters = [*self.network.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=3e-4, eps=1e-5)
        names = ("observation", "action", "action_log_prob", "advantage", "value_target")
        self.data = [batch[name].flatten(0, 1).squeeze(-1) for name in names]

    def __call__(self) -> None:
        observation, action, old_log_prob, advantage, target = self.data
        for _ in range(NUM_EPOCHS):
            for rows in torch.randperm(len(action)).chunk(len(action) // MINIBATCH):
                distribution = torch.distributions.Categorical(logits=self.network(observation[rows]))
                ratio = (distribution.log_prob(action[rows]) - old_log_prob[rows]).exp()
                chosen = advantage[rows]
                chosen = (chosen - chosen.mean()) / (chosen.std() + 1e-8)
                gain = torch.min(ratio * chosen, ratio.clamp(0.8, 1.2) * chosen).mean()
                value_loss = (self.critic(observation[rows]).squeeze(-1) - target[rows]).square().mean()
                loss = -gain + 0.5 * value_loss - 0.01 * distribution.entropy().mean()
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters, 0.5)
                self.optimizer.step()


def best_seconds(*functions: Callable[[], object], rounds: int = 60) -> list[float]:
    """Best time of one call of each function, in turns, so that a busy machine is as unkind to one as to the other."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for index, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def main() -> None:
    """Print microseconds per gradient step."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    batch = make_batch()
    ours, plain = make_ours(), PlainUpdate(batch)
    plain_s, ours_s = best_seconds(plain, lambda: ours(batch))
    print(f"plain {microseconds(plain_s)} per step, ours {microseconds(ours_s)}, ratio {plain_s / ours_s:.2f}")
    if args.compile:
        compiled = make_ours(compile=True)
        start = time.perf_counter()
        compiled(batch)
        first_s = time.perf_counter() - start
        plain_s, compiled_s = best_seconds(plain, lambda: compiled(batch))
        ratio = plain_s / compiled_s
        print(f"compiled {microseconds(compiled_s)} per step after {first_s:.1f} s, ratio {ratio:.2f}")
    if args.profile:
        with profile(activities=[ProfilerActivity.CPU]) as table:
            for _ in range(10):
                ours(batch)
        print(table.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


def microseconds(call_s: float) -> str:
    """Write the time of a gradient step."""
    return f"{call_s / NUM_UPDATES * 1e6:.0f} µs"


if __name__ == "__main__":
    main()
