"""Read the arrays in Minari's files: HDF5, Arrow and Parquet behind one interface. Knows no transitions."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from torchrl.errors import SpecError, StorageError, explain
from torchrl.extras import require

FILE, ABOUT = "main_data.hdf5", "metadata.json"
TABLES = ("arrow", "parquet")
JPEG_START = bytes([0xFF, 0xD8, 0xFF])


class Format(Protocol):
    """Interface of a reader of one dataset's files; a *node* is the file library's object for an entry or a group."""

    path: Path

    def numbers(self) -> list[int]:
        """Return the numbers of the episodes, increasing."""

    def episodes(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield each of these episodes: its number, and the node that holds its entries."""

    def about(self, number: int) -> dict[str, Any]:
        """Return the metadata of an episode."""

    def names(self, node: Any) -> list[str] | None:
        """Return the names inside a group node (of a tuple ``"0"``, ``"1"``, …); None if the node is an entry."""

    def child(self, node: Any, name: str) -> Any:
        """Return the node of this name inside a node, or raise KeyError."""

    def array(self, node: Any) -> np.ndarray:
        """Return an entry as an array, its first dimension time: numbers, or objects (text, bytes, arrays)."""


class Hdf5(Format):
    """Read Minari's format HDF5: one file, with a group for each episode.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._h5py = require("h5py", extra="minari", purpose="read_minari")

    def numbers(self) -> list[int]:
        with self._open() as file:
            names = [name.removeprefix("episode_") for name in file if name.startswith("episode_")]
        return sorted(int(name) for name in names if name.isdecimal())

    def episodes(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        with self._open() as file:
            for number in numbers:
                yield number, file[f"episode_{number}"]

    def about(self, number: int) -> dict[str, Any]:
        with self._open() as file:
            flat = {key: _plain(value) for key, value in file[f"episode_{number}"].attrs.items()}
        nested: dict[str, Any] = {}
        for key, value in flat.items():
            *above, last = key.split("/")  # Minari writes {"options": {"goal": 1}} as "options/goal"
            level = nested
            for name in above:
                level = level.setdefault(name, {})
            level[last] = value
        return nested

    def names(self, node: Any) -> list[str] | None:
        if not isinstance(node, self._h5py.Group):
            return None
        return [name.removeprefix("_index_") for name in node]

    def child(self, node: Any, name: str) -> Any:
        # A name with "/" leads through groups, as h5py made them when it was written.
        return node[f"_index_{name}" if f"_index_{name}" in node else name]

    def array(self, node: Any) -> np.ndarray:
        return np.asarray(node[()])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            file = self._h5py.File(self.path, "r")
        except OSError as error:
            expected = f"a whole HDF5 file {self.path}"
            raise StorageError(explain("read_minari", expected=expected, got=str(error))) from error
        with file:
            yield file


class _Column(NamedTuple):
    """Hold a column of a table: pyarrow's values, and the shape of each row where the file notes it."""

    values: Any
    shape: tuple[int, ...] | None = None


class Tables(Format):
    """Read Minari's formats Arrow and Parquet: a folder of files for each episode.

    Args:
        path: the folder that holds the episodes' folders.
        name: ``"arrow"`` or ``"parquet"``.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name
        purpose = f"read_minari of the format {name}"
        self._arrow = require("pyarrow", extra="minari-arrow", purpose=purpose)
        self._dataset = require("pyarrow.dataset", extra="minari-arrow", purpose=purpose)

    def numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self.path.iterdir() if path.name.isdecimal() and path.is_dir())

    def episodes(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        ignored = ["_", ".", ABOUT]
        for number in numbers:
            folder = self.path / str(number)
            try:
                table = self._dataset.dataset(str(folder), format=self._name, ignore_prefixes=ignored).to_table()
            except (OSError, self._arrow.ArrowInvalid) as error:
                expected = f"whole files of the format {self._name} in {folder}"
                raise StorageError(explain("read_minari", expected=expected, got=str(error))) from error
            columns = _Column(table.to_struct_array().combine_chunks())
            entries = {name: self.child(columns, name) for name in table.column_names}
            # All columns have a row for the last observation; of what happens between two, that is no step.
            for name in ("actions", "rewards", "terminations", "truncations"):
                if name in entries:
                    entries[name] = entries[name]._replace(values=entries[name].values[:-1])
            yield number, entries

    def about(self, number: int) -> dict[str, Any]:
        path = self.path / str(number) / ABOUT
        return read_json(path) if path.is_file() else {}

    def names(self, node: _Column | dict) -> list[str] | None:
        if isinstance(node, dict):
            return list(node)
        kind = node.values.type
        return [field.name for field in kind] if self._arrow.types.is_struct(kind) else None

    def child(self, node: _Column | dict, name: str) -> _Column:
        if isinstance(node, dict):
            return node[name]
        values = node.values.field(name)
        about = node.values.type.field(name).metadata or {}
        sizes = about.get(b"shape", b"").split(b",")  # of an info; observations have a space that knows
        return _Column(values, tuple(int(size) for size in sizes if size) if b"shape" in about else None)

    def array(self, node: _Column) -> np.ndarray:
        values = node.values
        if not self._arrow.types.is_fixed_size_list(values.type):
            return values.to_numpy(zero_copy_only=False)
        shape = (values.type.list_size,) if node.shape is None else node.shape
        return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), *shape)


def open_format(folder_or_file: Path) -> tuple[Format, dict[str, Any]] | None:
    """Return the reader of a dataset and its ``metadata.json`` as a dict; None if there is no dataset.

    Args:
        folder_or_file: the folder of a dataset, the folder ``data`` in it, or an HDF5 file.

    Raises:
        StorageError: the format is none of these, or ``metadata.json`` is damaged.
        MissingExtraError: the library that reads the format is not installed.
    """
    if folder_or_file.is_file():
        about = folder_or_file.parent / ABOUT
        has_about = folder_or_file.name == FILE and about.is_file()
        return Hdf5(folder_or_file), read_json(about) if has_about else {}
    for folder in (folder_or_file, folder_or_file / "data"):
        about = folder / ABOUT
        metadata = read_json(about) if about.is_file() else {}
        if (folder / FILE).is_file():
            return Hdf5(folder / FILE), metadata
        name = metadata.get("data_format")
        if name in TABLES:
            return Tables(folder, name), metadata
        if name is not None:
            expected = f"one of the formats hdf5, {', '.join(TABLES)} in {folder}"
            got = f"no file {FILE}" if name == "hdf5" else repr(name)
            raise StorageError(explain("read_minari", expected=expected, got=got))
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file as a dict.

    Raises:
        StorageError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(explain("read_minari", expected=f"a whole file {path}", got=str(error))) from error
    if not isinstance(content, dict):
        raise StorageError(explain("read_minari", expected=f"a JSON object in {path}", got=type(content).__name__))
    return content


def decode_pictures(who: str, codes: Sequence[Any]) -> np.ndarray:
    """Decode JPEG pictures to one array, uint8 ``[T, H, W]`` or ``[T, H, W, C]``.

    Args:
        who: for messages.
        codes: the JPEG code of each picture, bytes or uint8.

    Raises:
        SpecError: pictures of different sizes, or bytes that are no picture.
        MissingExtraError: pillow is not installed.
    """
    image = require("PIL.Image", extra="minari", purpose="read_minari of pictures in JPEG's code")
    try:
        pictures = [np.asarray(image.open(io.BytesIO(bytes(code))), dtype=np.uint8) for code in codes]
    except OSError as error:
        raise SpecError(explain(who, expected="pictures in JPEG's code", got=str(error))) from error
    sizes = sorted({picture.shape for picture in pictures})
    if len(sizes) > 1:
        raise SpecError(explain(who, expected="pictures of one size", got=[list(size) for size in sizes]))
    return np.stack(pictures)


def _plain(value: Any) -> Any:
    """Convert numpy's numbers and arrays, at any depth, to Python's, which JSON can hold."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
