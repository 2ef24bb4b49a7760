"""What every environment refuses: bad seeds, a missing ``super().__init__()``, pictures it cannot draw."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import nn

from fakes import CountingSimulator
from torchrl.data.specs import Categorical, Composite, Unbounded
from torchrl.envs import Compose, Env, SerialEnv, TransformedEnv, check_env
from torchrl.envs.transforms import Transform
from torchrl.errors import ConfigError, EnvError, SpecError


class Seeded(CountingSimulator):
    """Keeps the seeds it was given."""

    def __init__(self):
        super().__init__(3)
        self.seeds = []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        return super().reset(seed=seed, options=options)


def seeds_of(env):
    return [simulator.seeds[-1] for simulator in env.simulators]


def test_a_seed_may_be_of_numpy_and_of_any_size():
    def rows(seed):
        env = SerialEnv(Seeded, 2)
        env.set_seed(seed)
        env.reset()
        return seeds_of(env)

    assert rows(np.int64(3)) == rows(3) != rows(2**64 + 3)
    assert all(type(seed) is int for seed in rows(np.uint8(3)))


@pytest.mark.parametrize("seed", [-1, 1.0, "a", None, True])
def test_a_seed_that_is_no_count_is_refused(seed):
    with pytest.raises(ConfigError, match="seed: expected a non-negative integer"):
        SerialEnv(Seeded, 2).set_seed(seed)


def test_row_seeds_reach_their_rows_as_integers():
    env = SerialEnv(Seeded, 2)
    env.reset(seed=np.array([4, 5]))
    assert seeds_of(env) == [4, 5] and type(seeds_of(env)[0]) is int
    env.reset(seed=(7, None))
    assert seeds_of(env) == [7, None]


@pytest.mark.parametrize("seeds", [[1, -2], [1, 2.5], "ab", [0, True], torch.tensor([1, 2])])
def test_a_row_seed_that_is_no_count_is_refused_with_its_row(seeds):
    with pytest.raises(ConfigError, match=r"the seed of row \d: expected a non-negative integer"):
        SerialEnv(Seeded, 2).reset(seed=seeds)


class Forgetful(Env):
    """Does not call ``super().__init__()``."""

    def __init__(self):
        self.worlds = 2

    def reset_rows(self, mask, *, seeds, options):
        raise NotImplementedError

    def step_rows(self, tensordict):
        raise NotImplementedError


@pytest.mark.parametrize(
    "use",
    [
        lambda env: env.set_seed(0),
        lambda env: env.reset(),
        lambda env: env.rollout(1),
        lambda env: check_env(env),
        lambda env: TransformedEnv(env, Compose()),
        repr,
    ],
)
def test_an_env_without_its_own_init_says_what_to_call(use):
    with pytest.raises(EnvError, match=r"Forgetful: expected an Env that was initialised.*super\(\).__init__\("):
        use(Forgetful())


def test_other_missing_attributes_are_named_as_always():
    with pytest.raises(AttributeError, match="'SerialEnv' object has no attribute 'worlds'"):
        _ = SerialEnv(Seeded).worlds
    assert not hasattr(Forgetful(), "close_all")


class Learned(Env, nn.Module):
    """A simulator that is a network."""

    def __init__(self):
        nn.Module.__init__(self)
        Env.__init__(
            self,
            batch_size=[2],
            observation_spec=Composite({"observation": Unbounded([2, 3])}, [2]),
            action_spec=Categorical(2, [2]),
        )
        self.layer = nn.Linear(3, 3)

    def reset_rows(self, mask, *, seeds, options):
        return TensorDict({"observation": self.layer(torch.zeros(2, 3))}, [2])

    def step_rows(self, tensordict):
        raise NotImplementedError


def test_an_env_may_be_a_module():
    env = Learned()
    assert env.reset()["observation"].shape == (2, 3)
    assert [name for name, _ in env.named_parameters()] == ["layer.weight", "layer.bias"]


def test_simulators_that_cannot_draw_say_so():
    with pytest.raises(EnvError, match="Learned: expected an env that can draw its rows"):
        Learned().render()


def test_a_reset_of_some_rows_keeps_what_a_policy_carries_where_the_root_is_given():
    env = SerialEnv(lambda: CountingSimulator(9), 2)
    root = env.reset().set("action", torch.zeros(2, dtype=torch.int64))
    _, root = env.step_and_reset(root.set(("next", "memory"), torch.tensor([5.0, 6.0])))
    mask = torch.tensor([True, False])
    assert "memory" not in env.reset(mask).keys()
    _, root = env.step_and_reset(root.set("action", torch.zeros(2, dtype=torch.int64)))
    after = env.reset(mask, root=root.set("memory", torch.tensor([5.0, 6.0])))
    assert after["memory"].tolist() == [0, 6] and after["observation"].tolist() == [[0], [2]]
    assert env.reset(root=after)["memory"].tolist() == [0, 0]


class Masked(CountingSimulator):
    """Some of the choices are legal, others from step to step."""

    def __init__(self, action_space, length=4):
        super().__init__(length, action_space=action_space)
        num = action_space.n if isinstance(action_space, spaces.Discrete) else int(action_space.nvec.sum())
        self.observation_space = spaces.Dict(count=self.observation_space, legal=spaces.Box(0, 1, (num,), np.bool_))

    def reset(self, *, seed=None, options=None):
        if seed is not None or self.episode < 0:
            self.random = np.random.default_rng(seed)
        return super().reset(seed=seed, options=options)

    def _observation(self):
        (num,) = self.observation_space["legal"].shape
        legal = self.random.random(num) < 0.4
        sizes = [num] if isinstance(self.action_space, spaces.Discrete) else self.action_space.nvec
        start = 0
        for size in sizes:
            legal[start + self.random.integers(size)] = True
            start += size
        return {"count": np.full((1,), self.num_steps, np.float32), "legal": legal}


class MaskedEnv(SerialEnv):
    action_mask_key = "legal"


def test_random_acting_takes_legal_choices_only():
    env = MaskedEnv(lambda: Masked(spaces.Discrete(6)), 5)
    env.set_seed(0)
    batch = env.rollout(200)
    assert bool(batch["legal"].gather(-1, batch["action"].unsqueeze(-1)).all())
    assert not bool(batch["legal"].all()) and batch["action"].unique().tolist() == [0, 1, 2, 3, 4, 5]
    check_env(env, num_steps=20)


def test_random_acting_takes_legal_choices_of_several_at_once():
    env = MaskedEnv(lambda: Masked(spaces.MultiDiscrete([2, 3])), 5)
    env.set_seed(0)
    batch = env.rollout(100)
    for entry, (start, end) in enumerate([(0, 2), (2, 5)]):
        assert bool(batch["legal"][..., start:end].gather(-1, batch["action"][..., entry : entry + 1]).all())


def test_a_transformed_env_knows_the_mask_and_where_it_went():
    class Moved(Transform):
        def action_mask_key(self, key):
            return ("moved", key)

    below = MaskedEnv(lambda: Masked(spaces.Discrete(6)), 2)
    assert TransformedEnv(below, Transform()).action_mask_key == "legal"
    assert TransformedEnv(below, Compose(Moved(), Transform())).action_mask_key == ("moved", "legal")
    env = TransformedEnv(TransformedEnv(below, Transform()), Transform())
    env.set_seed(0)
    batch = env.rollout(50)
    assert bool(batch["legal"].gather(-1, batch["action"].unsqueeze(-1)).all())


def test_what_is_no_seed_is_refused_by_name():
    with pytest.raises(ConfigError, match="reset, seed: expected an integer, or a list of 2 of them, got"):
        SerialEnv(Seeded, 2).reset(seed=3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"observation_spec": Unbounded((2, 1))},
            "a Composite as observation_spec, got Unbounded. Name the observation",
        ),
        ({"observation_spec": Composite({"x": Unbounded((2, 1))})}, r"of shape \[2\], the batch_size, got \[\]"),
        ({"action_spec": 4}, "a spec as action_spec, got int"),
        (
            {"action_spec": Categorical(4)},
            r"action_spec: expected a shape that starts with \[2\], the batch_size, got \[\]",
        ),
        ({"reward_spec": Unbounded((1,))}, r"reward_spec: expected a shape that starts with \[2\]"),
    ],
)
def test_specs_that_do_not_fit_are_refused_at_construction(change, message):
    specs = {
        "observation_spec": Composite({"x": Unbounded((2, 1))}, shape=[2]),
        "action_spec": Categorical(4, (2,)),
        "reward_spec": None,
    }

    class Plain(Env):
        def reset_rows(self, mask, *, seeds, options):
            raise NotImplementedError

        def step_rows(self, tensordict):
            raise NotImplementedError

    Plain(batch_size=[2], **specs)
    with pytest.raises(SpecError, match=message):
        Plain(batch_size=[2], **specs | change)


def test_a_list_of_row_seeds_waits_for_a_whole_reset_as_one_seed_does():
    env = TransformedEnv(SerialEnv(Seeded, 2), Transform())
    env.set_seed([4, None])
    env.reset()
    assert seeds_of(env) == [4, None]
    env.set_seed(np.array([5, 6]))
    env.reset()
    assert seeds_of(env) == [5, 6]
    env.reset()
    assert seeds_of(env) == [None, None]


def test_a_list_of_row_seeds_decides_random_actions():
    def actions(seeds):
        env = SerialEnv(lambda: CountingSimulator(30), 2)
        env.set_seed(seeds)
        return env.rollout(30)["action"].tolist()

    assert actions([1, 2]) == actions((1, 2)) != actions([1, 3])


def test_a_list_of_another_length_and_what_is_no_seed_in_it_are_refused():
    env = SerialEnv(Seeded, 2)
    with pytest.raises(SpecError, match="one seed per row, 2 of them, got 3"):
        env.set_seed([1, 2, 3])
    with pytest.raises(ConfigError, match="the seed of row 1"):
        env.set_seed([1, -2])


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_frozen_rows_wait_until_they_are_reset(ending):
    env = TransformedEnv(SerialEnv(lambda: CountingSimulator([2, 9], ending=ending), 2), Transform())
    root = env.reset()
    for _ in range(2):
        transition = env.step(root.set("action", torch.zeros(2, dtype=torch.int64)))
    assert transition["next", "done"].all()
    root = env.reset(torch.tensor([True, False]))
    env.freeze_(torch.tensor([[False], [True]]))
    for step in (1, 2):
        transition, root = env.step_and_reset(root.set("action", torch.zeros(2, dtype=torch.int64)))
        outcome = transition["next"]
        assert outcome["observation"].tolist() == [[step], [2]] == root["observation"].tolist()
        assert outcome["reward"].tolist() == [[1], [0]] and not outcome["done"].any()
        assert outcome["episode_length"].tolist() == [[step], [2]] == root["episode_length"].tolist()
    root = env.reset(torch.tensor([False, True]))
    assert root["observation"].tolist() == [[2], [0]] and root["is_init"].tolist() == [[False], [True]]
    transition, _ = env.step_and_reset(root.set("action", torch.zeros(2, dtype=torch.int64)))
    assert transition["next", "observation"].tolist() == [[3], [1]]


def test_a_mask_that_does_not_fit_and_rows_that_cannot_wait_are_refused():
    with pytest.raises(SpecError, match=r"freeze_: expected a bool mask of shape \[2\]"):
        SerialEnv(CountingSimulator, 2).freeze_(torch.tensor([1, 0]))
    with pytest.raises(EnvError, match="Learned: expected an Env whose rows can wait one by one"):
        Learned().freeze_(torch.ones(Learned().batch_size, dtype=torch.bool))


@pytest.mark.parametrize("given", [torch.zeros(2, dtype=torch.int64), {"action": torch.zeros(2)}, 1])
def test_a_step_takes_the_root_with_the_action(given):
    env = SerialEnv(CountingSimulator, 2)
    env.reset()
    for step in (env.step, env.step_and_reset):
        with pytest.raises(
            SpecError, match=r'expected a TensorDict with the action, got .*env.step\(root.set\("action"'
        ):
            step(given)


def test_a_number_is_a_seed_only_by_its_name():
    with pytest.raises(
        SpecError, match=r"expected a bool mask .* got 42. A seed is given by its name: reset\(seed=42\)"
    ):
        SerialEnv(CountingSimulator, 2).reset(42)


@pytest.mark.parametrize(("name", "own"), [("action_space", "action_spec"), ("num_envs", "batch_size")])
def test_what_other_environments_have_is_named(name, own):
    env = SerialEnv(CountingSimulator, 2)
    assert not hasattr(env, name)
    with pytest.raises(AttributeError, match=f"no attribute '{name}'. An Env is a batch: see {own}"):
        getattr(env, name)
