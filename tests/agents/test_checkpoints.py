"""Checkpoint folders: whole ones, with checksums, the last few; damaged ones and parts are never taken."""

import json
import shutil

import pytest
import torch

from cases.same import assert_same_state
from torchrl.agents import KeepCheckpoints, checkpoints_in, load_checkpoint, newest_checkpoint
from torchrl.agents.checkpoints import frames_of
from torchrl.envs import GymEnv
from torchrl.errors import CheckpointError, ConfigError, EnvError


def names_in(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture
def kept(make_agent, tmp_path):
    """The folder of a run of 512 frames, in batches of 128, with checkpoints every 150 frames; and its agent."""
    agent = make_agent(hooks=[KeepCheckpoints(150, keep=3)], folder=tmp_path / "run")
    agent.train()
    return agent.folder, agent


def test_the_last_ones_are_kept_whole_and_the_newest_goes_on_bit_for_bit(kept, make_agent):
    folder, agent = kept
    assert names_in(folder) == [
        "000000000256",
        "000000000384",
        "000000000512",
    ]  # whole batches of 128
    assert [frames_of(path) for path in checkpoints_in(folder)] == [512, 384, 256]
    newest = newest_checkpoint(folder)
    assert sorted(path.name for path in newest.iterdir()) == ["agent.pt", "checksums.json"]
    assert json.loads((newest / "checksums.json").read_text()).keys() == {"agent.pt"}
    assert_same_state(load_checkpoint(newest / "agent.pt"), agent.state_dict())
    for path in checkpoints_in(folder)[1:]:
        torch.manual_seed(1)
        other = make_agent(seed=7)
        other.load(path / "agent.pt")
        other.train()
        other.seconds = agent.seconds
        assert_same_state(other.state_dict(), agent.state_dict())


def test_a_damaged_one_is_left_out_with_a_warning(kept):
    folder, _ = kept
    last, before, first = checkpoints_in(folder)
    data = bytearray((last / "agent.pt").read_bytes())
    data[len(data) // 2] ^= 1  # one bit
    (last / "agent.pt").write_bytes(data)
    (before / "checksums.json").unlink()  # as of a folder that was copied in part
    with pytest.warns(UserWarning) as caught:
        assert newest_checkpoint(folder) == first
    assert "agent.pt, which was changed after it was written. It is left out." in str(caught[0].message)
    assert "checksums.json, which is missing. It is left out." in str(caught[1].message)
    shutil.rmtree(first)
    with pytest.warns(UserWarning):
        assert newest_checkpoint(folder) is None


def test_parts_are_ignored_and_go_with_the_next_one_and_none_is_replaced(make_agent, tmp_path):
    folder = tmp_path / "run"
    hook = KeepCheckpoints(128, keep=2)
    agent = make_agent(total_frames=128, hooks=[hook], folder=folder)
    agent.train()
    part = folder / "checkpoints" / ".partial-1-000000000999"
    shutil.copytree(newest_checkpoint(folder), part)
    assert newest_checkpoint(folder).name == "000000000128"
    other = make_agent(total_frames=128, seed=1, hooks=[KeepCheckpoints(1000, keep=2)], folder=folder)
    other.train()
    assert names_in(folder) == ["000000000128", "000000000128-2"]
    assert_same_state(load_checkpoint(newest_checkpoint(folder) / "agent.pt"), other.state_dict())
    agent.collector.total_frames = 512
    agent.train()
    assert names_in(folder) == ["000000000384", "000000000512"]


def test_a_full_disk_is_a_warning_and_the_earlier_ones_stay(make_agent, tmp_path, monkeypatch):
    agent = make_agent(total_frames=128, hooks=[KeepCheckpoints(128, keep=1)], folder=tmp_path)
    agent.train()
    agent.collector.total_frames = 256

    def refuse(content, file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("torchrl.agents.checkpoints.save_checkpoint", lambda path, state: refuse(state, path))
        with pytest.warns(UserWarning, match="The checkpoint after 256 frames is not written, training goes on: .*28"):
            agent.train()
    assert agent.frames == 256 and names_in(tmp_path) == ["000000000128"]
    agent.collector.total_frames = 384
    agent.configuration = {"a": object()}  # no file can hold it: a mistake of the program, and no full disk
    with pytest.raises(CheckpointError, match="object at state/configuration/a"):
        agent.train()


def test_environments_that_cannot_be_captured_are_named_after_the_first_batch(make_agent, tmp_path, monkeypatch):
    def refuse(self):
        raise EnvError("this simulator keeps its state to itself")

    monkeypatch.setattr(GymEnv, "state_dict", refuse)
    agent = make_agent(hooks=[KeepCheckpoints(256)], folder=tmp_path)
    with pytest.warns(UserWarning, match="begins new episodes.*keeps its state to itself") as caught:
        agent.train()
    assert len(caught) == 1


def test_numbers_below_one_are_refused():
    with pytest.raises(ConfigError, match="KeepCheckpoints: expected keep of at least 1, a whole number, got 0"):
        KeepCheckpoints(100, keep=0)
    with pytest.raises(ConfigError, match="every_frames of at least 1"):
        KeepCheckpoints(0)
