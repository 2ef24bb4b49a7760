from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.functional import discounted_return, gae, importance_weight, n_step_return, td_lambda, vtrace
from torchrl.modules import ActorValueOperator, Categorical, Operator, ProbabilisticActor, ValueOperator
from torchrl.objectives import GAE, A2CLoss, DiscountedReturn, NStepReturn, TDLambda, VTrace, next_values, total_loss

WEIGHTED = [GAE, TDLambda, NStepReturn, DiscountedReturn]


def log_weight(actor, batch):
    """Log π - log μ of every action, ``[*B, T, 1]``."""
    log_prob = actor.build(batch).log_prob(batch["action"])
    return (log_prob - batch["action_log_prob"]).detach().unsqueeze(-1)


def arguments(critic, batch):
    value, next_value = next_values(critic, batch)
    names = ("reward", "terminated", "truncated")
    return {name: batch["next", name] for name in names} | {"value": value, "next_value": next_value}


class CoinActor(nn.Module):
    """An actor that takes action 1 with a fixed probability; it is its own distribution, and must see no more."""

    action_key, log_prob_key, in_keys = "action", "action_log_prob", ["observation"]

    def __init__(self, probability):
        super().__init__()
        self.log_probs = torch.tensor([1 - probability, probability]).log()

    def build(self, tensordict):
        assert list(tensordict.keys()) == ["observation"]
        return self

    def log_prob(self, action):
        return self.log_probs[action]


class TestVTrace:
    def test_by_hand(self, make_critic, two_steps):
        """μ took actions 0 and 1 with ½ each, π takes them with ¼ and ¾: weights ½ and, clipped, 1."""
        batch = VTrace(CoinActor(0.75), make_critic(First()), gamma=0.5)(two_steps)
        # v1 = 20 + (4 - 20) = 4, v0 = 10 + ½·(1 + 10 - 10) + ½·½·(4 - 20) = 6.5; ½·(1 + ½·4 - 10) = -3.5
        torch.testing.assert_close(batch["value_target"].flatten(), torch.tensor([6.5, 4.0]))
        torch.testing.assert_close(batch["advantage"].flatten(), torch.tensor([-3.5, -16.0]))

    @pytest.mark.parametrize("options", [{}, {"rho_clip": None, "c_clip": 0.9}, {"lambda_": 0.7, "gamma": 0.8}])
    def test_is_the_pure_function(self, make_actor, make_critic, make_series, options):
        batch, actor, critic = make_series(3, 20), make_actor(), make_critic()
        VTrace(actor, critic, **options)(batch)
        expected = vtrace(
            **arguments(critic, batch), log_weight=log_weight(actor, batch), **({"gamma": 0.99} | options)
        )
        torch.testing.assert_close((batch["advantage"], batch["value_target"]), expected)

    def test_a_trunk_shared_by_actor_and_critic(self, make_series):
        trunk = Operator(nn.Linear(4, 8), in_keys=["observation"], out_keys=["hidden"])
        head = ProbabilisticActor(nn.Linear(8, 3), Categorical, in_keys=["hidden"])
        both = ActorValueOperator(trunk, head, ValueOperator(nn.Linear(8, 1), in_keys=["hidden"]))
        batch = make_series(3, 10)
        kept = set(batch.keys(True))
        VTrace(both.actor, both.critic)(batch)
        expected = vtrace(**arguments(both.critic, batch), log_weight=log_weight(both.actor, batch), gamma=0.99)
        torch.testing.assert_close((batch["advantage"], batch["value_target"]), expected)
        assert set(batch.keys(True)) == kept | {"state_value", "advantage", "value_target"}

    def test_nested_actions_and_a_mask(self, make_critic, make_series):
        """The action is a TensorDict; its rows are chosen with the others."""
        batch = make_series(2, 5, ending=0.0)
        batch["action"] = TensorDict({"a": batch["action"], "b": batch["action"]}, batch_size=[2, 5])
        mask = torch.tensor([[1, 1, 1, 0, 1], [0, 1, 1, 1, 1]], dtype=torch.bool)
        batch["action_log_prob"][~mask] = float("nan")
        batch["collector", "mask"] = mask
        batch["observation"][~mask] = float("nan")
        VTrace(PairActor(), make_critic())(batch)
        assert batch["advantage"].isfinite().all() and (batch["advantage"][mask] != 0).all()

    @pytest.mark.parametrize("clips", [{"rho_clip": 0.5}, {"c_clip": None}])
    def test_clips_out_of_order(self, make_actor, make_critic, clips):
        with pytest.raises(ConfigError, match="VTrace.*0 < c_clip <= rho_clip"):
            VTrace(make_actor(), make_critic(), **clips)

    def test_lambda_is_a_fraction(self, make_actor, make_critic):
        with pytest.raises(ConfigError, match="VTrace.*lambda_"):
            VTrace(make_actor(), make_critic(), lambda_=-1.0)


class First(nn.Module):
    """The first feature."""

    def forward(self, x):
        return x[..., :1]


class PairActor(nn.Module):
    """Log-probs of a nested action, summed over its parts."""

    action_key, log_prob_key, in_keys = "action", "action_log_prob", ["observation"]

    def build(self, tensordict):
        assert tensordict["observation"].isfinite().all()
        return self

    def log_prob(self, action):
        return -0.1 * (action["a"] + action["b"] + 1).float()


class Logits(nn.Module):
    """The same log-probabilities ¼ and ¾ in every state."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.25, 0.75]).log())

    def forward(self, x):
        return self.logits.expand(*x.shape[:-1], 2)


@pytest.fixture
def two_steps(make_series):
    """Actions 0 and 1, of ½ each by the policy that acted; rewards 1 and 4, values 10 and 20, then 0."""
    batch = make_series(1, 2, ending=0.0)
    batch["action"] = torch.tensor([[0, 1]])
    batch["action_log_prob"] = torch.full((1, 2), 0.5).log()
    batch["next", "reward"] = torch.tensor([1.0, 4.0]).reshape(1, 2, 1)
    batch["observation"][0, :, 0] = torch.tensor([10.0, 20.0])
    batch["next", "observation"][0, :, 0] = torch.tensor([20.0, 0.0])
    return batch


def test_the_gradient_of_impalas_loss_by_hand(make_actor, make_critic, two_steps):
    """That of -log π(a) A is -A (1 at the action, less π); A is -3.5 and -16, by V-trace, and a mean is taken."""
    actor, critic = make_actor(Logits()), make_critic(First())
    terms = A2CLoss(actor, critic, entropy_coef=0.0)(VTrace(actor, critic, gamma=0.5)(two_steps))
    total_loss(terms).backward()
    gradient = (3.5 * (1 - 0.25) + 16 * (0 - 0.25)) / 2
    torch.testing.assert_close(actor.network.logits.grad, torch.tensor([gradient, -gradient]))
    assert terms["loss_critic"].item() == pytest.approx(0.5 * (3.5**2 + 16**2) / 2)  # targets 6.5 and 4


class TestWeightsOfOtherEstimators:
    @pytest.mark.parametrize(
        ("make", "clip", "advantages"),
        [
            # Weights ½ and, clipped, 1; errors 1 + ½·20 - 10 = 1 and 4 - 20 = -16.
            (partial(GAE, lambda_=0.0), 1.0, [0.5, -16.0]),
            (partial(GAE, lambda_=1.0), 1.0, [0.5 * (1 - 8), -16.0]),
            (partial(NStepReturn, n=1), 1.0, [0.5, -16.0]),
            (partial(NStepReturn, n=2), 1.0, [0.5 * (1 + 2 - 10), -16.0]),  # the second step's return is 4
            (partial(TDLambda, lambda_=0.5), 1.0, [0.5 * (1 - 4), -16.0]),
            (DiscountedReturn, 1.0, [0.5 * (1 + 2 - 10), -16.0]),
            # Weights ½ and 1½.
            (partial(GAE, lambda_=0.0), None, [0.5, -24.0]),
            (partial(NStepReturn, n=2), None, [0.5 * (1 - 12), -24.0]),
            (DiscountedReturn, None, [0.5 * (1 - 12), -24.0]),
        ],
    )
    def test_by_hand(self, make, clip, advantages, make_critic, two_steps):
        make(make_critic(First()), actor=CoinActor(0.75), weight_clip=clip, gamma=0.5)(two_steps)
        expected = torch.tensor(advantages)
        torch.testing.assert_close(two_steps["advantage"].flatten(), expected)
        torch.testing.assert_close(two_steps["value_target"].flatten(), expected + torch.tensor([10.0, 20.0]))

    @pytest.mark.parametrize("clip", [None, 1.0, 0.8])
    def test_are_the_pure_functions(self, make_actor, make_critic, make_series, clip):
        batch, actor, critic = make_series(3, 20), make_actor(), make_critic()
        given = arguments(critic, batch)
        options = {"weight": importance_weight(log_weight(actor, batch), clip=clip), "gamma": 0.9}
        expected = {
            GAE: gae(**given, **options, lambda_=0.95)[1],
            TDLambda: td_lambda(**given, **options, lambda_=0.95),
            NStepReturn: n_step_return(**given, **options, n=5),
            DiscountedReturn: discounted_return(**given, **options),
        }
        for estimator in WEIGHTED:
            got = estimator(critic, actor=actor, weight_clip=clip, gamma=0.9)(batch.clone())
            torch.testing.assert_close(got["value_target"], expected[estimator])
            advantage = expected[estimator] - given["value"]
            torch.testing.assert_close(got["advantage"], advantage, rtol=1e-4, atol=1e-5)

    def test_whole_returns_without_a_critic(self, make_actor, make_series):
        """The plain product of weights: no control variate, since there is no value."""
        batch, actor = make_series(3, 20), make_actor()
        batch["next", "terminated"][:, -1] = True  # every row has a return
        names = ("reward", "terminated", "truncated")
        given = {name: batch["next", name] for name in names}
        weight = importance_weight(log_weight(actor, batch), clip=1.0)
        expected = discounted_return(**given, weight=weight, gamma=0.9)
        got = DiscountedReturn(actor=actor, gamma=0.9)(batch)
        torch.testing.assert_close(got["value_target"], expected)

    @pytest.mark.parametrize("clip", [0.0, -1.0])
    @pytest.mark.parametrize("estimator", WEIGHTED)
    def test_clip_is_positive(self, make_actor, make_critic, estimator, clip):
        with pytest.raises(ConfigError, match=f"{estimator.__name__}.*positive clip"):
            estimator(make_critic(), actor=make_actor(), weight_clip=clip)


class TestRefusals:
    @pytest.mark.parametrize("make", [VTrace, lambda actor, critic: GAE(critic, actor=actor)])
    def test_an_actor_that_writes_no_log_prob(self, make_actor, make_critic, make):
        with pytest.raises(ConfigError, match="writes log-probs, got StandInActor.*log_prob_key"):
            make(make_actor(log_prob_key=None), make_critic())
        with pytest.raises(ConfigError, match="writes log-probs, got StandInCritic"):
            make(make_critic(), make_critic())

    @pytest.mark.parametrize("key", ["action", "action_log_prob"])
    def test_missing_key(self, make_actor, make_critic, make_series, key):
        with pytest.raises(KeyMissing, match=f"VTrace.*'{key}'.*policy writes it"):
            VTrace(make_actor(), make_critic())(make_series(2, 3).exclude(key))

    def test_n_against_n_1(self, make_actor, make_critic, make_series):
        batch = make_series(2, 3)
        batch["action_log_prob"] = batch["action_log_prob"].unsqueeze(-1)
        with pytest.raises(SpecError, match=r"VTrace.*log_prob \[2, 3\].*\[2, 3, 1\]"):
            VTrace(make_actor(), make_critic())(batch)
