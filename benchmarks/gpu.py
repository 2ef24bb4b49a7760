"""What a GPU brings: acting, a gradient step as one graph, GAE, replay, CartPole by the million, PPO end to end.

    python benchmarks/gpu.py [--table gpu.md] [--device cuda:0] [--seconds 300] [--sections step cartpole]

Each section runs in a process of its own, with a limit: one that fails, hangs or leaves the device in ruins costs its
own figures alone, and the exit status is 1. The table is written anew after each. Without a GPU all of it runs small on
the CPU, where the figures say nothing but that the script works. No network is used. ``make gpu`` runs the tests that
need a GPU first.

The step is compiled into one graph by inductor ahead of time, or run as it was traced; either of them is also captured
as a CUDA graph. That nothing in a step waits for the device is checked by ``torch.cuda.set_sync_debug_mode("error")``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import torch
from _gpu import CapturedStep, Kept, Place, Row, refusing_to_wait, seconds_per_call, table, wait_for, waits, write_whole
from _plain import tanh_mlp
from gae import make_batch, ours, plain_loop
from replay import batch_of
from tensordict import TensorDict

from torchrl import graphs
from torchrl.agents import FusedAdam, GraphStep, MinibatchEpochs
from torchrl.collectors import Collector, GraphPolicy
from torchrl.data.replay import ReplayBuffer, TensorStorage
from torchrl.devices import find_device
from torchrl.envs import CartPole
from torchrl.modules import Categorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import GAE, ClipPPOLoss, total_loss
from torchrl.unchecked import new_tensordict

GOAL = 100e6  # frames per second of CartPole with its policy
MARK = "row: "  # before each row that a section's process prints
NUM_COMPARED = 5  # steps after which two ways of taking them must agree


def loading(program: str, device: torch.device) -> AbstractContextManager:
    """Return a context in which graphs are compiled, or run as they were ``"traced"``."""
    if program == "traced":
        return patch.object(graphs, "load_program", lambda graph, inputs: lambda values: list(graph(*values)))
    if device.type == "cuda" and find_spec("triton") is None:
        raise RuntimeError("triton is not installed, by which inductor compiles for a GPU")
    return nullcontext()


def acting(place: Place) -> Iterator[Row]:
    """Time acting against the bare network."""
    device = place.device
    actor = ProbabilisticActor(tanh_mlp(4, 2), Categorical).to(device)
    for num in (8,) if place.small else (8, 4096, 2**17):
        observation, size = torch.randn(num, 4, device=device), torch.Size([num])

        def act(observation: torch.Tensor = observation, size: torch.Size = size, actor: Callable = actor) -> object:
            return actor(new_tensordict({"observation": observation}, size))

        with torch.no_grad():
            bare = seconds_per_call(partial(actor.module, observation), place)
            full = seconds_per_call(act, place)
            remark = waits(act, device)
        yield Row("acting, Categorical", f"{num:,} rows", micro(full), f"{full / bare:.2f} × the network", remark)
        if num == 4096:
            continue  # each form is compiled for seconds
        what = "acting, Categorical, by one graph"
        try:
            with torch.no_grad(), loading("traced" if place.small else "compiled", device):
                act = partial(act, actor=GraphPolicy(actor))
                full = seconds_per_call(act, place)
                remark = waits(act, device)
            yield Row(what, f"{num:,} rows", micro(full), f"{full / bare:.2f} × the network", remark)
        except Exception as error:
            yield Row(what, f"{num:,} rows", "", failed=in_a_line(error))


# ---- the gradient step -----------------------------------------------------------------------------------------------


def make_loss(device: torch.device) -> tuple[ClipPPOLoss, FusedAdam]:
    """Make PPO's loss over two 64×64 networks, and its optimizer; always the same numbers."""
    torch.manual_seed(0)
    actor = ProbabilisticActor(tanh_mlp(4, 2), Categorical)
    loss = ClipPPOLoss(actor, ValueOperator(tanh_mlp(4, 1)), entropy_coef=0.01).to(device)
    return loss, FusedAdam(loss.trainable_parameters(), lr=3e-4, eps=1e-5)


def make_rows(num: int, device: torch.device) -> TensorDict:
    """Make rows as GAE leaves them."""
    torch.manual_seed(1)
    rows = {
        "observation": torch.randn(num, 4),
        "action": torch.randint(2, (num,)),
        "action_log_prob": torch.full((num,), -0.693),
        "advantage": torch.randn(num, 1),
        "value_target": torch.randn(num, 1),
        "state_value": torch.randn(num, 1),
    }
    return TensorDict({name: x.to(device) for name, x in rows.items()}, batch_size=[num])


def eager_step(rows: TensorDict, device: torch.device) -> tuple[Callable[[], None], list[torch.Tensor]]:
    """Return a step as it is written by hand, and the parameters that it moves."""
    loss, optimizer = make_loss(device)
    parameters = list(loss.trainable_parameters())

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        total_loss(loss(rows)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()

    return step, parameters


def graph_step(rows: TensorDict, device: torch.device, *, captured: bool) -> tuple[Callable, list[torch.Tensor]]:
    """Return the step by one graph, at its start, and the parameters that it moves."""
    loss, optimizer = make_loss(device)
    parameters = list(loss.trainable_parameters())
    step = GraphStep("benchmark", loss, optimizer, max_grad_norm=0.5)
    step(rows)  # traces, compiles, begins the state of Adam
    kept = Kept([*parameters, *[x for state in optimizer.state.values() for x in state.values()]])
    if captured:
        replay = CapturedStep(step, rows)
        call = partial(replay, rows)
    else:

        def call() -> None:
            step.commit(step(rows))

    kept.restore_()
    return call, parameters


def one_graph(place: Place) -> Iterator[Row]:
    """Time the step by hand and by one graph, compiled or as traced, captured or not; all must agree."""
    device = place.device
    programs = ["traced"] if place.small else ["traced", "compiled"]
    for num in (64,) if place.small else (256, 65_536):
        rows, size = make_rows(num, device), f"{num:,} rows"
        step, expected = eager_step(rows, device)
        for _ in range(NUM_COMPARED):
            step()
        reference = [x.detach().clone() for x in expected]
        eager = seconds_per_call(step, place)
        yield Row("step of PPO, eager", size, micro(eager))
        for program in programs:
            for captured in (False, True):
                what = f"step of PPO, {program} graph{', as a CUDA graph' if captured else ''}"
                try:
                    seconds, remark = _timed_graph(rows, reference, place, program=program, captured=captured)
                    yield Row(what, size, micro(seconds), f"{seconds / eager:.2f} × eager", remark)
                except Exception as error:
                    yield Row(what, size, "", failed=in_a_line(error))


def _timed_graph(
    rows: TensorDict, reference: list[torch.Tensor], place: Place, *, program: str, captured: bool
) -> tuple[float, str]:
    """Return the seconds of a step and what else there is to say; refuse one that waits or goes elsewhere."""
    start = time.perf_counter()
    with loading(program, place.device):
        call, parameters = graph_step(rows, place.device, captured=captured)
    wait_for(place.device)
    remark = f"ready after {time.perf_counter() - start:.1f} s"
    with refusing_to_wait(place.device):
        for _ in range(NUM_COMPARED):
            call()
    wait_for(place.device)
    torch.testing.assert_close([x.detach() for x in parameters], reference, rtol=1e-3, atol=2e-5)
    if place.device.type == "cuda":
        remark += "; waits for nothing"
    return seconds_per_call(call, place), remark


# ---- returns, replay -------------------------------------------------------------------------------------------------


def returns(place: Place) -> Iterator[Row]:
    """Time GAE against a reverse loop over rows on the same device."""
    for shape in [(4, 16)] if place.small else [(64, 1000), (4096, 128), (65_536, 32)]:
        batch = {name: x.to(place.device) for name, x in make_batch(*shape).items()}
        torch.testing.assert_close(ours(**batch), plain_loop(**batch), rtol=1e-4, atol=1e-4)
        plain, mine = (seconds_per_call(partial(call, **batch), place) for call in (plain_loop, ours))
        remark = waits(partial(ours, **batch), place.device)
        yield Row("GAE", "[{:,}, {:,}]".format(*shape), micro(mine), f"{mine / plain:.3f} × the loop", remark)


def replay(place: Place) -> Iterator[Row]:
    """Time samples and writes of a buffer on the device, against indexing of plain tensors and slices there."""
    device = place.device
    capacity, num = (2**10, 64) if place.small else (2**20, 4096)
    batch = batch_of(8, num // 8).to(device)
    buffer = ReplayBuffer(TensorStorage(capacity, device=device), batch_size=num, seed=0)
    for _ in range(capacity // num):
        buffer.extend(batch)
    plain = {key: x.new_zeros((capacity, *x.shape[2:])) for key, x in batch.items(True, True)}
    flat = {key: x.reshape(num, *x.shape[2:]) for key, x in batch.items(True, True)}

    def read() -> list[torch.Tensor]:
        index = torch.randint(0, capacity, (num,), device=device)
        return [x[index] for x in plain.values()]

    def write() -> None:
        for key, x in flat.items():
            plain[key][:num] = x

    size = f"{num:,} of {capacity:,}"
    for what, mine, theirs in (
        ("replay, uniform sample", buffer.sample, read),
        ("replay, extend", partial(buffer.extend, batch), write),
    ):
        seconds, bare = seconds_per_call(mine, place), seconds_per_call(theirs, place)
        yield Row(what, size, micro(seconds), f"{seconds / bare:.2f} × plain", waits(mine, device))


# ---- worlds on the device --------------------------------------------------------------------------------------------


def cartpole(place: Place) -> Iterator[Row]:
    """Count the frames of CartPole with its policy, recorded by a collector."""
    num_steps = 4 if place.small else 16
    for num in (64,) if place.small else (2**12, 2**16, 2**20):
        env = CartPole(num, device=place.device)
        actor = ProbabilisticActor(tanh_mlp(4, 2), Categorical).to(place.device)
        collector = Collector(env, actor, frames_per_batch=num * num_steps, seed=0)
        collector.collect()
        seconds = seconds_per_call(collector.collect, place)
        frames, remark = num * num_steps / seconds, ""
        if num == 2**20:
            remark = f"goal {millions(GOAL)}: {'reached' if frames >= GOAL else 'missed'}"
        yield Row("CartPole with its policy, recorded", f"{num:,} rows", millions(frames), "", remark)


def ppo(place: Place) -> Iterator[Row]:
    """Train PPO on CartPole, everything on the device, for a while."""
    eager = None
    for compiled in (False,) if place.small else (False, True):
        what = f"PPO end to end on CartPole{', compiled' if compiled else ''}"
        num_envs, num_steps, minibatch = (16, 8, 32) if place.small else (4096, 32, 16_384)
        size = f"[{num_envs:,}, {num_steps}], 4 epochs of {minibatch:,}"
        try:
            frames, remark = _train(place, num_envs, num_steps, minibatch, compiled=compiled)
        except Exception as error:
            yield Row(what, size, "", failed=in_a_line(error))
            continue
        eager = frames if eager is None else eager
        yield Row(what, size, millions(frames), f"{frames / eager:.2f} × eager", remark)


def _train(place: Place, num_envs: int, num_steps: int, minibatch: int, *, compiled: bool) -> tuple[float, str]:
    """Return frames per second after the first batch, and how long the poles stay up at the end."""
    torch.manual_seed(0)
    actor = ProbabilisticActor(tanh_mlp(4, 2), Categorical).to(place.device)
    critic = ValueOperator(tanh_mlp(4, 1)).to(place.device)
    loss = ClipPPOLoss(actor, critic, entropy_coef=0.01)
    optimizer = FusedAdam(loss.trainable_parameters(), lr=1e-3, eps=1e-5)
    sizes = {"num_epochs": 4, "minibatch_size": minibatch, "max_grad_norm": 0.5}
    optimise, estimate = MinibatchEpochs(loss, optimizer, compile=compiled, **sizes), GAE(critic)
    env = CartPole(num_envs, device=place.device)
    collector = Collector(env, actor, frames_per_batch=num_envs * num_steps, seed=0)

    def once() -> TensorDict:
        batch = estimate(collector.collect())
        optimise(batch)
        return batch

    start = time.perf_counter()
    once()
    wait_for(place.device)
    first, start, num = time.perf_counter() - start, time.perf_counter(), 0
    while num < 2 or (not place.small and time.perf_counter() - start < 10):
        batch, num = once(), num + 1
    wait_for(place.device)
    seconds = time.perf_counter() - start
    ended = batch["next", "done"]
    mean = batch["next", "episode_return"][ended].mean().item() if bool(ended.any()) else float("nan")
    remark = f"first batch after {first:.1f} s; return {mean:.0f} after {(num + 1) * num_envs * num_steps:,} frames"
    return num * num_envs * num_steps / seconds, remark


# ---- running them ----------------------------------------------------------------------------------------------------

# The most seconds of each; all together, with the processes' starts, stay below five and a half minutes.
SECTIONS: dict[str, tuple[Callable[[Place], Iterator[Row]], int]] = {
    "acting": (acting, 60),
    "step": (one_graph, 110),
    "returns": (returns, 30),
    "replay": (replay, 30),
    "cartpole": (cartpole, 40),
    "ppo": (ppo, 60),
}


def micro(seconds: float) -> str:
    """Write a short time."""
    return f"{seconds * 1e6:,.0f} µs"


def millions(frames: float) -> str:
    """Write frames per second."""
    return f"{frames / 1e6:,.2f} million frames/s"


def in_a_line(error: BaseException) -> str:
    """Write an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def run_section(name: str, place: Place) -> Iterator[Row]:
    """Yield the rows of a section, and one that says so where it ends early."""
    try:
        yield from SECTIONS[name][0](place)
    except Exception as error:
        yield Row(name, "", "", failed=in_a_line(error))


def run_apart(name: str, place: Place, seconds: float) -> list[Row]:
    """Run a section in a process of its own, for so many seconds at most, and return its rows."""
    command = [sys.executable, __file__, "--only", name, "--device", str(place.device)]
    command += ["--small"] if place.small else []
    with tempfile.TemporaryFile("w+") as out:  # no pipe, which a compiler's processes would keep open
        process = subprocess.Popen(command, stdout=out, start_new_session=True)
        try:
            status = process.wait(seconds)
            failed = f"exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            failed = f"not done after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        lines = out.read().splitlines()
    rows = [Row(*json.loads(line[len(MARK) :])) for line in lines if line.startswith(MARK)]
    return [*rows, Row(name, "", "", failed=failed)] if failed else rows


def title_of(place: Place) -> str:
    """Say which device and which versions a table is of."""
    name = torch.cuda.get_device_name(place.device) if place.device.type == "cuda" else "the CPU, small sizes"
    triton = "with" if find_spec("triton") else "without"
    return f"{date.today()}, {name}, torch {torch.__version__}, {triton} triton"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run sections, print their rows, write the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="small sizes, as on the CPU")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=330.0, help="after which no section goes on")
    parser.add_argument("--table", type=Path, default=Path("gpu.md"), help="where the table is written")
    parser.add_argument("--only", choices=SECTIONS, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    device = find_device(args.device)
    place = Place(device, args.small or device.type != "cuda")
    warnings.simplefilter("ignore")
    if args.only:
        torch.set_num_threads(1)
        for row in run_section(args.only, place):
            print(MARK + json.dumps(row), flush=True)
        return 0
    rows, until = [], time.monotonic() + args.seconds
    for name in args.sections:
        left = max(1.0, until - time.monotonic())
        rows += run_apart(name, place, left if place.small else min(SECTIONS[name][1], left))
        write_whole(args.table, table(title_of(place), rows))
    print(table(title_of(place), rows))
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
