"""How actions are chosen: at random or not, by one context for all policies; and the policy without a network.

``set_exploration_type`` is tensordict's ``set_interaction_type`` under the name of what it does here::

    with set_exploration_type(ExplorationType.DETERMINISTIC):
        env.rollout(1000, policy)

Outside any context :func:`exploration_type` is None, and policies sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from tensordict.nn import InteractionType as ExplorationType
from tensordict.nn import TensorDictModuleBase
from tensordict.nn import interaction_type as exploration_type
from tensordict.nn import set_interaction_type as set_exploration_type

if TYPE_CHECKING:
    from torchrl.data.specs import TensorSpec

__all__ = ["ExplorationType", "RandomPolicy", "exploration_type", "set_exploration_type"]


class RandomPolicy(TensorDictModuleBase):
    """Write actions drawn uniformly from the action spec, whatever the observation and the exploration type.

    Args:
        action_spec: ``env.action_spec``, which has the batch dimensions of the environment, ``[*B]`` or ``[*B, A]``.
        action_key: where the action goes.
        generator: source of the actions; None uses torch's global one.
    """

    def __init__(
        self,
        action_spec: TensorSpec,
        *,
        action_key: str | tuple[str, ...] = "action",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_keys = []
        self.out_keys = [action_key]
        self.action_spec = action_spec
        self.action_key = action_key
        self.generator = generator

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict.set(self.action_key, self.action_spec.rand(generator=self.generator))
