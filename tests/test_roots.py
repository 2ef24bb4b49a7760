"""The roots: messages, seeds, extras, shapes and unchecked containers."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from torchrl import errors, extras, seeding, shapes, unchecked
from torchrl.counts import is_count


def test_explain_names_who_expected_got_and_hint():
    assert errors.explain("Collector", expected="2", got="3", hint="Use 2.") == "Collector: expected 2, got 3. Use 2."


def test_key_missing_prints_its_message_without_quotes():
    assert str(errors.KeyMissing("no 'action'")) == "no 'action'"


def test_nearest_finds_a_typo_and_nothing_far_away():
    assert errors.nearest("gama", ["gamma", "lr"]) == "gamma"
    assert errors.nearest("zzz", ["gamma", "lr"]) is None


def test_require_names_the_extra():
    with pytest.raises(errors.MissingExtraError, match=r'Thing needs the module "no_such_module".*\[things\]'):
        extras.require("no_such_module", extra="things", purpose="Thing")


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**40 + 3, 2**128 - 1, 2**130])
def test_child_seeds_are_those_of_numpys_sequence(seed):
    children = np.random.SeedSequence(seed).spawn(70)
    assert seeding.child_seeds(seed, 70) == [int(child.generate_state(1)[0]) >> 1 for child in children]
    assert seeding.child_seeds(seed, 0) == []


def test_child_seeds_are_distinct_and_do_not_depend_on_how_many():
    seeds = seeding.child_seeds(3, 100)
    assert len(set(seeds)) == 100 and all(0 <= seed < 2**31 for seed in seeds)
    assert seeding.child_seeds(3, 5) == seeds[:5]
    assert seeding.child_seeds(4, 5) != seeds[:5]


def test_a_joined_seed_depends_on_every_seed_and_its_place():
    lists = [[1, 2], [2, 1], [1, 3], [1, None], [1, 0]]
    seeds = [seeding.join_seeds(one) for one in lists]
    assert len(set(seeds)) == len(lists) and seeds == [seeding.join_seeds(one) for one in lists]


def test_named_seeds_are_stable_by_name():
    assert seeding.named_seeds(0, "env", "policy")["policy"] == seeding.named_seeds(0, "policy")["policy"]
    assert seeding.named_seeds(0, "env")["env"] != seeding.named_seeds(0, "policy")["policy"]
    assert seeding.named_seeds(0, "env") != seeding.named_seeds(1, "env")


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(errors.ConfigError, match="non-negative integer"):
        seeding.child_seeds(seed, 2)


@pytest.mark.parametrize(("shape", "hint"), [(3, r"Write \[3\]"), (None, "got None"), ([2.5], "got")])
def test_a_shape_is_a_sequence_of_whole_numbers(shape, hint):
    assert shapes.as_size("f", (2, 3)) == torch.Size([2, 3])
    with pytest.raises(errors.SpecError, match=f"f: expected a shape.*{hint}"):
        shapes.as_size("f", shape)


def test_same_shape_refuses_what_would_broadcast():
    shapes.require_same_shape("f", a=torch.zeros(3), b=torch.zeros(3))
    with pytest.raises(errors.SpecError, match=r"a \[3\], b \[3, 1\]"):
        shapes.require_same_shape("f", a=torch.zeros(3), b=torch.zeros(3, 1))


def test_expand_right_appends_dimensions():
    mask = torch.tensor([True, False])
    assert shapes.expand_right(mask, torch.zeros(2, 3)).tolist() == [[True] * 3, [False] * 3]
    assert shapes.expand_right(mask.unsqueeze(-1), torch.zeros(2)).tolist() == [True, False]
    with pytest.raises(errors.SpecError, match="leading dimensions"):
        shapes.expand_right(mask, torch.zeros(3, 2))


def test_unchecked_containers_share_tensors_but_not_entries():
    tensordict = TensorDict({"a": torch.zeros(2)}, [2])
    copy = unchecked.shallow(tensordict)
    unchecked.put(copy, "b", torch.ones(2))
    assert "b" not in tensordict and copy["a"] is tensordict["a"] and copy.batch_size == tensordict.batch_size


def test_a_row_copies_what_has_its_layout_through_its_views_and_nothing_else():
    batch = TensorDict({"a": torch.zeros(2, 3), "in": TensorDict({"b": torch.zeros(2, 3, 1)}, [2, 3])}, [2, 3])
    like, row, _ = unchecked.make_step_writers(batch.unbind(1))
    step = TensorDict({"a": torch.ones(2), "in": {"b": torch.full((2, 1), 2.0)}}, [2])
    assert row.update_(step)
    for key, value in (("new", torch.ones(2)), (("in", "new"), torch.ones(2)), ("a", torch.ones(2).int())):
        assert not like.update_(step.clone().set(key, value))
    assert not like.update_(step.exclude("a")) and not like.update_(step.clone().set("in", torch.ones(2)))
    assert batch["a"].tolist() == [[0, 1, 0]] * 2 and batch["in", "b"].squeeze(-1).tolist() == [[0, 2, 0]] * 2


def test_tensors_that_come_again_are_looked_at_once_and_at_the_end():
    """An environment's own roots, in turn, and what a policy writes anew."""
    batch = TensorDict({"own": torch.zeros(2, 20), "new": torch.zeros(2, 20)}, [2, 20])
    rows = unchecked.make_step_writers(batch.unbind(1))
    roots = [torch.full((2,), 0.0), torch.full((2,), 1.0)]
    for step, row in enumerate(rows[:12]):
        assert row.update_(TensorDict({"own": roots[step % 2], "new": torch.full((2,), float(step))}, [2]))
    assert batch["own"][0, :12].tolist() == [0, 1] * 6 and batch["new"][1, :12].tolist() == list(range(12))
    for step in ({"own": roots[0], "new": torch.ones(2).int()}, {"own": roots[0], "new": torch.ones(2, 1)}):
        assert not rows[12].update_(TensorDict(step, [2]))
    assert not rows[12].update_(TensorDict({"own": roots[0]}, [2]))
    odd = TensorDict({"own": torch.ones(2, dtype=torch.int32), "new": torch.ones(2)}, [2])
    assert not rows[12].fits(odd) and rows[12].fits(TensorDict({"own": torch.ones(2), "new": torch.ones(2)}, [2]))


@pytest.mark.parametrize(
    ("value", "fits"),
    [(1, True), (np.int64(3), True), (0, False), (-1, False), (2.0, False), (float("nan"), False), (True, False)],
)
def test_a_count_is_a_whole_number(value, fits):
    assert is_count(value) is fits and is_count(0, least=0)


@pytest.mark.parametrize(
    "error", [errors.ConfigError, errors.MissingExtraError, errors.EnvError, errors.CheckpointError]
)
@pytest.mark.parametrize("program", [None, "torchrl"])
def test_a_mistake_prints_one_message_and_exits_with_2(error, program, capsys):
    with pytest.raises(SystemExit) as caught, errors.exit_on_mistake(program):
        raise error("what to do")
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith(f"{program or ''}: what to do\n")
    assert printed.err.count("\n") == 1


def test_a_defect_passes_to_the_user_with_its_traceback():
    with pytest.raises(ZeroDivisionError), errors.exit_on_mistake():
        _ = 1 / 0
