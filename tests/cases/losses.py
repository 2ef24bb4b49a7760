"""Every loss to be held against the laws, with networks of real parts and the batches that it learns from.

``POLICY_LOSSES``, ``VALUE_LOSSES``, ``CURIOSITY_LOSSES`` and ``OPTION_LOSSES`` have one entry per configuration; a new
class is added there. ``CASES`` are all of them, policy losses with the kinds of action that each is tried with. Every
network reads ``"observation"`` ``[*B, 4]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data import specs
from torchrl.data.specs import Bounded
from torchrl.modules import (
    MLP,
    Actor,
    Bernoulli,
    Categorical,
    CompositeDistribution,
    DistributionalQValueActor,
    IntrinsicCuriosity,
    MaskedCategorical,
    MaskedOneHotCategorical,
    MultiCategorical,
    Normal,
    OneHotCategorical,
    Options,
    PerOption,
    ProbabilisticActor,
    QuantileQValueActor,
    QValueActor,
    RandomNetworkDistillation,
    StateDependentNormalHead,
    TanhNormal,
    TruncatedNormal,
    ValueEnsemble,
    ValueOperator,
)
from torchrl.objectives import (
    A2CLoss,
    BehaviourCloningLoss,
    ClippedSurrogate,
    ClipPPOLoss,
    DDPGLoss,
    DiscreteSACLoss,
    DistributionalDQNLoss,
    DQNLoss,
    ICMLoss,
    JointLoss,
    KLPenaltyPPOLoss,
    Loss,
    PolicyGradientLoss,
    PPOLoss,
    QuantileDQNLoss,
    REDQLoss,
    ReinforceLoss,
    RNDLoss,
    SACLoss,
    TD3Loss,
    TerminationLoss,
    total_loss,
)
from torchrl.objectives.costs.temporal_difference import TDLoss

OBSERVATION = ("observation",)


class Case(NamedTuple):
    """A loss and what it learns from.

    Attributes:
        build: makes the loss with networks of its own.
        batch: makes what it learns from, ``[*shape]``: ``batch(*shape, seed=0)``.
        action: of a loss of values: ``"choice"``, ``"one_hot"``, ``"masked"`` or ``"vector"``.
    """

    build: Callable[[], Loss]
    batch: Callable[..., TensorDict]
    action: str = ""


class Constant(nn.Module):
    """Return the same row for every observation, in float64."""

    def __init__(self, *row: float) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.tensor(row, dtype=torch.float64))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Return ``[*B, len(row)]``."""
        return self.row.expand(*observation.shape[:-1], -1)


class Net(nn.Module):
    """A body of 5 features and one linear layer per output.

    Args:
        body: 4 observations to 5 features; None makes one.
        sizes: of the outputs.
        positive: the indices of those outputs that are scales.
    """

    def __init__(self, body: nn.Module | None, sizes: Sequence[int], positive: Sequence[int] = ()) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh()) if body is None else body
        self.heads = nn.ModuleList(nn.Linear(5, size) for size in sizes)
        self.positive = positive

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = [head(self.body(observation)) for head in self.heads]
        return tuple(x.exp() * 0.5 if i in self.positive else x for i, x in enumerate(outputs))


class Kind(NamedTuple):
    """A kind of action: the family, its network, and what says which actions are legal."""

    family: Callable | None
    sizes: tuple[int, ...]
    positive: tuple[int, ...] = ()
    make_mask: Callable[[tuple[int, ...], torch.Generator], torch.Tensor | TensorDict] | None = None

    def make_actor(
        self, body: nn.Module | None = None, *, in_keys: Iterable = OBSERVATION, **options
    ) -> ProbabilisticActor | Actor:
        """Make an actor with weights from torch's global generator."""
        net = Net(body, self.sizes, self.positive)
        if self.family is None:
            return Actor(net, in_keys=in_keys)
        options |= {} if self.make_mask is None else {"mask_key": "legal"}
        return ProbabilisticActor(net, self.family, in_keys=in_keys, **options)


def two_of_three(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Forbid one of three actions in each row."""
    return torch.rand(*shape, 3, generator=generator).argsort(-1) > 0


def two_of_three_gears(shape: tuple[int, ...], generator: torch.Generator) -> TensorDict:
    """Forbid one of three gears in each row."""
    return TensorDict({"gear": two_of_three(shape, generator)}, batch_size=shape)


GAS = TanhNormal.within(0.0, 1.0)
KINDS = {
    "discrete": Kind(Categorical, (3,)),
    "masked": Kind(MaskedCategorical, (3,), make_mask=two_of_three),
    "one-hot": Kind(OneHotCategorical, (3,)),
    "masked one-hot": Kind(MaskedOneHotCategorical, (3,), make_mask=two_of_three),
    "multi-discrete": Kind(MultiCategorical.of([3, 2]), (5,)),
    "binary": Kind(Bernoulli, (2,)),
    "normal": Kind(Normal, (2, 2), (1,)),
    "tanh": Kind(TanhNormal.within(-2.0, 2.0), (2, 2), (1,)),
    "truncated": Kind(TruncatedNormal.within(-2.0, 2.0), (2, 2), (1,)),
    "composite": Kind(
        CompositeDistribution.of(gear=Categorical, pedals={"gas": GAS, "horn": Bernoulli}), (3, 1, 1, 1), (2,)
    ),
    "masked composite": Kind(
        CompositeDistribution.of(gear=MaskedCategorical, gas=GAS), (3, 1, 1), (2,), two_of_three_gears
    ),
    "deterministic": Kind(None, (2,)),
}
RANDOM = tuple(kind for kind in KINDS if kind != "deterministic")
FEW = ("discrete", "masked composite")


def make_critic(body: nn.Module | None = None, *, in_keys: Iterable = OBSERVATION) -> ValueOperator:
    """Make a critic with weights from torch's global generator."""
    return ValueOperator(Net(body, (1,)), in_keys=in_keys)


def make_rows(kind: Kind, *shape: int, seed: int = 0) -> TensorDict:
    """Make a batch in which an actor of this kind acted, as an estimator left it."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *tail: torch.randn(*shape, *tail, generator=generator)  # noqa: E731
    batch = TensorDict({"observation": normal(4)}, batch_size=shape)
    if kind.make_mask is not None:
        batch["legal"] = kind.make_mask(shape, generator)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + 1)
        kind.make_actor()(batch)
    for key in ("state_value", "advantage", "value_target"):
        batch[key] = normal(1)
    return batch


def actor_alone(loss: Callable[..., Loss], **options) -> Callable[..., Loss]:
    """Build a loss that takes no critic, for callers that offer one."""
    return lambda actor, critic: loss(actor, **options)


class PolicyLoss(NamedTuple):
    """A loss of a policy, built from actor and critic, and the kinds of action that it is tried with."""

    build: Callable[[nn.Module, nn.Module], Loss]
    kinds: tuple[str, ...] = FEW


POLICY_LOSSES = {
    "ReinforceLoss": PolicyLoss(actor_alone(ReinforceLoss)),
    "ReinforceLoss, baseline": PolicyLoss(partial(ReinforceLoss, entropy_coef=0.01, normalize_advantage=True), RANDOM),
    "A2CLoss": PolicyLoss(A2CLoss),
    "A2CLoss, all options": PolicyLoss(
        partial(
            A2CLoss, entropy_coef=0.1, normalize_advantage=True, critic_distance="smooth_l1", num_entropy_samples=3
        ),
        RANDOM,
    ),
    "PPOLoss": PolicyLoss(PPOLoss, RANDOM),
    "PPOLoss, sum": PolicyLoss(partial(PPOLoss, entropy_coef=0.01, reduction="sum")),
    "ClipPPOLoss": PolicyLoss(ClipPPOLoss),
    "ClipPPOLoss, all options": PolicyLoss(
        partial(ClipPPOLoss, clip_epsilon=0.1, entropy_coef=0.01, value_clip=0.2, critic_distance="smooth_l1"), RANDOM
    ),
    "ClipPPOLoss, raw advantage": PolicyLoss(partial(ClipPPOLoss, normalize_advantage=False, critic_distance="l1")),
    "PolicyGradientLoss": PolicyLoss(lambda *networks: PolicyGradientLoss(*networks, ClippedSurrogate(0.3))),
    "KLPenaltyPPOLoss": PolicyLoss(KLPenaltyPPOLoss, RANDOM),
    "KLPenaltyPPOLoss, sampled": PolicyLoss(partial(KLPenaltyPPOLoss, num_kl_samples=2, kl_coef=3.0), RANDOM),
    "BehaviourCloningLoss": PolicyLoss(actor_alone(BehaviourCloningLoss)),
    "BehaviourCloningLoss, entropy": PolicyLoss(actor_alone(BehaviourCloningLoss, entropy_coef=0.1), RANDOM),
    "BehaviourCloningLoss, l2": PolicyLoss(actor_alone(BehaviourCloningLoss), ("deterministic",)),
    "BehaviourCloningLoss, smooth_l1": PolicyLoss(
        actor_alone(BehaviourCloningLoss, distance="smooth_l1", reduction="sum"), ("deterministic",)
    ),
}


def gradients(loss: Loss, batch: TensorDict) -> tuple[TensorDict, list[torch.Tensor]]:
    """Differentiate the total; return the terms and the gradient of every trainable parameter."""
    torch.manual_seed(0)  # of what the loss draws
    loss.zero_grad()
    terms = loss(batch)
    total_loss(terms).backward()
    return terms.detach(), [parameter.grad.clone() for parameter in loss.trainable_parameters()]


# ---- losses of values, from transitions ------------------------------------------------------------------------------

NUM_ACTIONS = 3
LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0])
BOUNDS = Bounded(LOW, HIGH)
CHOICE = specs.Categorical(NUM_ACTIONS)


def network(num_inputs: int, *shape: int) -> nn.Module:
    """Build a small smooth network to ``[*B, *shape]``."""
    layers = [nn.Linear(num_inputs, 6), nn.Tanh(), nn.Linear(6, torch.Size(shape).numel())]
    return nn.Sequential(*layers, *([nn.Unflatten(-1, shape)] if len(shape) > 1 else []))


def _dqn(loss: type[TDLoss], actor: type[QValueActor], *shape: int, action: str, **options: object) -> TDLoss:
    more = {"low": -3.0, "high": 3.0} if actor is DistributionalQValueActor else {}
    mask_key = "action_mask" if action == "masked" else None
    return loss(actor(network(4, *shape), one_hot=action == "one_hot", mask_key=mask_key, **more), gamma=0.9, **options)


def deterministic() -> Actor:
    """Build an actor of actions between -1 and 1."""
    return Actor(nn.Sequential(network(4, 2), nn.Tanh()))


def gaussian() -> ProbabilisticActor:
    """Build an actor of squashed normal actions within ``BOUNDS``."""
    network_ = nn.Sequential(network(4, 4), StateDependentNormalHead())
    return ProbabilisticActor(network_, TanhNormal.within(LOW, HIGH), log_prob_key=None)


def critics(num: int = 2) -> ValueEnsemble:
    """Build critics of 4 observations and 2 actions."""
    return ValueEnsemble(lambda: MLP(6, 1, num_cells=(7,)), num)


def _chooser(action: str) -> ProbabilisticActor:
    family = {"choice": Categorical, "one_hot": OneHotCategorical, "masked": MaskedCategorical}[action]
    mask_key = "action_mask" if action == "masked" else None
    return ProbabilisticActor(network(4, NUM_ACTIONS), family, log_prob_key=None, mask_key=mask_key)


def _discrete_sac(action: str, **options: object) -> TDLoss:
    critic = ValueEnsemble(lambda: MLP(4, NUM_ACTIONS, num_cells=(7,)), 2, in_keys=["observation"])
    return DiscreteSACLoss(_chooser(action), critic, action_spec=CHOICE, gamma=0.9, **options)


def _sac(loss: type[SACLoss] = SACLoss, num: int = 2, *, with_value: bool = False, **options: object) -> TDLoss:
    more = {"value": ValueOperator(network(4, 1))} if with_value else {}
    return loss(gaussian(), critics(num), action_spec=BOUNDS, gamma=0.9, **more, **options)


def _value_losses() -> dict[str, Case]:
    def case(build: Callable[[], TDLoss], action: str) -> Case:
        return Case(build, partial(make_transitions, action), action)

    cases: dict[str, Case] = {}
    dqns = {
        "DQNLoss": (DQNLoss, QValueActor, 3),
        "DistributionalDQNLoss": (DistributionalDQNLoss, DistributionalQValueActor, 3, 11),
        "QuantileDQNLoss": (QuantileDQNLoss, QuantileQValueActor, 3, 5),
    }
    for action in ("choice", "one_hot", "masked"):
        for name, parts in dqns.items():
            cases[f"{name} of {action}"] = case(partial(_dqn, *parts, action=action), action)
        cases[f"DiscreteSACLoss of {action}"] = case(partial(_discrete_sac, action), action)
    single = partial(_dqn, DQNLoss, QValueActor, 3, action="choice", double=False, distance="l2")
    cases["DQNLoss, single, l2"] = case(single, "choice")
    fixed = partial(_discrete_sac, "choice", learn_temperature=False)
    cases["DiscreteSACLoss, fixed temperature"] = case(fixed, "choice")
    of_vectors = {
        "DDPGLoss": lambda: DDPGLoss(
            deterministic(), ValueOperator(_Joined(network(6, 1)), in_keys=["observation", "action"]), gamma=0.9
        ),
        "TD3Loss": lambda: TD3Loss(deterministic(), critics(2), action_spec=BOUNDS, gamma=0.9),
        "SACLoss": _sac,
        "SACLoss, fixed temperature": partial(_sac, learn_temperature=False, temperature=0.2),
        "SACLoss, with a state value": partial(_sac, with_value=True),
        "SACLoss, smooth l1": partial(_sac, distance="smooth_l1"),
        "REDQLoss": partial(_sac, REDQLoss, 4, num_sampled=2),
    }
    return cases | {name: case(build, "vector") for name, build in of_vectors.items()}


class _Joined(nn.Module):
    """Call a network on its inputs side by side."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return what the network says."""
        return self.body(torch.cat(inputs, -1))


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


VALUE_LOSSES = _value_losses()


# ---- losses of curiosity, from transitions ---------------------------------------------------------------------------


def _rnd(**options: object) -> RNDLoss:
    module = RandomNetworkDistillation(network(4, 5), network(4, 5), shape=4)
    module.update(make_transitions("choice", 4, 5, seed=9))
    return RNDLoss(module, **options)


def _icm(action: str) -> ICMLoss:
    num = 2 if action == "vector" else NUM_ACTIONS
    networks = (network(4, 5), _Joined(network(10, num)), _Joined(network(5 + num, 5)))
    num_actions = None if action == "vector" else num
    return ICMLoss(IntrinsicCuriosity(*networks, num_actions=num_actions, one_hot=action == "one_hot"))


def _joint() -> JointLoss:
    actor = KINDS["discrete"].make_actor()
    return JointLoss(A2CLoss(actor, make_critic(), entropy_coef=0.1), _rnd(share=1.0))


def _joint_rows(*shape: int, seed: int = 0) -> TensorDict:
    rows = make_transitions("choice", *shape, seed=seed)
    return rows.update(make_rows(KINDS["discrete"], *shape, seed=seed))


CURIOSITY_LOSSES = {
    "RNDLoss": Case(_rnd, partial(make_transitions, "vector")),
    "RNDLoss, all rows": Case(partial(_rnd, share=1.0), partial(make_transitions, "choice")),
} | {
    f"ICMLoss of {action}": Case(partial(_icm, action), partial(make_transitions, action))
    for action in ("choice", "one_hot", "vector")
}
CURIOSITY_LOSSES["JointLoss"] = Case(_joint, _joint_rows)


# ---- losses of options, from choices and actions -------------------------------------------------------------------


def _options() -> Options:
    index = ("option", "index")
    worker = ProbabilisticActor(PerOption(network(4, 2 * 3), 2), Categorical, in_keys=["observation", index])
    return Options(2, network(4, 2), worker, termination=network(4, 2))


def _option_rows(*shape: int, seed: int = 0) -> TensorDict:
    batch = make_rows(KINDS["discrete"], *shape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    running = torch.randint(3, shape, generator=generator)  # 2: none
    batch["option"] = TensorDict({"running": running, "age": torch.ones_like(running)}, shape)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + 1)
        _options()(batch)
    return batch.exclude("next")


OPTION_LOSSES = {
    "TerminationLoss": Case(lambda: TerminationLoss(_options(), coef=0.1), _option_rows),
    "ClipPPOLoss of options": Case(lambda: ClipPPOLoss(_options(), make_critic()), _option_rows),
}


def _policy_case(build: Callable[[nn.Module, nn.Module], Loss], kind: Kind) -> Case:
    return Case(lambda: build(kind.make_actor(), make_critic()), partial(make_rows, kind))


CASES = (
    VALUE_LOSSES
    | CURIOSITY_LOSSES
    | OPTION_LOSSES
    | {
        f"{name} of {kind}": _policy_case(loss.build, KINDS[kind])
        for name, loss in POLICY_LOSSES.items()
        for kind in loss.kinds
    }
)
