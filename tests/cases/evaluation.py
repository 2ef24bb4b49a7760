"""Policies that tests send to an evaluation process, which imports this module: no test tools here."""

import torch


def stay_still(root):
    """Push a pendulum nowhere."""
    return root.set("action", torch.zeros(*root.batch_size, 1))


def choose_zero(root):
    """Take the first of several choices."""
    return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))
