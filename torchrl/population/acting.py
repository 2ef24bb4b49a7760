"""One policy for the rows of all members, of which each member's own policy acts on its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.unchecked import put


class JointPolicy(nn.Module):
    """Act on a root ``[S * B]`` with the policies of S members, each on its B rows in their order.

    >>> joint = JointPolicy([actor, actor])
    >>> joint(env.reset())["action"].shape  # one row each
    torch.Size([2])

    Args:
        policies: of the members; each draws from its own generators, as if it acted alone.
    """

    def __init__(self, policies: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(policies)

    def forward(self, root: TensorDictBase) -> TensorDictBase:
        """Let every member act on its rows, and write what all of them wrote into the root."""
        seen = dict(root.items(include_nested=True, leaves_only=True))
        size = root.batch_size[0] // len(self.members)
        written = [policy(rows) for policy, rows in zip(self.members, root.split(size), strict=True)]
        for key in written[0].keys(include_nested=True, leaves_only=True):
            if key not in seen:
                value = torch.cat([part.get(key) for part in written])
                put(root, key, value) if isinstance(key, str) else root.set(key, value)
        return root

    @property
    def require_fit(self) -> Callable[..., None]:
        """The members' method that refuses an action spec that their policy does not fit."""
        return self.members[0].require_fit
