"""Keys that move and keys that go, by hand."""

import pytest

from cases.transform_steps import act, body
from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.envs.transforms import (
    CatTensors,
    Compose,
    Exclude,
    FiniteCheck,
    Rename,
    Select,
    SignTransform,
    Unsqueeze,
)
from torchrl.errors import ConfigError, KeyMissing

OWN = {"action", "next", "is_init", "episode_return", "episode_length"}
ARM, LEG = ("limbs", "arm"), ("limbs", "leg")
ARM_SPEC, LEG_SPEC = Bounded(-1.0, 99.0, (2,)), Bounded(0.0, float("inf"), (1,))


def keys(tensordict):
    found = set(tensordict.exclude("next").keys(include_nested=True, leaves_only=True))
    return found - OWN - {"reward", "terminated", "truncated", "done"}


def run(transform, num_steps=3):
    """Roll out, and hold the keys of root, next and spec against each other."""
    env = body(transform)
    batch = env.rollout(num_steps, act)
    assert keys(batch) == keys(batch["next"]) == keys(env.reset()) == {key for key, _ in env.observation_spec.leaves()}
    return env, batch


def test_rename_by_hand():
    env, batch = run(Rename({"height": "observation", LEG: "leg", "choice": ("limbs", "choice")}))
    assert keys(batch) == {"observation", "leg", ARM, ("limbs", "choice")}
    assert batch["observation"].tolist() == [0, 1, 0] and batch["next", "observation"].tolist() == [1, 2, 1]
    assert batch["leg"].tolist() == [[0], [100], [0]]
    assert batch["next", "limbs", "choice"].tolist() == [1, 2, 1]
    assert env.observation_spec == Composite(
        {
            "observation": Bounded(0.0, 9.0),
            "leg": LEG_SPEC,
            "limbs": {"arm": ARM_SPEC, "choice": Categorical(9)},
        }
    )


def test_rename_of_a_level_takes_all_below_it():
    env, batch = run(Rename({"limbs": ("robot", "parts")}))
    assert keys(batch) == {"height", "choice", ("robot", "parts", "arm"), ("robot", "parts", "leg")}
    assert batch["next", "robot", "parts", "leg"].tolist() == [[100], [200], [100]]
    assert "limbs" not in batch.keys() and "limbs" not in env.observation_spec


def test_a_level_that_becomes_empty_goes_and_one_that_does_not_stays():
    assert "limbs" not in run(Rename({ARM: "arm", LEG: "leg"}))[1].keys()
    assert run(Rename({ARM: "arm"}))[1]["limbs"].keys() == {"leg"}


def test_keys_can_be_swapped():
    env, batch = run(Rename({ARM: LEG, LEG: ARM}))
    assert batch["next", "limbs", "arm"].tolist() == [[100], [200], [100]]
    assert batch["next", "limbs", "leg"].tolist() == [[10, 11], [20, 21], [10, 11]]
    assert env.observation_spec[ARM] == LEG_SPEC and env.observation_spec[LEG] == ARM_SPEC


def test_a_key_may_be_a_tuple_of_one():
    assert keys(run(Rename({("height",): ("tall",)}))[1]) == {"tall", "choice", ARM, LEG}


@pytest.mark.parametrize(
    ("new_keys", "match"),
    [
        ({"height": "choice"}, "covers no observation that stays"),
        ({"height": "limbs"}, "covers no observation that stays"),
        ({"height": ("choice", "x")}, "covers no observation that stays"),
        ({"height": "x", "choice": "x"}, "covers no observation that stays"),
        ({"height": "x", "choice": ("x", "y")}, "covers no observation that stays"),
        ({"height": "reward"}, "covers no name of the environment"),
        ({"limbs": "next"}, "covers no name of the environment"),
        ({ARM: ("collector", "arm")}, "covers no name of the environment"),
        ({"limbs": "x", ARM: "y"}, "each observation under one of the old keys"),
    ],
)
def test_rename_never_covers_anything(new_keys, match):
    with pytest.raises(ConfigError, match=f"Rename: expected .*{match}"):
        body(Rename(new_keys))


def test_select_by_hand():
    env, batch = run(Select(["height", LEG]))
    assert keys(batch) == {"height", LEG}
    assert batch["next", "limbs", "leg"].tolist() == [[100], [200], [100]]
    assert env.observation_spec == Composite({"height": Bounded(0.0, 9.0), "limbs": {"leg": LEG_SPEC}})


def test_select_removes_empty_levels_and_leaves_what_is_no_observation():
    _, batch = run(Select(["choice"]))
    assert set(batch.keys()) == OWN | {"choice"}


def test_select_of_a_level_keeps_all_below_it():
    assert keys(run(Select(["limbs"]))[1]) == {ARM, LEG}


def test_exclude_by_hand():
    env, batch = run(Exclude(["height", LEG]))
    assert keys(batch) == {"choice", ARM}
    assert batch["next", "limbs", "arm"].tolist() == [[10, 11], [20, 21], [10, 11]]
    assert env.observation_spec == Composite({"limbs": {"arm": ARM_SPEC}, "choice": Categorical(9)})


def test_exclude_of_a_level_or_of_all_in_it():
    for given in (["limbs"], [ARM, LEG], [ARM, "limbs"]):
        env, batch = run(Exclude(given))
        assert "limbs" not in batch.keys() and "limbs" not in env.observation_spec
        assert keys(batch) == {"height", "choice"}


def test_a_chain_sees_the_new_keys():
    _, batch = run(Compose(Rename({"limbs": "parts"}), Exclude([("parts", "leg")]), Rename({("parts", "arm"): "x"})))
    assert keys(batch) == {"height", "choice", "x"}


@pytest.mark.parametrize("transform", [Select, Exclude, lambda keys: Rename({keys[0]: "x"})])
def test_an_unknown_key_is_refused_with_those_there_are(transform):
    with pytest.raises(KeyMissing, match=r"\('limbs', 'log'\).*\('limbs', 'arm'\).*Did you mean \('limbs', 'leg'\)"):
        body(transform([("limbs", "log")]))


def test_none_at_all_is_refused():
    for transform in (Select, Exclude, Rename):
        with pytest.raises(ConfigError, match=f"{transform.__name__}: expected .*at least one"):
            transform({} if transform is Rename else [])
    for transform in (Select, Exclude, Unsqueeze, CatTensors, FiniteCheck, SignTransform):
        with pytest.raises(
            ConfigError, match=rf"{transform.__name__}: .*a list of keys, got 'height'. Write \['height'"
        ):
            transform(*([0] if transform is Unsqueeze else []), "height")
    with pytest.raises(ConfigError, match="{old key: new key}"):
        Rename(["height"])
