"""Files that are whole or absent."""

import pytest

from torchrl.files import (
    damage_of,
    link_folder,
    remove_folder,
    remove_partial,
    sums_of,
    write_whole,
    write_whole_folder,
)


def test_the_file_appears_only_at_the_end_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with write_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.suffix == ".txt"
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_keeps_the_old_file_and_leaves_no_part(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with write_whole(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), write_whole(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def make_folder(path, **texts):
    with write_whole_folder(path) as temporary:
        assert not path.exists()
        for name, text in texts.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_text(text)
    return path


def test_a_folder_appears_only_at_the_end_with_the_sums_of_its_files(tmp_path):
    folder = make_folder(tmp_path / "new" / "a", **{"b": "abc", "c/d": ""})
    assert sums_of(folder) == {
        "b": {"bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        "c/d": {"bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    }
    assert [path.name for path in folder.parent.iterdir()] == ["a"] and damage_of(folder) == ""
    with pytest.raises(FileExistsError):
        make_folder(folder, b="other")
    with pytest.raises(KeyboardInterrupt), write_whole_folder(tmp_path / "new" / "e") as temporary:
        (temporary / "half").touch()
        raise KeyboardInterrupt
    assert [path.name for path in folder.parent.iterdir()] == ["a"] and (folder / "b").read_text() == "abc"


def test_every_kind_of_damage_is_named(tmp_path):
    folder = make_folder(tmp_path / "a", **{"b": "abc", "c/d": "xyz"})
    (folder / "b").write_text("abd")
    assert damage_of(folder) == "b, which was changed after it was written"
    (folder / "b").write_text("abc")
    (folder / "c" / "d").unlink()
    assert damage_of(folder) == "c/d, which is missing"
    for text in ('{"b": ', '["b"]'):
        (folder / "checksums.json").write_text(text)
        assert damage_of(folder).startswith("checksums.json, which cannot be read")
    (folder / "checksums.json").unlink()
    assert damage_of(folder) == "checksums.json, which is missing"


def test_a_linked_folder_shares_the_files_and_outlives_the_first(tmp_path):
    folder = make_folder(tmp_path / "a", **{"b": "abc", "c/d": "xyz"})
    link_folder(folder, tmp_path / "runs" / "e")
    other = tmp_path / "runs" / "e"
    assert other.joinpath("c", "d").samefile(folder / "c" / "d") and sums_of(other) == sums_of(folder)
    remove_folder(folder)
    assert damage_of(other) == "" and [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_only_what_is_not_whole_is_removed(tmp_path):
    folder = make_folder(tmp_path / "a", b="abc")
    (tmp_path / ".partial-7-c" / "d").mkdir(parents=True)
    (tmp_path / ".partial-7-e").touch()
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and damage_of(folder) == ""
