"""Actions on their way to the simulators: every kind of space, read in bulk, arrives as ``decode`` would write it."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings, strategies as st
from tensordict import TensorDict

from cases.devices import needs_cuda
from torchrl.collectors import Collector
from torchrl.data.specs import Composite
from torchrl.envs import GymEnv, SerialEnv, check_env
from torchrl.envs.conversions import spec_from_space
from torchrl.envs.simulators import Simulator
from torchrl.envs.values import decode
from torchrl.envs.vector.actions import action_reader
from torchrl.envs.vector.batches import splitter
from torchrl.errors import KeyMissing, SpecError

BOX = spaces.Box(-1, 1, (2,), np.float32)
SPACES = {
    "box": BOX,
    "box of doubles": spaces.Box(-1, 1, (3,), np.float64),
    "box of small integers": spaces.Box(0, 60000, (2,), np.uint16),
    "box without dimensions": spaces.Box(-1, 1, (), np.float32),
    "box of bools": spaces.Box(0, 1, (2, 2), np.bool_),
    "choice": spaces.Discrete(4),
    "choice of int8": spaces.Discrete(4, dtype=np.int8),
    "choices": spaces.MultiDiscrete([3, 4, 2]),
    "choices of int16": spaces.MultiDiscrete([[3, 4], [2, 2]], dtype=np.int16),
    "switches": spaces.MultiBinary(3),
    "dict": spaces.Dict({"steer": BOX, "gear": spaces.Discrete(5)}),
    "tuple": spaces.Tuple([spaces.Discrete(3), BOX]),
    "nested": spaces.Dict(
        {
            "b": spaces.Tuple([spaces.Dict({"x": BOX, "a": spaces.MultiBinary((2, 2))}), spaces.MultiDiscrete([2, 3])]),
            "a": spaces.Discrete(2),
        }
    ),
    "one of": spaces.OneOf([spaces.Discrete(3), BOX, spaces.Tuple([spaces.Discrete(2), BOX])]),
    "one of, nested": spaces.Dict({"which": spaces.OneOf([spaces.Discrete(3), BOX]), "gear": spaces.Discrete(2)}),
}
OBSERVED = {name: space for name, space in SPACES.items() if not name.startswith("one of")}
every_space = pytest.mark.parametrize("name", SPACES)


class Echo(Simulator):
    """Remembers the actions it was given and observes the last one, if that can be observed."""

    def __init__(self, space):
        self.action_space = space
        self.observation_space = space if any(space is other for other in OBSERVED.values()) else spaces.Discrete(1)
        self.taken, self.num_steps = [], 0

    def reset(self, *, seed=None, options=None):
        self.num_steps = 0
        return self._observed(decode(self.action_space, spec_from_space(self.action_space).zero())), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.taken.append(action)
        self.num_steps += 1
        return self._observed(action), 0.0, False, self.num_steps == 3, {}

    def _observed(self, action):
        return 0 if isinstance(self.observation_space, spaces.Discrete) and self.observation_space.n == 1 else action


def assert_equal(one, other):
    if isinstance(one, (dict, tuple)):
        assert type(one) is type(other) and len(one) == len(other)
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_equal(one[key], other[key])
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("num_envs", [None, 1, 3])
@every_space
def test_every_simulator_takes_what_decode_writes_for_its_row(name, num_envs):
    space = SPACES[name]
    env = SerialEnv(lambda: Echo(space), num_envs)
    env.set_seed(0)
    batch = env.rollout(20)
    rows = [batch["action"]] if num_envs is None else batch["action"].unbind(0)
    for simulator, actions in zip(env.simulators, rows, strict=True):
        assert len(simulator.taken) == 20
        for taken, action in zip(simulator.taken, actions.unbind(0), strict=True):
            assert_equal(decode(space, action), taken)


sizes = st.integers(1, 3)
leaf_spaces = st.one_of(
    st.builds(spaces.Discrete, sizes),
    st.builds(spaces.MultiDiscrete, st.lists(sizes, min_size=1, max_size=3)),
    st.builds(spaces.MultiBinary, sizes),
    st.builds(lambda shape: spaces.Box(-1, 1, shape), st.lists(sizes, max_size=2).map(tuple)),
)
nested_spaces = st.recursive(
    leaf_spaces,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.lists(inner, min_size=1, max_size=3).map(spaces.OneOf),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(space=nested_spaces, num_envs=st.sampled_from([None, 1, 3]))
def test_any_nest_of_spaces_arrives_whole(space, num_envs):
    env = SerialEnv(lambda: Echo(space), num_envs)
    action = env.action_spec.rand(generator=torch.Generator().manual_seed(0))
    env.step(env.reset().set("action", action))
    rows = [action] if num_envs is None else action.unbind(0)
    for simulator, row in zip(env.simulators, rows, strict=True):
        assert_equal(decode(space, row), simulator.taken[0])


@every_space
def test_the_action_spec_is_that_of_the_space_and_the_contract_is_kept(name):
    env = SerialEnv(lambda: Echo(SPACES[name]), 2)
    assert env.action_spec == spec_from_space(SPACES[name], [2])
    check_env(env, num_steps=10)


@pytest.mark.parametrize("name", OBSERVED)
def test_what_is_observed_comes_back_as_the_action_that_was_sent(name):
    env = SerialEnv(lambda: Echo(SPACES[name]), 2)
    action = env.action_spec.rand(generator=torch.Generator().manual_seed(0))
    outcome = env.step(env.reset().set("action", action))["next"]
    keys = list(env.observation_spec.keys())
    assert env.observation_spec.contains(outcome.select(*keys))
    sent = action if isinstance(action, TensorDict) else TensorDict({"observation": action}, [2])
    assert (outcome.select(*keys) == sent).all()


def test_a_leaf_of_the_spaces_dtype_is_not_copied():
    action = torch.zeros(2, 2)
    read = action_reader(BOX, spec_from_space(BOX, [2]))
    action[0, 0] = 1
    assert read(action)[0, 0] == 1 and np.shares_memory(read(action), action.numpy())
    assert read(action.requires_grad_()).shape == (2, 2)


def test_a_batch_has_the_form_of_the_space():
    spec = spec_from_space(SPACES["nested"], [2])
    batch = action_reader(SPACES["nested"], spec)(spec.zero())
    assert batch["a"].shape == (2,) and isinstance(batch["b"], tuple)
    assert batch["b"][0]["a"].shape == (2, 2, 2) and batch["b"][0]["a"].dtype == np.int8
    first, second = splitter(SPACES["nested"])(batch)
    assert SPACES["nested"].contains(first) and SPACES["nested"].contains(second)


def nested(num_envs=2):
    return SerialEnv(lambda: Echo(SPACES["nested"]), num_envs)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (("b", "1"), torch.zeros(2, 3, dtype=torch.int64), r"action.b.1: expected shape \[2, 2\] and torch.int64"),
        (("b", "0", "x"), torch.zeros(2, 2, dtype=torch.float64), r"action.b.0.x: expected .*float32, got .*float64"),
        ("a", torch.zeros(2, 2, dtype=torch.int64), r"action.a: expected shape \[2\].*not one-hot"),
        ("a", TensorDict({"x": torch.zeros(2)}, [2]), r"action.a: expected a tensor of shape \[2\].*keys \['x'\]"),
        ("b", torch.zeros(2), r"action.b: expected a TensorDict with '0', got Tensor"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(key, value, message):
    env = nested()
    action = env.action_spec.zero().exclude("b" if key == "b" else key).set(key, value)
    with pytest.raises(SpecError, match=message):
        env.step(env.reset().set("action", action))


def test_a_missing_entry_is_named():
    env = nested()
    action = env.action_spec.zero().exclude(("b", "0", "x"))
    with pytest.raises(KeyMissing, match=r"action.b.0: expected a TensorDict with 'x', got the keys \['a'\]"):
        env.step(env.reset().set("action", action))


def test_a_tensor_where_parts_are_due_and_the_reverse_say_what_to_write():
    env = nested()
    message = r'action: expected a TensorDict with .a., got Tensor. .*tensordict\["action", "a"\]'
    with pytest.raises(SpecError, match=message):
        env.step(env.reset().set("action", torch.zeros(2)))
    env = GymEnv("CartPole-v1", num_envs=2)
    action = TensorDict({"gear": torch.zeros(2, dtype=torch.int64)}, [2])  # its shape and dtype are those that are due
    with pytest.raises(SpecError, match=r"action: expected a tensor of shape \[2\] and torch.int64, got a TensorDict"):
        env.step(env.reset().set("action", action))


@needs_cuda
def test_an_action_on_another_device_is_refused():
    env = GymEnv("CartPole-v1", num_envs=2)
    with pytest.raises(SpecError, match="on the CPU, got .* on cuda"):
        env.step(env.reset().set("action", torch.zeros(2, dtype=torch.int64, device="cuda")))


def test_a_collector_records_nested_actions():
    env = nested()
    batch = Collector(env, frames_per_batch=40, seed=1).collect()
    assert isinstance(env.action_spec, Composite) and batch["action"].batch_size == (2, 20)
    assert env.action_spec.unsqueeze(1).expand(2, 20).contains(batch["action"])
    taken = [simulator.taken for simulator in env.simulators]
    assert [action["a"] for action in taken[0]] == batch["action", "a"][0].tolist()
    np.testing.assert_array_equal([action["b"][1] for action in taken[1]], batch["action", "b", "1"][1])


def test_policies_may_write_parts_of_the_action():
    env = nested()

    def policy(root):
        for key, spec in env.action_spec.leaves():
            root.set(("action", *(key if isinstance(key, tuple) else (key,))), spec.zero())
        return root

    batch = env.rollout(4, policy)
    assert batch["action", "b", "0", "x"].shape == (2, 4, 2)


def test_choices_that_do_not_start_at_zero_are_refused():
    for space in (spaces.Discrete(2, start=1), spaces.Dict({"a": spaces.MultiDiscrete([2], start=[3])})):
        with pytest.raises(SpecError, match="an action_space whose choices start at 0.*GymSimulator"):
            SerialEnv(lambda space=space: Echo(space))
