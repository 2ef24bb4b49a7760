"""Checkpoint files: what comes back, and what a bad file says."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from torchrl.agents import load_checkpoint, save_checkpoint
from torchrl.agents.checkpoint import match_compiled, require_fit, strip_compiled
from torchrl.errors import CheckpointError

STATE = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "empty": {},
    "nested": {"list": [1, 2.5, None, True, "text", b"bytes"], "tuple": (1, (2, torch.ones(1)))},
    3: {"big": 2**127 + 1, "infinite": -float("inf")},
}


def test_tensors_and_plain_values_come_back_with_their_types(tmp_path):
    save_checkpoint(tmp_path / "deep" / "a.pt", STATE)
    state = load_checkpoint(tmp_path / "deep" / "a.pt")
    assert torch.equal(state.pop("weight"), STATE["weight"])
    assert torch.equal(state["nested"].pop("tuple")[1][1], torch.ones(1))
    assert state == {"empty": {}, "nested": {"list": [1, 2.5, None, True, "text", b"bytes"]}, 3: STATE[3]}
    assert [type(value) for value in state["nested"]["list"]] == [int, float, type(None), bool, str, bytes]


@pytest.mark.parametrize("name", ["run", "run.1", ".run", "run.v2.final", "run."])
def test_a_name_needs_no_suffix(tmp_path, name):
    save_checkpoint(tmp_path / name, {"number": 3})
    assert load_checkpoint(tmp_path / name) == {"number": 3}
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3, dtype=np.uint32),
        np.full((2, 0, 3), 1.0),
        np.array(2.5),
        np.array([True, False]),
        np.array([2**63 + 1], np.uint64),
        np.arange(6).reshape(2, 3).T,
        np.float64(0.1),
        np.int64(-3),
        np.bool_(True),
    ],
)
def test_numpy_arrays_and_numbers_come_back_as_such(tmp_path, array):
    save_checkpoint(tmp_path / "a.pt", {"array": array})
    came = load_checkpoint(tmp_path / "a.pt")["array"]
    assert type(came) is type(array) and came.dtype == array.dtype
    np.testing.assert_array_equal(came, array, strict=True)


def test_tensordicts_come_back_as_such(tmp_path):
    root = TensorDict({"a": torch.ones(2, 3), ("next", "b"): torch.zeros(2, dtype=torch.bool)}, batch_size=[2])
    save_checkpoint(tmp_path / "a.pt", {"root": root})
    came = load_checkpoint(tmp_path / "a.pt")["root"]
    assert came.batch_size == (2,) and set(came.keys(True, True)) == {"a", ("next", "b")} and (came == root).all()


def test_a_view_does_not_drag_its_storage_into_the_file(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"row": torch.zeros(1000, 1000)[0]})
    assert (tmp_path / "a.pt").stat().st_size < 20_000


def test_shared_tensors_are_written_once(tmp_path):
    weight = torch.zeros(100_000)
    save_checkpoint(tmp_path / "a.pt", {"loss": {"w": weight}, "policy": {"w": weight}})
    assert (tmp_path / "a.pt").stat().st_size < 500_000


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["a"]), np.array([None]), lambda: 0, np.str_("a")])
def test_what_is_not_data_is_refused_with_its_place_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"number": 1})
    with pytest.raises(CheckpointError, match="state/inner/0"):
        save_checkpoint(path, {"inner": [value]})
    assert load_checkpoint(path) == {"number": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"number": 1})

    def write_half(content, target):
        target.write(b"PK\x03\x04")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"number": 2})
    assert load_checkpoint(path) == {"number": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"a\.pt.*cannot be written"):
        save_checkpoint(tmp_path / "file" / "a.pt", {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing at .*none\.pt"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_file_cut_short_anywhere_is_said_to_be(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for length in (4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut short: .*a\.pt"):
            load_checkpoint(path)


def test_other_files_are_no_checkpoints(tmp_path):
    path = tmp_path / "a.pt"
    for content in (b"", b"hello", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="no checkpoint"):
            load_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(CheckpointError, match="does not load"):
        load_checkpoint(path)
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="other content"):
        load_checkpoint(path)


def test_code_in_a_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"format": "torchrl checkpoint", "version": 2, "state": Trap()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="does not load"):
        load_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "sprung").exists()


def test_another_version_is_refused(tmp_path):
    torch.save({"format": "torchrl checkpoint", "version": 99, "state": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="version 2, got version 99"):
        load_checkpoint(tmp_path / "a.pt")


def test_what_does_not_fit_is_listed_by_key_and_shape():
    have = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(())}
    require_fit("actor", have, {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(())})
    with pytest.raises(CheckpointError) as caught:
        require_fit("actor", have, {"a": torch.zeros(2, 1), "b": torch.zeros(3), "d": torch.zeros(1)})
    for part in ("actor", "a has shape [2, 1] instead of [2]", "c is missing", "d is not part of it"):
        assert part in str(caught.value)
    assert "b " not in str(caught.value).split("got ")[1].split(". ")[0]


def test_names_of_compiled_modules_fit_plain_ones_and_the_reverse():
    plain, compiled = {"actor.weight": 1, "bias": 2}, {"_orig_mod.actor._orig_mod.weight": 1, "bias": 2}
    assert strip_compiled(compiled) == strip_compiled(plain) == plain
    for state in (plain, compiled):
        assert match_compiled(state, plain) == plain and match_compiled(state, compiled) == compiled
    assert match_compiled({"_orig_mod.other": 3}, plain) == {"other": 3}  # for a message that names it


@pytest.mark.parametrize("name", ["", "folder", "missing/"])
def test_a_name_that_is_no_files_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=f"expected the name of a file, got '{name}'. Write agent.save"):
        save_checkpoint(name, {})
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
