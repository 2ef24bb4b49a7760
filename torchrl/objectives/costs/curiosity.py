"""The losses that train curiosity: of random network distillation, and of the intrinsic curiosity module."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl.errors import ConfigError, explain
from torchrl.modules.curiosity import IntrinsicCuriosity, RandomNetworkDistillation
from torchrl.objectives.costs.base import Coefficient, Loss


class RNDLoss(Loss):
    """Train the predictor of random network distillation on a share of the rows, ``mean ‖f̂(s') - f(s')‖²``.

    >>> from torchrl.modules import RandomNetworkDistillation
    >>> loss = RNDLoss(RandomNetworkDistillation(MLP(4, 16), MLP(4, 16), shape=4))
    >>> loss(batch)["loss_predictor"].shape
    torch.Size([])

    Burda et al., "Exploration by Random Network Distillation" (2018), https://arxiv.org/abs/1810.12894, algorithm 1.
    With many parallel rows a predictor that saw them all would catch up with the policy before the reward had changed
    it: the paper trains it on a quarter of 128 rows' steps. The target has no gradient.

    Args:
        module: its statistics of observations are read here, and change in its ``update``.
        share: of the rows, drawn anew in each call; at least one.
        generator: source of the draw; None uses torch's global one, the only one that ``torch.compile`` takes.

    Raises:
        ConfigError: the share is not in (0, 1], or the module another one.
    """

    def __init__(
        self,
        module: RandomNetworkDistillation,
        *,
        share: float = 0.25,
        generator: torch.Generator | None = None,
    ) -> None:
        if not isinstance(module, RandomNetworkDistillation):
            expected, got = "a RandomNetworkDistillation", type(module).__name__
            raise ConfigError(explain("RNDLoss", expected=expected, got=got))
        if not 0 < share <= 1:
            raise ConfigError(explain("RNDLoss", expected="a share above 0, up to 1", got=share))
        super().__init__(in_keys=module.in_keys, trained=[module.predictor])
        self.module = module
        self.share = share
        self.generator = generator

    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        rows = rows.reshape(-1)
        num = len(rows)
        num_chosen = max(1, round(self.share * num))
        if num_chosen < num:
            home = None if self.generator is None else self.generator.device
            device = rows.get(self.in_keys[0]).device
            order = torch.randperm(num, generator=self.generator, device=device if home is None else home)
            rows = rows[order[:num_chosen].to(device)]
        return {"loss_predictor": self.module.error(rows).mean()}


class ICMLoss(Loss):
    """Train the intrinsic curiosity module: ``(1 - β) L_I`` of its inverse model and ``β L_F`` of its dynamics.

    >>> from torchrl.modules import IntrinsicCuriosity
    >>> loss = ICMLoss(IntrinsicCuriosity(MLP(4, 16), MLP(32, 2), MLP(18, 16), num_actions=2))
    >>> sorted(loss(batch).keys())
    ['loss_dynamics', 'loss_inverse']

    Pathak et al., "Curiosity-driven Exploration by Self-supervised Prediction" (2017),
    https://arxiv.org/abs/1705.05363, equation 7 without the policy's part, whose weight is that of its own loss. The
    inverse model's error trains the features; that of the dynamics does not reach them.

    Args:
        module: whose three networks are trained.
        beta: β. May be scheduled.

    Raises:
        ConfigError: β is not in [0, 1), or the module another one.
    """

    beta = Coefficient(least=0.0, below=1.0)

    def __init__(self, module: IntrinsicCuriosity, *, beta: float = 0.2) -> None:
        if not isinstance(module, IntrinsicCuriosity):
            raise ConfigError(explain("ICMLoss", expected="an IntrinsicCuriosity", got=type(module).__name__))
        super().__init__(in_keys=module.in_keys, trained=[module.features, module.inverse, module.dynamics])
        self.module = module
        self.beta = beta

    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        inverse, dynamics = self.module.errors(rows)
        beta = self._buffers["_beta"]
        return {"loss_inverse": (1 - beta) * inverse.mean(), "loss_dynamics": beta * dynamics.mean()}
