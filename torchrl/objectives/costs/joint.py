"""Several losses as one, for an agent that takes one: a policy's and that of the module whose reward it follows."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from torchrl.data.batch_functions import require_batch
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key
from torchrl.objectives.costs.base import Loss
from torchrl.objectives.keys import read
from torchrl.unchecked import new_tensordict


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

    @property
    def state_keys(self) -> list[Key]:
        """The keys of the states of networks with memory, of all losses."""
        return list(dict.fromkeys(key for loss in self.losses for key in loss.state_keys))

    @property
    def burn_in(self) -> int:
        """The number of first steps of each sequence that are no rows of the loss with a ``td_error``."""
        return max(getattr(loss, "burn_in", 0) for loss in self.losses)

    def forward(self, batch: TensorDictBase) -> TensorDict:
        """Compute the terms of every loss on the batch, each as if it were called alone; see :class:`Loss`.

        Raises:
            KeyMissing: the batch lacks a key that one of the losses reads.
            ConfigError: two losses return a term of the same name.
        """
        require_batch("JointLoss", batch)
        for key in self.in_keys:
            read(batch, key, who="JointLoss")
        return new_tensordict(self.terms(batch), torch.Size([]))

    def terms(self, rows: TensorDictBase) -> dict[str, Tensor]:
        """Compute the terms of every loss; each drops masked rows, and runs its networks with memory, by itself.

        Raises:
            ConfigError: two losses return a term of the same name.
        """
        together: dict[str, Tensor] = {}
        for loss in self.losses:
            terms = dict(loss(rows).items())
            if twice := sorted(together.keys() & terms.keys()):
                hint = "Train them by optimizers of their own."
                got = f"{', '.join(twice)} again from {type(loss).__name__}"
                raise ConfigError(explain("JointLoss", expected="every term from one loss", got=got, hint=hint))
            together |= terms
        return together

    def trainable_parameters(self) -> list[nn.Parameter]:
        """List the parameters that any of the losses trains, each once."""
        return list(dict.fromkeys(one for loss in self.losses for one in loss.trainable_parameters()))
