"""Every pure function that computes returns, and random series to call it on."""

import inspect

import torch

from torchrl.functional import discounted_return, gae, importance_weight, n_step_return, td_lambda, vtrace

FUNCTIONS = [discounted_return, n_step_return, td_lambda, gae, vtrace]
VALUES = ("reward", "value", "next_value")
FACTS = ("terminated", "truncated", "log_weight", "mask")
USUAL = {"gamma": 0.9, "lambda_": 0.7, "n": 3, "weight_clip": 1.5, "rho_clip": 1.5, "c_clip": 1.0}


def random_batch(*shape, rewards=1, seed=0, dtype=torch.float64, ending=0.15):
    """Draw rewards and values ``[*shape, R]``, flags and a log-weight ``[*shape, 1]``; both flags at once happen too.

    Where row t+1 is the successor of row t, the next value of the one is the value of the other.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = {name: torch.randn(*shape, rewards, generator=generator, dtype=torch.float64) for name in VALUES}
    batch |= {name: torch.rand(*shape, 1, generator=generator) < ending for name in ("terminated", "truncated")}
    batch["log_weight"] = 0.5 * torch.randn(*shape, 1, generator=generator, dtype=torch.float64)
    ends = batch["terminated"] | batch["truncated"]
    ends[..., -1, :] = True
    batch["next_value"] = torch.where(ends, batch["next_value"], batch["value"].roll(-1, dims=-2))
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in batch.items()}


def call(function, batch, **options):
    """Call a function with what it takes of a batch, of ``options`` and of the usual constants; return a tuple.

    A function that takes no log-weight is given the weight, clipped at ``weight_clip``.
    """
    given, names = USUAL | batch | options, inspect.signature(function).parameters
    if "log_weight" in given:
        given = {"weight": importance_weight(given["log_weight"], clip=given["weight_clip"])} | given
    given = {name: x for name, x in given.items() if name in names}
    result = function(**given)
    return result if isinstance(result, tuple) else (result,)
