"""Build the optimizer that a command's settings describe."""

from __future__ import annotations

import torch

from torchrl.agents import FusedAdam
from torchrl.objectives import Loss
from torchrl.recipes.parts import Optimising

OPTIMIZERS = {
    "adam": FusedAdam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


def make_optimizer(settings: Optimising, loss: Loss, *, eps: float = 1e-8) -> torch.optim.Optimizer:
    """Build the optimizer of a loss's trainable parameters.

    >>> from torchrl.objectives import A2CLoss
    >>> type(make_optimizer(Optimising(optimizer="sgd"), A2CLoss(actor, critic), eps=1e-5)).__name__
    'SGD'

    Args:
        settings: the kind of optimizer and the learning rate.
        loss: its trainable parameters are optimised.
        eps: the small number that Adam and its like add to the denominator; by default that of torch.
    """
    options: dict = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer != "sgd":
        options["eps"] = eps
    return OPTIMIZERS[settings.optimizer](loss.trainable_parameters(), **options)
