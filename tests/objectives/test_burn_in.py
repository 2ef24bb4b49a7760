"""First steps of sequences that only warm states up, and sequences that begin from the initial state."""

import pytest
import torch
from torch import nn

from cases.losses import BOUNDS, critics, gaussian, gradients, network
from cases.sequences import MASK, SHAPE, VALUE_LOSSES, make_batch
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import GRU, LSTM, QValueActor, Sequence, Transformer, ValueOperator
from torchrl.objectives import DQNLoss, JointLoss, SACLoss, total_loss
from torchrl.objectives.burn_in import warm_up
from torchrl.objectives.unrolling import STARTS


def dqn(cell=None, **options):
    cell = LSTM(4, 4, out_key="observation") if cell is None else cell
    return DQNLoss(Sequence(cell, QValueActor(network(4, 3))), **options)


def stepped(cell, batch, num_steps, state=None):
    """The state behind the first steps, by a loop that a reader can check."""
    state = batch["memory"][:, 0].clone() if state is None else state
    valid = batch.get(MASK, torch.ones(SHAPE, dtype=torch.bool))
    for row in range(SHAPE[0]):
        for step in range(num_steps):
            if not valid[row, step]:
                continue
            if batch["is_init"][row, step] or (step and not valid[row, step - 1]):
                state[row] = 0
            observed = batch["observation"][row, step]
            with torch.no_grad():
                state[row] = cell.step(observed.unsqueeze(0), state[row].unsqueeze(0))[1][0]
    return state


def with_start(batch, state):
    batch = batch.clone()
    batch["memory"] = state.unsqueeze(1).expand(*batch.batch_size, *state.shape[1:])
    return batch


@pytest.mark.parametrize("is_masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("name", VALUE_LOSSES)
def test_the_loss_is_that_of_the_rest_from_the_state_behind_the_burn_in(name, is_masked):
    action, build = VALUE_LOSSES[name]
    cell, batch = LSTM(4, 4, out_key="observation"), make_batch(action, is_masked=is_masked)
    torch.manual_seed(1)
    loss = build(lambda net: Sequence(cell, net), burn_in=3)
    torch.manual_seed(1)
    plain = build(lambda net: Sequence(cell, net))
    before = batch.clone()
    result = gradients(loss, batch)
    expected = gradients(plain, with_start(batch[:, 3:], stepped(cell, batch, 3)))
    torch.testing.assert_close(dict(result[0].items()), dict(expected[0].items()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result[1], expected[1], rtol=1e-4, atol=1e-5)
    assert STARTS not in batch.keys() and torch.equal(batch["is_init"], before["is_init"])


@pytest.mark.parametrize("burn_in", [0, 3])
@pytest.mark.parametrize("name", VALUE_LOSSES)
def test_no_state_is_read_where_sequences_begin_from_the_initial_one(name, burn_in):
    action, build = VALUE_LOSSES[name]
    cell, batch = LSTM(4, 4, out_key="observation"), make_batch(action)
    torch.manual_seed(1)
    loss = build(lambda net: Sequence(cell, net), burn_in=burn_in, zero_state=True)
    torch.manual_seed(1)
    plain = build(lambda net: Sequence(cell, net), burn_in=burn_in)
    assert "memory" not in loss.in_keys and set(loss.in_keys) | {"memory"} == set(plain.in_keys)
    result = gradients(loss, batch.exclude("memory"))
    expected = gradients(plain, with_start(batch, torch.zeros(3, 1, 2, 4)))
    torch.testing.assert_close(dict(result[0].items()), dict(expected[0].items()))
    torch.testing.assert_close(result[1], expected[1])


@pytest.mark.parametrize(
    "cell",
    [
        GRU(4, 4, num_layers=2, out_key="observation"),
        LSTM(4, 4, num_layers=2, out_key="observation", learn_initial_state=True),
        Transformer(4, 4, num_layers=2, window=3, out_key="observation"),
    ],
    ids=["GRU", "LSTM", "Transformer"],
)
def test_errors_behind_a_burn_in_are_those_of_the_whole_sequence(cell):
    """While no weight has changed, it makes no difference whether the first steps are rows."""
    batch = make_batch()
    batch["memory"] = cell.own_state()["memory"].detach().expand(*SHAPE, *cell.state_shape)
    torch.manual_seed(1)
    whole = dqn(cell)
    torch.manual_seed(1)
    rest = dqn(cell, burn_in=4)
    errors = whole(batch)["td_error"].view(SHAPE)[:, 4:].flatten()
    torch.testing.assert_close(rest(batch)["td_error"], errors, rtol=1e-5, atol=1e-5)


def test_every_network_warms_up_by_its_own_weights():
    loss, batch = dqn(burn_in=4), make_batch()
    with torch.no_grad():
        for parameter in loss.target_actor.parameters():
            parameter.mul_(1.5)
    warm = warm_up(loss.networks, batch, burn_in=4)
    assert warm.batch_size == (3, 5)
    for name, actor in (("actor", loss.actor), ("target_actor", loss.target_actor)):
        torch.testing.assert_close(warm[STARTS, name, "memory"][:, 0], stepped(actor[0], batch, 4))


def test_masked_steps_reset_the_state_and_leave_no_trace():
    """A masked step first, one in the middle, one at the border, and a sequence whose end alone is padded."""
    batch = make_batch()
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[0, 0] = mask[0, 2] = mask[1, 3] = mask[2, 7:] = False
    batch[MASK] = mask
    for value in batch.exclude(MASK).values(include_nested=True, leaves_only=True):
        if value.is_floating_point():
            value[~mask] = torch.nan
    loss = dqn(burn_in=4)
    warm = warm_up(loss.networks, batch, burn_in=4)
    assert warm["is_init"][1, 0] and not batch["is_init"][1, 4]
    state = warm[STARTS, "actor", "memory"][:, 0]
    expected = stepped(loss.actor[0], batch, 4, torch.where(mask[:, 0, None, None, None], batch["memory"][:, 0], 0))
    torch.testing.assert_close(state, expected)
    terms = loss(batch)
    assert terms["td_error"].shape == (int(mask[:, 4:].sum()),) and terms["td_error"].isfinite().all()
    total_loss(terms).backward()
    assert all(parameter.grad.isfinite().all() for parameter in loss.trainable_parameters())


@pytest.mark.parametrize(("start", "burn_in", "rest"), [(2, 3, 1), (4, 3, 0)], ids=["within", "behind"])
@pytest.mark.parametrize("zero_state", [False, True], ids=["stored", "zero"])
def test_masked_first_steps_are_as_if_left_out(start, burn_in, rest, zero_state):
    batch = make_batch()
    batch["memory"] = torch.randn_like(batch["memory"])
    cell = LSTM(4, 4, out_key="observation", learn_initial_state=True)
    nn.init.normal_(cell.initial)
    left_out = batch[:, start:].clone()
    batch[MASK] = (torch.arange(SHAPE[1]) >= start).expand(SHAPE)
    torch.manual_seed(0)
    terms, grads = gradients(dqn(cell, burn_in=burn_in, zero_state=zero_state), batch)
    torch.manual_seed(0)
    expected, expected_grads = gradients(dqn(cell, burn_in=rest, zero_state=zero_state), left_out)
    torch.testing.assert_close(dict(terms.items()), dict(expected.items()))
    torch.testing.assert_close(grads, expected_grads)


def test_a_learned_initial_state_is_trained_by_sequences_that_begin_from_it():
    batch = make_batch().exclude("memory")
    batch["is_init"] = torch.zeros_like(batch["is_init"])
    cell = GRU(4, 4, out_key="observation", learn_initial_state=True)
    nn.init.normal_(cell.initial)
    loss = dqn(cell, zero_state=True)
    assert torch.equal(loss.networks.remembering()["actor"][0].initial, cell.initial)
    total_loss(loss(batch)).backward()
    assert (cell.initial.grad != 0).any()
    state = cell.initial.detach().expand(3, 1, 1, 4)
    warm = warm_up(dqn(cell).networks, batch, burn_in=2, zero_state=True)
    for observed in batch["observation"][:, :2].unbind(1):
        state = cell.step(observed, state)[1]
    torch.testing.assert_close(warm[STARTS, "actor", "memory"][:, 0], state.detach())


def test_actor_and_critics_with_memories_of_their_own():
    cells = LSTM(4, 4, out_key="observation"), GRU(4, 4, out_key="observation", state_key="judging")
    loss = SACLoss(Sequence(cells[0], gaussian()), Sequence(cells[1], critics(2)), action_spec=BOUNDS, burn_in=2)
    batch = make_batch("vector")
    batch["judging"] = torch.randn(*SHAPE, 1, 1, 4)
    warm = warm_up(loss.networks, batch, burn_in=2)
    assert {name: list(states.keys()) for name, states in warm[STARTS].items()} == {
        "actor": ["memory"],
        "critic": ["judging"],
        "target_critic": ["judging"],
    }
    judging = batch["judging"][:, 0]
    for step in range(2):
        judging = cells[1].step(batch["observation"][:, step], cells[1].restart(judging, batch["is_init"][:, step, 0]))[
            1
        ]
    torch.testing.assert_close(warm[STARTS, "critic", "judging"][:, 0], judging)
    total_loss(loss(batch)).backward()


def test_soft_actor_critic_reads_what_its_state_value_network_reads():
    cell = LSTM(4, 4, in_keys=["task"], state_key="valuing")
    value = Sequence(cell, ValueOperator(nn.Linear(4, 1), in_keys=["hidden"]))
    loss = SACLoss(gaussian(), critics(2), value=value, action_spec=BOUNDS)
    assert {"task", ("next", "task"), "valuing", "is_init"} <= set(loss.in_keys)
    batch = make_batch("vector")
    batch["valuing"] = torch.zeros(*SHAPE, 1, 2, 4)
    total_loss(loss(batch)).backward()
    assert "valuing" not in SACLoss(gaussian(), critics(2), value=value, action_spec=BOUNDS, zero_state=True).in_keys


class TestRefusals:
    @pytest.mark.parametrize("burn_in", [9, 20])
    def test_sequences_not_longer_than_the_burn_in(self, burn_in):
        message = f"DQNLoss: expected sequences longer than the burn-in of {burn_in} steps, got 9 steps.*SliceSampler"
        with pytest.raises(SpecError, match=message):
            dqn(burn_in=burn_in)(make_batch())

    @pytest.mark.parametrize("burn_in", [0, 2])
    def test_no_state(self, burn_in):
        message = "DQNLoss: expected the state 'memory'.*Store the states with the steps, or write zero_state=True"
        with pytest.raises(KeyMissing, match=message):
            dqn(burn_in=burn_in)(make_batch().exclude("memory"))

    @pytest.mark.parametrize("options", [{"burn_in": 2}, {"zero_state": True}, {"n_steps": 3}])
    def test_networks_without_memory(self, options):
        (name,) = options
        with pytest.raises(ConfigError, match=f"DQNLoss: expected networks with memory for {name}, got none.*LSTM"):
            DQNLoss(QValueActor(network(4, 3)), **options)

    @pytest.mark.parametrize("options", [{"burn_in": -1}, {"burn_in": 1.5}, {"n_steps": 0}, {"n_steps": True}])
    def test_no_count(self, options):
        (name,) = options
        with pytest.raises(ConfigError, match=f"DQNLoss: expected {name}, a whole number of at least"):
            dqn(**options)

    def test_single_rows(self):
        with pytest.raises(SpecError, match="sequences with time last.*SliceSampler"):
            dqn(burn_in=2)(make_batch().reshape(-1))

    def test_steps_out_of_order_in_the_burn_in(self):
        batch = make_batch()
        batch["collector", "traj_ids"] = batch["is_init"].squeeze(-1).cumsum(1) + 10 * torch.arange(3).unsqueeze(1)
        batch["collector", "traj_ids"][1, 0] = 99
        with pytest.raises(SpecError, match="DQNLoss: expected a batch .* whose rows follow each other in time"):
            dqn(burn_in=4)(batch)

    def test_a_burn_in_that_leaves_no_row(self):
        batch = make_batch()
        batch[MASK] = torch.arange(9).expand(SHAPE) < 4
        with pytest.raises(SpecError, match="DQNLoss: expected at least one valid row"):
            dqn(burn_in=4)(batch)


def test_a_joint_loss_tells_the_burn_in_of_its_parts():
    actor = Sequence(LSTM(4, 4, out_key="observation"), QValueActor(network(4, 3)))
    joint = JointLoss(DQNLoss(actor, burn_in=4, zero_state=True))
    assert joint.burn_in == 4 and "memory" not in joint.in_keys
    assert joint(make_batch().exclude("memory"))["td_error"].shape == (3 * 5,)
