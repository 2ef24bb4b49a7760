"""What ``gpu.py`` measures with: clocks of a device, a look-out for waiting, a step as one CUDA graph, a table.

All of it works on the CPU too, where nothing is captured and no clock is the device's, so that tests can run it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl.agents import GraphStep
from torchrl.agents.graph_step import Outcome

ROUNDS = 5
WARM_UPS = 3  # of a step before it is captured: libraries make their handles and memory then


class Place(NamedTuple):
    """Say where to measure, and whether small things will do."""

    device: torch.device
    small: bool

    @property
    def seconds(self) -> float:
        """How long a figure may take."""
        return 0.05 if self.small else 0.5


class Row(NamedTuple):
    """Hold a line of the table; ``failed`` is why there is no figure, or why it counts for nothing."""

    what: str
    size: str
    measured: str
    ratio: str = ""
    remark: str = ""
    failed: str = ""


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(function: Callable[[], object], place: Place) -> float:
    """Return the best mean time of a call over some rounds, by the events of the device's own clock."""
    device = place.device
    for _ in range(2):
        function()
    wait_for(device)
    start = time.perf_counter()
    function()
    wait_for(device)
    num_calls = max(1, int(place.seconds / ROUNDS / max(time.perf_counter() - start, 1e-7)))
    return min(_round(function, device, num_calls) for _ in range(ROUNDS))


def _round(function: Callable[[], object], device: torch.device, num_calls: int) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(num_calls):
            function()
        return (time.perf_counter() - start) / num_calls
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(num_calls):
        function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / num_calls


@contextmanager
def refusing_to_wait(device: torch.device) -> Iterator[None]:
    """Raise an error, in a ``with`` block, where torch would wait for the device; on the CPU do nothing."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waits(function: Callable[[], object], device: torch.device) -> str:
    """Answer in words whether a call waits for the device."""
    if device.type != "cuda":
        return "waiting cannot be seen on the CPU"
    function()
    try:
        with refusing_to_wait(device):
            function()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return "waits for the device"
    return "waits for nothing"


class CapturedStep:
    """Take a gradient step on the same memory again and again: as one CUDA graph, or by plain calls on the CPU.

    Calculating and committing the step are captured together, so that a replay is a single launch. Rows are copied into
    the memory that was captured; the learning rate is read where :class:`GraphStep` keeps it. A state that is loaded
    into the optimizer makes new tensors, which a captured step does not know.

    Args:
        step: what computes and commits.
        rows: the first rows, ``[N]``; every later call gives as many.
    """

    def __init__(self, step: GraphStep, rows: TensorDict) -> None:
        self._step, self._rows = step, rows.clone()
        self._leaves = [x for _, x in sorted(self._rows.items(), key=lambda item: item[0])]
        self._graph: torch.cuda.CUDAGraph | None = None
        if self._leaves[0].device.type != "cuda":
            self.outcome = self._once()
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._once()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.outcome = self._once()

    def __call__(self, rows: TensorDict) -> Outcome:
        """Take a step on rows ``[N]``; the outcome's tensors are overwritten by the next call."""
        torch._foreach_copy_(self._leaves, [x for _, x in sorted(rows.items(), key=lambda item: item[0])])
        if self._graph is None:
            self.outcome = self._once()
        else:
            self._graph.replay()
        return self.outcome

    def _once(self) -> Outcome:
        outcome = self._step(self._rows)
        self._step.commit(outcome)
        return outcome


class Kept:
    """Remember the numbers of tensors, and put them back: a captured step has to find them in the same memory."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        self._copies = [x.detach().clone() for x in self.tensors]

    @torch.no_grad()
    def restore_(self) -> None:
        """Overwrite the tensors with what they held."""
        torch._foreach_copy_(self.tensors, self._copies)


def table(title: str, rows: Sequence[Row]) -> str:
    """Write rows as a table of Markdown under a title."""
    lines = [f"# {title}", "", "| what | size | measured | ratio | remark |", "|---|---|---|---|---|"]
    for row in rows:
        remark = f"**failed**: {row.failed}" if row.failed else row.remark
        cells = [cell.replace("|", "\\|") for cell in (row.what, row.size, row.measured, row.ratio, remark)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its name and rename it, so that it is never seen in part."""
    aside = path.with_suffix(path.suffix + ".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
