"""Every loss and estimator with memory against itself without: heads on features that a plain loop computed."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

import torchrl.objectives
from cases.losses import (
    BOUNDS,
    CHOICE,
    KINDS,
    NUM_ACTIONS,
    critics,
    deterministic,
    gaussian,
    gradients,
    make_critic,
    make_rows,
    make_transitions,
    network,
)
from torchrl.errors import ConfigError, SpecError
from torchrl.functional.endings import next_step_follows
from torchrl.modules import (
    GRU,
    LSTM,
    MLP,
    Categorical,
    DistributionalQValueActor,
    EGreedy,
    ProbabilisticActor,
    QuantileQValueActor,
    QValueActor,
    Sequence,
    Transformer,
    ValueEnsemble,
    ValueOperator,
)
from torchrl.objectives import (
    GAE,
    A2CLoss,
    BehaviourCloningLoss,
    ClippedSurrogate,
    ClipPPOLoss,
    DDPGLoss,
    DiscountedReturn,
    DiscreteSACLoss,
    DistributionalDQNLoss,
    DQNLoss,
    KLPenaltyPPOLoss,
    Loss,
    NStepReturn,
    PolicyGradientLoss,
    PPOLoss,
    QuantileDQNLoss,
    REDQLoss,
    ReinforceLoss,
    SACLoss,
    TD3Loss,
    TDLambda,
    VTrace,
    total_loss,
)
from torchrl.objectives.unrolling import lay_out

SHAPE = (3, 9)
MASK = ("collector", "mask")


def discrete(wrap):
    return wrap(KINDS["discrete"].make_actor())


def value(wrap):
    return wrap(make_critic())


def choosing(wrap):
    return wrap(ProbabilisticActor(network(4, NUM_ACTIONS), Categorical, log_prob_key=None))


def discrete_critics():
    return ValueEnsemble(lambda: MLP(4, NUM_ACTIONS, num_cells=(7,)), 2, in_keys=["observation"])


POLICY_LOSSES = {
    "ReinforceLoss": lambda w: ReinforceLoss(discrete(w)),
    "ReinforceLoss, baseline": lambda w: ReinforceLoss(discrete(w), value(w)),
    "ReinforceLoss, baseline without memory": lambda w: ReinforceLoss(discrete(w), make_critic(in_keys=["task"])),
    "A2CLoss": lambda w: A2CLoss(discrete(w), value(w)),
    "PPOLoss": lambda w: PPOLoss(discrete(w), value(w), reduction="sum"),
    "ClipPPOLoss": lambda w: ClipPPOLoss(discrete(w), value(w), value_clip=0.2, entropy_coef=0.1),
    "ClipPPOLoss of a masked composite": lambda w: ClipPPOLoss(w(KINDS["masked composite"].make_actor()), value(w)),
    "PolicyGradientLoss": lambda w: PolicyGradientLoss(discrete(w), value(w), ClippedSurrogate(0.3)),
    "KLPenaltyPPOLoss": lambda w: KLPenaltyPPOLoss(discrete(w), value(w)),
    "BehaviourCloningLoss": lambda w: BehaviourCloningLoss(discrete(w), entropy_coef=0.1),
}
VALUE_LOSSES = {
    "DQNLoss": ("choice", lambda w: DQNLoss(w(QValueActor(network(4, 3))))),
    "DQNLoss, single": ("choice", lambda w: DQNLoss(w(QValueActor(network(4, 3))), double=False)),
    "DQNLoss, masked": ("masked", lambda w: DQNLoss(w(QValueActor(network(4, 3), mask_key="action_mask")))),
    "DistributionalDQNLoss": (
        "choice",
        lambda w: DistributionalDQNLoss(w(DistributionalQValueActor(network(4, 3, 11), low=-3.0, high=3.0))),
    ),
    "QuantileDQNLoss": ("choice", lambda w: QuantileDQNLoss(w(QuantileQValueActor(network(4, 3, 5))))),
    "DDPGLoss": ("vector", lambda w: DDPGLoss(w(deterministic()), w(critics(2)))),
    "TD3Loss": ("vector", lambda w: TD3Loss(w(deterministic()), w(critics(2)), action_spec=BOUNDS)),
    "SACLoss": ("vector", lambda w: SACLoss(w(gaussian()), w(critics(2)), action_spec=BOUNDS)),
    "SACLoss, critics without memory": (
        "vector",
        lambda w: SACLoss(w(gaussian()), plain_critics(), action_spec=BOUNDS),
    ),
    "SACLoss, with a state value": (
        "vector",
        lambda w: SACLoss(w(gaussian()), w(critics(2)), value=w(ValueOperator(network(4, 1))), action_spec=BOUNDS),
    ),
    "REDQLoss": ("vector", lambda w: REDQLoss(w(gaussian()), w(critics(3)), num_sampled=2, action_spec=BOUNDS)),
    "DiscreteSACLoss": (
        "choice",
        lambda w: DiscreteSACLoss(choosing(w), w(discrete_critics()), action_spec=CHOICE),
    ),
}
WITHOUT_NETWORKS_OF_STATES = {
    "JointLoss",
    "Loss",
    "TDLoss",
    "ActionValueLoss",
    "ActorCriticLoss",
    "ActorLoss",
    "RNDLoss",
    "ICMLoss",
}


def plain_critics():
    return ValueEnsemble(lambda: MLP(6, 1, num_cells=(7,)), 2, in_keys=["task", "action"])


def test_every_loss_is_among_the_cases():
    named = [getattr(torchrl.objectives, name) for name in torchrl.objectives.__all__]
    losses = {x.__name__ for x in named if isinstance(x, type) and issubclass(x, Loss)} - WITHOUT_NETWORKS_OF_STATES
    assert losses <= {name.split(",")[0].split(" ")[0] for name in (*POLICY_LOSSES, *VALUE_LOSSES)}


def make_batch(action="choice", *, is_masked=False, seed=0, kind="discrete"):
    """Sequences with endings, whose successors agree with the next steps; masked steps are NaN where they can be."""
    batch = make_transitions(action, *SHAPE, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    for key, entry in make_rows(KINDS[kind], *SHAPE).items():
        if key != "observation" and (key != "action" or action == "choice"):
            batch[key] = entry
    done = batch["next", "done"]
    begins = torch.zeros_like(done)
    begins[0, 0] = True
    begins[:, 1:] = done[:, :-1]
    begins[2, 4] = True  # a reset in mid-episode
    batch["is_init"] = begins
    batch["task"] = torch.randn(*SHAPE, 4, generator=draw)
    batch["next", "task"] = torch.randn(*SHAPE, 4, generator=draw)
    batch["memory"] = torch.randn(*SHAPE, 1, 2, 4, generator=draw)
    batch["memory"][:, 1:] = torch.nan  # a sequence reads the first alone
    batch["value_target"], batch["advantage"] = torch.randn(*SHAPE, 1), torch.randn(*SHAPE, 1)
    mask = None
    if is_masked:
        mask = torch.ones(SHAPE, dtype=torch.bool)
        mask[0, 6:] = mask[2, 8:] = False
        batch[MASK] = mask
    follows = next_step_follows(
        batch["next", "terminated"],
        batch["next", "truncated"],
        is_init=begins,
        mask=None if mask is None else mask.unsqueeze(-1),
    )
    for key in ("observation", "task", *(["action_mask"] if action == "masked" else [])):
        after, rows = batch["next", key], follows[:, :-1, 0]
        after[:, :-1][rows] = batch[key][:, 1:][rows]
    if is_masked:
        for entry in batch.exclude(MASK).values(include_nested=True, leaves_only=True):
            if entry.is_floating_point():
                entry[~mask] = torch.nan
    return batch


def features(cell, batch):
    """What a cell writes at every step and after it, by a loop that a reader can check."""
    begins, shape = batch["is_init"], batch.batch_size
    here, after = torch.zeros(*shape, 4), torch.zeros(*shape, 4)
    for row in range(shape[0]):
        state = batch["memory"][row, 0]
        for step in range(shape[1]):
            if begins[row, step]:
                state = torch.zeros_like(state)
            observed, following = batch["observation"][row, step], batch["next", "observation"][row, step]
            out, state = cell.step(observed.unsqueeze(0), state.unsqueeze(0))
            here[row, step], state = out[0], state[0]
            after[row, step] = cell.step(following.unsqueeze(0), state.unsqueeze(0))[0][0]
    return here, after


def without_memory(cell, batch):
    """The batch with the features in the place of the observations."""
    plain = batch.clone()
    with torch.no_grad():
        plain["observation"], plain["next", "observation"] = features(cell, batch)
    return plain.exclude("memory")


def compare(build, batch, cell=None):
    cell = cell or LSTM(4, 4, out_key="observation")
    torch.manual_seed(1)
    remembering = build(lambda net: Sequence(cell, net))
    torch.manual_seed(1)
    plain = build(lambda net: net)
    terms, grads = gradients(remembering, batch)
    expected, expected_grads = gradients(plain, without_memory(cell, batch))
    torch.testing.assert_close(dict(terms.items()), dict(expected.items()), rtol=1e-5, atol=1e-5)
    mine = {id(parameter) for parameter in cell.parameters()}
    of_heads = [grad for x, grad in zip(remembering.trainable_parameters(), grads, strict=True) if id(x) not in mine]
    torch.testing.assert_close(of_heads, expected_grads, rtol=1e-4, atol=1e-5)
    assert all((parameter.grad != 0).any() for parameter in cell.parameters())


@pytest.mark.parametrize("is_masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_a_policy_loss_with_memory(name, is_masked):
    kind = "masked composite" if "composite" in name else "discrete"
    compare(POLICY_LOSSES[name], make_batch(is_masked=is_masked, kind=kind))


@pytest.mark.parametrize("is_masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("name", VALUE_LOSSES)
def test_a_value_loss_with_memory(name, is_masked):
    action, build = VALUE_LOSSES[name]
    compare(build, make_batch(action, is_masked=is_masked))


@pytest.mark.parametrize("is_masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("name", ["ClipPPOLoss", "DQNLoss", "SACLoss"])
def test_a_loss_with_a_transformer(name, is_masked):
    action, build = ("choice", POLICY_LOSSES[name]) if name in POLICY_LOSSES else VALUE_LOSSES[name]
    batch = make_batch(action, is_masked=is_masked)
    batch["memory"] = torch.randn(*SHAPE, 2, 9)
    batch["memory"][:, 0, :, -1] = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # valid places of the rows
    batch["memory"][:, 1:] = torch.nan
    compare(build, batch, Transformer(4, 4, num_layers=2, window=3, out_key="observation"))


@pytest.mark.parametrize("is_masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize(
    "build",
    [
        lambda actor, critic: GAE(critic),
        lambda actor, critic: TDLambda(critic, lambda_=0.9),
        lambda actor, critic: NStepReturn(critic, n=3),
        lambda actor, critic: DiscountedReturn(critic),
        lambda actor, critic: VTrace(actor, critic),
        lambda actor, critic: GAE(critic, actor=actor, standardize=True),
    ],
    ids=["GAE", "TDLambda", "NStepReturn", "DiscountedReturn", "VTrace", "GAE, weighted"],
)
def test_an_estimator_with_memory(build, is_masked):
    cell, batch = LSTM(4, 4, out_key="observation"), make_batch(is_masked=is_masked)
    actor, critic = KINDS["discrete"].make_actor(), make_critic()
    expected = build(actor, critic)(without_memory(cell, batch))
    result = build(Sequence(cell, actor), Sequence(cell, critic))(batch)
    for key in ("advantage", "value_target", "state_value"):
        torch.testing.assert_close(result[key], expected[key], rtol=1e-5, atol=1e-5)


def test_actor_and_critic_with_memories_of_their_own():
    one, other = LSTM(4, 4), GRU(4, 4, state_key="judging")
    head = ProbabilisticActor(nn.Linear(4, 3), Categorical, in_keys=["hidden"])
    actor = Sequence(one, head)
    critic = Sequence(other, ValueOperator(nn.Linear(4, 1), in_keys=["hidden"]))
    batch = make_batch()
    batch["judging"] = torch.zeros(*SHAPE, 1, 1, 4)
    loss = A2CLoss(actor, critic)
    terms = loss(batch)
    rows = {"is_init": batch["is_init"].squeeze(-1)}
    hidden = other.unroll(batch["observation"], batch["judging"][:, 0], rows["is_init"])
    error = (critic[1].module(hidden) - batch["value_target"]).square().mean() * loss.critic_coef
    torch.testing.assert_close(terms["loss_critic"], error)
    hidden = one.unroll(batch["observation"], batch["memory"][:, 0], rows["is_init"])
    log_prob = head.build(TensorDict({"hidden": hidden}, SHAPE)).log_prob(batch["action"])
    torch.testing.assert_close(terms["loss_objective"], -(log_prob * batch["advantage"].squeeze(-1)).mean())


def test_the_actors_loss_does_not_reach_the_critics_memory():
    cells = LSTM(4, 4, out_key="observation"), LSTM(4, 4, out_key="observation", state_key="judging")
    loss = SACLoss(Sequence(cells[0], gaussian()), Sequence(cells[1], critics(2)), action_spec=BOUNDS)
    batch = make_batch("vector")
    batch["judging"] = batch["memory"]
    loss(batch)["loss_actor"].backward()
    assert all(parameter.grad is not None for parameter in cells[0].parameters())
    assert all(parameter.grad is None for parameter in cells[1].parameters())
    assert all(parameter.grad is None for parameter in loss.target_critic.parameters())


def test_steps_are_laid_out_with_the_successors_that_are_no_steps():
    is_init = torch.tensor([[True, False, True], [False, False, False]])
    mask = torch.tensor([[True, True, True], [True, False, True]])
    follows = torch.tensor([[True, False, False], [False, False, False]])
    layout = lay_out(is_init, mask, follows)
    # row 0: a0 a1 (a2) b0 (b1); row 1: c0 (c1), a masked step, c2 (c3), which begins anew
    assert layout.edges.tolist() == [1, 2, 3, 5]
    assert layout.source.tolist() == [[0, 1, 6, 2, 7], [3, 8, 5, 9, 0]]
    assert layout.begins.squeeze(-1).tolist() == [[True, False, False, True, False], [False, False, True, False, False]]
    assert layout.place.tolist() == [0, 1, 3, 5, 7]


class TestRefusals:
    def loss(self, **options):
        return A2CLoss(discrete(lambda net: Sequence(LSTM(4, 4, out_key="observation", **options), net)), make_critic())

    @pytest.mark.parametrize("shape", [(27,), (3, 3, 3)])
    def test_other_dimensions(self, shape):
        message = r"A2CLoss: expected sequences with time last, 2 batch dimensions.*SliceSampler.*sequence_len"
        with pytest.raises(SpecError, match=message):
            self.loss()(make_batch().reshape(shape))

    def test_steps_out_of_order(self):
        batch = make_batch()
        batch["collector", "traj_ids"] = batch["is_init"].squeeze(-1).cumsum(1) + 10 * torch.arange(3).unsqueeze(1)
        self.loss()(batch)
        with pytest.raises(SpecError, match="A2CLoss: expected a batch .* whose rows follow each other in time"):
            self.loss()(batch.transpose(0, 1).contiguous())

    def test_sums_of_several_rewards(self):
        batch = make_batch("choice")
        batch["next", "gamma"] = torch.full((*SHAPE, 1), 0.9)
        loss = DQNLoss(Sequence(LSTM(4, 4, out_key="observation"), QValueActor(network(4, 3))))
        with pytest.raises(SpecError, match="DQNLoss: expected successors one step ahead.*Leave MultiStep out"):
            loss(batch)

    def test_a_network_that_ends_with_its_memory(self):
        with pytest.raises(ConfigError, match="A2CLoss: expected a network with memory as a Sequence whose last"):
            A2CLoss(KINDS["discrete"].make_actor(), LSTM(4, 1, out_key="state_value"))

    def test_a_memory_of_the_action_that_is_asked_about(self):
        cell = LSTM(6, 4, in_keys=["observation", "action"])
        critic = Sequence(cell, ValueOperator(nn.Linear(4, 1), in_keys=["hidden"]))
        with pytest.raises(ConfigError, match="SACLoss: expected memory of what was seen, got one that reads 'action'"):
            SACLoss(gaussian(), critic, action_spec=BOUNDS)


def test_exploration_is_looked_through():
    actor = Sequence(LSTM(4, 4, out_key="observation"), QValueActor(network(4, 3)))
    loss = DQNLoss(EGreedy(actor, CHOICE, num_frames=10))
    assert loss.actor is actor and loss.state_keys == ["memory"]
    total_loss(loss(make_batch())).backward()
