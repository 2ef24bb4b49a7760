"""What happened so far in an episode, by hand."""

import pytest
import torch
from gymnasium import spaces

from cases.transform_steps import act, column, counting, counting_rows, echo
from cases.transform_worlds import Drift, crane
from fakes import ActionEchoSimulator
from torchrl.data.specs import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import SerialEnv
from torchrl.envs.transforms import (
    ActionScaling,
    Compose,
    GSDENoise,
    LastAction,
    LastReward,
    RewardScaling,
    StepCounter,
    TargetReturn,
    TransformedEnv,
)
from torchrl.errors import ConfigError, EnvError, SpecError


def seen(transform, num_steps=7, env=None, key=None):
    batch = TransformedEnv(counting() if env is None else env, transform).rollout(num_steps, act)
    key = transform.out_key if key is None else key
    return column(batch, key), column(batch, ("next", key))


def test_steps_by_hand():
    assert seen(StepCounter()) == ([0, 1, 2, 0, 1, 2, 0], [1, 2, 3, 1, 2, 3, 1])


def test_target_return_by_hand():
    assert seen(TargetReturn(5.0)) == ([5, 5, 5, 5, 4, 3, 5], [5, 5, 5, 4, 3, 2, 3])
    assert seen(TargetReturn(5.0, "constant")) == ([5] * 7, [5] * 7)


def test_target_return_of_each_row():
    env = TransformedEnv(counting(2), TargetReturn(torch.tensor([[1.0], [20.0]])))
    assert column(env.rollout(5, act), ("next", "target_return")) == [[1, 1, 1, 0, -1], [20, 20, 20, 19, 18]]


def test_last_reward_by_hand():
    assert seen(LastReward()) == ([0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 2])


def test_last_reward_starts_with_what_its_spec_allows():
    env = TransformedEnv(Drift((2,)), Compose(RewardScaling(1.0, 5.0), LastReward()))
    assert env.observation_spec["last_reward"] == env.reward_spec
    assert env.reset()["last_reward"].tolist() == [[4.7], [4.7]]


def test_last_action_by_hand():
    env = TransformedEnv(SerialEnv(lambda: ActionEchoSimulator(1, length=3)), LastAction())
    actions = iter([[0.1], [0.2], [0.3], [0.4]])
    batch = env.rollout(4, lambda root: root.set("action", torch.tensor(next(actions))))
    torch.testing.assert_close(batch["last_action"], torch.tensor([[0.0], [0.1], [0.2], [0.0]]))
    torch.testing.assert_close(batch["next", "last_action"], torch.tensor([[0.1], [0.2], [0.3], [0.4]]))


def test_last_action_is_the_one_that_passes_its_place():
    chain = Compose(LastAction("below"), ActionScaling(), LastAction("above"))
    env = TransformedEnv(echo(low=0.0, high=10.0), chain)
    transition = env.step(env.reset().set("action", torch.tensor([0.5])))
    assert transition["next", "below"].tolist() == [7.5] and transition["next", "above"].tolist() == [0.5]
    assert transition["next", "below"].tolist() == transition["next", "observation"].tolist()
    assert env.observation_spec["below"] == Bounded(0.0, 10.0, (1,))
    assert env.observation_spec["above"] == Bounded(-1.0, 1.0, (1,))


def test_last_action_of_several_choices():
    env = TransformedEnv(counting(2, action_space=spaces.Discrete(5)), LastAction())
    assert env.observation_spec["last_action"] == Categorical(5, (2,))
    root = env.reset()
    assert root["last_action"].tolist() == [0, 0]
    assert env.step(root.set("action", torch.tensor([4, 1])))["next", "last_action"].tolist() == [4, 1]


def test_last_action_nested():
    env = TransformedEnv(crane(2), LastAction())
    assert env.observation_spec["last_action"] == env.action_spec
    root = env.reset(seed=0)
    start = env.action_spec.zero()
    assert root["last_action", "arm", "gear"].tolist() == start["arm", "gear"].tolist() == [0, 0]
    torch.testing.assert_close(root["last_action", "lift"], torch.tensor([[0.0, 0.1], [0.0, 0.1]]))  # nearest to zero
    action = env.action_spec.rand(generator=torch.Generator().manual_seed(0))
    transition = env.step(root.set("action", action))
    assert torch.equal(transition["next", "last_action", "lift"], action["lift"])
    assert torch.equal(transition["next", "last_action", "arm", "gear"], action["arm", "gear"])


def test_last_action_is_a_copy():
    env = TransformedEnv(counting(2), LastAction())
    action = torch.tensor([1, 1])
    _, root = env.step_and_reset(env.reset().set("action", action))
    action.zero_()  # as a policy that writes its action into the same tensor
    assert root["last_action"].tolist() == [1, 1]


def test_rows_start_over_apart():
    lengths = counting_rows(2, 3)
    batch = TransformedEnv(lengths, Compose(StepCounter(), TargetReturn(0.0))).rollout(4, act)
    assert column(batch, "step_count") == [[0, 1, 0, 1], [0, 1, 2, 0]]
    assert column(batch, ("next", "target_return")) == [[0, 0, -1, -2], [0, 0, 0, -1]]


def test_a_time_limit_by_hand():
    env = TransformedEnv(counting(length=5, ending="terminated"), StepCounter(max_steps=3))
    batch = env.rollout(7, act)
    assert column(batch, ("next", "truncated")) == [False, False, True] * 2 + [False]
    assert column(batch, ("next", "done")) == [False, False, True] * 2 + [False]
    assert not batch["next", "terminated"].any()
    assert column(batch, "observation") == [0, 1, 2, 0, 1, 2, 0]
    assert column(batch, ("next", "observation")) == [1, 2, 3, 1, 2, 3, 1]  # the true last one
    assert column(batch, ("next", "reward")) == [0, 0, 0, 1, 1, 1, 2]
    assert column(batch, ("next", "episode_length")) == [1, 2, 3, 1, 2, 3, 1]
    assert column(batch, "is_init") == [True, False, False] * 2 + [True]
    assert env.observation_spec["step_count"] == Bounded(0, 3, (1,), torch.int64)


def test_a_time_limit_beside_the_end_of_the_task():
    at_once = TransformedEnv(counting(length=3, ending="terminated"), StepCounter(max_steps=3)).rollout(3, act)
    assert column(at_once, ("next", "terminated")) == column(at_once, ("next", "truncated")) == [False, False, True]
    before = TransformedEnv(counting(length=2, ending="terminated"), StepCounter(max_steps=3)).rollout(4, act)
    assert column(before, ("next", "terminated")) == [False, True, False, True]
    assert not before["next", "truncated"].any()


@pytest.mark.parametrize("around", [0, 1, 2])
def test_a_time_limit_below_other_transforms(around):
    counter = StepCounter(max_steps=2)
    env = counting(2, length=5)
    for transform in [Compose(TargetReturn(0.0, out_key="a")), Compose(Compose(counter)), LastReward()][
        : 2 + (around > 1)
    ]:
        env = TransformedEnv(env, transform)
    assert column(env.rollout(5, act), "a") == [[0, 0, 0, -1, 0]] * 2
    assert column(env.rollout(5, act), ("next", "done")) == [[False, True, False, True, False]] * 2


def test_a_time_limit_shows_the_policy_the_limit_at_a_partial_reset():
    env = TransformedEnv(counting(2, length=9), StepCounter(max_steps=4))
    root = env.reset()
    for _ in range(3):
        _, root = env.step_and_reset(act(root))
    root = env.reset(torch.tensor([True, False]))
    assert column(root, "step_count") == [0, 3]
    transition, root = env.step_and_reset(act(root))
    assert column(transition, ("next", "truncated")) == [False, True]
    assert column(root, "step_count") == [1, 0]


def test_what_a_memory_handed_out_does_not_change_later():
    env = TransformedEnv(counting(2, length=2), Compose(StepCounter(), TargetReturn(3.0), LastReward()))
    keys = ["step_count", "target_return", "last_reward"]
    root = env.reset()
    for _ in range(5):
        transition, after = env.step_and_reset(act(root))
        copies = transition.select(*keys).clone(), transition["next"].select(*keys).clone()
        handed_out = transition.select(*keys), transition["next"].select(*keys)
        env.step_and_reset(act(after.clone()))
        root = env.reset()
        for one, other in zip(copies, handed_out, strict=True):
            assert bool((one == other).all())


@pytest.mark.parametrize(
    "make",
    [
        StepCounter,
        LastReward,
        LastAction,
        lambda key: TargetReturn(1.0, out_key=key),
        lambda key: GSDENoise(1, 1, out_key=key),
    ],
)
def test_a_key_that_is_taken_is_refused(make):
    for taken in ("observation", "reward", "is_init", ("observation", "inside")):
        with pytest.raises(ConfigError, match="a key that covers no"):
            TransformedEnv(counting(2), make(taken))


@pytest.mark.parametrize("bad", [0, -1])
def test_a_limit_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ConfigError, match="StepCounter: expected max_steps of at least 1"):
        StepCounter(max_steps=bad)


def test_targets_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match='"reduce" or "constant".*mode=.add.'):
        TargetReturn(1.0, "add")
    with pytest.raises(ConfigError, match="finite target"):
        TargetReturn(float("nan"))
    with pytest.raises(SpecError, match=r"broadcasts to \[2, 1\], got shape \[3, 1\]"):
        TransformedEnv(counting(2), TargetReturn(torch.zeros(3, 1)))


def test_specs_by_hand():
    env = TransformedEnv(counting(2), Compose(StepCounter(("info", "steps")), TargetReturn(2.0)))
    expected = Composite(
        {
            "observation": env.env.observation_spec["observation"],
            "info": {"steps": Unbounded((2, 1), torch.int64)},
            "target_return": Unbounded((2, 1)),
        },
        (2,),
    )
    assert env.observation_spec == expected
    assert env.reset()["info", "steps"].tolist() == [[0], [0]]


@pytest.mark.parametrize("around", [lambda env: env, lambda env: TransformedEnv(env, LastReward())])
def test_rows_that_a_time_limit_ended_must_be_reset_before_the_next_step(around):
    env = around(TransformedEnv(counting(2, 9), StepCounter(max_steps=2)))
    _, root = env.step_and_reset(act(env.reset()))
    root = env.reset(torch.tensor([True, False]))
    assert env.step(act(root))["next", "truncated"].tolist() == [[False], [True]]
    with pytest.raises(EnvError, match=r"every row inside an episode, got rows \[\[1\]\] that have ended"):
        env.step(act(root))
    env.reset(torch.tensor([True, False]))
    with pytest.raises(EnvError, match="Call reset"):
        env.step(act(root))
    root = env.reset(torch.tensor([False, True]))
    assert env.step(act(root))["next", "step_count"].tolist() == [[1], [1]]
