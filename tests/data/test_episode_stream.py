"""Whole episodes out of pieces of them: by hand, over cuts, workers, masks, and a checkpoint."""

import pytest
import torch
from tensordict import TensorDict

from fakes import CountingSimulator
from torchrl.agents import load_checkpoint, save_checkpoint
from torchrl.collectors import Collector
from torchrl.data import EpisodeStream, HindsightRelabel, MultiStep, MultiStepStream, Reward2Go, lengths_of
from torchrl.data.replay import ReplayBuffer, TensorStorage
from torchrl.envs import SerialEnv
from torchrl.envs.transforms import RewardClipping
from torchrl.errors import ConfigError, KeyMissing, SpecError

MASK = ("collector", "mask")


def make_batch(*lanes, mask=None):
    """Build ``[B, T]`` of lanes of (trajectory, step) pairs, a third entry ``True`` where its episode ends.

    The observation is 100 times the trajectory plus the step; the reward is the step plus one.
    """
    size = (len(lanes), len(lanes[0]))
    ids = torch.tensor([[row[0] for row in lane] for lane in lanes])
    steps = torch.tensor([[row[1] for row in lane] for lane in lanes]).unsqueeze(-1)
    done = torch.tensor([[len(row) > 2 for row in lane] for lane in lanes]).unsqueeze(-1)
    batch = TensorDict(
        {
            "observation": (100 * ids.unsqueeze(-1) + steps).float(),
            "is_init": steps == 0,
            "next": {
                "reward": steps + 1.0,
                "terminated": done,
                "truncated": torch.zeros_like(done),
                "done": done,
            },
            "collector": {"traj_ids": ids},
        },
        size,
    )
    return batch if mask is None else batch.set(MASK, torch.tensor(mask))


def seen(episodes):
    """Return the observations of each episode."""
    lengths = lengths_of(episodes).tolist()
    return [row[:length, 0].tolist() for row, length in zip(episodes["observation"], lengths, strict=True)]


def test_rows_wait_for_the_end_of_their_episode():
    stream = EpisodeStream()
    assert seen(stream(make_batch([(0, 0)], [(1, 0)]))) == []
    assert seen(stream(make_batch([(0, 1)], [(1, 1, True)]))) == [[100.0, 101.0]]
    assert seen(stream(make_batch([(0, 2, True)], [(2, 0, True)]))) == [[0.0, 1.0, 2.0], [200.0]]
    assert stream.state_dict()["waiting"] == {}


def test_episodes_come_in_the_order_of_their_ends_then_of_rows():
    batch = make_batch(
        [(0, 0), (0, 1), (0, 2, True)], [(1, 0, True), (3, 0), (3, 1)], [(2, 0), (2, 1, True), (4, 0, True)]
    )
    episodes = EpisodeStream()(batch)
    assert seen(episodes) == [[100.0], [200.0, 201.0], [0.0, 1.0, 2.0], [400.0]]
    assert episodes.batch_size == (4, 3) and episodes[MASK].sum(-1).tolist() == [1, 2, 3, 1]


def test_one_step_batches_get_the_return_of_the_rest():
    stream = EpisodeStream(Reward2Go(0.5))
    results = [stream(make_batch([(7, step) if step < 2 else (7, 2, True)])) for step in range(3)]
    assert [result.batch_size[0] for result in results] == [0, 0, 1]
    assert results[2]["reward_to_go"].flatten().tolist() == [1 + 0.5 * (2 + 0.5 * 3), 2 + 0.5 * 3, 3.0]
    assert set(results[0].keys(True, True)) == set(results[2].keys(True, True))


def test_one_step_batches_get_goals_that_were_reached_later():
    def with_goals(batch):
        batch["desired_goal"] = torch.full_like(batch["observation"], -1.0)
        batch["next", "desired_goal"] = batch["desired_goal"].clone()
        batch["next", "achieved_goal"] = batch["observation"] + 1
        return batch

    relabel = HindsightRelabel(lambda achieved, goal, rows: (achieved == goal).float(), strategy="final")
    stream, buffer = EpisodeStream(relabel), ReplayBuffer(TensorStorage(16), seed=0)
    for step in range(3):
        buffer.extend(stream(with_goals(make_batch([(0, step) if step < 2 else (0, 2, True)]))))
    assert buffer[:]["desired_goal"].flatten().tolist() == [-1.0, 3.0] * 3  # a step and its copy side by side
    assert buffer[:]["next", "reward"].flatten().tolist() == [1.0, 0.0, 2.0, 0.0, 3.0, 1.0]


def test_workers_of_different_sizes_take_turns():
    stream = EpisodeStream()
    assert seen(stream(make_batch([(0, 0)], [(2, 0)]))) == []
    assert seen(stream(make_batch([(1, 0)]))) == []
    assert seen(stream(make_batch([(1, 1, True)]))) == [[100.0, 101.0]]
    assert seen(stream(make_batch([(0, 1, True)], [(2, 1)]))) == [[0.0, 1.0]]


def test_an_episode_begins_anew_behind_a_masked_row_and_where_its_beginning_was_not_seen():
    batch = make_batch([(0, 0), (0, 1), (0, 2), (0, 3), (0, 4, True)], mask=[[True, True, False, True, True]])
    assert seen(EpisodeStream()(batch)) == [[3.0, 4.0]]
    stream = EpisodeStream()
    assert [seen(stream(part)) for part in batch.split(1, 1)] == [[], [], [], [], [[3.0, 4.0]]]
    assert seen(EpisodeStream()(make_batch([(0, 6), (0, 7, True)]))) == [[6.0, 7.0]]


def test_what_was_broken_off_does_not_come_out():
    stream = EpisodeStream()
    assert seen(stream(make_batch([(0, 0), (0, 1), (1, 0), (1, 1, True)]))) == [[100.0, 101.0]]
    assert stream.state_dict()["waiting"] == {}


def test_what_nobody_goes_on_with_is_given_up(monkeypatch):
    monkeypatch.setattr(EpisodeStream, "MAX_SILENCE", 2)
    stream = EpisodeStream()
    stream(make_batch([(0, 0)]))
    for step in range(3):
        assert list(stream.state_dict()["waiting"]) == ([0] if step == 0 else [0, 1])
        stream(make_batch([(1, step)]))
    assert list(stream.state_dict()["waiting"]) == [1]
    assert seen(stream(make_batch([(1, 3, True)]))) == [[100.0, 101.0, 102.0, 103.0]]


def test_rows_that_wait_are_copies():
    stream, batch = EpisodeStream(), make_batch([(0, 0)])
    stream(batch)
    batch["observation"].fill_(9.0)
    assert seen(stream(make_batch([(0, 1, True)]))) == [[0.0, 1.0]]


@pytest.mark.parametrize("make", [lambda: EpisodeStream(Reward2Go(0.9)), lambda: MultiStepStream(3, 0.9)])
def test_a_checkpoint_holds_the_rows_that_wait(make, tmp_path):
    parts = [make_batch([(0, step), (0, step + 1)], [(1, step), (1, step + 1)]) for step in (0, 2)]
    parts.append(make_batch([(0, 4), (0, 5, True)], [(1, 4, True), (2, 0)]))
    whole, half, rest = make(), make(), make()
    expected = [whole(part) for part in parts]
    for part in parts[:2]:
        half(part)
    save_checkpoint(tmp_path / "stream.pt", half.state_dict())
    rest.load_state_dict(load_checkpoint(tmp_path / "stream.pt"))
    result = rest(parts[2])
    assert result.batch_size == expected[2].batch_size and (result == expected[2]).all()
    fresh = make()(parts[2])
    assert fresh.batch_size != result.batch_size


def test_a_checkpoint_holds_the_stream_of_goals():
    def make():
        generator = torch.Generator().manual_seed(3)
        return EpisodeStream(HindsightRelabel(lambda achieved, goal, rows: goal, generator=generator))

    stream, other = make(), make()
    stream.function.generator.manual_seed(8)
    other.load_state_dict(stream.state_dict())
    assert torch.equal(other.function.generator.get_state(), stream.function.generator.get_state())


@pytest.mark.parametrize(
    "function",
    [Reward2Go(0.9), HindsightRelabel(lambda achieved, goal, rows: goal)],
    ids=["Reward2Go", "HindsightRelabel"],
)
def test_one_step_of_longer_episodes_is_refused_with_the_line_to_write(function):
    batch = make_batch([(0, 0)], [(1, 5, True)])
    for key in ("desired_goal", ("next", "desired_goal"), ("next", "achieved_goal")):
        batch[key] = batch["observation"].clone()
    name = type(function).__name__
    with pytest.raises(SpecError, match=rf"{name}: expected batches that show episodes.*EpisodeStream\({name}"):
        function(batch)
    function(batch[1:])
    function(batch.set(MASK, torch.tensor([[False], [True]])))


def test_sums_of_one_step_batches_are_referred_to_their_own_stream():
    batch = make_batch([(0, 0)])
    with pytest.raises(
        SpecError, match=r"MultiStep: expected batches that show episodes.*MultiStepStream\(n_steps, gamma"
    ):
        MultiStep(3, 0.9)(batch)
    assert MultiStep(1, 0.9)(batch)["next", "gamma"].item() == pytest.approx(0.9)
    assert MultiStep(3, 0.9)(make_batch([(0, 4, True)]))["next", "reward"].item() == 5.0


@pytest.mark.parametrize("key", ["is_init", ("next", "done"), ("collector", "traj_ids")])
def test_what_it_reads_is_named(key):
    with pytest.raises(KeyMissing, match="EpisodeStream: expected the key"):
        EpisodeStream()(make_batch([(0, 0)]).exclude(key))


def test_a_transform_of_environments_is_refused():
    with pytest.raises(ConfigError, match="EpisodeStream: expected a function of a batch, got RewardClipping"):
        EpisodeStream(RewardClipping(-1, 1))


def test_it_is_a_postproc():
    env = SerialEnv(lambda: CountingSimulator(3), 2)
    collector = Collector(env, frames_per_batch=2, seed=0, postproc=EpisodeStream(Reward2Go(1.0)))
    batches = [collector.collect() for _ in range(3)]
    assert [len(batch) for batch in batches] == [0, 0, 2] and lengths_of(batches[2]).tolist() == [3, 3]
