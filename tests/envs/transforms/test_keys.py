"""Which observations there are: renamed, left out, joined, by hand."""

import pytest
import torch
from tensordict import TensorDict

from cases.transform_steps import act, body, specs
from torchrl.data.specs import Bounded, Categorical, Composite, Unbounded
from torchrl.envs.transforms import CatTensors, Compose, Exclude, FiniteCheck, Rename, Select, SignTransform, Unsqueeze
from torchrl.errors import ConfigError, KeyMissing, SpecError

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


NUMBERS = ["height", ("limbs", "arm"), ("limbs", "leg")]


def test_cat_by_hand():
    batch = body(CatTensors(NUMBERS)).rollout(3, act)
    assert batch["observation"].tolist() == [[0, 0, 1, 0], [1, 10, 11, 100], [0, 0, 1, 0]]
    assert batch["next", "observation"].tolist() == [[1, 10, 11, 100], [2, 20, 21, 200], [1, 10, 11, 100]]
    for part in (batch, batch["next"]):
        assert not {"height", "limbs"} & set(part.keys()) and "choice" in part.keys()


def test_cat_of_a_batch_in_the_order_given():
    batch = body(CatTensors([("limbs", "leg"), "height"], "vector"), 2).rollout(2, act)
    assert batch["vector"][1].tolist() == [[0, 0], [100, 1]]
    assert batch["limbs"].keys() == {"arm"}


def test_cat_takes_all_in_the_order_of_the_spec_by_default():
    leaves = {"b": Unbounded((2, 1)), "a": Unbounded((2, 2)), "s": Unbounded((2,))}
    cat = CatTensors()
    cat.read_specs(specs(2, **leaves))
    assert cat.in_keys == ("b", "a", "s")
    assert cat.observation_spec(Composite(leaves, (2,))) == Composite({"observation": Unbounded((2, 4))}, (2,))


def test_cat_lays_out_observations_that_differ_in_more_than_the_last_dimension():
    leaves = {"arm": Bounded(0.0, torch.arange(12.0).reshape(2, 3, 2)), "tip": Unbounded((2, 2)), "s": Unbounded((2,))}
    cat = CatTensors()
    cat.read_specs(specs(2, **leaves))
    assert cat.observation_spec(Composite(leaves, (2,))) == Composite({"observation": Unbounded((2, 9))}, (2,))
    root = TensorDict(arm=torch.arange(12.0).reshape(2, 3, 2), tip=torch.full((2, 2), -1.0), s=torch.tensor([7.0, 8]))
    cat.reset(root, None)
    assert root["observation"].tolist() == [[0, 1, 2, 3, 4, 5, -1, -1, 7], [6, 7, 8, 9, 10, 11, -1, -1, 8]]


def test_cat_keeps_dimensions_that_all_have():
    leaves = {"a": Unbounded((2, 3, 2)), "b": Unbounded((2, 3, 1))}
    cat = CatTensors()
    cat.read_specs(specs(2, **leaves))
    assert cat.observation_spec(Composite(leaves, (2,)))["observation"] == Unbounded((2, 3, 3))


def test_cat_spec_joins_bounds_where_all_have_some():
    due = Bounded(torch.tensor([0.0, -1, -1, 0]), torch.tensor([9.0, 99, 99, torch.inf]))
    assert body(CatTensors(NUMBERS)).observation_spec["observation"] == due
    cat = CatTensors()
    cat.read_specs(specs(2, a=Unbounded((2, 1)), b=Bounded(0.0, 1.0, (2, 1))))
    both = Composite({"a": Unbounded((2, 1)), "b": Bounded(0.0, 1.0, (2, 1))}, (2,))
    assert cat.observation_spec(both)["observation"] == Unbounded((2, 2))


def test_cat_can_keep_its_parts():
    batch = body(CatTensors(["height", ("limbs", "leg")], delete=False)).rollout(2, act)
    assert batch["observation"].tolist() == [[0, 0], [1, 100]]
    assert batch["height"].tolist() == [0, 1] and batch["limbs", "leg"].tolist() == [[0], [100]]


def test_cat_refuses_to_cover_an_observation_that_stays():
    for cat in (CatTensors(["height"], "choice"), CatTensors(["height"], "height", delete=False)):
        with pytest.raises(ConfigError, match="CatTensors, out_key: expected a key that covers no observation"):
            body(cat)
    with pytest.raises(ConfigError, match="out_key"):
        body(CatTensors(["height", ("limbs", "leg")], "limbs"))  # the arm would go with it
    assert body(CatTensors([("limbs", "arm"), ("limbs", "leg")], "limbs")).reset()["limbs"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("out_key", ["reward", "next", ("action", "x")])
def test_cat_refuses_to_cover_a_name_of_the_environment(out_key):
    with pytest.raises(ConfigError, match="covers no name of the environment"):
        body(CatTensors(["height"], out_key))


def test_cat_refuses_a_key_below_an_observation():
    with pytest.raises(ConfigError, match="covers no observation that stays"):
        body(CatTensors(["height"], ("choice", "x")))


def test_cat_refuses_what_does_not_go_together():
    with pytest.raises(SpecError, match=r"one dtype.*'choice' of \[\] torch.int64"):
        body(CatTensors())
    with pytest.raises(KeyMissing, match=r"\('limbs', 'tail'\).*\('limbs', 'arm'\)"):
        body(CatTensors([("limbs", "tail")]))
    with pytest.raises(ConfigError, match="at least one key"):
        CatTensors([])
