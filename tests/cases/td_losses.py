"""Losses of values to be held against the laws, with networks of real parts and batches of transitions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data.specs import Bounded, Categorical
from torchrl.modules import (
    MLP,
    Actor,
    DistributionalQValueActor,
    MaskedCategorical,
    OneHotCategorical,
    ProbabilisticActor,
    QuantileQValueActor,
    QValueActor,
    StateDependentNormalHead,
    TanhNormal,
    ValueEnsemble,
    ValueOperator,
)
from torchrl.modules import Categorical as CategoricalDistribution
from torchrl.objectives import (
    DDPGLoss,
    DiscreteSACLoss,
    DistributionalDQNLoss,
    DQNLoss,
    QuantileDQNLoss,
    REDQLoss,
    SACLoss,
    TD3Loss,
)
from torchrl.objectives.costs.temporal_difference import TDLoss

NUM_ACTIONS = 3
LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0])
BOUNDS = Bounded(LOW, HIGH)
CHOICE = Categorical(NUM_ACTIONS)


class Case(NamedTuple):
    """A loss with the kind of action that it is for.

    Attributes:
        build: makes the loss with networks of its own.
        action: ``"choice"``, ``"one_hot"``, ``"masked"`` or ``"vector"``.
        has_actor: whether it trains an actor beside its critics.
    """

    build: Callable[[], TDLoss]
    action: str
    has_actor: bool = True


def network(num_inputs: int, *shape: int) -> nn.Module:
    """Build a small smooth network to ``[*B, *shape]``."""
    layers = [nn.Linear(num_inputs, 6), nn.Tanh(), nn.Linear(6, torch.Size(shape).numel())]
    return nn.Sequential(*layers, *([nn.Unflatten(-1, shape)] if len(shape) > 1 else []))


def _dqn(loss: type[TDLoss], actor: type[QValueActor], *shape: int, action: str, **options: object) -> TDLoss:
    more = {"low": -3.0, "high": 3.0} if actor is DistributionalQValueActor else {}
    mask_key = "action_mask" if action == "masked" else None
    return loss(actor(network(4, *shape), one_hot=action == "one_hot", mask_key=mask_key, **more), gamma=0.9, **options)


def _deterministic() -> Actor:
    return Actor(nn.Sequential(network(4, 2), nn.Tanh()))


def _gaussian() -> ProbabilisticActor:
    network_ = nn.Sequential(network(4, 4), StateDependentNormalHead())
    return ProbabilisticActor(network_, TanhNormal.within(LOW, HIGH), log_prob_key=None)


def _critics(num: int) -> ValueEnsemble:

    return ValueEnsemble(lambda: MLP(6, 1, num_cells=(7,)), num)


def _chooser(action: str) -> ProbabilisticActor:
    family = {"choice": CategoricalDistribution, "one_hot": OneHotCategorical, "masked": MaskedCategorical}[action]
    mask_key = "action_mask" if action == "masked" else None
    return ProbabilisticActor(network(4, NUM_ACTIONS), family, log_prob_key=None, mask_key=mask_key)


def _discrete_sac(action: str, **options: object) -> TDLoss:

    critic = ValueEnsemble(lambda: MLP(4, NUM_ACTIONS, num_cells=(7,)), 2, in_keys=["observation"])
    return DiscreteSACLoss(_chooser(action), critic, action_spec=CHOICE, gamma=0.9, **options)


def _sac(loss: type[SACLoss] = SACLoss, num: int = 2, *, with_value: bool = False, **options: object) -> TDLoss:
    more = {"value": ValueOperator(network(4, 1))} if with_value else {}
    return loss(_gaussian(), _critics(num), action_spec=BOUNDS, gamma=0.9, **more, **options)


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for action in ("choice", "one_hot", "masked"):
        cases[f"DQNLoss of {action}"] = Case(partial(_dqn, DQNLoss, QValueActor, 3, action=action), action, False)
        cases[f"DistributionalDQNLoss of {action}"] = Case(
            partial(_dqn, DistributionalDQNLoss, DistributionalQValueActor, 3, 11, action=action), action, False
        )
        cases[f"QuantileDQNLoss of {action}"] = Case(
            partial(_dqn, QuantileDQNLoss, QuantileQValueActor, 3, 5, action=action), action, False
        )
        cases[f"DiscreteSACLoss of {action}"] = Case(partial(_discrete_sac, action), action)
    single = partial(_dqn, DQNLoss, QValueActor, 3, action="choice", double=False, distance="l2")
    return cases | {
        "DQNLoss, single, l2": Case(single, "choice", False),
        "DiscreteSACLoss, fixed temperature": Case(partial(_discrete_sac, "choice", learn_temperature=False), "choice"),
        "DDPGLoss": Case(
            lambda: DDPGLoss(
                _deterministic(), ValueOperator(_Joined(network(6, 1)), in_keys=["observation", "action"]), gamma=0.9
            ),
            "vector",
        ),
        "TD3Loss": Case(lambda: TD3Loss(_deterministic(), _critics(2), action_spec=BOUNDS, gamma=0.9), "vector"),
        "SACLoss": Case(_sac, "vector"),
        "SACLoss, fixed temperature": Case(partial(_sac, learn_temperature=False, temperature=0.2), "vector"),
        "SACLoss, with a state value": Case(partial(_sac, with_value=True), "vector"),
        "SACLoss, smooth l1": Case(partial(_sac, distance="smooth_l1"), "vector"),
        "REDQLoss": Case(partial(_sac, REDQLoss, 4, num_sampled=2), "vector"),
    }


class _Joined(nn.Module):
    """Call a network on its inputs side by side."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return what the network says."""
        return self.body(torch.cat(inputs, -1))


CASES = _cases()


def make_transitions(action: str, *shape: int, seed: int = 0) -> TensorDict:
    """Build transitions ``[*shape]`` as a buffer hands them out, a fifth of them terminated."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator)
    choice = torch.randint(0, NUM_ACTIONS, shape, generator=generator)
    actions = {
        "choice": choice,
        "masked": choice,
        "one_hot": nn.functional.one_hot(choice, NUM_ACTIONS),
        "vector": LOW + (HIGH - LOW) * torch.rand(*shape, 2, generator=generator),
    }
    root = {"observation": normal(*shape, 4), "action": actions[action]}
    after = {
        "observation": normal(*shape, 4),
        "reward": normal(*shape, 1),
        "terminated": torch.rand(*shape, 1, generator=generator) < 0.2,
        "truncated": torch.rand(*shape, 1, generator=generator) < 0.2,
    }
    after["done"] = after["terminated"] | after["truncated"]
    if action == "masked":
        for part in (root, after):
            mask = torch.rand(*shape, NUM_ACTIONS, generator=generator) < 0.5
            part["action_mask"] = mask | nn.functional.one_hot(choice, NUM_ACTIONS).bool()
    return TensorDict(root | {"next": TensorDict(after, batch_size=shape)}, batch_size=shape)
