"""Options that constructors pass on: a misspelt one is refused in the name of the class that was called."""

import inspect

import pytest
from torch import nn

from torchrl.modules import MLP, Categorical, ProbabilisticActor, QValueActor, ValueEnsemble, ValueOperator
from torchrl.objectives import (
    GAE,
    ClipPPOLoss,
    DiscountedReturn,
    DiscreteSACLoss,
    DQNLoss,
    KLPenaltyPPOLoss,
    NStepReturn,
    PPOLoss,
    QuantileDQNLoss,
    ReinforceLoss,
)
from torchrl.objectives.options import show_passed_options

ACTOR, CRITIC = ProbabilisticActor(MLP(4, 2), Categorical), ValueOperator(MLP(4, 1))
CRITICS = ValueEnsemble(lambda: MLP(4, 2), 2, in_keys=["observation"])


class MyLoss(ClipPPOLoss):
    """A user's loss, which takes an option out of those it passes on."""

    def __init__(self, *arguments, **options):
        self.mine = options.pop("mine", None)
        super().__init__(*arguments, **options)


@pytest.mark.parametrize(
    ("cls", "arguments", "misspelt", "meant"),
    [
        (PPOLoss, (ACTOR, CRITIC), "entropy_coeff", "entropy_coef"),
        (ClipPPOLoss, (ACTOR, CRITIC), "clip_epsilom", "clip_epsilon"),
        (KLPenaltyPPOLoss, (ACTOR, CRITIC), "kl_targt", "kl_target"),
        (ReinforceLoss, (ACTOR,), "normalise_advantage", "normalize_advantage"),
        (DQNLoss, (QValueActor(nn.Linear(4, 2)),), "doubel", "double"),
        (DiscreteSACLoss, (ACTOR, CRITICS), "temprature", "temperature"),
        (GAE, (CRITIC,), "lamda", "lambda_"),
        (NStepReturn, (CRITIC, 3), "gama", "gamma"),
        (DiscountedReturn, (), "gama", "gamma"),
        (MyLoss, (ACTOR, CRITIC), "reducton", "reduction"),
    ],
)
def test_a_misspelt_option_is_refused_by_the_class_that_was_called_and_the_nearest_one_named(
    cls, arguments, misspelt, meant
):
    options = {"target_entropy": 0.2} if cls is DiscreteSACLoss else {}
    with pytest.raises(TypeError) as refusal:
        cls(*arguments, **{misspelt: 0.5}, **options)
    text = str(refusal.value)
    assert text.startswith(f"{cls.__name__}: expected options out of [")
    assert text.endswith(f"got '{misspelt}'. Did you mean '{meant}'?")


def test_an_option_that_resembles_none_is_refused_without_a_guess():
    with pytest.raises(TypeError, match=r"QuantileDQNLoss: expected .*'kappa'.*, got 'zzz'\.$"):
        QuantileDQNLoss(None, zzz=1)


def test_an_option_that_a_subclass_takes_for_itself_is_its_own_affair():
    assert MyLoss(ACTOR, CRITIC, mine=3, clip_epsilon=0.1).clip_epsilon == 0.1


def test_the_catch_all_of_a_base_is_in_no_signature_of_a_loss():
    assert all("unknown" not in inspect.signature(cls).parameters for cls in (PPOLoss, DQNLoss))

    class Root:
        def __init__(self, *, rate=1.0): ...

    class Base(Root):
        def __init__(self, *, gamma=0.99, **unknown): ...

    show_passed_options(Base)
    assert list(inspect.signature(Base).parameters) == ["gamma"]
