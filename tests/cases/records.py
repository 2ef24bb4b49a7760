"""What each logger has written, read back by the tracker's own reader; of W&B's offline file, by its messages."""

from __future__ import annotations

import json
import math
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from torchrl.record import (
    CSVLogger,
    JSONLinesLogger,
    Logger,
    MLflowLogger,
    TensorBoardLogger,
    WandbLogger,
    read_csv,
    read_json_lines,
)


@dataclass
class Read:
    """What a record holds: numbers as ``{name: [(step, number), ...]}``, the rest by name, None where it keeps none."""

    scalars: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[str, str] | None = None
    config: dict[str, str] | None = None
    summary: dict[str, object] | None = None
    histograms: dict[str, list[int]] | None = None
    pictures: dict[str, bytes] | None = None
    videos: dict[str, bytes] | None = None


def read_from_csv(folder: Path) -> Read:
    table = read_csv(folder / "progress.csv")
    read = Read(texts={"notes": (folder / "notes.txt").read_text()})
    for name in list(table)[1:]:
        rows = [(int(step), value) for step, value in zip(table["frames"], table[name], strict=True)]
        read.scalars[name] = [row for row in rows if not math.isnan(row[1])] or rows[-1:]  # an empty cell is NaN, too
    lines = (folder / "config.txt").read_text().splitlines()
    read.config = dict(line.split(" = ") for line in lines)
    read.summary = json.loads((folder / "summary.json").read_text())
    return read


def read_from_json_lines(folder: Path) -> Read:
    read = Read(texts={}, histograms={}, pictures={}, videos={})
    for line in read_json_lines(folder / "progress.jsonl"):
        step, (kind, content) = line.pop("frames"), next(iter(line.items()))
        if kind == "scalars":
            for name, value in content.items():
                read.scalars[name].append((step, value))
        elif kind == "text":
            read.texts[content["name"]] = content["text"]
        elif kind == "histogram":
            read.histograms[content["name"]] = content["counts"]
        elif kind in ("picture", "video"):
            getattr(read, f"{kind}s")[content["name"]] = (folder / content["path"]).read_bytes()
        elif kind == "config":
            read.config = {name: str(value) for name, value in content.items()}
        else:
            read.summary = content
    return read


def read_from_tensorboard(folder: Path) -> Read:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    texts = {name: make_ndarray(events.Tensors(name)[0].tensor_proto).item().decode() for name in ("notes", "config")}
    summary = make_ndarray(events.Tensors("summary")[0].tensor_proto).item().decode()
    read = Read(texts={"notes": texts["notes"]}, config=_from_table(texts["config"]), summary=_from_table(summary))
    for name in events.Tags()["scalars"]:
        read.scalars[name] = [(event.step, event.value) for event in events.Scalars(name)]
    read.histograms = {
        name: [int(count) for count in events.Histograms(name)[0].histogram_value.bucket]
        for name in events.Tags()["histograms"]
    }
    read.pictures = {name: events.Images(name)[0].encoded_image_string for name in events.Tags()["images"]}
    assert "_hparams_/session_start_info" in events.summary_metadata
    return read


def _from_table(text: str) -> dict[str, str]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return dict(rows)


def read_from_mlflow(folder: Path) -> Read:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("torchrl").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == folder.name
    files = folder / "mlflow" / run.info.run_id / "artifacts"
    read = Read(texts={"notes": (files / "notes.md").read_text()}, config=run.data.params)
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        if not name.startswith("summary/"):
            read.scalars[name] = [(metric.step, metric.value) for metric in history]
    read.summary = json.loads((files / "summary.json").read_text())
    assert run.data.metrics["summary/eval_return_mean"] == read.summary["eval_return_mean"]
    read.pictures = {"first": (files / "pictures" / "first_000000128.png").read_bytes()}
    read.videos = {"eval/film": (files / "eval" / "film" / "film.mp4").read_bytes()}
    return read


def read_from_wandb(folder: Path) -> Read:
    import wandb

    wandb.teardown()  # its process writes on after the end of a run
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    files = file.parent / "files"
    read = Read(texts={"notes": (files / "notes.md").read_text()}, histograms={}, pictures={}, videos={})
    read.config, read.summary, saved = {}, {}, []
    for record in wandb_records(file):
        read.config |= {item.key: str(json.loads(item.value_json)) for item in record.config.update}
        read.summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
        saved += [item.path for item in record.files.files]
        row = {"/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        step = row.pop("frames", None)
        for name, value in row.items():
            parent, _, part = name.rpartition("/")
            if part == "values":
                read.histograms[parent] = value
            elif part == "path":
                assert value in saved
                kind = read.pictures if value.endswith(".png") else read.videos
                kind[parent] = (files / value).read_bytes()
            elif not name.startswith("_") and f"{parent}/_type" not in row:
                read.scalars[name].append((step, value))
    assert "notes.md" in saved  # so that it is uploaded with the rest
    return read


def wandb_records(path: Path) -> Iterator[object]:
    """Yield the messages of an offline file: records with length and kind, cut where a block of 32 KiB ends."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of a message, or the last part of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


MAKERS: dict[str, tuple[type[Logger], object]] = {
    "csv": (CSVLogger, read_from_csv),
    "jsonlines": (JSONLinesLogger, read_from_json_lines),
    "tensorboard": (TensorBoardLogger, read_from_tensorboard),
    "wandb": (WandbLogger, read_from_wandb),
    "mlflow": (MLflowLogger, read_from_mlflow),
}
KINDS = [
    pytest.param(name, marks=pytest.mark.skipif(name in ("wandb", "mlflow") and not find_spec(name), reason="no extra"))
    for name in MAKERS
]
