"""Warm-up: random actions first, the same keys all along."""

import math

import pytest
import torch
from tensordict import TensorDict

from torchrl.collectors import WarmUp
from torchrl.collectors.warmup import uniform_log_prob
from torchrl.data.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, OneHot, Unbounded
from torchrl.errors import ConfigError, SpecError


def policy(root):
    return root.set("action", torch.full((4,), 7)).set("action_log_prob", torch.zeros(4))


def root():
    return TensorDict({}, [4])


def test_actions_are_random_for_the_first_frames_and_the_policys_after():
    warm = WarmUp(policy, Categorical(3, shape=(4,)), frames=6)
    for _ in range(2):
        acted = warm(root())
        assert acted["action"].max() < 3
        assert torch.allclose(acted["action_log_prob"], torch.full((4,), -math.log(3)))
    acted = warm(root())
    assert acted["action"].tolist() == [7] * 4 and acted["action_log_prob"].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("spec", "mask", "num_legal"),
    [
        (Categorical(3, (4,)), [[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1]], [2, 1, 3, 1]),
        (OneHot(3, (4, 3)), [[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1]], [2, 1, 3, 1]),
        (MultiCategorical([2, 2], (4, 2)), [[1, 0, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1]], [1, 2, 4, 2]),
    ],
)
def test_only_legal_actions_are_drawn_and_their_log_prob_is_that_of_the_legal_ones(spec, mask, num_legal):
    mask = torch.tensor(mask, dtype=torch.bool)
    warm = WarmUp(policy, spec, frames=400, mask_key="legal")
    for _ in range(100):
        acted = warm(root().set("legal", mask))
        action = acted["action"]
        choices = action.unsqueeze(-1) if isinstance(spec, Categorical) else action
        if isinstance(spec, OneHot):
            assert (action.bool() & ~mask).sum() == 0
        elif isinstance(spec, MultiCategorical):
            assert mask.gather(-1, choices + torch.tensor([0, 2])).all()
        else:
            assert mask.gather(-1, choices).all()
        torch.testing.assert_close(acted["action_log_prob"], -torch.tensor(num_legal).log())
    with pytest.raises(SpecError, match="choices with a mask"):
        WarmUp(policy, Bounded(-1.0, 1.0, (4, 1)), frames=1, mask_key="legal")


def test_a_generator_repeats_the_actions():
    def actions():
        warm = WarmUp(policy, Categorical(100, shape=(4,)), frames=4, generator=torch.Generator().manual_seed(1))
        return warm(root())["action"].tolist()

    assert actions() == actions()


def test_how_far_it_is_survives_a_checkpoint():
    warm = WarmUp(policy, Categorical(3, shape=(4,)), frames=4)
    warm(root())
    other = WarmUp(policy, Categorical(3, shape=(4,)), frames=4)
    other.load_state_dict(warm.state_dict())
    assert other(root())["action"].tolist() == [7] * 4


def test_density_of_uniform_actions():
    assert uniform_log_prob(Categorical(4, shape=(2,)), 1) == pytest.approx(-math.log(4))
    assert uniform_log_prob(OneHot(4, shape=(2, 4)), 1) == pytest.approx(-math.log(4))
    assert uniform_log_prob(MultiOneHot([2, 3], shape=(7, 5)), 1) == pytest.approx(-math.log(6))
    assert uniform_log_prob(MultiCategorical([2, 3, 4], shape=(7, 3)), 1) == pytest.approx(-math.log(24))
    assert uniform_log_prob(Binary((7, 3)), 1) == pytest.approx(-math.log(8))
    nested = Composite({"a": Categorical(4, (2,)), "b": {"c": Bounded(-1.0, 1.0, (2, 3))}}, shape=(2,))
    assert uniform_log_prob(nested, 1) == pytest.approx(-math.log(4) - 3 * math.log(2))
    box = Bounded(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 3.0]), shape=(2,))
    assert uniform_log_prob(box) == pytest.approx(-math.log(6))
    assert uniform_log_prob(Bounded(0, 4, (2, 2), torch.int64), 1) == pytest.approx(-2 * math.log(5))


def test_the_density_is_that_of_one_row_whatever_the_dimensions_of_an_action():
    for shape, num in (((), 1), ((3,), 3), ((2, 3), 6)):
        for batch_size in ((), (8,), (4, 2)):
            full, dims = (*batch_size, *shape), len(batch_size)
            assert uniform_log_prob(Bounded(0.0, 2.0, full), dims) == pytest.approx(-num * math.log(2))
            assert uniform_log_prob(Binary(full), dims) == pytest.approx(-num * math.log(2))
            assert uniform_log_prob(MultiCategorical(5, full), dims) == pytest.approx(-num * math.log(5))
    warm = WarmUp(policy, Bounded(0.0, 2.0, (4,)), frames=4)  # an action without dimensions of its own
    assert torch.allclose(warm(root())["action_log_prob"], torch.full((4,), -math.log(2)))


def test_what_cannot_be_drawn_uniformly_is_refused():
    with pytest.raises(SpecError, match="finitely bounded"):
        WarmUp(policy, Unbounded((4, 2)), frames=1)
    with pytest.raises(ConfigError, match="at least 0"):
        WarmUp(policy, Categorical(3), frames=-1)
