"""n-step rewards and successors: values by hand, a slow loop in float64, masks, and the way through a buffer."""

import pytest
import torch
from tensordict import TensorDict

from cases.padding import MASK
from cases.steps import make_batch
from torchrl.data import MultiStep, MultiStepStream
from torchrl.data.multistep import piece_bounds, sum_steps
from torchrl.data.replay import ReplayBuffer, SliceSampler, TensorStorage
from torchrl.errors import ConfigError, KeyMissing, SpecError

STEPS, GAMMA = ("next", "steps_to_next_obs"), ("next", "gamma")


def column(batch, *key):
    return batch[key].flatten().tolist()


# ---- values ----------------------------------------------------------------------------------------------------------


def test_the_edge_shortens_the_last_sums():
    result = MultiStep(3, 0.5)(make_batch(4))
    assert column(result, "next", "reward") == [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8]
    assert column(result, *STEPS) == [3, 3, 2, 1] and result[STEPS].dtype is torch.int64
    assert column(result, *GAMMA) == [0.125, 0.125, 0.25, 0.5] and result[GAMMA].dtype is torch.float32
    assert column(result, "next", "observation", "position") == [3, 4, 4, 4]
    assert column(result, "next", "original_reward") == [1, 2, 4, 8]
    assert column(result, "observation", "position") == [0, 1, 2, 3]
    assert result[STEPS].shape == result[GAMMA].shape == (4, 1)


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_an_ending_in_the_middle_comes_along_with_its_successor(ending):
    result = MultiStep(3, 0.5)(make_batch(5, **{ending: [2]}))
    other = {"terminated": "truncated", "truncated": "terminated"}[ending]
    assert column(result, "next", "reward") == [3, 4, 4, 16, 16]
    assert column(result, *STEPS) == [3, 2, 1, 2, 1]
    assert column(result, "next", "observation", "position") == [3, 3, 3, 5, 5]
    assert column(result, "next", ending) == column(result, "next", "done") == [True, True, True, False, False]
    assert column(result, "next", other) == [False] * 5


def test_a_done_for_another_reason_ends_a_sum_and_is_not_needed():
    result = MultiStep(3, 1)(make_batch(4, done=[1]))
    assert column(result, *STEPS) == [2, 1, 2, 1]
    assert column(result, "next", "terminated") == [False] * 4
    for ending in ("terminated", "truncated"):
        bare = make_batch(4, **{ending: [1]}).exclude(("next", "done"))
        assert column(MultiStep(3, 1)(bare), *STEPS) == [2, 1, 2, 1]


def test_an_episode_that_begins_without_an_ending_before_it_cuts():
    result = MultiStep(4, 1)(make_batch(4, is_init=[0, 2]))
    assert column(result, "next", "reward") == [3, 2, 12, 8]
    assert column(result, *STEPS) == [2, 1, 2, 1]
    assert column(result, "next", "observation", "position") == [2, 2, 4, 4]


def test_another_trajectory_cuts():
    batch = make_batch(2, 4).exclude("is_init").set(("collector", "traj_ids"), torch.tensor([[0, 0, 0, 2], [1] * 4]))
    assert MultiStep(9, 1)(batch)[STEPS].squeeze(-1).tolist() == [[3, 2, 1, 1], [4, 3, 2, 1]]


def test_a_masked_row_cuts_and_nothing_of_it_reaches_another():
    batch = make_batch(5, masked=[2])
    result = MultiStep(3, 1)(batch)
    keep = [0, 1, 3, 4]
    assert result[MASK].tolist() == [True, True, False, True, True]
    assert column(result[keep], "next", "reward") == [3, 2, 24, 16]
    assert column(result[keep], *STEPS) == [2, 1, 2, 1]
    assert column(result[keep], "next", "observation", "position") == [2, 2, 5, 5]
    assert column(result[keep], "next", "terminated") == [False] * 4
    assert all(bool(torch.isfinite(value).all()) for value in result[keep].values(True, True))
    assert result[2][STEPS].item() == 0 and result[2][GAMMA].item() == 1
    assert result[2]["next", "reward"].isnan().all()


@pytest.mark.parametrize("n_steps", [4, 7, 100])
def test_more_steps_than_there_are_sum_all(n_steps):
    result = MultiStep(n_steps, 1)(make_batch(4))
    assert column(result, "next", "reward") == [15, 14, 12, 8]
    assert column(result, *STEPS) == [4, 3, 2, 1]


def test_gamma_zero_counts_the_first_reward_only():
    result = MultiStep(3, 0)(make_batch(4, truncated=[3]))
    assert column(result, "next", "reward") == [1, 2, 4, 8]
    assert column(result, *STEPS) == [3, 3, 2, 1] and column(result, *GAMMA) == [0] * 4
    assert column(result, "next", "truncated") == [False, True, True, True]


def test_one_step_only_adds_the_keys():
    batch = make_batch(2, 5, terminated=[1], is_init=[2], masked=[3])
    result = MultiStep(1, 0.5)(batch)
    assert set(result.keys(True, True)) - set(batch.keys(True, True)) == {STEPS, GAMMA, ("next", "original_reward")}
    for key, value in batch.items(True, True):
        assert torch.equal(value.nan_to_num(7), result[key].nan_to_num(7)) and value.dtype is result[key].dtype
    assert result[STEPS].squeeze(-1).tolist() == [[1, 1, 1, 0, 1]] * 2


def test_all_entries_under_next_keep_shape_and_dtype():
    result = MultiStep(2, 0.5)(make_batch(2, 3, 4))
    assert result["next", "hidden"].shape == (2, 3, 4, 1, 2)
    assert result["next", "hidden"][1, 2, :, 0].tolist() == [[101, 101], [102, 102], [103, 103], [103, 103]]
    assert result["next", "observation", "pixels"].dtype is torch.uint8
    assert result["next", "observation", "pixels"][0, 1].tolist() == [[2] * 3, [3] * 3, [4] * 3, [4] * 3]


def test_several_rewards_are_summed_each():
    batch = make_batch(3)
    batch["next", "reward"] = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    result = MultiStep(2, 0.5)(batch)
    assert result["next", "reward"].tolist() == [[2, 20], [4, 40], [4, 40]]
    assert result[STEPS].shape == (3, 1)


@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
def test_nothing_gives_nothing(shape):
    assert MultiStep(3, 0.5)(make_batch(*shape)).batch_size == shape


# ---- rows that the batch cut short -----------------------------------------------------------------------------------


def test_without_partial_rows_those_short_of_rewards_are_masked():
    batch = make_batch(8, terminated=[2], truncated=[4], masked=[7])
    result = MultiStep(2, 0.5, keep_partial=False)(batch)
    # 2 and 4 are endings; 5 has two rewards; 6 has one, before a masked row; 7 was masked
    assert result[MASK].tolist() == [True] * 6 + [False] * 2
    assert bool(MultiStep(2, 0.5)(batch)[MASK][6])


def test_without_partial_rows_there_is_always_a_mask():
    batch = make_batch(3, 4, done=[1])
    assert MultiStep(3, 0.5, keep_partial=False)(batch)[MASK].tolist() == [[True, True, False, False]] * 3
    assert MASK not in MultiStep(3, 0.5)(batch).keys(True)
    batch = make_batch(4, is_init=[2])
    assert MultiStep(2, 0.5, keep_partial=False)(batch)[MASK].tolist() == [True, False, True, False]


# ---- laws ------------------------------------------------------------------------------------------------------------


def slow_targets(batch, value, n_steps, gamma):
    """Bootstrapped n-step targets, one row at a time."""
    lanes, length = batch.batch_size
    target = torch.zeros(lanes, length, dtype=torch.float64)
    for lane in range(lanes):
        for start in range(length):
            factor = 1.0
            for t in range(start, min(start + n_steps, length)):
                row = batch[lane, t]
                target[lane, start] += factor * row["next", "reward"].item()
                factor *= gamma
                is_last = row["next", "done"].item() or t + 1 == length or t + 1 == start + n_steps
                if is_last or batch[lane, t + 1]["is_init"].item() or not batch[lane, t + 1][MASK].item():
                    break
            target[lane, start] += factor * value[lane, t] * (not row["next", "terminated"].item())
    return target[batch[MASK]]


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_targets_equal_those_of_a_slow_loop(n_steps, gamma):
    generator = torch.Generator().manual_seed(n_steps)
    shape = (6, 12)

    def flags(share):
        return torch.rand(*shape, 1, generator=generator) < share

    batch = make_batch(*shape)
    terminated, truncated = flags(0.1), flags(0.1)
    batch["next"].update({"terminated": terminated, "truncated": truncated, "done": terminated | truncated})
    batch["is_init"] = flags(0.1)
    batch["next", "reward"] = torch.randn(*shape, 1, dtype=torch.float64, generator=generator)
    batch["next", "value"] = torch.randn(*shape, 1, dtype=torch.float64, generator=generator)
    batch.set(MASK, flags(0.9).squeeze(-1))
    expected = slow_targets(batch, batch["next", "value"].squeeze(-1), n_steps, gamma)
    batch["next", "reward"][~batch[MASK]] = float("nan")
    batch["next", "value"][~batch[MASK]] = float("nan")
    after = MultiStep(n_steps, gamma)(batch)["next"]
    target = after["reward"] + after["gamma"] * torch.where(after["terminated"], 0, after["value"])
    torch.testing.assert_close(target[batch[MASK]].squeeze(-1), expected, atol=1e-6, rtol=1e-6)


def test_the_batch_is_not_written_to():
    batch = make_batch(2, 6, terminated=[1], masked=[4])
    before = batch.clone()
    result = MultiStep(3, 0.5, keep_partial=False)(batch.lock_())
    result["next", "reward"].zero_()
    result["next", "observation", "position"].zero_()
    assert set(batch.keys(True, True)) == set(before.keys(True, True))
    for key, value in before.items(True, True):
        assert torch.equal(value.nan_to_num(7), batch[key].nan_to_num(7)), key


def test_slices_of_a_buffer_become_n_step_rows():
    buffer = ReplayBuffer(
        TensorStorage(40), sampler=SliceSampler(3), batch_size=12, transform=MultiStep(3, 0.5), seed=0
    )
    buffer.extend(make_batch(4, 8, is_init=[0, 4], terminated=[3], truncated=[7]))
    sample = buffer.sample()
    assert sample.batch_size == (4, 3)
    first = sample["observation", "position"][:, 0]
    assert torch.equal(sample["next", "observation", "position"][:, 0], first + 3)
    assert torch.equal(sample["next", "reward"][:, 0], 3 * 2.0**first)


def test_pieces_end_where_nothing_follows():
    follows = torch.tensor([True, False, True, True, True]).unsqueeze(-1)
    first, last = piece_bounds(follows)
    assert first.tolist() == [0, 0, 2, 2, 2] and last.tolist() == [1, 1, 4, 4, 4]
    assert follows.flatten().tolist() == [True, False, True, True, True]


def test_the_sum_alone():
    reward, cut = torch.ones(4, 1), torch.tensor([False, True, False, False]).unsqueeze(-1)
    sums, num_steps, last = sum_steps(reward, cut, n_steps=3, gamma=0.5)
    assert sums.flatten().tolist() == [1.5, 1, 1.5, 1]
    assert num_steps.flatten().tolist() == [2, 1, 2, 1] and last.tolist() == [1, 1, 3, 3]


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [0, -1, 1.5, True, "3"])
def test_a_wrong_number_of_steps_is_refused(n_steps):
    with pytest.raises(ConfigError, match="MultiStep: expected n_steps, an integer of at least 1, got"):
        MultiStep(n_steps, 0.9)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan"), "0.9", True])
def test_a_wrong_discount_is_refused(gamma):
    with pytest.raises(ConfigError, match="MultiStep: expected gamma, a number between 0 and 1, got"):
        MultiStep(3, gamma)


def test_n_step_rows_are_refused():
    once = MultiStep(2, 0.5)
    with pytest.raises(SpecError, match="MultiStep: expected single transitions.*MultiStep comes once"):
        once(once(make_batch(4)))


def test_rows_without_order_are_refused():
    buffer = ReplayBuffer(TensorStorage(40), batch_size=12, transform=MultiStep(3, 0.5))
    buffer.extend(make_batch(4, 8))
    with pytest.raises(SpecError, match=r"expected slices \[N, T\] of a buffer, got \[12\].*SliceSampler"):
        buffer.sample()


def test_entries_that_are_missing_or_misshapen_are_refused():
    batch = make_batch(2, 3)
    for key in ("reward", "terminated", "truncated"):
        with pytest.raises(KeyMissing, match=f"MultiStep: expected the key .*{key}.* got .*action"):
            MultiStep(2, 0.5)(batch.exclude(("next", key)))
    with pytest.raises(SpecError, match=r"time last, got batch size \[\]"):
        MultiStep(2, 0.5)(batch[0, 0])
    with pytest.raises(SpecError, match=r"as torch.bool \[2, 3, 1\], got torch.bool \[2, 3\]"):
        MultiStep(2, 0.5)(batch.copy().set(("next", "terminated"), torch.zeros(2, 3, dtype=torch.bool)))
    with pytest.raises(SpecError, match=r"a float reward .* got torch.int64 \[2, 3, 1\]"):
        MultiStep(2, 0.5)(batch.copy().set(("next", "reward"), torch.zeros(2, 3, 1, dtype=torch.int64)))
    with pytest.raises(SpecError, match=r"a float reward .* got torch.float32 \[2, 3\]"):
        MultiStep(2, 0.5)(batch.copy().set(("next", "reward"), torch.zeros(2, 3)))
    with pytest.raises(SpecError, match=r"a bool mask of shape \[2, 3\], got torch.bool \[2, 3, 1\]"):
        MultiStep(2, 0.5)(batch.copy().set(MASK, torch.ones(2, 3, 1, dtype=torch.bool)))


# ---- batches that go on ----------------------------------------------------------------------------------------------


def make_stream(lanes, length, *, seed, first_id=0):
    """Rows of several lanes, each with endings of both kinds at random and trajectories numbered one after another."""
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(lanes, length, 1, generator=generator)
    terminated, truncated = chance < 0.1, (chance > 0.1) & (chance < 0.2)
    done = terminated | truncated
    is_init = torch.ones_like(done)
    is_init[:, 1:] = done[:, :-1]
    ids = first_id + is_init.long().flatten().cumsum(0).reshape(lanes, length)
    time = torch.arange(lanes * length, dtype=torch.float64).reshape(lanes, length, 1)
    after = {"observation": time + 0.5, "reward": torch.randn(lanes, length, 1, generator=generator).double()}
    flags = {"terminated": terminated, "truncated": truncated, "done": done}
    rows = {"observation": time, "is_init": is_init, "next": after | flags, "collector": {"traj_ids": ids}}
    return TensorDict(rows, batch_size=[lanes, length])


def valid_rows(batch):
    return batch[batch[MASK]].exclude(("collector", "mask"))


def by_observation(rows):
    return rows[rows["observation"].flatten().argsort()]


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5])
@pytest.mark.parametrize("sizes", [[1] * 40, [40], [7, 1, 1, 3, 2, 26], [2, 4, 6, 8, 20]])
def test_a_stream_gives_every_whole_row_once_however_it_is_cut(n_steps, sizes):
    whole = make_stream(3, 40, seed=n_steps)
    expected = valid_rows(MultiStep(n_steps, 0.9, keep_partial=False)(whole))
    stream = MultiStepStream(n_steps, 0.9)
    got = torch.cat([valid_rows(stream(piece)) for piece in whole.split(sizes, dim=1)])
    assert len(got) == len(expected) > 60
    torch.testing.assert_close(by_observation(got).to_dict(), by_observation(expected).to_dict())


def test_streams_of_several_workers_are_told_apart():
    """Two workers of two lanes each, whose batches come in an order of their own."""
    whole = [make_stream(2, 24, seed=seed, first_id=100 * seed) for seed in (1, 2)]
    pieces = [list(one.split(3, dim=1)) for one in whole]
    stream = MultiStepStream(4, 0.9)
    got = []
    for worker in (0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0):
        got.append(valid_rows(stream(pieces[worker].pop(0))))
    expected = torch.cat([valid_rows(MultiStep(4, 0.9, keep_partial=False)(one)) for one in whole])
    keyed = []
    for rows in (torch.cat(got), expected):
        keyed.append(rows[(rows["collector", "traj_ids"] * 1000 + rows["observation"].flatten()).argsort()])
    torch.testing.assert_close(keyed[0].to_dict(), keyed[1].to_dict())


def test_masked_rows_of_a_stream_reach_nothing():
    whole = make_stream(2, 20, seed=3)
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[:, 6:8] = False
    whole[MASK] = mask
    for value in whole["next"].values(True, True):
        if value.is_floating_point():
            value[~mask] = float("nan")
    stream = MultiStepStream(3, 0.9)
    got = torch.cat([valid_rows(stream(piece)) for piece in whole.split([5, 2, 13], dim=1)])
    expected = valid_rows(MultiStep(3, 0.9, keep_partial=False)(whole))
    torch.testing.assert_close(by_observation(got).to_dict(), by_observation(expected).to_dict())
    assert got["next", "reward"].isfinite().all()


def test_a_reset_in_the_middle_takes_nothing_up():
    stream = MultiStepStream(3, 0.5)
    first, second = make_stream(1, 4, seed=9), make_stream(1, 4, seed=9, first_id=50)
    for batch in (first, second):
        for name in ("terminated", "truncated", "done"):
            batch["next", name] = torch.zeros(1, 4, 1, dtype=torch.bool)
        batch["is_init"] = torch.tensor([True, False, False, False]).reshape(1, 4, 1)
        batch["collector", "traj_ids"] = batch["collector", "traj_ids"][:, :1].expand(1, 4).clone()
    assert len(valid_rows(stream(first))) == 2
    out = stream(second)
    assert out.batch_size == (1, 4) and len(valid_rows(out)) == 2


def test_a_stream_leaves_its_batch_alone_and_forgets_lost_workers():
    stream = MultiStepStream(3, 0.5)
    batch = make_stream(1, 4, seed=1)
    kept = batch.clone()
    for index in range(100):
        batch["collector", "traj_ids"] = kept["collector", "traj_ids"] + 1000 * index
        stream(batch)
    assert len(stream._waiting) <= stream.MAX_WAITING
    assert set(batch.keys(True)) == set(kept.keys(True))


@pytest.mark.parametrize("key", ["is_init", ("collector", "traj_ids"), ("next", "reward")])
def test_what_a_stream_needs_is_named(key):
    with pytest.raises(KeyMissing, match="MultiStep"):
        MultiStepStream(3, 0.5)(make_stream(1, 4, seed=1).exclude(key))
