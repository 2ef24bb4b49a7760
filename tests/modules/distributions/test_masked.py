"""Masked choices: never an illegal one, entropy and gradient among legal ones, and rows without any."""

import math

import pytest
import torch
from tensordict import TensorDict

from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import (
    Categorical,
    ExplorationType,
    MaskedCategorical,
    MaskedOneHotCategorical,
    MultiCategorical,
    ProbabilisticActor,
    set_exploration_type,
)

MASK = torch.tensor([[True, False, True, True], [False, False, True, False]])


def as_indices(action):
    return action.argmax(-1) if action.ndim > 1 else action


def test_log_prob_and_entropy_by_hand():
    distribution = MaskedCategorical(torch.tensor([[1.0, 9.0, 2.0, 5.0]] * 2).log(), MASK)
    torch.testing.assert_close(distribution.log_prob(torch.tensor([3, 2])).exp(), torch.tensor([5 / 8, 1.0]))
    assert distribution.log_prob(torch.tensor([1, 0])).tolist() == [-math.inf, -math.inf]
    expected = -sum(p * math.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
    torch.testing.assert_close(distribution.entropy(), torch.tensor([expected, 0.0]))


@pytest.mark.parametrize("family", [MaskedCategorical, MaskedOneHotCategorical])
@pytest.mark.parametrize("illegal", [0.0, 1e6, math.inf, math.nan, -math.inf])
def test_of_a_million_samples_none_is_illegal_and_the_mode_is_not_either(family, illegal):
    generator = torch.Generator().manual_seed(0)
    num = 1_000_000 if illegal == 1e6 else 10_000
    mask = torch.rand(num, 5, generator=generator) < 0.5
    mask[torch.arange(num), torch.randint(5, (num,), generator=generator)] = True
    logits = torch.where(mask, torch.randn(num, 5, generator=generator), illegal)
    distribution = family(logits, mask)
    for action in (distribution.sample(generator), distribution.mode):
        assert mask.gather(-1, as_indices(action)[:, None]).all()


def test_with_equal_logits_legal_actions_are_equally_frequent():
    mask = torch.tensor([True, False, True, True]).expand(300_000, 4)  # what an ε-greedy policy draws at random
    draws = MaskedCategorical(torch.zeros(300_000, 4), mask).sample(torch.Generator().manual_seed(0))
    counts = torch.bincount(draws, minlength=4).tolist()
    assert counts[1] == 0 and all(abs(count - 100_000) < 4 * math.sqrt(300_000 * 2 / 9) for count in counts[::2])


@pytest.mark.parametrize("illegal", [0.0, math.nan, math.inf])
def test_illegal_logits_get_no_gradient(illegal):
    logits = torch.where(MASK, torch.tensor([0.3, 0.0, -1.0, 2.0]), illegal).requires_grad_()
    distribution = MaskedCategorical(logits, MASK)
    other = MaskedCategorical(torch.zeros(2, 4), MASK)
    total = distribution.log_prob(torch.tensor([3, 2])) + distribution.entropy() + distribution.kl(other)
    (gradient,) = torch.autograd.grad(total.sum(), logits)
    assert (gradient[~MASK] == 0).all() and gradient.isfinite().all() and gradient[0, 0] != 0


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda mask: MaskedCategorical(torch.zeros(mask.shape), mask), r"none in row \[1, 2\]"),
        (lambda mask: MaskedOneHotCategorical(torch.zeros(mask.shape), mask), r"none in row \[1, 2\]"),
        (lambda mask: MultiCategorical(torch.zeros(mask.shape), nvec=[3], mask=mask), r"row and choice \[1, 2, 0\]"),
    ],
)
def test_a_row_without_a_legal_action_is_an_error_that_names_it(make, where):
    mask = torch.ones(2, 4, 3, dtype=torch.bool)
    make(mask)
    mask[1, 2] = False
    with pytest.raises(SpecError, match=where + r".*the episode should have ended"):
        make(mask)


def test_a_single_row_without_a_legal_action_is_an_error():
    with pytest.raises(SpecError, match=r"allows something in every row, got none\."):
        MaskedCategorical(torch.zeros(2), torch.zeros(2, dtype=torch.bool))


def test_in_a_compiled_graph_such_a_row_has_no_log_prob():
    mask = torch.tensor([[True, False], [False, False]])
    act = torch.compile(
        lambda logits, mask: MaskedCategorical(logits, mask).sample_and_log_prob()[1],
        fullgraph=True,
        backend="aot_eager",
    )
    assert act(torch.zeros(2, 2), mask).isnan().tolist() == [False, True]


@pytest.mark.parametrize("family", [MaskedCategorical, MaskedOneHotCategorical])
@pytest.mark.parametrize(
    "mask", [torch.ones(2, 2), torch.ones(3, dtype=torch.bool), torch.ones(2, 1, dtype=torch.bool)]
)
def test_a_mask_of_another_shape_is_refused(family, mask):
    with pytest.raises(SpecError, match=rf"{family.__name__}: expected a bool mask of shape \[2, 3\], got torch\."):
        family(torch.zeros(2, 3), mask)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("family", [MaskedCategorical, MaskedOneHotCategorical, MultiCategorical.of([2, 2])])
def test_zeros_and_ones_of_any_dtype_are_a_mask_and_nothing_else_is(family, dtype):
    logits, legal = (
        torch.arange(8.0).reshape(2, 4),
        torch.tensor([[True, False, True, True], [False, True, True, False]]),
    )
    due, same = (family(logits, mask=mask) for mask in (legal, legal.to(dtype)))
    assert torch.equal(same.mode, due.mode) and torch.equal(same.entropy(), due.entropy())
    with pytest.raises(SpecError, match="expected a mask of bools, or of 0 and 1 in any dtype, got 2"):
        family(logits, mask=2 * legal.to(dtype))


def test_only_distributions_under_the_same_family_are_compared():
    with pytest.raises(ConfigError, match="expected another MaskedCategorical, got Categorical"):
        MaskedCategorical(torch.zeros(2, 4), MASK).kl(Categorical(torch.zeros(2, 4)))


def rows():
    return TensorDict({"observation": torch.randn(2, 3), "game": {"legal": MASK}}, [2])


def test_an_actor_honours_the_mask_in_whatever_way_it_chooses():
    actor = ProbabilisticActor(torch.nn.Linear(3, 4), MaskedCategorical, mask_key=("game", "legal"))
    assert actor.in_keys == ["observation", ("game", "legal")]
    for _ in range(50):
        for kind in (None, ExplorationType.RANDOM, ExplorationType.MODE, ExplorationType.DETERMINISTIC):
            with set_exploration_type(kind):
                batch = actor(rows())
            assert MASK.gather(-1, batch["action"][:, None]).all()
            assert torch.equal(actor.build(batch).log_prob(batch["action"]), batch["action_log_prob"])
    assert batch["logits"].isfinite().all()  # as the network gave them


def test_an_actor_and_its_family_agree_on_the_mask_when_built():
    with pytest.raises(ConfigError, match=r"expected a distribution that takes a mask, got .*Categorical.*Masked"):
        ProbabilisticActor(torch.nn.Linear(3, 4), Categorical, mask_key="legal")
    with pytest.raises(ConfigError, match=r"expected a mask_key for .*MaskedCategorical.*action_mask_key"):
        ProbabilisticActor(torch.nn.Linear(3, 4), MaskedCategorical)


def test_a_missing_mask_is_named():
    actor = ProbabilisticActor(torch.nn.Linear(3, 4), MaskedCategorical, mask_key=("game", "allowed"))
    with pytest.raises(KeyMissing, match=r"mask_key.*\('game', 'allowed'\).*Did you mean .*'legal'"):
        actor(rows())
