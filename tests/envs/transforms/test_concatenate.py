"""Observations joined into one vector, by hand."""

import pytest
import torch

from cases.transform_steps import act, body, specs
from torchrl.data.specs import Bounded, Composite, Unbounded
from torchrl.envs.transforms import CatTensors
from torchrl.errors import ConfigError, KeyMissing, SpecError

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
    with pytest.raises(SpecError, match="differ in nothing but the last dimension"):
        CatTensors().read_specs(specs(2, a=Unbounded((2, 3, 4)), b=Unbounded((2, 4))))
    with pytest.raises(KeyMissing, match=r"\('limbs', 'tail'\).*\('limbs', 'arm'\)"):
        body(CatTensors([("limbs", "tail")]))
    with pytest.raises(ConfigError, match="at least one key"):
        CatTensors([])
