"""Batches of steps whose numbers say where they come from."""

import torch
from tensordict import TensorDict

from cases.padding import MASK


def make_batch(*shape, terminated=(), truncated=(), done=(), is_init=(), masked=()):
    """Step t earns 2^t in every lane, goes from observation t to t + 1, and carries a hidden state t + 100 on.

    Flags are given as the steps where they are true; masked steps hold NaN, and flags that are all set.
    """
    length = shape[-1]
    time = torch.arange(float(length)).expand(shape).unsqueeze(-1)

    def flags(*steps):
        return torch.zeros(*shape, 1, dtype=torch.bool).index_fill(-2, torch.tensor(steps, dtype=torch.int64), True)

    source = {
        "observation": {"position": time.clone(), "pixels": time.repeat_interleave(3, -1).byte()},
        "action": torch.zeros(shape, dtype=torch.int64),
        "is_init": flags(*is_init),
        "next": {
            "observation": {"position": time + 1, "pixels": (time + 1).repeat_interleave(3, -1).byte()},
            "hidden": (time + 100).unsqueeze(-1).repeat_interleave(2, -1),
            "reward": 2.0**time,
            "terminated": flags(*terminated),
            "truncated": flags(*truncated),
            "done": flags(*terminated, *truncated, *done),
        },
    }
    batch = TensorDict(source, batch_size=shape)
    if masked:
        outside = flags(*masked).squeeze(-1)
        for value in batch.values(True, True):
            value[outside] = float("nan") if value.is_floating_point() else 1
        batch.set(MASK, ~outside)
    return batch
