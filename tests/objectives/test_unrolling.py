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
    critics,
    gaussian,
    gradients,
    make_critic,
    network,
)
from cases.sequences import MASK, SHAPE, VALUE_LOSSES, make_batch, without_memory
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import (
    GRU,
    LSTM,
    Categorical,
    EGreedy,
    Operator,
    ProbabilisticActor,
    QValueActor,
    Sequence,
    TanhNormal,
    Transformer,
    ValueOperator,
)
from torchrl.objectives import (
    GAE,
    A2CLoss,
    BehaviourCloningLoss,
    ClippedSurrogate,
    ClipPPOLoss,
    DiscountedReturn,
    DQNLoss,
    KLPenaltyPPOLoss,
    Loss,
    NStepReturn,
    PolicyGradientLoss,
    PPOLoss,
    ReinforceLoss,
    SACLoss,
    TDLambda,
    VTrace,
    total_loss,
)
from torchrl.objectives.unrolling import lay_out


def discrete(wrap):
    return wrap(KINDS["discrete"].make_actor())


def value(wrap):
    return wrap(make_critic())


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
WITHOUT_NETWORKS_OF_STATES = {
    "JointLoss",
    "Loss",
    "TDLoss",
    "ActionValueLoss",
    "ActorCriticLoss",
    "ActorLoss",
    "RNDLoss",
    "ICMLoss",
    "TerminationLoss",  # tests/objectives/costs/test_termination.py
}


def test_every_loss_is_among_the_cases():
    named = [getattr(torchrl.objectives, name) for name in torchrl.objectives.__all__]
    losses = {x.__name__ for x in named if isinstance(x, type) and issubclass(x, Loss)} - WITHOUT_NETWORKS_OF_STATES
    assert losses <= {name.split(",")[0].split(" ")[0] for name in (*POLICY_LOSSES, *VALUE_LOSSES)}


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


def starting_at(batch, start):
    """The batch with its first steps masked."""
    batch = batch.clone()
    batch[MASK] = torch.ones(SHAPE, dtype=torch.bool)
    batch[MASK][:, :start] = False
    return batch


@pytest.mark.parametrize("name", ["ClipPPOLoss", "DQNLoss"])
def test_masked_first_steps_are_as_if_left_out(name):
    kind, build = ("choice", POLICY_LOSSES[name]) if name in POLICY_LOSSES else VALUE_LOSSES[name]
    cell = LSTM(4, 4, out_key="observation", learn_initial_state=True)
    loss = build(lambda net: Sequence(cell, net))
    batch = make_batch(kind)
    batch["memory"] = torch.randn_like(batch["memory"])
    masked, left_out = starting_at(batch, 2), batch[:, 2:].clone()
    masked["memory"][:, :2] = torch.nan
    torch.testing.assert_close(dict(loss(masked).items()), dict(loss(left_out).items()))


def test_values_where_no_step_is_valid_are_zero():
    critic = Sequence(LSTM(4, 4, out_key="observation"), make_critic())
    batch = GAE(critic)(starting_at(make_batch(), SHAPE[1]))
    assert not batch["advantage"].any() and not batch["state_value"].any()


@pytest.mark.parametrize("name", ["ClipPPOLoss", "SACLoss"])
def test_rows_of_two_dimensions_may_be_counted_one_by_one(name):
    kind, build = ("choice", POLICY_LOSSES[name]) if name in POLICY_LOSSES else VALUE_LOSSES[name]
    batch, terms = make_batch(kind), []
    for batch_dims in (1, 2):
        torch.manual_seed(0)
        cell = LSTM(4, 4, out_key="observation", batch_dims=batch_dims)
        loss = build(lambda net, cell=cell: Sequence(cell, net))
        for rows in [batch, batch.unsqueeze(0)][:batch_dims]:
            torch.manual_seed(0)
            terms.append({key: value.flatten() for key, value in loss(rows).items()})
    assert len(terms) == 3
    for others in terms[1:]:
        torch.testing.assert_close(others, terms[0])


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

    def test_two_memories_of_one_state(self):
        networks = [Sequence(LSTM(4, 4, out_key="observation"), net) for net in (gaussian(), critics(2))]
        with pytest.raises(ConfigError, match="SACLoss: expected a state for each memory, got two .*state_key="):
            SACLoss(*networks, action_spec=BOUNDS)

    def test_a_memory_behind_different_modules(self):
        cell = LSTM(4, 4, in_keys=["seen"])
        one, other = (Operator(nn.Linear(4, 4), in_keys=["observation"], out_keys=["seen"]) for _ in range(2))
        aside = Operator(nn.Linear(4, 4), in_keys=["observation"], out_keys=["aside"])
        head = ProbabilisticActor(nn.Linear(4, 3), Categorical, in_keys=["hidden"])
        judge = ValueOperator(nn.Linear(8, 1), in_keys=["hidden", "aside"])
        A2CLoss(Sequence(one, cell, head), Sequence(aside, Sequence(one, cell), judge))
        with pytest.raises(ConfigError, match="A2CLoss: expected a state for each memory, got .* one behind different"):
            A2CLoss(Sequence(one, cell, head), Sequence(aside, other, cell, judge))

    def test_a_memory_of_an_action_of_another_name(self):
        cell = LSTM(6, 4, in_keys=["observation", "move"])
        critic = Sequence(cell, ValueOperator(nn.Linear(4, 1), in_keys=["hidden"]))
        actor = ProbabilisticActor(gaussian().module, TanhNormal, action_key="move")
        with pytest.raises(ConfigError, match="SACLoss: expected memory of what was seen, got one that reads 'move'"):
            SACLoss(actor, critic, action_spec=BOUNDS)


def test_exploration_is_looked_through():
    actor = Sequence(LSTM(4, 4, out_key="observation"), QValueActor(network(4, 3)))
    loss = DQNLoss(EGreedy(actor, CHOICE, num_frames=10))
    assert loss.actor is actor and loss.state_keys == ["memory"]
    total_loss(loss(make_batch())).backward()


@pytest.mark.parametrize("name", ["ClipPPOLoss", "A2CLoss"])
def test_a_policy_loss_over_sequences_is_one_graph(name):
    torch._dynamo.reset()
    cell = LSTM(4, 4, out_key="observation")
    loss = POLICY_LOSSES[name](lambda net: Sequence(cell, net))
    batch = make_batch().exclude("next")
    terms = torch.compile(loss, fullgraph=True, backend="aot_eager")(batch)
    torch.testing.assert_close(dict(terms.items()), dict(loss(batch).items()))
    total_loss(terms).backward()
    assert all((parameter.grad != 0).any() for parameter in cell.parameters())


def test_time_that_runs_backwards_inside_an_episode_is_refused():
    batch = make_batch()
    batch["is_init"], flags = torch.zeros(*SHAPE, 1, dtype=torch.bool), batch["next"]
    flags["terminated"], flags["truncated"] = batch["is_init"].clone(), batch["is_init"].clone()
    batch["episode_length"] = torch.arange(SHAPE[1]).expand(SHAPE).unsqueeze(-1).clone()
    critic = make_critic()
    GAE(critic)(batch.clone())
    for order in (torch.arange(SHAPE[1]).flip(0), torch.randperm(SHAPE[1], generator=torch.Generator().manual_seed(0))):
        with pytest.raises(SpecError, match="GAE: expected .* got an earlier step of the episode after one"):
            GAE(critic)(batch[:, order])
