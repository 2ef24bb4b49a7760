import inspect

import pytest
import torch

from torchrl.functional import gae, td0_target
from torchrl.objectives import GAE, TD0, next_values


def arguments(critic, batch):
    """What the pure functions take, read from a batch without masks and mid-episode resets."""
    value, next_value = next_values(critic, batch)
    flags = {name: batch["next", name] for name in ("terminated", "truncated")}
    return {"reward": batch["next", "reward"], "value": value, "next_value": next_value} | flags


@pytest.mark.parametrize(("gamma", "lambda_"), [(0.99, 0.95), (0.9, 0.0), (1.0, 1.0)])
def test_gae_is_the_pure_function(make_critic, make_series, gamma, lambda_):
    batch, critic = make_series(3, 20), make_critic()
    GAE(critic, gamma=gamma, lambda_=lambda_)(batch)
    expected = gae(**arguments(critic, batch), gamma=gamma, lambda_=lambda_)
    torch.testing.assert_close((batch["advantage"], batch["value_target"]), expected)


def test_td0_is_the_pure_function(make_critic, make_series):
    batch, critic = make_series(3, 20), make_critic()
    TD0(critic, gamma=0.9)(batch)
    given = arguments(critic, batch)
    expected = td0_target(given["reward"], given["next_value"], given["terminated"], gamma=0.9)
    torch.testing.assert_close(batch["value_target"], expected)
    torch.testing.assert_close(batch["advantage"], expected - given["value"])


def test_defaults():
    """The constants of the paper, which recipes read from these signatures."""
    default = {name: parameter.default for name, parameter in inspect.signature(GAE).parameters.items()}
    assert (default["gamma"], default["lambda_"]) == (0.99, 0.95)
