"""Several losses as one, for an agent that takes one: a policy's and that of the module whose reward it follows."""

from __future__ import annotations

from tensordict import TensorDict
from torch import Tensor, nn

from torchrl.errors import ConfigError, explain
from torchrl.objectives.costs.base import Loss


class JointLoss(Loss):
    """Return the terms of several losses of one batch together, so that one optimizer trains all of their networks.

    >>> from torchrl.modules import RandomNetworkDistillation
    >>> from torchrl.objectives import A2CLoss, GAE, RNDLoss
    >>> rnd = RandomNetworkDistillation(MLP(4, 16), MLP(4, 16), shape=4)
    >>> loss = JointLoss(A2CLoss(actor, critic), RNDLoss(rnd))
    >>> sorted(loss(GAE(critic)(batch)).keys())
    ['entropy', 'loss_critic', 'loss_entropy', 'loss_objective', 'loss_predictor']

    Each loss sees its own keys alone. Their sum is :func:`total_loss`; coefficients are those of ``joint.losses[i]``.
    Rates of their own are parameter groups of the optimizer.

    Args:
        *losses: at least one; a parameter that several of them train gets the sum of their gradients.

    Raises:
        ConfigError: one of them is no :class:`Loss`; from a call, two of them return a term of the same name.
    """

    def __init__(self, *losses: Loss) -> None:
        others = [type(loss).__name__ for loss in losses if not isinstance(loss, Loss)]
        if others or not losses:
            raise ConfigError(explain("JointLoss", expected="losses", got=others or "none"))
        in_keys = [key for loss in losses for key in loss.in_keys]
        optional_keys = [key for loss in losses for key in loss.optional_keys]
        super().__init__(in_keys=in_keys, trained=(), optional_keys=dict.fromkeys(optional_keys))
        self.losses = nn.ModuleList(losses)

    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        together: dict[str, Tensor] = {}
        for loss in self.losses:
            terms = loss.terms(rows.select(*loss.in_keys, *loss.optional_keys, strict=False))
            if twice := sorted(together.keys() & terms.keys()):
                hint = "Train them by optimizers of their own."
                got = f"{', '.join(twice)} again from {type(loss).__name__}"
                raise ConfigError(explain("JointLoss", expected="every term from one loss", got=got, hint=hint))
            together |= terms
        return together

    def trainable_parameters(self) -> list[nn.Parameter]:
        """List the parameters that any of the losses trains, each once."""
        return list(dict.fromkeys(one for loss in self.losses for one in loss.trainable_parameters()))
