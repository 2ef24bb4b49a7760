"""Losses: modules that turn a batch into a TensorDict of scalars, of which ``loss_*`` are summed and differentiated."""

from torchrl.objectives.costs.base import Coefficient, Loss, total_loss
from torchrl.objectives.costs.ppo import ClipPPOLoss

__all__ = ["ClipPPOLoss", "Coefficient", "Loss", "total_loss"]
