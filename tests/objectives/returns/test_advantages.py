import inspect

import pytest
import torch

from cases.return_functions import call
from torchrl.errors import ConfigError
from torchrl.functional import gae, n_step_return, td0_target, td_lambda
from torchrl.modules import ValueOperator
from torchrl.objectives import GAE, TD0, NStepReturn, TDLambda, VTrace, next_values


def arguments(critic, batch):
    """What the pure functions take, read from a batch without masks and mid-episode resets."""
    value, next_value = next_values(critic, batch)
    flags = {name: batch["next", name] for name in ("terminated", "truncated")}
    return {"reward": batch["next", "reward"], "value": value, "next_value": next_value} | flags


PURE = [
    *((GAE, gae, {"gamma": gamma, "lambda_": lambda_}) for gamma, lambda_ in [(0.99, 0.95), (0.9, 0.0), (1.0, 1.0)]),
    (TD0, td0_target, {"gamma": 0.9}),
    *((TDLambda, td_lambda, {"gamma": 0.9, "lambda_": lambda_}) for lambda_ in (0.0, 0.8)),
    *((NStepReturn, n_step_return, {"gamma": 0.9, "n": n}) for n in (1, 4, 50)),
]


@pytest.mark.parametrize(("estimator", "function", "options"), PURE)
def test_an_estimator_is_the_pure_function(make_critic, make_series, estimator, function, options):
    batch, critic = make_series(3, 20), make_critic()
    estimator(critic, **options)(batch)
    given = arguments(critic, batch)
    target = call(function, given, **options)[-1]
    torch.testing.assert_close(batch["value_target"], target)
    torch.testing.assert_close(batch["advantage"], target - given["value"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", [GAE, TDLambda])
def test_lambda_may_be_a_tensor(make_critic, make_series, estimator):
    batch, critic = make_series(3, 20), make_critic()
    expected = estimator(critic, lambda_=0.6)(batch.clone())
    got = estimator(critic, lambda_=torch.tensor([0.6]))(batch)
    torch.testing.assert_close(got["advantage"], expected["advantage"])
    moved = estimator(critic, lambda_=torch.tensor([0.6])).to(torch.float64)
    assert moved.lambda_.dtype is torch.float64


@pytest.mark.parametrize("n", [0, -2, 1.5])
def test_n_is_a_count(make_critic, n):
    with pytest.raises(ConfigError, match="NStepReturn.*at least 1"):
        NStepReturn(make_critic(), n)


@pytest.mark.parametrize("estimator", [GAE, TDLambda])
def test_lambda_is_a_fraction(make_critic, estimator):
    with pytest.raises(ConfigError, match=f"{estimator.__name__}.*lambda_ between 0 and 1, got 1.5"):
        estimator(make_critic(), lambda_=1.5)


def test_defaults():
    """The constants of the papers, which recipes read from these signatures."""

    def default(estimator, *names):
        return tuple(inspect.signature(estimator).parameters[name].default for name in names)

    assert default(GAE, "gamma", "lambda_") == (0.99, 0.95)
    assert default(NStepReturn, "n") == (5,)
    assert default(VTrace, "rho_clip", "c_clip", "lambda_") == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("gamma", ["0.9", None, float("nan"), -0.1])
def test_a_discount_that_is_no_number_between_0_and_1_is_refused(gamma):
    with pytest.raises(ConfigError, match="GAE: expected gamma between 0 and 1"):
        GAE(ValueOperator(torch.nn.Linear(4, 1)), gamma=gamma)
