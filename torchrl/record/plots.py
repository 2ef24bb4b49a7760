"""Pictures of a run, drawn from its table. Not a dashboard: one call, one file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchrl.errors import KeyMissing, explain, nearest
from torchrl.extras import require
from torchrl.files import write_whole
from torchrl.record.bootstrap import bootstrap_interval
from torchrl.record.csv import STEP, read_csv

RETURNS = ("eval/return_mean", "train/episode_return")
_COLOURS = ("#1f6feb", "#d9730d", "#2f9e44", "#8250df", "#c2255c")
_STYLES = ("-", "--", ":", "-.")  # one for each round of the colours
Run = tuple[Sequence[float], Sequence[float]]  # frames, ascending, and a value at each
_WINDOW = 0.02  # share of the points that the smooth line averages over


def learning_curve(
    csv_path: str | os.PathLike,
    png_path: str | os.PathLike,
    metrics: Sequence[str] | None = None,
    *,
    title: str = "",
) -> None:
    """Draw metrics of a run over frames, one panel each, into a picture file.

    A metric with many points is drawn faintly, with its running mean on top. ``<name>_mean`` gets a band of the width
    of ``<name>_std`` where the table has it. Of rows that a resumed run wrote a second time the later ones count.

    >>> from torchrl.record import CSVLogger
    >>> with CSVLogger(folder) as logger:
    ...     logger.log_scalars({"train/episode_return": 20.0}, step=128)
    >>> learning_curve(folder / "progress.csv", folder / "curve.png", title="CartPole-v1")
    >>> (folder / "curve.png").read_bytes()[1:4]
    b'PNG'

    Args:
        csv_path: a table that :class:`~torchrl.record.CSVLogger` wrote.
        png_path: of the picture; its suffix chooses the format. Written whole or not at all.
        metrics: columns of the table; None draws the evaluation and training returns, as far as the table has them.
        title: above the panels.

    Raises:
        MissingExtraError: matplotlib is not installed.
        KeyMissing: the table lacks a metric, or has no return to draw.
    """
    table = read_csv(csv_path)
    if metrics is None:
        metrics = [name for name in RETURNS if name in table] or RETURNS
    _require_metrics("learning_curve", table, metrics)
    figure, panels = _panels("learning_curve", metrics, title)
    for panel, name, colour in zip(panels, metrics, _COLOURS * len(metrics), strict=False):
        _draw(panel, table, name, colour)
    _write(figure, png_path)


def spread_curve(
    csv_paths: Sequence[str | os.PathLike],
    png_path: str | os.PathLike,
    metrics: Sequence[str] | None = None,
    *,
    title: str = "",
) -> None:
    """Draw metrics of several runs over frames: each run faintly, their mean, and its 95 % bootstrap interval.

    Runs are joined by lines between their points; mean and interval are over the runs that have come so far.

    >>> from torchrl.record import CSVLogger
    >>> for seed in (0, 1):
    ...     with CSVLogger(folder / str(seed)) as logger:
    ...         logger.log_scalars({"eval/return_mean": 20.0 + seed}, step=128)
    >>> spread_curve([folder / "0" / "progress.csv", folder / "1" / "progress.csv"], folder / "curves.png")
    >>> (folder / "curves.png").read_bytes()[1:4]
    b'PNG'

    Args:
        csv_paths: a table of each run, that :class:`~torchrl.record.CSVLogger` wrote.
        png_path: of the picture; its suffix chooses the format. Written whole or not at all.
        metrics: columns of the tables; None draws the evaluation and training returns, as far as all tables have them.
        title: above the panels.

    Raises:
        MissingExtraError: matplotlib is not installed.
        KeyMissing: a table lacks a metric, or has no return to draw.
    """
    tables = [read_csv(path) for path in csv_paths]
    if metrics is None:
        metrics = [name for name in RETURNS if all(name in table for table in tables)] or RETURNS
    for table in tables:
        _require_metrics("spread_curve", table, metrics)
    figure, panels = _panels("spread_curve", metrics, title)
    for panel, name, colour in zip(panels, metrics, _COLOURS * len(metrics), strict=False):
        runs = [_smooth(*latest_points(table[STEP], table[name]), _WINDOW) for table in tables]
        _draw_runs(panel, runs, colour, None)
        _finish(panel, name)
    _write(figure, png_path)


def group_curves(
    groups: Mapping[str, Mapping[str, Sequence[str | os.PathLike]]],
    png_path: str | os.PathLike,
    metric: str,
    *,
    x: str = STEP,
    smooth: float = 0.0,
    title: str = "",
) -> list[dict[str, str | float]]:
    """Draw a metric of groups of runs, a panel for each task: the mean of each group, and its 95 % bootstrap interval.

    >>> from torchrl.record import CSVLogger
    >>> for seed in (0, 1):
    ...     with CSVLogger(folder / str(seed)) as logger:
    ...         logger.log_scalars({"eval/return_mean": 20.0 + seed}, step=128)
    >>> tables = [folder / "0" / "progress.csv", folder / "1" / "progress.csv"]
    >>> group_curves({"CartPole-v1": {"ppo": tables}}, folder / "curves.png", "eval/return_mean")
    [{'task': 'CartPole-v1', 'group': 'ppo', 'frames': 128.0, 'mean': 20.5, 'low': 20.0, 'high': 21.0, 'runs': 2}]

    Args:
        groups: the tables of :class:`~torchrl.record.CSVLogger` of each group's runs, by task, then by group.
        png_path: of the picture; its suffix chooses the format. Written whole or not at all.
        metric: a column of all tables.
        x: the column that runs over, ``"frames"`` or ``"time/seconds"``.
        smooth: share of a run's points that each point is the mean of, itself and those before it.
        title: above the panels.

    Returns:
        What was drawn: at each point of a group mean, ends of the interval (NaN for one run), and number of runs.

    Raises:
        MissingExtraError: matplotlib is not installed.
        KeyMissing: a table lacks the metric, or a group has no number of it.
    """
    figure, panels = _panels("group_curves", list(groups), title)
    panels[-1].set_xlabel(x)
    drawn = []
    for panel, (task, members) in zip(panels, groups.items(), strict=True):
        for number, (group, paths) in enumerate(members.items()):
            tables = [read_csv(path) for path in paths]
            for table in tables:
                _require_metrics("group_curves", table, [metric, x])
            runs = [_smooth(*latest_points(table[x], table[metric]), smooth) for table in tables]
            if not any(values for _, values in runs):
                got = f"none of {task}, {group}"
                raise KeyMissing(explain("group_curves", expected=f"a number of {metric!r}", got=got))
            colour, style = _COLOURS[number % len(_COLOURS)], _STYLES[number // len(_COLOURS) % len(_STYLES)]
            points = zip(*_draw_runs(panel, runs, colour, group, style), strict=True)
            names = (x, "mean", "low", "high", "runs")
            rows = (dict(zip(names, (*map(float, point[:4]), int(point[4])), strict=True)) for point in points)
            drawn += [{"task": task, "group": group} | row for row in rows]
        if sum(map(len, groups.values())) > 1:
            panel.legend(fontsize=8, frameon=False)
        _finish(panel, f"{task}: {metric}")
    _write(figure, png_path)
    return drawn


def _smooth(xs: list[float], values: list[float], share: float) -> tuple[list[float], list[float]]:
    return xs, running_mean(values, max(1, round(share * len(values))))


def _draw_runs(
    panel: Any, runs: Sequence[Run], colour: str, label: str | None, style: str = "-"
) -> tuple[np.ndarray, ...]:
    """Draw runs, their mean and its interval; return what :func:`spread_of` says of them."""
    if len(runs) > 1:
        for xs, values in runs:
            panel.plot(xs, values, color=colour, alpha=0.25, linewidth=0.8)
    xs, mean, low, high, number = spread_of(runs)
    panel.plot(xs, mean, color=colour, linewidth=1.8, linestyle=style, label=label)
    panel.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    return xs, mean, low, high, number


def spread_of(runs: Sequence[Run], max_points: int = 400) -> tuple[np.ndarray, ...]:
    """Return frames, and at each of them the mean over runs, the ends of its interval, and the number of runs.

    >>> frames, mean, low, high, number = spread_of([([0, 10], [0.0, 10.0]), ([5], [7.0])])
    >>> mean.tolist(), low.tolist(), number.tolist()  # at 0, 5 and 10
    ([0.0, 6.0, 10.0], [nan, 5.0, nan], [1, 2, 1])

    Args:
        runs: frames, ascending, and values of each.
        max_points: of more frames than this, as many are taken, evenly.
    """
    frames = np.unique(np.concatenate([np.asarray(one, dtype=float) for one, _ in runs]))
    if len(frames) > max_points:
        frames = frames[np.linspace(0, len(frames) - 1, max_points).round().astype(int)]
    lines = [np.interp(frames, *run, left=np.nan, right=np.nan) if len(run[0]) else frames * np.nan for run in runs]
    values, mean = np.array(lines), np.full(len(frames), np.nan)  # [R, X]
    low, high, has = mean.copy(), mean.copy(), np.isfinite(values)
    for present in np.unique(has, axis=1).T:  # the same runs at once
        columns = (has == present[:, None]).all(0)
        if present.any():
            mean[columns] = values[present][:, columns].mean(0)
            low[columns], high[columns] = bootstrap_interval(values[present][:, columns])
    return frames, mean, low, high, has.sum(0)


def _draw(panel: Any, table: dict[str, list[float]], name: str, colour: str) -> None:
    frames, values = latest_points(table[STEP], table[name])
    window = max(1, round(_WINDOW * len(values)))
    mean = running_mean(values, window)
    if window > 1:
        panel.plot(frames, values, color=colour, alpha=0.25, linewidth=0.8)
    panel.plot(frames, mean, color=colour, linewidth=1.8, marker="o" if len(values) <= 40 else "", markersize=3.5)
    spread = table.get(name.removesuffix("_mean") + "_std") if name.endswith("_mean") else None
    if spread is not None:
        deviation = dict(zip(*latest_points(table[STEP], spread), strict=True))
        widths = [deviation.get(frame, 0.0) for frame in frames]
        low = [value - width for value, width in zip(mean, widths, strict=True)]
        high = [value + width for value, width in zip(mean, widths, strict=True)]
        panel.fill_between(frames, low, high, color=colour, alpha=0.15, linewidth=0)
    _finish(panel, name)


def _require_metrics(who: str, table: dict[str, list[float]], metrics: Sequence[str]) -> None:
    for name in metrics:
        if name not in table:
            close = nearest(name, table)
            hint = f"Did you mean {close!r}?" if close else ""
            got = f"a table of {', '.join(table) or 'nothing'}"
            raise KeyMissing(explain(who, expected=f"the metric {name!r}", got=got, hint=hint))


def _panels(who: str, metrics: Sequence[str], title: str) -> tuple[Any, Sequence[Any]]:
    """Make a figure with a panel for each metric, one below the other."""
    figures = require("matplotlib.figure", extra="plots", purpose=who)
    ticker = require("matplotlib.ticker", extra="plots", purpose=who)
    figure = figures.Figure(figsize=(7.2, 0.6 + 2.9 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for panel in panels:
        panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    panels[-1].set_xlabel("frames")
    if title:
        figure.suptitle(title, fontsize=12)
    return figure, panels


def _finish(panel: Any, name: str) -> None:
    panel.set_title(name, fontsize=10, loc="left")
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.02)


def _write(figure: Any, png_path: str | os.PathLike) -> None:
    with write_whole(png_path) as temporary:
        figure.savefig(temporary, dpi=150, format=Path(png_path).suffix[1:] or "png")


def latest_points(frames: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return frames and finite values of a metric, frames ascending, without points that a later point replaces.

    A run that is resumed from a checkpoint writes frames again that its table holds already: the later points count.
    """
    points: list[tuple[float, float]] = []
    for frame, value in zip(frames, values, strict=True):
        if not math.isfinite(value):
            continue
        while points and points[-1][0] >= frame:
            points.pop()
        points.append((frame, value))
    return [frame for frame, _ in points], [value for _, value in points]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and the ``window - 1`` before it, of fewer at the start."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
