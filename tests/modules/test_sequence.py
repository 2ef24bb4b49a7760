"""A row of modules: its keys, what stays inside, and the last module's distribution."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import ConfigError
from torchrl.modules import Categorical, Operator, ProbabilisticActor, Sequence, ValueOperator


def modules():
    trunk = Operator(nn.Linear(4, 6), in_keys=["observation"], out_keys=["hidden"])
    mix = Operator(nn.Bilinear(6, 2, 5), in_keys=["hidden", ("goal", "place")], out_keys=["mixed"])
    return trunk, mix, ProbabilisticActor(nn.Linear(5, 3), Categorical, in_keys=["mixed"])


def roots(*shape):
    return TensorDict({"observation": torch.randn(*shape, 4), "goal": {"place": torch.randn(*shape, 2)}}, shape)


def test_keys_are_those_from_outside_and_all_that_is_written():
    sequence = Sequence(*modules())
    assert sequence.in_keys == ["observation", ("goal", "place")]
    assert sequence.out_keys == ["hidden", "mixed", "logits", "action", "action_log_prob"]
    assert len(sequence) == 3 and sequence[0] is next(iter(sequence))


def test_a_key_that_is_read_before_it_is_written_comes_from_outside():
    first = Operator(nn.Linear(4, 4), in_keys=["state"], out_keys=["state"])
    assert Sequence(first, first).in_keys == ["state"]


def test_the_modules_run_in_order_on_the_container_given():
    parts, tensordict = modules(), roots(8)
    sequence = Sequence(*parts)
    assert sequence(tensordict) is tensordict and set(tensordict.keys()) == {"goal", "observation", *sequence.out_keys}
    hidden = parts[0].module(tensordict["observation"])
    logits = parts[2].module(parts[1].module(hidden, tensordict["goal", "place"]))
    torch.testing.assert_close(tensordict["logits"], logits)


def test_intermediate_results_can_stay_inside():
    parts, tensordict = modules(), roots(8)
    sequence = Sequence(*parts, out_keys=["action", "action_log_prob"])
    assert sequence(tensordict) is tensordict and sequence.out_keys == ["action", "action_log_prob"]
    assert set(tensordict.keys()) == {"goal", "observation", "action", "action_log_prob"}
    tensordict["hidden"] = torch.zeros(8, 6)
    sequence(tensordict)
    assert not tensordict["hidden"].any()  # what was there under the same name stays


@pytest.mark.parametrize("out_keys", [None, ["action", "action_log_prob"]])
def test_build_goes_through_all_modules_with_gradient_and_writes_nothing(out_keys):
    parts, batch = modules(), roots(8, 5)
    sequence = Sequence(*parts, out_keys=out_keys)
    with torch.no_grad():
        sequence(batch)
    keys = set(batch.keys())
    distribution = sequence.build(batch)
    torch.testing.assert_close(distribution.log_prob(batch["action"]), batch["action_log_prob"])
    distribution.log_prob(batch["action"]).sum().backward()
    assert all(parameter.grad is not None for parameter in sequence.parameters()) and set(batch.keys()) == keys
    assert sequence.action_key == "action" and sequence.log_prob_key == "action_log_prob"


def test_sequences_nest():
    trunk, mix, actor = modules()
    nested = Sequence(Sequence(trunk, mix, out_keys=["mixed"]), actor)
    assert nested.in_keys == ["observation", ("goal", "place")] and "hidden" not in nested(roots(8))
    assert nested.build(roots(8)).logits.shape == (8, 3)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="at least one module"):
        Sequence()
    with pytest.raises(ConfigError, match=r"out_keys among \['hidden'.*got \['actoin'\]"):
        Sequence(*modules(), out_keys=["actoin"])
    value = ValueOperator(nn.Linear(4, 1))
    with pytest.raises(ConfigError, match="expected a last module with `build`, got ValueOperator"):
        Sequence(value).build(roots(8))
