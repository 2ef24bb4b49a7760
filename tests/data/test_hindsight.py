"""Hindsight: which goals may be drawn, by hand; rewards and flags of copies; masks; the way into a buffer."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.data import HindsightRelabel, MultiStep
from torchrl.data.replay import ReplayBuffer, SliceSampler, TensorStorage
from torchrl.errors import ConfigError, KeyMissing, SpecError

MASK = ("collector", "mask")
GOAL, NEXT_GOAL, ACHIEVED = "desired_goal", ("next", "desired_goal"), ("next", "achieved_goal")


def is_reached(achieved, goal, rows):
    return (achieved == goal).all(-1, keepdim=True)


def reward_fn(achieved, goal, rows):
    return is_reached(achieved, goal, rows).float() - 1


def make_batch(*shape, terminated=(), truncated=(), is_init=(), masked=()):
    """Step t of lane n achieves 100 n + t; the goal is -1, the reward -1, the observation t. Masked goals are NaN."""
    lanes = torch.arange(torch.Size(shape[:-1]).numel()).reshape(*shape[:-1], 1)
    reached = (100.0 * lanes + torch.arange(shape[-1])).reshape(*shape, 1).repeat_interleave(2, -1)

    def flags(*steps):
        return torch.zeros(*shape, 1, dtype=torch.bool).index_fill(-2, torch.tensor(steps, dtype=torch.int64), True)

    goal = torch.full_like(reached, -1.0)
    source = {
        "observation": (reached[..., :1] % 100).clone(),
        "desired_goal": goal,
        "is_init": flags(*is_init),
        "next": {
            "desired_goal": goal.clone(),
            "achieved_goal": reached,
            "reward": torch.full((*shape, 1), -1.0),
            "terminated": flags(*terminated),
            "truncated": flags(*truncated),
            "done": flags(*terminated, *truncated),
        },
    }
    batch = TensorDict(source, batch_size=shape)
    if masked:
        for key in (GOAL, NEXT_GOAL, ACHIEVED):
            batch[key][..., list(masked), :] = float("nan")
        batch.set(MASK, ~flags(*masked).squeeze(-1))
    return batch


def goals_of(result, num_lanes=1):
    """The new goals, ``[k N, T]``."""
    return result[GOAL][num_lanes:, :, 0]


# ---- values ----------------------------------------------------------------------------------------------------------


def test_the_final_goal_is_what_the_piece_reached_last():
    batch = make_batch(2, 5, terminated=[1], is_init=[0, 2])
    result = HindsightRelabel(reward_fn, strategy="final")(batch)
    assert result.batch_size == (4, 5)
    assert goals_of(result, 2).tolist() == [[1, 1, 4, 4, 4], [101, 101, 104, 104, 104]]
    assert torch.equal(result[GOAL], result[NEXT_GOAL])
    assert result["next", "reward"][2:, :, 0].tolist() == [[-1, 0, -1, -1, 0]] * 2
    assert torch.equal(result["observation"][2:], batch["observation"])
    for key, value in batch.items(True, True):
        assert torch.equal(result[key][:2], value), key


def test_future_goals_are_those_from_this_step_to_the_end_of_the_piece():
    transform = HindsightRelabel(reward_fn, num_goals=400, generator=torch.Generator().manual_seed(0))
    goals = goals_of(transform(make_batch(6, truncated=[2], is_init=[0, 3])))
    assert goals.shape == (400, 6)
    expected = [{0, 1, 2}, {1, 2}, {2}, {3, 4, 5}, {4, 5}, {5}]
    assert [set(goals[:, t].tolist()) for t in range(6)] == expected
    assert all(abs((goals[:, 0] == goal).float().mean() - 1 / 3) < 0.08 for goal in (0, 1, 2))
    assert abs((goals[:, 1] == 1).float().mean() - 1 / 2) < 0.08


def test_episode_goals_are_those_of_the_whole_piece():
    transform = HindsightRelabel(
        reward_fn, strategy="episode", num_goals=300, generator=torch.Generator().manual_seed(0)
    )
    goals = goals_of(transform(make_batch(1, 5, is_init=[2])))  # begins anew without an ending
    assert [set(goals[:, t].tolist()) for t in range(5)] == [{0, 1}] * 2 + [{2, 3, 4}] * 3


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
def test_goals_never_cross_lanes_episodes_trajectories_or_masked_rows(strategy):
    batch = make_batch(2, 3, 9, terminated=[1], masked=[4], is_init=[0, 2])
    batch.set(("collector", "traj_ids"), (torch.arange(9) >= 7).long().expand(2, 3, 9).clone())
    piece = torch.tensor([0, 0, 1, 1, -1, 2, 2, 3, 3])
    num = 1 if strategy == "final" else 50
    result = HindsightRelabel(reward_fn, strategy=strategy, num_goals=num)(batch)
    assert result.batch_size == (6 * (1 + num), 9)
    valid = result[MASK]
    assert torch.equal(valid, batch[MASK].reshape(6, 9).repeat(1 + num, 1))
    goal = result[GOAL][6:, :, 0].nan_to_num(0).long()
    lane = torch.arange(6).repeat(num)[:, None]
    assert bool((goal // 100 == lane)[valid[6:]].all())
    assert bool((piece[goal % 100] == piece)[valid[6:]].all())
    assert not result[valid]["next", "reward"].isnan().any()


def test_masked_rows_stay_as_they_are_and_nobody_sees_them():
    seen = []

    def spy(achieved, goal, rows):
        seen.append((achieved, goal, rows))
        return reward_fn(achieved, goal, rows)

    result = HindsightRelabel(spy, num_goals=3)(make_batch(2, 4, masked=[1]))
    achieved, goal, rows = seen[0]
    assert achieved.shape == goal.shape == (18, 2) and rows.batch_size == (18,) and len(seen) == 1
    assert not achieved.isnan().any() and not goal.isnan().any()
    assert torch.equal(rows[GOAL], goal) and torch.equal(rows[NEXT_GOAL], goal)
    assert result[GOAL][:, 1].isnan().all() and (result["next", "reward"][:, 1] == -1).all()


def test_the_defaults_are_four_future_goals():
    result = HindsightRelabel(reward_fn)(make_batch(2, 3))
    assert result.batch_size == (10, 3)
    assert bool((goals_of(result, 2) % 100 >= torch.arange(3)).all())


# ---- flags -----------------------------------------------------------------------------------------------------------


def test_flags_are_copied_without_a_function_for_them():
    result = HindsightRelabel(reward_fn, strategy="final")(make_batch(4, terminated=[1], truncated=[3]))
    for name, steps in (("terminated", [1]), ("truncated", [3]), ("done", [1, 3])):
        assert result["next", name][1].flatten().nonzero().flatten().tolist() == steps


def test_a_copy_is_over_where_its_own_goal_was_reached():
    transform = HindsightRelabel(reward_fn, strategy="final", terminated_fn=is_reached)
    result = transform(make_batch(5, truncated=[2], is_init=[0, 3]))
    assert result["next", "terminated"].squeeze(-1).int().tolist() == [[0] * 5, [0, 0, 1, 0, 1]]
    assert result["next", "truncated"].squeeze(-1).int().tolist() == [[0, 0, 1, 0, 0]] * 2
    assert result["next", "done"].squeeze(-1).int().tolist() == [[0, 0, 1, 0, 0], [0, 0, 1, 0, 1]]


def test_a_copy_is_cut_where_the_episode_was_over_but_its_task_was_not():
    never = HindsightRelabel(
        reward_fn, strategy="final", terminated_fn=lambda achieved, goal, rows: torch.zeros(len(rows), 1).bool()
    )
    result = never(make_batch(4, terminated=[1], masked=[3]))["next"]
    assert result["terminated"].squeeze(-1).int().tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert result["truncated"].squeeze(-1).int().tolist() == [[0, 0, 0, 0], [0, 1, 0, 0]]
    assert result["done"].squeeze(-1).int().tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]
    bare = never(make_batch(4, terminated=[1]).exclude(("next", "done")))
    assert ("next", "done") not in bare.keys(True)
    assert bare["next", "truncated"][1].flatten().int().tolist() == [0, 1, 0, 0]


# ---- laws ------------------------------------------------------------------------------------------------------------


def test_nested_keys_and_goals_of_several_dimensions():
    batch = make_batch(2, 3)
    pixels = torch.arange(6, dtype=torch.uint8).reshape(2, 3, 1, 1).expand(2, 3, 4, 5)
    batch["observation"] = {"goal": torch.zeros_like(pixels), "seen": pixels.clone()}
    batch["next", "observation"] = batch["observation"].clone()
    transform = HindsightRelabel(
        lambda achieved, goal, rows: (achieved == goal).flatten(1).all(-1, keepdim=True).float(),
        goal_key=("observation", "goal"),
        achieved_key=("observation", "seen"),
        strategy="final",
    )
    result = transform(batch)
    assert result["observation", "goal"][2:, :, 0, 0].tolist() == [[2, 2, 2], [5, 5, 5]]
    assert result["next", "observation", "goal"].dtype is torch.uint8
    assert result["next", "reward"][2:, :, 0].tolist() == [[0, 0, 1]] * 2


def test_the_generator_decides_alone():
    batch = make_batch(3, 8)
    one, two = (HindsightRelabel(reward_fn, generator=torch.Generator().manual_seed(5))(batch) for _ in range(2))
    assert torch.equal(one[GOAL], two[GOAL])
    transform = HindsightRelabel(reward_fn, generator=torch.Generator().manual_seed(5))
    state = torch.get_rng_state()
    assert not torch.equal(transform(batch)[GOAL], transform(batch)[GOAL])
    assert torch.equal(state, torch.get_rng_state())


def test_the_batch_is_not_written_to():
    batch = make_batch(2, 5, terminated=[2], masked=[4])
    before = batch.clone()
    result = HindsightRelabel(reward_fn, terminated_fn=is_reached)(batch.lock_())
    result.apply_(lambda leaf: leaf.zero_())
    for key, value in before.items(True, True):
        assert torch.equal(value.nan_to_num(7), batch[key].nan_to_num(7)), key


def test_copies_in_a_buffer_are_slices_in_time():
    buffer = ReplayBuffer(TensorStorage(100), sampler=SliceSampler(3), batch_size=60, seed=0)
    transform = HindsightRelabel(reward_fn, strategy="final")
    buffer.extend(transform(make_batch(2, 4, is_init=[0], terminated=[3])))
    buffer.extend(transform(make_batch(2, 4, is_init=[0], truncated=[3])))
    assert len(buffer) == 32
    sample = buffer.sample()
    time, goal = sample["observation"].squeeze(-1), sample[GOAL][..., 0]
    assert bool((time[:, 1:] == time[:, :-1] + 1).all())
    assert bool((goal == goal[:, :1]).all()) and set(goal[:, 0].tolist()) == {-1, 3, 103}


@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
def test_nothing_gives_nothing(shape):
    assert HindsightRelabel(reward_fn)(make_batch(*shape)).batch_size == (5 * shape[0], shape[1])


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="expected a strategy of future, final, episode, got 'last'"):
        HindsightRelabel(reward_fn, strategy="last")
    for num in (0, 1.5, True):
        with pytest.raises(ConfigError, match="expected num_goals, an integer of at least 1, got"):
            HindsightRelabel(reward_fn, num_goals=num)
    with pytest.raises(ConfigError, match="num_goals 1 with the strategy 'final', got 4. All copies would be alike"):
        HindsightRelabel(reward_fn, strategy="final", num_goals=4)


def test_missing_and_misshapen_goals_are_refused():
    for key in (GOAL, NEXT_GOAL, ACHIEVED):
        with pytest.raises(KeyMissing, match="HindsightRelabel: expected the key .*goal"):
            HindsightRelabel(reward_fn)(make_batch(2, 3).exclude(key))
    batch = make_batch(2, 3).set(GOAL, torch.zeros(2, 3, 1))
    with pytest.raises(SpecError, match=r"look like what was achieved, torch.float32 \[2, 3, 2\], got .* \[2, 3, 1\]"):
        HindsightRelabel(reward_fn)(batch)


def test_functions_that_give_something_else_are_refused():
    with pytest.raises(SpecError, match=r"float32 \[24, 1\] from reward_fn, got torch.float32 \[24\].*keepdim"):
        HindsightRelabel(lambda achieved, goal, rows: achieved[:, 0])(make_batch(2, 3))
    with pytest.raises(SpecError, match=r"from reward_fn, got torch.bool \[24, 1\]"):
        HindsightRelabel(is_reached)(make_batch(2, 3))
    with pytest.raises(SpecError, match="from reward_fn, got int"):
        HindsightRelabel(lambda achieved, goal, rows: 0)(make_batch(2, 3))
    with pytest.raises(SpecError, match=r"bool \[24, 1\] from terminated_fn, got torch.float32"):
        HindsightRelabel(reward_fn, terminated_fn=reward_fn)(make_batch(2, 3))


def test_n_step_rows_are_refused():
    with pytest.raises(SpecError, match="HindsightRelabel: expected single transitions"):
        HindsightRelabel(reward_fn)(MultiStep(2, 0.5)(make_batch(3)))
