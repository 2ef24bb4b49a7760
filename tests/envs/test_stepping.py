"""What a policy wrote under ``next``, from one step to the next and over resets, by hand."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.envs.stepping import carry_written, keep_missing, keep_state, with_unwritten
from torchrl.errors import KeyMissing, SpecError


def outcome(*ended):
    done = torch.tensor(ended).unsqueeze(-1)
    return TensorDict({"observation": torch.ones(len(ended)), "done": done}, [len(ended)])


def state(**values):
    return TensorDict(values, [2])


def test_written_state_is_carried_and_zero_where_a_row_ended():
    next_, root = outcome(True, False), TensorDict({"observation": torch.ones(2)}, [2])
    carry_written(state(h=torch.tensor([[1.0], [2.0]]), n=torch.tensor([3, 4])), next_, root)
    assert next_["h"].tolist() == [[1], [2]] and root["h"].tolist() == [[0], [2]]
    assert next_["n"].tolist() == [3, 4] and root["n"].tolist() == [0, 4]


def test_where_a_row_ended_it_starts_from_its_initial_value():
    next_, root = outcome(True, False), TensorDict(batch_size=[2])
    written = state(h=torch.tensor([[1.0], [2.0]]), lstm=state(c=torch.tensor([5, 6]), free=torch.tensor([7.0, 8.0])))
    initial = state(h=torch.tensor([[10.0], [20.0]]), lstm=state(c=torch.tensor([50, 60])))
    carry_written(written, next_, root, initial)
    assert root["h"].tolist() == [[10], [2]]
    assert root["lstm", "c"].tolist() == [50, 6] and root["lstm", "free"].tolist() == [0, 8]
    assert next_["lstm", "c"].tolist() == [5, 6]
    assert initial["h"].tolist() == [[10], [20]]


def test_keys_of_the_environment_win():
    next_, root = outcome(False, False), TensorDict({"observation": torch.ones(2)}, [2])
    carry_written(state(observation=torch.zeros(2), done=torch.ones(2, 1, dtype=torch.bool)), next_, root)
    assert next_["observation"].tolist() == root["observation"].tolist() == [1, 1]
    assert not next_["done"].any() and "done" not in root.keys()


@pytest.mark.parametrize("wrong", [torch.zeros(2), torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 3)])
def test_state_of_another_form_than_its_initial_value_is_refused(wrong):
    initial = state(lstm=state(h=torch.zeros(2, 1)))
    with pytest.raises(SpecError, match=r"state 'lstm/h': expected shape \[2, 1\] and torch.float32"):
        carry_written(state(lstm=state(h=wrong)), outcome(False, True), TensorDict(batch_size=[2]), initial)


def test_a_reset_of_some_rows_keeps_the_state_of_the_others():
    fresh = state(observation=torch.zeros(2), body=state(left=torch.zeros(2)))
    root = state(
        observation=torch.ones(2),
        h=torch.tensor([[1.0], [2.0]]),
        n=torch.tensor([3, 4]),
        body=state(left=torch.ones(2), mine=torch.tensor([5.0, 6.0])),
    )
    keep_state(fresh, root, torch.tensor([False, True]), state(h=torch.tensor([[10.0], [20.0]])))
    assert fresh["observation"].tolist() == fresh["body", "left"].tolist() == [0, 0]
    assert fresh["h"].tolist() == [[1], [20]] and fresh["n"].tolist() == [3, 0]
    assert fresh["body", "mine"].tolist() == [5, 0]
    assert root["h"].tolist() == [[1], [2]]


def test_state_that_the_policy_left_alone_stays():
    initial = state(h=torch.zeros(2), lstm=state(c=torch.zeros(2), d=torch.zeros(2)))
    root = state(
        h=torch.ones(2), lstm=state(c=torch.tensor([2.0, 3.0]), d=torch.tensor([4.0, 5.0])), other=torch.ones(2)
    )
    complete = with_unwritten(None, root, initial)
    assert complete["h"].tolist() == [1, 1] and complete["lstm", "c"].tolist() == [2, 3]
    assert "other" not in complete.keys()
    written = state(h=torch.full((2,), 7.0), extra=torch.ones(2), lstm=state(d=torch.full((2,), 8.0)))
    complete = with_unwritten(written, root, initial)
    assert complete["h"].tolist() == [7, 7] and complete["extra"].tolist() == [1, 1]
    assert complete["lstm", "c"].tolist() == [2, 3] and complete["lstm", "d"].tolist() == [8, 8]
    assert "c" not in written["lstm"].keys()  # the policy's container stays as it is


def test_a_root_without_the_state_is_refused():
    with pytest.raises(KeyMissing, match="expected a root with 'h'"):
        with_unwritten(None, state(x=torch.zeros(2)), state(h=torch.zeros(2)))


def test_what_only_the_old_root_holds_goes_into_the_new_one():
    fresh, root = state(a=torch.zeros(2)), state(a=torch.ones(2), b=torch.ones(2))
    keep_missing(fresh, root)
    assert fresh["a"].tolist() == [0, 0] and fresh["b"].tolist() == [1, 1]
