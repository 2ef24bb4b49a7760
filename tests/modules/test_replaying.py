"""A policy run again over a batch: its state, gradient through time, lengths, extra entries, and what is refused.

The cell is m' = w · m + x with w = 0.5, the logit of action 1 is m', so every number can be written down.
"""

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch.nn.functional import logsigmoid

from torchrl.data import length_mask
from torchrl.data.specs import Bounded, Categorical as Choices
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import (
    GRU,
    MLP,
    Actor,
    ActorCriticWrapper,
    ActorValueOperator,
    AdditiveGaussian,
    Categorical,
    Distribution,
    EGreedy,
    MaskedCategorical,
    Normal,
    NormalHead,
    Operator,
    OrnsteinUhlenbeck,
    ProbabilisticActor,
    QValueActor,
    Sequence,
    TanhNormal,
    ValueOperator,
    replay_policy,
)

NAN = float("nan")


class Cell(nn.Module):
    """m' = w · m + x."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, memory):
        return self.weight * memory + x


class Logits(nn.Module):
    """The logit of action 0 is 0, that of action 1 the number given."""

    def forward(self, number):
        return torch.cat([torch.zeros_like(number), number], -1)


def recurrent(state="memory", *more):
    """A policy with a state under ``state``."""
    following = ("next", state) if isinstance(state, str) else ("next", *state)
    cell = Operator(Cell(), in_keys=["observation", state], out_keys=[following])
    return Sequence(cell, ProbabilisticActor(Logits(), Categorical, in_keys=[following]), *more)


def weight_of(policy):
    return policy[0].module.weight


def make_batch(x, memory, first=None, actions=None, state="memory"):
    """A batch ``[N, T]`` of observations, with the state that is stored, and where episodes begin."""
    x = torch.tensor(x)
    first = torch.zeros(x.shape, dtype=torch.bool) if first is None else torch.tensor(first)
    actions = torch.ones(x.shape, dtype=torch.int64) if actions is None else torch.tensor(actions)
    entries = {"observation": x.unsqueeze(-1), "is_init": first.unsqueeze(-1), "action": actions}
    batch = TensorDict(entries, x.shape)
    return batch.set(state, torch.as_tensor(memory).expand(x.shape).unsqueeze(-1).clone())


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_the_state_goes_from_step_to_step_and_begins_with_the_stored_one():
    policy = recurrent()
    batch = make_batch([[1.0, 2.0, 3.0]], [[10.0, NAN, NAN]], actions=[[1, 0, 1]])
    replayed = replay_policy(policy, batch)
    memory = torch.tensor([[6.0, 5.0, 5.5]])
    assert replayed.batch_size == (1, 3)
    assert set(replayed.keys(True, True)) == {("next", "memory"), "action_log_prob", "action_entropy"}
    assert torch.equal(replayed["next", "memory"].squeeze(-1), memory)
    torch.testing.assert_close(replayed["action_log_prob"], logsigmoid(memory * torch.tensor([[1.0, -1.0, 1.0]])))
    share = memory.sigmoid()
    entropy = -(share * share.log() + (1 - share) * (1 - share).log())
    torch.testing.assert_close(replayed["action_entropy"], entropy, atol=1e-5, rtol=0)


def test_the_gradient_reaches_back_to_the_start_and_not_past_it():
    policy = recurrent()
    batch = make_batch([[1.0, 2.0, 3.0]], [[10.0, NAN, NAN]])
    replay_policy(policy, batch)["next", "memory"][0, 2].sum().backward()
    assert weight_of(policy).grad.item() == 5 + 0.5 * (6 + 0.5 * 10)  # m2 + w (m1 + w m0)


def test_an_episode_that_begins_inside_takes_the_stored_state_and_cuts_the_gradient():
    policy = recurrent()
    batch = make_batch([[1.0, 2.0, 3.0]], [[10.0, NAN, 4.0]], first=[[False, False, True]])
    replayed = replay_policy(policy, batch)
    assert replayed["next", "memory"].squeeze(-1).tolist() == [[6.0, 5.0, 5.0]]
    replayed["next", "memory"][0, 2].sum().backward()
    assert weight_of(policy).grad.item() == 4  # dm3/dw is the fresh state, and nothing before


def test_rows_begin_apart():
    policy = recurrent()
    batch = make_batch([[1.0, 2.0], [1.0, 2.0]], [[10.0, 20.0], [10.0, 20.0]], first=[[True, True], [True, False]])
    assert replay_policy(policy, batch)["next", "memory"].squeeze(-1).tolist() == [[6.0, 12.0], [6.0, 5.0]]


def test_the_gradient_is_that_of_a_loop_by_hand():
    torch.manual_seed(0)
    cell, head = nn.GRUCell(3, 4), nn.Linear(4, 2)
    operator = Operator(cell, in_keys=["observation", "memory"], out_keys=[("next", "memory")])
    policy = Sequence(operator, ProbabilisticActor(head, Categorical, in_keys=[("next", "memory")]))
    first = torch.rand(5, 7, 1) < 0.2
    batch = TensorDict({"observation": torch.randn(5, 7, 3), "is_init": first}, [5, 7])
    batch["memory"], batch["action"] = torch.randn(5, 7, 4), torch.randint(2, (5, 7))
    weights = torch.randn(5, 7)
    (replay_policy(policy, batch)["action_log_prob"] * weights).sum().backward()
    gradients = [parameter.grad for parameter in policy.parameters()]
    policy.zero_grad()
    state, total = batch["memory"][:, 0], 0.0
    for time in range(7):
        state = torch.where(first[:, time], batch["memory"][:, time], state)
        state = cell(batch["observation"][:, time], state)
        log_probs = head(state).log_softmax(-1)
        total = total + (log_probs.gather(-1, batch["action"][:, time, None]).squeeze(-1) * weights[:, time]).sum()
    total.backward()
    for parameter, gradient in zip(policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


# ---- lengths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [None, True])
def test_padding_gives_zeros_and_reaches_nothing(at_once):
    policy = Sequence(Operator(nn.Linear(1, 2), in_keys=["observation"], out_keys=["hidden"]))
    policy = recurrent() if at_once is None else Sequence(policy, recurrent_head())
    mask = length_mask(torch.tensor([3, 1]), 3)
    batch = make_batch([[1.0, 2.0, 3.0], [1.0, NAN, NAN]], [[10.0, NAN, NAN], [20.0, NAN, NAN]])
    batch["action"][~mask] = -7  # no action at all
    replayed = replay_policy(policy, batch.set(("collector", "mask"), mask), at_once=at_once)
    if at_once is None:
        assert replayed["next", "memory"].squeeze(-1).tolist() == [[6.0, 5.0, 5.5], [11.0, 0.0, 0.0]]
    assert (replayed["action_log_prob"][1, 1:] == 0).all() and (replayed["action_entropy"][1, 1:] == 0).all()
    alone = [
        replay_policy(policy, batch[row : row + 1, :length].exclude("collector")) for row, length in ((0, 3), (1, 1))
    ]
    torch.testing.assert_close(replayed["action_log_prob"][mask], torch.cat([x["action_log_prob"][0] for x in alone]))
    replayed["action_log_prob"].sum().backward()
    gradients = [parameter.grad.clone() for parameter in policy.parameters()]
    policy.zero_grad()
    sum(x["action_log_prob"].sum() for x in alone).backward()
    for parameter, gradient in zip(policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def recurrent_head():
    return ProbabilisticActor(nn.Linear(2, 2), Categorical, in_keys=["hidden"])


def test_a_row_without_a_step_and_a_row_that_waits_in_between():
    policy = recurrent()
    batch = make_batch([[NAN] * 3, [1.0, NAN, 3.0], [NAN, 2.0, 3.0]], [[NAN] * 3, [10.0, NAN, NAN], [NAN, 8.0, NAN]])
    mask = torch.tensor([[False] * 3, [True, False, True], [False, True, True]])
    batch["is_init"][~mask] = True  # what lies in padding is nothing
    replayed = replay_policy(policy, batch.set(("collector", "mask"), mask))
    assert replayed["next", "memory"].squeeze(-1).tolist() == [[0, 0, 0], [6.0, 0, 6.0], [0, 6.0, 6.0]]


def test_a_step_that_no_row_has():
    batch = make_batch([[1.0, NAN], [2.0, NAN]], 10.0)
    batch["collector", "mask"] = torch.tensor([[True, False], [True, False]])
    replayed = replay_policy(recurrent(), batch)
    assert replayed["next", "memory"].squeeze(-1).tolist() == [[6.0, 0.0], [7.0, 0.0]]


def test_padding_may_allow_no_action():
    actor = ProbabilisticActor(nn.Linear(1, 2), MaskedCategorical, mask_key="legal")
    batch = make_batch([[1.0, NAN]], 0.0).set("legal", torch.tensor([[[True, True], [False, False]]]))
    batch["collector", "mask"] = torch.tensor([[True, False]])
    assert replay_policy(actor, batch)["action_log_prob"][0, 1] == 0


# ---- keys, containers, what is returned ------------------------------------------------------------------------------


def test_several_batch_dimensions_and_a_state_in_folders():
    state = ("agent", "rnn", "memory")
    policy = recurrent(state)
    batch = make_batch([[1.0, 2.0], [3.0, 4.0]], [[10.0, NAN], [20.0, NAN]], state=state).unflatten(0, (2, 1))
    replayed = replay_policy(policy, batch)
    assert replayed.batch_size == (2, 1, 2)
    assert replayed["next", "agent", "rnn", "memory"].flatten().tolist() == [6.0, 5.0, 13.0, 10.5]


class Two(nn.Module):
    """A state that is a folder with two tensors."""

    in_keys, out_keys = ["observation", "lstm"], [("next", "lstm")]

    def forward(self, root):
        h = root["lstm", "h"] + root["observation"]
        return root.set(("next", "lstm"), TensorDict({"h": h, "c": root["lstm", "c"] + 1}, root.batch_size))


def test_a_state_that_is_a_folder():
    batch = make_batch([[1.0, 2.0, 3.0]], 0.0, first=[[False, False, True]]).exclude("memory")
    batch["lstm"] = TensorDict({"h": torch.full((1, 3, 1), 10.0), "c": torch.zeros(1, 3, 2)}, [1, 3])
    replayed = replay_policy(Two(), batch)["next", "lstm"]
    assert replayed["h"].flatten().tolist() == [11, 13, 13] and replayed["c"][0, :, 0].tolist() == [1, 2, 1]


def test_a_step_adds_entries_and_reads_what_was_replayed_and_what_was_stored():
    critic = ValueOperator(nn.Linear(1, 1), in_keys=["memory"])
    batch = make_batch([[1.0, 2.0]], [[10.0, NAN]]).set(("next", "reward"), torch.tensor([[[7.0], [8.0]]]))

    def step(transition, time):
        assert transition.batch_size == (1,)
        value = critic(transition)["state_value"]
        return TensorDict({"value": value, "paid": transition["next", "reward"] + time}, transition.batch_size)

    replayed = replay_policy(recurrent(), batch, step=step)
    assert replayed["paid"].flatten().tolist() == [7, 9]
    torch.testing.assert_close(replayed["value"], critic.module(torch.tensor([[[10.0], [6.0]]])))
    returned = replay_policy(recurrent(), batch, step=lambda transition, time: critic(transition))
    assert {"state_value", "action_log_prob"} <= set(returned.keys())


def test_out_keys_choose_and_may_name_the_state_that_was_read():
    replayed = replay_policy(recurrent(), make_batch([[1.0, 2.0]], [[10.0, NAN]]), out_keys=["memory", "action"])
    assert set(replayed.keys()) == {"memory", "action"}
    assert replayed["memory"].flatten().tolist() == [10, 6] and replayed["memory"][0, 1].requires_grad


def test_a_critic_in_the_sequence_is_replayed_too():
    critic = ValueOperator(nn.Linear(1, 1), in_keys=[("next", "memory")])
    replayed = replay_policy(recurrent("memory", critic), make_batch([[1.0, 2.0]], 10.0))
    assert replayed["state_value"].shape == (1, 2, 1)


def test_nothing_is_written_into_the_batch_and_a_locked_one_is_taken():
    batch = make_batch([[1.0, 2.0]], 10.0).set("action_log_prob", torch.zeros(1, 2)).set("hidden", torch.ones(1, 2))
    before, keys = batch.clone(), set(batch.keys(True, True))
    replay_policy(recurrent(), batch.lock_())
    assert set(batch.keys(True, True)) == keys and (batch == before).all()


def test_a_stored_output_is_not_taken_for_a_replayed_one():
    policy = recurrent()
    batch = make_batch([[1.0, 2.0]], 10.0).set("logits", torch.zeros(1, 2, 2))
    with pytest.raises(KeyMissing, match="an entry 'logits'"):  # the stored ones have no gradient
        replay_policy(policy, batch, out_keys=["logits"])


def test_no_random_number_is_drawn_and_no_action_changes():
    batch = make_batch([[1.0, 2.0]], 10.0, actions=[[1, 0]])
    state = torch.get_rng_state()
    first, second = (replay_policy(recurrent(), batch) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state) and (first == second).all()


def test_a_later_module_reads_the_action_that_was_taken():
    policy = recurrent("memory", Operator(nn.Identity(), in_keys=["action"], out_keys=["seen"]))
    batch = make_batch([[-9.0, -9.0]], 0.0, actions=[[1, 0]])  # the most probable one is 0
    assert replay_policy(policy, batch, out_keys=["seen"])["seen"].tolist() == [[1, 0]]


# ---- policies without a state, and other forms -----------------------------------------------------------------------


def test_a_policy_without_a_state_is_called_once_and_gives_what_its_steps_give():
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append(x.shape)
            return super().forward(x)

    actor = ProbabilisticActor(Counted(1, 2), Categorical)
    batch = make_batch([[1.0, 2.0, 3.0], [4.0, 5.0, NAN]], 0.0)
    batch["collector", "mask"] = length_mask(torch.tensor([3, 2]), 3)
    whole = replay_policy(actor, batch)
    assert calls == [(5, 1)]
    stepwise = replay_policy(actor, batch, at_once=False)
    assert len(calls) == 4
    torch.testing.assert_close(whole["action_log_prob"], stepwise["action_log_prob"])
    valid = batch["collector", "mask"]
    torch.testing.assert_close(
        whole["action_log_prob"][valid], actor.build(batch[valid]).log_prob(batch["action"][valid])
    )


class SequenceCell(nn.Module):
    """The cell over ``[*B, T]`` at once, or one step ``[N]``."""

    def __init__(self):
        super().__init__()
        self.cell = Cell()

    def forward(self, x, memory, first):
        if x.ndim == 2:
            return self.cell(x, memory)
        shape, (x, memory, first) = x.shape, (value.flatten(0, -3) for value in (x, memory, first))
        state, states = memory[:, 0], []
        for time in range(x.shape[1]):
            state = self.cell(x[:, time], torch.where(first[:, time], memory[:, time], state))
            states.append(state)
        return torch.stack(states, 1).view(shape)


def test_a_policy_with_a_form_for_sequences_is_called_once():
    cell = Operator(SequenceCell(), in_keys=["observation", "memory", "is_init"], out_keys=[("next", "memory")])
    policy = Sequence(cell, ProbabilisticActor(Logits(), Categorical, in_keys=[("next", "memory")]))
    x = [[1.0, 2.0, 3.0], [1.0, 2.0, NAN], [NAN] * 3]
    batch = make_batch(
        x, [[10.0, 0, 4.0], [20.0, 0, NAN], [NAN] * 3], first=[[False, False, True], [False] * 3, [False] * 3]
    )
    batch["collector", "mask"] = length_mask(torch.tensor([3, 2, 0]), 3)
    stepwise, whole = replay_policy(policy, batch), replay_policy(policy, batch, at_once=True)
    assert whole["next", "memory"].squeeze(-1).tolist() == [[6.0, 5.0, 5.0], [11.0, 7.5, 0.0], [0.0, 0.0, 0.0]]
    assert (whole == stepwise).all()
    dims = batch.reshape(1, 3, 1, 3)
    assert (replay_policy(policy, dims, at_once=True) == whole.reshape(1, 3, 1, 3)).all()
    whole["next", "memory"].sum().backward()
    assert cell.module.cell.weight.grad.item() == 10 + (6 + 0.5 * 10) + 4 + 20 + (11 + 0.5 * 20)


def test_an_actor_without_chance_and_a_policy_that_explores_give_their_own_actions():
    batch = make_batch([[1.0, 2.0]], 0.0).set("action", torch.zeros(1, 2, 1))
    actor = Actor(nn.Linear(1, 1))
    noisy = AdditiveGaussian(actor, Bounded(-1.0, 1.0, (1,)), start=5.0, end=5.0)
    expected = actor.module(batch["observation"])
    for policy in (actor, noisy):
        torch.testing.assert_close(replay_policy(policy, batch)["action"], expected)
    drifting = OrnsteinUhlenbeck(actor, Bounded(-1.0, 1.0, (1,)), num_frames=1)
    torch.testing.assert_close(replay_policy(drifting, batch)["action"], expected)  # its noise is no state here
    greedy = EGreedy(QValueActor(nn.Linear(1, 2)), Choices(2), start=1.0, end=1.0, num_frames=1)
    assert replay_policy(greedy, batch)["action_value"].requires_grad


class Bare(Normal):
    """A family without a formula for its entropy."""

    __slots__ = ()
    entropy = Distribution.entropy


@pytest.mark.parametrize("family", [Normal, TanhNormal.within(-2.0, 2.0), Bare])
def test_continuous_actions_and_a_family_without_an_entropy(family):
    actor = ProbabilisticActor(nn.Sequential(MLP(1, 1), NormalHead(1)), family, log_prob_key=None)
    batch = make_batch([[1.0, 2.0]], 0.0).set("action", torch.full((1, 2, 1), 0.5))
    replayed = replay_policy(actor, batch)
    torch.testing.assert_close(replayed["action_log_prob"], actor.build(batch).log_prob(batch["action"]))
    assert ("action_entropy" in replayed.keys()) == (family is not Bare)


def test_actor_and_critic_together():
    actor, critic = ProbabilisticActor(nn.Linear(1, 2), Categorical), ValueOperator(nn.Linear(1, 1))
    trunk = Operator(nn.Linear(1, 3), in_keys=["observation"], out_keys=["hidden"])
    head = ProbabilisticActor(nn.Linear(3, 2), Categorical, in_keys=["hidden"])
    shared = ActorValueOperator(trunk, head, ValueOperator(nn.Linear(3, 1), in_keys=["hidden"]))
    batch = make_batch([[1.0, 2.0]], 0.0)
    for both, policy in ((ActorCriticWrapper(actor, critic), actor), (shared, shared.actor)):
        replayed = replay_policy(both, batch)
        assert set(replayed.keys()) == {"action_log_prob", "action_entropy", "state_value"}
        torch.testing.assert_close(replayed["action_log_prob"], policy.build(batch).log_prob(batch["action"]))


def test_several_choices_each_have_a_log_prob():
    option = ProbabilisticActor(nn.Linear(1, 3), Categorical, action_key=("option", "choice"), log_prob_key=None)
    batch = make_batch([[1.0, 2.0]], 0.0).set(("option", "choice"), torch.tensor([[2, 1]]))
    policy = Sequence(option, ProbabilisticActor(nn.Linear(1, 2), Categorical, log_prob_key="log_prob"))
    expected = {("option", "choice_log_prob"), ("option", "choice_entropy"), ("log_prob"), ("action_entropy")}
    assert expected <= set(replay_policy(policy, batch).keys(True, True))


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_batch_without_rows_or_without_a_step():
    batch = make_batch([[1.0, 2.0]], 10.0)
    with pytest.raises(SpecError, match=r"a batch \[\*B, T\], got \[2\]. batch.unsqueeze\(0\) is one row"):
        replay_policy(recurrent(), batch[0])
    with pytest.raises(SpecError, match="at least one valid step"):
        replay_policy(recurrent(), batch[:, :0])
    with pytest.raises(SpecError, match="at least one valid step.*false everywhere"):
        replay_policy(recurrent(), batch.set(("collector", "mask"), torch.zeros(1, 2, dtype=torch.bool)))


def test_a_batch_without_the_state_names_the_line_to_write():
    line = r"TransformedEnv\(env, TensorDictPrimer\(\{'memory': spec_of_one_row\}\)\)"
    with pytest.raises(KeyMissing, match=line):
        replay_policy(recurrent(), make_batch([[1.0]], 10.0).exclude("memory"))
    with pytest.raises(KeyMissing, match=r"TensorDictPrimer\(policy.initial_state\(\)\)"):
        replay_policy(GRU(1, 2), make_batch([[1.0]], 10.0).exclude("memory"))
    with pytest.raises(KeyMissing, match="to know where episodes begin.*'is_init'"):
        replay_policy(recurrent(), make_batch([[1.0]], 10.0).exclude("is_init"))
    with pytest.raises(KeyMissing, match="for the action that was taken.*'action'"):
        replay_policy(recurrent(), make_batch([[1.0]], 10.0).exclude("action"))


OUT_OF_ORDER = {
    "ids": ({("collector", "traj_ids"): [[3, 4]]}, "traj_ids"),
    "ended": ({("next", "done"): [[True, False]]}, "an ended episode"),
    "lengths": ({"episode_length": [[5, 0]], ("next", "episode_length"): [[6, 1]]}, "another episode_length"),
}


@pytest.mark.parametrize("case", OUT_OF_ORDER)
def test_steps_that_do_not_follow_each_other(case):
    columns, what = OUT_OF_ORDER[case]
    batch = make_batch([[1.0, 2.0]], 10.0)
    for key, column in columns.items():
        batch[key] = torch.tensor(column).reshape((1, 2) if key == ("collector", "traj_ids") else (1, 2, 1))
    with pytest.raises(SpecError, match=f"{what}.*before step 1 of row 0"):
        replay_policy(recurrent(), batch)
    batch["is_init"][:, 1] = True
    replay_policy(recurrent(), batch)


class Box(nn.Module):
    """Hides an actor."""

    in_keys, out_keys = ["observation"], ["action"]

    def __init__(self):
        super().__init__()
        self.actor = ProbabilisticActor(nn.Linear(1, 2), Categorical)

    def forward(self, root):
        return self.actor(root)


class Alone(nn.Module):
    """An actor with a state in one module: its ``build`` writes none."""

    in_keys, out_keys, action_key = ["observation", "memory"], ["action", ("next", "memory")], "action"

    def build(self, root):
        return Categorical(root["memory"].expand(-1, 2))


def test_a_policy_that_cannot_be_asked():
    batch = make_batch([[1.0, 2.0]], 10.0)
    with pytest.raises(ConfigError, match="an actor inside of a Box, which would draw an action"):
        replay_policy(Box(), batch)
    with pytest.raises(ConfigError, match=r"Write it as Sequence\(cell, actor\)"):
        replay_policy(Alone(), batch)
    with pytest.raises(ConfigError, match="a module with in_keys"):
        replay_policy(nn.Linear(1, 2), batch)
    with pytest.raises(ConfigError, match="at_once without a step"):
        replay_policy(recurrent(), batch, step=lambda transition, time: transition, at_once=True)


def test_a_step_that_returns_something_else():
    batch = make_batch([[1.0, 2.0]], 10.0)
    with pytest.raises(ConfigError, match=r"a TensorDict \[1\] from step, got Tensor"):
        replay_policy(recurrent(), batch, step=lambda transition, time: torch.zeros(1))

    def changing(transition, time):
        return TensorDict({f"name_{time}": torch.zeros(1)}, transition.batch_size)

    with pytest.raises(ConfigError, match="at every step, got .*name_1.* at step 1"):
        replay_policy(recurrent(), batch, step=changing)


def test_rows_that_wait_in_between_are_no_sequences():
    batch = make_batch([[1.0, 2.0]], 10.0).set(("collector", "mask"), torch.tensor([[False, True]]))
    with pytest.raises(SpecError, match="at_once: expected a mask that is true on the first steps"):
        replay_policy(recurrent(), batch, at_once=True)


class Last(nn.Module):
    """Takes a sequence for one step."""

    def forward(self, x):
        return x[:, -1]


def test_a_policy_without_a_form_for_sequences():
    cell = Operator(SequenceCell(), in_keys=["observation", "memory", "is_init"], out_keys=[("next", "memory")])
    policy = Sequence(cell, Operator(Last(), in_keys=["observation"], out_keys=["short"]))
    with pytest.raises(SpecError, match="'short' of shape .* from a policy that takes sequences"):
        replay_policy(policy, make_batch([[1.0, 2.0], [1.0, 2.0]], 10.0), at_once=True)


def test_rows_of_more_dimensions_at_once_are_not_taken_for_steps():
    policy = Sequence(GRU(1, 2, in_keys=["x"], batch_dims=2), Actor(nn.Linear(2, 1), in_keys=["hidden"]))
    batch = TensorDict(
        {"x": torch.ones(2, 3, 1), "memory": torch.zeros(2, 3, 1, 1, 2), "action": torch.ones(2, 3, 1)}, [2, 3]
    )
    batch["is_init"] = torch.zeros(2, 3, 1, dtype=torch.bool)
    with pytest.raises(SpecError, match=r"at_once: expected a batch of 3 dimensions.*batch_dims=2.*batch.unsqueeze"):
        replay_policy(policy, batch, at_once=True)
    assert replay_policy(policy, batch.unsqueeze(0), at_once=True, out_keys=["hidden"]).batch_size == (1, 2, 3)
