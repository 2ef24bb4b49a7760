"""What holds for every transform, alone and in chains."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Composite, Unbounded
from torchrl.envs import SerialEnv, check_env, transforms
from torchrl.envs.base import Env
from torchrl.envs.simulators import Simulator
from torchrl.envs.transforms import (
    ActionClip,
    ActionScaling,
    CatTensors,
    Compose,
    DoubleToFloat,
    ObservationNorm,
    RewardNorm,
    RewardScaling,
    Transform,
    TransformedEnv,
)
from torchrl.errors import ConfigError

LOW, HIGH = np.array([-2.0, 0.1], np.float32), np.array([1.0, 5.3], np.float32)


class Walker(Simulator):
    """Nested, bounded and scalar observations, drawn at random; episodes of random length."""

    action_space = spaces.Box(LOW, HIGH)
    observation_space = spaces.Dict(
        position=spaces.Box(-1.0, 3.0, (3,), np.float32),
        body=spaces.Dict(left=spaces.Box(-np.inf, np.inf, (2,)), right=spaces.Box(0.0, 1.0, (2,))),
        speed=spaces.Box(0.0, 1.0, ()),
    )

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        return self._observe(), {}

    def step(self, action):
        reward = float(np.sum(action)) + self.random.normal()
        chance = self.random.random()
        return self._observe(), reward, chance < 0.2, 0.1 < chance < 0.3, {}

    def _observe(self):
        draw = self.random.random(8, np.float32)
        body = {"left": draw[3:5] * 100, "right": draw[5:7]}
        return {"position": draw[:3] * 4 - 1, "body": body, "speed": draw[7]}

    def get_state(self):
        return {"random": self.random.bit_generator.state}

    def set_state(self, state):
        self.random = np.random.default_rng()
        self.random.bit_generator.state = state["random"]


class Drift(Env):
    """A world written in torch, all of it in float64; its bounds are no float32 numbers."""

    def __init__(self, batch_size):
        shape = (*batch_size, 2)
        super().__init__(
            batch_size=batch_size,
            observation_spec=Composite({"observation": Unbounded(shape, torch.float64)}, shape=batch_size),
            action_spec=Bounded(-0.1, 0.1, shape, torch.float64),
            reward_spec=Bounded(-0.3, 0.3, (*batch_size, 1), torch.float64),
        )
        flag = torch.zeros((*batch_size, 1), dtype=torch.bool)
        self.now = {
            "observation": torch.zeros(shape, dtype=torch.float64),
            "is_init": flag,
            "episode_return": torch.zeros((*batch_size, 1)),
            "episode_length": torch.zeros((*batch_size, 1), dtype=torch.int64),
        }

    def _root(self):
        return TensorDict({key: value.clone() for key, value in self.now.items()}, self.batch_size)

    def _reset(self, mask, *, seeds, options):
        rows = torch.ones(self.batch_size, dtype=torch.bool) if mask is None else mask
        seeds = [2**30] * self.batch_size.numel() if seeds is None else seeds
        start = torch.tensor(seeds).reshape(self.batch_size) / 2**31
        fresh = {"observation": start.double(), "is_init": True, "episode_return": 0, "episode_length": 0}
        for key, value in self.now.items():
            new = fresh[key] if not isinstance(fresh[key], torch.Tensor) else fresh[key].unsqueeze(-1)
            self.now[key] = torch.where(rows.unsqueeze(-1), new, value).to(value.dtype)
        return self._root()

    def _advance(self, tensordict):
        action = tensordict["action"]
        now = self.now
        now["observation"] = now["observation"] + action
        reward = action.sum(-1, keepdim=True)
        now["episode_return"] = now["episode_return"] + reward.float()
        now["episode_length"] = now["episode_length"] + 1
        now["is_init"] = torch.zeros_like(now["is_init"])
        truncated = now["episode_length"] >= 4
        next_ = self._root().exclude("is_init")
        next_.update({"reward": reward, "terminated": torch.zeros_like(truncated), "truncated": truncated})
        next_.set("done", truncated.clone())
        return next_, self._root(), bool(truncated.any())

    def state_dict(self):
        return {key: value.clone() for key, value in self.now.items()}

    def load_state_dict(self, state):
        self.now = {key: value.clone() for key, value in state.items()}
        return self._root()


class Watched(Env):
    """Passes another env through; keeps what came down, and notices when a tensor it handed out was edited."""

    def __init__(self, env):
        specs = {name: getattr(env, name) for name in ("batch_size", "observation_spec", "action_spec", "reward_spec")}
        super().__init__(**specs)
        self.env = env
        self.received, self.outcomes, self.handed_out = [], [], []

    def _advance(self, tensordict):
        self.assert_untouched()
        self.received.append(tensordict["action"].clone())
        next_, root, ended = self.env._advance(tensordict)
        self.outcomes.append(next_.clone())
        self.handed_out = [(dict(leaves(level)), level.clone()) for level in (next_, root)]
        return next_, root, ended

    def _reset(self, mask, *, seeds, options):
        self.assert_untouched()
        root = self.env._reset(mask, seeds=seeds, options=options)
        self.handed_out = [(dict(leaves(root)), root.clone())]
        return root

    def assert_untouched(self):
        for given, copy in self.handed_out:
            for key, value in leaves(copy):
                assert torch.equal(given[key], value), key

    def state_dict(self):
        return self.env.state_dict()

    def load_state_dict(self, state):
        self.handed_out = []
        return self.env.load_state_dict(state)


def leaves(tensordict):
    return tensordict.items(include_nested=True, leaves_only=True)


def walker(num_envs):
    return SerialEnv(Walker, num_envs)


def drift(num_envs):
    return Drift(() if num_envs is None else (num_envs,))


def chain():
    return [
        CatTensors(),
        ObservationNorm(torch.arange(8.0), 2.0),
        ActionScaling(),
        RewardNorm(0.9),
        RewardScaling(-2.0, 1.0),
        ActionClip(),
    ]


CASES = {
    "nothing": (walker, Transform),
    "DoubleToFloat": (drift, DoubleToFloat),
    "DoubleToFloat without doubles": (walker, DoubleToFloat),
    "CatTensors": (walker, CatTensors),
    "CatTensors named": (walker, lambda: CatTensors(["speed", ("body", "right")], "observation")),
    "CatTensors kept": (walker, lambda: CatTensors([("body", "left"), "position"], ("all", "x"), delete=False)),
    "CatTensors into one of its own": (walker, lambda: CatTensors([("body", "left"), "position"], ("body", "left"))),
    "ObservationNorm": (walker, lambda: ObservationNorm(torch.tensor([0.3, -1.0, 7.0]), 0.1, ["position"])),
    "ObservationNorm nested": (
        walker,
        lambda: ObservationNorm(0.5, 3.0, [("body", "left"), "speed", ("body", "right")]),
    ),
    "ObservationNorm of doubles": (drift, lambda: ObservationNorm(0.1, torch.tensor([0.1, 2.0]))),
    "RewardScaling": (walker, lambda: RewardScaling(0.1, -3.0)),
    "RewardScaling bounded": (drift, lambda: RewardScaling(-0.7, 0.2)),
    "RewardNorm": (walker, lambda: RewardNorm(0.99, clip=1.5)),
    "RewardNorm of doubles": (drift, lambda: RewardNorm(0.99)),
    "ActionScaling": (walker, ActionScaling),
    "ActionScaling of doubles": (drift, ActionScaling),
    "ActionClip": (walker, ActionClip),
    "Compose of none": (walker, Compose),
    "Compose": (walker, lambda: Compose(*chain())),
    "Compose in Compose": (walker, lambda: Compose(Compose(*chain()[:2]), *chain()[2:4], Compose(*chain()[4:]))),
    "Compose of doubles": (drift, lambda: Compose(DoubleToFloat(), CatTensors(["observation"], "x"), RewardNorm(0.9))),
}
every_transform = pytest.mark.parametrize(("make_env", "make_transform"), CASES.values(), ids=CASES.keys())
every_batch = pytest.mark.parametrize("num_envs", [None, 1, 3])


def built(make_env, make_transform, num_envs, seed=0):
    below = Watched(make_env(num_envs))
    env = TransformedEnv(below, make_transform())
    env.set_seed(seed)
    return env, below


def act(env, root, generator):
    return root.set("action", env.action_spec.rand(generator=generator))


def run(env, root, num_steps, generator):
    """Yield ``num_steps`` transitions, and the root that follows each."""
    for _ in range(num_steps):
        transition, root = env.step_and_reset(act(env, root, generator))
        yield transition, root


def assert_sees_its_spec(env, tensordict):
    env.observation_spec.assert_contains(tensordict.select(*env.observation_spec.keys()))
    named = {
        "action",
        "next",
        "reward",
        "is_init",
        "terminated",
        "truncated",
        "done",
        "episode_return",
        "episode_length",
    }
    assert set(tensordict.keys()) - named == set(env.observation_spec.keys())


def assert_equal(one, other):
    one, other = dict(leaves(one)), dict(leaves(other))
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def test_every_public_transform_is_held_against_the_laws():
    bases = {"Transform", "ActionTransform", "ObservationTransform", "RewardTransform"}
    public = {name: getattr(transforms, name) for name in transforms.__all__}
    public = {name for name, member in public.items() if isinstance(member, type) and issubclass(member, Transform)}
    assert public - bases == {name.split()[0] for name in CASES} - {"nothing"}


@every_batch
@every_transform
def test_output_is_in_the_output_spec(make_env, make_transform, num_envs):
    env, _ = built(make_env, make_transform, num_envs)
    generator = torch.Generator().manual_seed(1)
    root = env.reset()
    assert_sees_its_spec(env, root)
    num_endings = 0
    for transition, next_root in run(env, root, 40, generator):
        assert_sees_its_spec(env, transition)
        assert_sees_its_spec(env, transition["next"])  # at endings this is the true final observation
        assert_sees_its_spec(env, next_root)
        env.reward_spec.assert_contains(transition["next", "reward"])
        num_endings += int(transition["next", "done"].sum())
    assert num_endings > 3


@every_transform
def test_a_partial_reset_transforms_all_rows_and_changes_its_own_alone(make_env, make_transform):
    env, _ = built(make_env, make_transform, 3)
    generator = torch.Generator().manual_seed(1)
    for _, root in run(env, env.reset(), 5, generator):
        before = root.clone()
    after = env.reset(torch.tensor([False, True, False]))
    assert_sees_its_spec(env, after)
    assert_equal(after[[0, 2]], before[[0, 2]])
    assert after["is_init"].tolist() != before["is_init"].tolist()


@every_batch
@every_transform
def test_the_env_below_receives_an_action_of_its_spec_and_the_transition_keeps_the_policys(
    make_env, make_transform, num_envs
):
    env, below = built(make_env, make_transform, num_envs)
    generator = torch.Generator().manual_seed(1)
    root = env.reset()
    for _ in range(20):
        action = env.action_spec.rand(generator=generator)
        copy = action.clone()
        transition, root = env.step_and_reset(root.set("action", action))
        assert transition["action"] is action and torch.equal(action, copy)
        below.action_spec.assert_contains(below.received[-1])


@pytest.mark.parametrize("num_envs", [None, 3])
@every_transform
def test_nothing_that_came_from_below_is_edited(make_env, make_transform, num_envs):
    env, below = built(make_env, make_transform, num_envs)
    for _ in run(env, env.reset(), 30, torch.Generator().manual_seed(1)):
        below.assert_untouched()
    env.reset()
    below.assert_untouched()


@pytest.mark.parametrize("num_envs", [None, 3])
@every_transform
def test_a_state_dict_continues_bit_for_bit_in_another_env(make_env, make_transform, num_envs):
    env, _ = built(make_env, make_transform, num_envs)
    generator = torch.Generator().manual_seed(1)
    for _, root in run(env, env.reset(), 7, generator):
        before = root.clone()
    state = env.state_dict()
    actions = generator.get_state()
    expected = [transition.clone() for transition, _ in run(env, root, 10, generator)]

    other, _ = built(make_env, make_transform, num_envs, seed=5)
    for _ in run(other, other.reset(), 3, generator):
        pass
    root = other.load_state_dict(state)
    assert_equal(root, before)
    generator.set_state(actions)
    for (transition, _), due in zip(run(other, root, 10, generator), expected, strict=True):
        assert_equal(transition, due)


@every_transform
def test_seeds_and_reported_returns_are_those_of_the_bare_env(make_env, make_transform):
    env, below = built(make_env, make_transform, 3, seed=7)
    transitions = [t.clone() for t, _ in run(env, env.reset(), 20, torch.Generator().manual_seed(1))]
    bare = make_env(3)
    bare.set_seed(7)
    root = bare.reset()
    for transition, received, outcome in zip(transitions, below.received, below.outcomes, strict=True):
        expected, root = bare.step_and_reset(root.set("action", received))
        assert_equal(outcome, expected["next"])
        assert_equal(transition.select("is_init"), expected.select("is_init"))
        for key in ("episode_return", "episode_length", "terminated", "truncated", "done"):
            assert torch.equal(transition["next", key], expected["next", key])


@every_transform
def test_it_passes_check_env(make_env, make_transform):
    env, _ = built(make_env, make_transform, 2)
    env.rollout(5)
    env.transform.eval()  # statistics that go on running would tell the second run from the first
    check_env(env, num_steps=30)


@every_transform
def test_it_belongs_to_one_env(make_env, make_transform):
    transform = make_transform()
    TransformedEnv(make_env(2), transform)
    with pytest.raises(ConfigError, match=f"{type(transform).__name__}: expected a transform of its own"):
        TransformedEnv(make_env(2), transform)


@pytest.mark.parametrize("split", range(7))
def test_a_chain_is_the_same_as_nesting(split):
    one = TransformedEnv(walker(3), Compose(*chain()))
    two = TransformedEnv(TransformedEnv(walker(3), Compose(*chain()[:split])), Compose(*chain()[split:]))
    assert one.observation_spec == two.observation_spec
    assert one.action_spec == two.action_spec
    assert one.reward_spec == two.reward_spec
    one.set_seed(2)
    two.set_seed(2)
    assert_equal(one.rollout(20), two.rollout(20))
