"""Modules that remember: one step or a sequence by the data, resets, initial states, and what is refused."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.collectors import Collector
from torchrl.data.specs import Bounded, Categorical as Choice, Unbounded
from torchrl.data.specs.fitting import require_fit
from torchrl.envs import GymEnv, TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import (
    GRU,
    LSTM,
    Actor,
    ActorCriticWrapper,
    ActorValueOperator,
    Categorical,
    EGreedy,
    Memory,
    OrnsteinUhlenbeck,
    ProbabilisticActor,
    QValueActor,
    Sequence,
    ValueOperator,
)


class Sum(Memory):
    """The sum of what an episode has shown, in place of a cell: every number can be computed in the head."""

    def __init__(self, **options):
        super().__init__((1,), in_keys=["x"], out_key="sum", **options)

    def step(self, x, state):
        return state + x, state + x


def sequence(x, *, state=0.0, begins=()):
    x = torch.tensor(x, dtype=torch.float32).unsqueeze(-1)
    is_init = torch.zeros(x.shape, dtype=torch.bool)
    for place in begins:
        is_init[place] = True
    memory = torch.full_like(x, 99.0)  # what a later step was acted from is not read
    memory.select(-2, 0).fill_(state)
    return TensorDict({"x": x, "memory": memory, "is_init": is_init}, x.shape[:-1])


def actor_with(memory, **options):
    head = ProbabilisticActor(nn.Linear(8, 2), Categorical, in_keys=["hidden"], **options)
    return Sequence(memory, head, out_keys=head.out_keys)


def test_a_root_is_one_step():
    root = Sum()(TensorDict({"x": torch.tensor([[1.0], [2.0]]), "memory": torch.tensor([[10.0], [20.0]])}, [2]))
    assert root["sum"].tolist() == [[11.0], [22.0]]
    assert root["next", "memory"].tolist() == [[11.0], [22.0]]


def test_a_root_of_one_row_without_a_batch_is_one_step():
    root = Sum()(TensorDict({"x": torch.tensor([1.0]), "memory": torch.tensor([10.0])}, []))
    assert root["sum"].tolist() == [11.0] and root["next", "memory"].shape == (1,)


def test_a_batch_is_a_sequence_from_the_state_of_its_first_step():
    batch = Sum()(sequence([[1, 2, 3], [4, 5, 6]], state=10.0, begins=[(1, 1)]))
    assert batch["sum"].squeeze(-1).tolist() == [[11.0, 13.0, 16.0], [14.0, 5.0, 11.0]]
    assert "next" not in batch.keys()


def test_an_episode_that_begins_at_the_first_step_forgets_the_stored_state():
    batch = Sum()(sequence([[1, 2]], state=10.0, begins=[(0, 0)]))
    assert batch["sum"].squeeze(-1).tolist() == [[1.0, 3.0]]


def test_a_learned_initial_state_is_that_of_now():
    cell = Sum(learn_initial_state=True)
    root = TensorDict({"x": torch.ones(2, 1), "memory": torch.zeros(2, 1)}, [2])
    root["is_init"] = torch.tensor([[True], [False]])
    cell.initial.data.fill_(5.0)  # after the environment was primed with zero
    assert cell(root)["sum"].tolist() == [[6.0], [1.0]]
    batch = cell(sequence([[1, 1, 1]], begins=[(0, 1)]))
    assert batch["sum"].squeeze(-1).tolist() == [[1.0, 6.0, 7.0]]
    batch["sum"].sum().backward()
    assert cell.initial.grad.tolist() == [2.0]


def test_more_dimensions_of_rows_are_told():
    cell = Sum(batch_dims=2)
    x, state = torch.ones(2, 3, 1), torch.zeros(2, 3, 1)
    assert cell(TensorDict({"x": x, "memory": state}, [2, 3]))["next", "memory"].shape == (2, 3, 1)
    entries = {"x": torch.ones(2, 3, 4, 1), "memory": torch.zeros(2, 3, 4, 1)}
    entries["is_init"] = torch.zeros(2, 3, 4, 1, dtype=torch.bool)
    sums = cell(TensorDict(dict(entries), [2, 3, 4]))["sum"]
    assert sums[1, 2].flatten().tolist() == [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(SpecError, match=r"Sum: expected at most 1 dimensions of rows.*batch_dims=2"):
        Sum()(TensorDict(entries, [2, 3, 4]))


def test_several_inputs_are_joined():
    gru = GRU(3, 8, in_keys=["a", "b"])
    root = TensorDict({"a": torch.ones(2, 1), "b": torch.ones(2, 2), "memory": torch.zeros(2, 1, 1, 8)}, [2])
    assert gru(root)["hidden"].shape == (2, 8)


def test_a_nested_state_key():
    lstm = LSTM(4, 8, state_key=("lstm", "state"))
    assert lstm.out_keys == ["hidden", ("next", "lstm", "state")]
    env = TransformedEnv(GymEnv("CartPole-v1", num_envs=2), TensorDictPrimer(lstm.initial_state()))
    batch = env.rollout(3, actor_with(lstm))
    assert torch.equal(batch["lstm", "state"][:, 1], batch["next", "lstm", "state"][:, 0])


class TestInitialState:
    def test_of_wrappers_and_sequences_is_that_of_all_within(self):
        lstm, gru = LSTM(4, 8), GRU(4, 8, state_key="other")
        actor, critic = actor_with(lstm), Sequence(gru, ValueOperator(nn.Linear(8, 1), in_keys=["hidden"]))
        shapes = {"memory": (1, 2, 8), "other": (1, 1, 8)}
        initial = ActorCriticWrapper(actor, critic).initial_state()
        assert {key: tuple(value.shape) for key, value in initial.items()} == shapes
        noisy = OrnsteinUhlenbeck(Actor(nn.Linear(4, 3)), Bounded(-1.0, 1.0, [3]), num_frames=9)
        assert noisy.initial_state()["ou_noise"].shape == (3,)

    def test_of_a_policy_without_memory_is_empty(self):
        assert not Sequence(ValueOperator(nn.Linear(4, 1))).initial_state().keys()

    def test_a_shared_trunk_counts_once_and_its_state_is_kept(self):
        head = ProbabilisticActor(nn.Linear(8, 2), Categorical, in_keys=["hidden"])
        both = ActorValueOperator(LSTM(4, 8), head, ValueOperator(nn.Linear(8, 1), in_keys=["hidden"]))
        assert list(both.initial_state().keys()) == ["memory"]
        assert ("next", "memory") in both.actor.out_keys and "hidden" not in both.actor.out_keys
        env = TransformedEnv(GymEnv("CartPole-v1", num_envs=2), TensorDictPrimer(both.initial_state()))
        assert {"state_value", "action"} <= set(both(env.reset()).keys())

    def test_two_modules_that_write_one_state_are_refused(self):
        twice = actor_with(LSTM(4, 8)), Sequence(GRU(4, 8), ValueOperator(nn.Linear(8, 1), in_keys=["hidden"]))
        with pytest.raises(ConfigError, match="two modules that write 'memory'.*another state_key"):
            ActorCriticWrapper(*twice)
        with pytest.raises(ConfigError, match="two modules that write 'memory'"):
            Sequence(LSTM(4, 8), LSTM(8, 8, in_keys=["hidden"]))

    def test_a_primer_takes_numbers_of_their_own_type(self):
        state = TensorDict({"count": torch.tensor(3), "deep": TensorDict({"h": torch.tensor([1.5])})})
        env = TransformedEnv(GymEnv("CartPole-v1", num_envs=2), TensorDictPrimer(state))
        root = env.reset()
        assert root["count"].tolist() == [3, 3] and root["count"].dtype is torch.int64
        assert root["deep", "h"].tolist() == [[1.5], [1.5]]


class TestActing:
    @pytest.mark.parametrize("kind", [Actor, ValueOperator])
    def test_inside_an_actor_or_a_chain_of_layers_the_sequence_is_named(self, kind):
        module = kind(nn.Sequential(LSTM(4, 8), nn.Linear(8, 1)))
        with pytest.raises(KeyMissing, match=r"hands on no state. Write Sequence\(LSTM\(...\), head\)"):
            module(TensorDict({"observation": torch.zeros(3, 4)}, [3]))

    def test_states_and_inputs_of_another_dtype_are_named(self):
        gru = GRU(4, 8)
        root = TensorDict({"observation": torch.zeros(3, 4, dtype=torch.float64)}, [3])
        root["memory"] = gru.initial_state()["memory"].expand(3, 1, 1, 8)
        expected = r"in torch.float64, as the weights are, got .* 'memory' in torch.float32. .* make the primer anew"
        with pytest.raises(SpecError, match=rf"GRU: expected inputs and state {expected}"):
            gru.double()(root)

    def test_without_a_primer_the_line_is_named(self):
        line = r"TransformedEnv\(env, TensorDictPrimer\(policy.initial_state\(\)\)\)"
        with pytest.raises(KeyMissing, match=f"LSTM: expected the state under 'memory'.*{line}"):
            Collector(GymEnv("CartPole-v1", num_envs=2), actor_with(LSTM(4, 8)), frames_per_batch=4).collect()

    def test_a_state_of_another_form_is_refused(self):
        env = TransformedEnv(GymEnv("CartPole-v1", num_envs=2), TensorDictPrimer({"memory": Unbounded((3,))}))
        with pytest.raises(SpecError, match=r"LSTM, state: expected shape \[2, 1, 2, 8\], got \[2, 3\]"):
            env.rollout(2, actor_with(LSTM(4, 8)))

    def test_a_root_that_is_taken_for_a_sequence_is_refused(self):
        lstm = LSTM(4, 8)
        root = TensorDict(
            {"observation": torch.zeros(2, 3, 4), "is_init": torch.ones(2, 3, 1, dtype=torch.bool)}, [2, 3]
        )
        root["memory"] = torch.zeros(2, 3, 1, 2, 8)
        policy = actor_with(lstm)
        acted = policy(root)
        with pytest.raises(SpecError, match=r"LSTM: expected batch_dims=2, the number of .* got batch_dims=1"):
            require_fit(policy, acted["action"], acted, Choice(2, [2, 3]), 2)

    def test_memory_is_zero_where_an_episode_begins_and_nowhere_else(self):
        actor = actor_with(LSTM(4, 8))
        env = TransformedEnv(GymEnv("CartPole-v1", num_envs=4), TensorDictPrimer(actor.initial_state()))
        batch = Collector(env, actor, frames_per_batch=400, seed=0).collect()
        begins = batch["is_init"].squeeze(-1)
        assert begins[:, 1:].any()
        assert (batch["memory"][begins] == 0).all()
        assert (batch["memory"][~begins] != 0).flatten(1).any(1).all()
        follows = ~begins[:, 1:]
        assert torch.equal(batch["memory"][:, 1:][follows], batch["next", "memory"][:, :-1][follows])

    def test_exploration_around_a_policy_with_memory(self):
        actor = Sequence(LSTM(4, 8), QValueActor(nn.Linear(8, 2), in_keys=["hidden"]))
        env = TransformedEnv(GymEnv("CartPole-v1", num_envs=2), TensorDictPrimer(actor.initial_state()))
        explorer = EGreedy(actor, env.action_spec, num_frames=10)
        assert (env.rollout(3, explorer)["memory"][:, 1:] != 0).flatten(2).any(-1).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sum(batch_dims=-1), r"Sum\(batch_dims=...\): expected at least 0, got -1"),
        (lambda: Memory.__init__(object.__new__(Sum), (1,), in_keys="x"), r"in_keys"),
        (lambda: LSTM(4, 0), r"LSTM\(num_cells=...\): expected at least 1, a whole number, got 0"),
        (lambda: GRU(4, 8, num_layers=1.5), r"GRU\(num_layers=...\)"),
        (lambda: LSTM(4, 8, in_keys=["memory"]), "LSTM: expected a state_key other than the keys of inputs"),
        (lambda: LSTM(4, 8, state_key="hidden"), "LSTM: expected a state_key other than"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_sequence_without_its_beginnings_is_refused():
    with pytest.raises(KeyMissing, match="Sum: expected the key 'is_init'"):
        Sum()(sequence([[1, 2]]).exclude("is_init"))


def test_a_step_that_begins_an_episode_forgets_what_it_is_given():
    root = TensorDict({"x": torch.ones(2, 1), "memory": torch.full((2, 1), 9.0)}, [2])
    assert Sum()(root.set("is_init", torch.tensor([[True], [False]])))["sum"].tolist() == [[1.0], [10.0]]


@pytest.mark.parametrize("make", [LSTM, GRU], ids=["LSTM", "GRU"])
def test_an_input_of_another_size_is_refused(make):
    cell = make(3, 8)
    root = TensorDict({"observation": torch.zeros(2, 4), "memory": torch.zeros(2, *cell.state_shape)}, [2])
    with pytest.raises(SpecError, match=rf"expected 3 input features, got 4 from .*Write {make.__name__}\(4, ...\)"):
        cell(root)


def test_an_actor_that_leaves_its_critic_behind_is_refused():
    actor = actor_with(LSTM(4, 8))
    critic = Sequence(GRU(4, 8, state_key="judging"), ValueOperator(nn.Linear(8, 1), in_keys=["hidden"]))
    both = ActorCriticWrapper(actor, critic)
    env = TransformedEnv(GymEnv("CartPole-v1", num_envs=2), TensorDictPrimer(both.initial_state()))
    with pytest.raises(SpecError, match=r"leaves out 'judging'. .*collect with ActorCriticWrapper\(actor, critic\)"):
        Collector(env, actor, frames_per_batch=4).collect()
    assert (Collector(env, both, frames_per_batch=8).collect()["judging"][:, -1] != 0).any()
