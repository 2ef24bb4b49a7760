"""Attributes as plain data: what goes in comes out, and what cannot is named."""

import collections
import dataclasses
import enum
import functools
import itertools
import logging
import math
import pickle
import random
import types

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

from torchrl.envs.simulators import GymSimulator
from torchrl.envs.simulators.capture import capture_attributes, restore_attributes
from torchrl.errors import EnvError


class Thing:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def is_plain(state) -> bool:
    """A nested dict with string keys of numbers, strings, None and numeric arrays."""
    if isinstance(state, dict):
        return all(type(key) is str and is_plain(value) for key, value in state.items())
    if isinstance(state, np.ndarray):
        return state.dtype.kind in "biuf"
    return state is None or type(state) in (bool, int, float, str)


PLAIN = {
    "none": None,
    "flag": True,
    "number": 3,
    "big": 2**127,
    "float": math.inf,
    "text": "left",
    "array": np.arange(6.0).reshape(2, 3),
    "scalar": np.float32(0.1),
    "integer_scalar": np.int64(7),
    "letters": np.array([[b"a", b"bc"]]),
    "word": np.str_("Clubs"),
    "list": [1, [2.0, None]],
    "tuple": ("a", np.array([1])),
    "empty": [(), {}],
    "table": {0: [(1.0, 2)], 1: []},
    "named": {"a": {"b": 1}},
    "tricky": {"__kind__": "list", "items": 3},
    "frames": collections.deque([np.zeros(2), np.ones(2)], maxlen=2),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_come_back_as_they_were(name):
    state = capture_attributes(Thing(value=PLAIN[name]))
    assert is_plain(state)
    copy = Thing(value="something else")
    restore_attributes(copy, state)
    assert type(copy.value) is type(PLAIN[name])
    assert repr(copy.value) == repr(PLAIN[name])


def test_a_state_shares_no_memory_with_either_object():
    source = Thing(value=np.zeros(2), nested=[np.zeros(2)])
    state = capture_attributes(source)
    source.value += 1
    source.nested[0] += 1
    copy = Thing()
    restore_attributes(copy, state)
    copy.value += 5
    copy.nested[0] += 5
    again = Thing()
    restore_attributes(again, state)
    assert again.value.tolist() == again.nested[0].tolist() == [0, 0]


def test_generators_continue_and_are_set_in_place():
    source = Thing(new=np.random.default_rng(1), old=np.random.RandomState(1), philox=None)
    source.philox = np.random.Generator(np.random.Philox(3))
    [source.new.normal(), source.old.normal(), source.philox.normal()]
    state = capture_attributes(source)
    assert is_plain(state)
    shared = np.random.default_rng(9)
    copy = Thing(new=shared, old=np.random.RandomState(9), philox=shared)
    restore_attributes(copy, state)
    assert copy.new is shared
    assert copy.new.normal(size=3).tolist() == source.new.normal(size=3).tolist()
    assert copy.old.normal(size=3).tolist() == source.old.normal(size=3).tolist()
    assert copy.philox.normal(size=3).tolist() == source.philox.normal(size=3).tolist()
    fresh = Thing()
    restore_attributes(fresh, state)
    assert fresh.new.bit_generator.state == state["new"]["state"]


def test_a_state_cannot_name_code_as_a_generator():
    state = capture_attributes(Thing(rng=np.random.default_rng()))
    state["rng"]["state"]["bit_generator"] = "seterr"
    with pytest.raises(EnvError, match="a bit generator of"):
        restore_attributes(Thing(), state)


def test_a_view_stays_a_view():
    memory = np.zeros(4)
    state = capture_attributes(Thing(view=np.ones(2)))
    restore_attributes(Thing(view=memory[1:3]), state)
    assert memory.tolist() == [0, 1, 1, 0]


def test_constants_are_left_out():
    def stateless():
        return 1

    thing = Thing(space=spaces.Discrete(2), kind=int, module=math, function=stateless, log=logging.getLogger("x"))
    thing.own_method = thing.__repr__
    thing.kept = 1
    assert capture_attributes(thing, skip=["own_method"]) == {"kept": 1}
    assert capture_attributes(Thing(a=1, b=object()), skip=["b"]) == {"a": 1}


class Colour(enum.Enum):
    RED = 1


def closure():
    count = 0

    def counting():
        nonlocal count
        count += 1
        return count

    return counting


def remembering(value=0, memory=[]):  # noqa: B006 - that is the mistake
    memory.append(value)
    return memory


def counted():
    counted.calls += 1


counted.calls = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    items: list


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        ([1, object()], r"\[1\] of type object"),
        ({"a": {"b": object()}}, r'\["a"\]\["b"\] of type object'),
        (closure(), "function"),
        (Thing().__init__, "method"),
        (np.array([object()]), "ndarray"),
        (Colour.RED, "Colour"),
        ({1, 2}, "set"),
        (remembering, "function"),
        (counted, "function"),
        (np.random.default_rng().bytes, "method"),
        (random.Random(0).random, "builtin_function_or_method"),
        ([].append, "builtin_function_or_method"),
        (random, "module"),
        (np.random, "module"),
        (functools.partial(int, 3), "partial"),
        (Frozen([1]), "Frozen"),
        ([spaces.Discrete(2), object()], r"\[1\] of type object"),
        (types.SimpleNamespace(a=1), "SimpleNamespace"),
        (range(3), "range"),
        (itertools.count(), "count"),
        (np.nditer(np.zeros(2)), "nditer"),
        (np.random.PCG64(), "PCG64"),
    ],
)
def test_anything_else_is_refused_by_name(value, kind):
    with pytest.raises(EnvError, match=rf"got Thing\.value.*{kind}.*new episodes"):
        capture_attributes(Thing(value=value))


class Slotted:
    __slots__ = ("position",)


class HalfSlotted(Slotted):
    def __init__(self):
        self.position, self.speed = 1, 2


def test_slots_are_refused_since_their_values_would_be_left_out():
    with pytest.raises(EnvError, match=r"HalfSlotted with slots \['position'\]"):
        capture_attributes(HalfSlotted())


SPACES = {
    "box": spaces.Box(0, 1, (2,)),
    "choice": spaces.Discrete(1000),
    "dict": spaces.Dict({"a": spaces.Discrete(1000), "b": spaces.Tuple([spaces.MultiBinary(9)])}),
    "one of": spaces.OneOf([spaces.Discrete(1000), spaces.Box(0, 1)]),
    "sequence": spaces.Sequence(spaces.Discrete(1000)),
    "text": spaces.Text(9),
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("sampled", [False, True])
def test_a_space_goes_on_drawing_where_it_was(name, sampled):
    thing, copy = Thing(space=SPACES[name]), Thing(space=pickle.loads(pickle.dumps(SPACES[name])))
    thing.space.seed(3)
    if sampled:
        thing.space.sample()
    state = capture_attributes(thing)
    assert is_plain(state)
    space = copy.space
    copy.space.seed(4)
    restore_attributes(copy, state)
    assert copy.space is space and [repr(space.sample()) for _ in range(9)] == [
        repr(thing.space.sample()) for _ in range(9)
    ]


def test_a_space_that_is_another_one_is_refused():
    thing = Thing(space=spaces.Tuple([spaces.Discrete(2)]))
    thing.space.seed(3)
    with pytest.raises(EnvError, match="a space like the one that was saved"):
        restore_attributes(Thing(space=spaces.Discrete(2)), capture_attributes(thing))


def test_a_position_in_pygames_own_types_is_refused():
    pygame = pytest.importorskip("pygame")
    capture_attributes(Thing(surface=pygame.Surface((2, 2)), clock=pygame.time.Clock()))
    for value in (pygame.Rect(0, 0, 1, 1), pygame.math.Vector2(1, 2)):
        with pytest.raises(EnvError, match=type(value).__name__):
            capture_attributes(Thing(value=value))


class Drawing(gymnasium.Env):
    """Observes what it draws from its own spaces."""

    def __init__(self):
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(self.action_space.sample()), False, False, {}


def test_a_simulator_that_draws_from_its_own_space_continues_bit_for_bit():
    world, other = GymSimulator(Drawing()), GymSimulator(Drawing())
    world.reset(seed=1)
    world.step(0)
    state = world.get_state()
    other.reset(seed=2)
    other.set_state(state)
    ours, theirs = [[one.step(0)[:2] for _ in range(20)] for one in (world, other)]
    assert [(float(seen[0]), reward) for seen, reward in ours] == [(float(seen[0]), reward) for seen, reward in theirs]


@pytest.mark.parametrize("wrap", [NormalizeObservation, NormalizeReward])
def test_a_simulator_in_a_wrapper_that_normalises_continues_bit_for_bit(wrap):
    """The wrapper's statistics are part of where its simulator stands."""
    world, other = (GymSimulator(wrap(gymnasium.make("CartPole-v1"))) for _ in range(2))
    world.reset(seed=1)
    for _ in range(5):
        world.step(1)
    other.reset(seed=2)
    other.set_state(world.get_state())
    for action in (0, 1, 0):
        (ours, reward, *_), (theirs, same, *_) = world.step(action), other.step(action)
        assert np.array_equal(ours, theirs) and reward == same
