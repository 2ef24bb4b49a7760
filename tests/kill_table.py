"""Kill example commands at random moments with SIGKILL, resume them until they end, and compare the final weights.

    python tests/kill_table.py                                  30 kills, with the table of docs/concepts/checkpoints.md
    python tests/kill_table.py --case=ppo --kills=5 --seed=3

A chain begins a run, kills it, resumes it, kills that, and so on, three times; then it lets the run end. Its weights,
optimizer, environments and random streams must be those of the run that was never killed, bit for bit. A moment is
drawn over the start of the process, or over the time that the undisturbed run takes from its folder on: training,
evaluations, checkpoints, report.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from tensordict import TensorDict

from torchrl.agents import AGENT, load_checkpoint, newest_checkpoint
from torchrl.agents.checkpoints import frames_of

ROOT = Path(__file__).resolve().parent.parent
COMMON = ["--loggers", "--no-progress_bar", "--num_cells", "16", "16", "--record_episodes=2", "--eval_episodes=2"]
COMMON += ["--keep_checkpoints=2"]  # and no table: its curve would take longer to draw than the run
PPO = [*COMMON, "--num_envs=4", "--frames_per_batch=128", "--minibatch_size=64", "--num_epochs=4"]
PPO += ["--norm_observations", "--norm_rewards", "--lr_schedule=linear", "--record_interval=300"]
SAC = [*COMMON, "--env_name=Pendulum-v1", "--prb", "--save_buffer", "--multi_step", "--batch_size=32"]
SAC += ["--buffer_size=300", "--record_interval=150", "--log_interval=100", "--max_episode_steps=70"]
FILES = "files"
# name -> algorithm, flags, frames of the whole run, frames from one checkpoint to the next
CASES = {
    "ppo": ("ppo", PPO, 5120, 128),
    "sac": ("sac", SAC, 800, 20),
    "sac_files": ("sac", [*SAC, f"--buffer_folder={FILES}"], 800, 20),
}
KILLS = {"ppo": 15, "sac": 10, "sac_files": 5}
# Not torch's global stream: every process begins another one, and a run draws nothing from it.
SAME = ("networks", "optimizer", "optimise", "collector", "store", "generators")
KILLS_OF_A_CHAIN = 3


class Runner:
    """Start commands of one case in a folder, kill them, and find what they left.

    Args:
        case: a key of ``CASES``.
        folder: where the runs go.
        forks: start them as forks of this process, in a tenth of the time, instead of as commands.
        share: of the case's frames that a run takes.
    """

    def __init__(self, case: str, folder: Path, *, forks: bool = False, share: float = 1.0) -> None:
        self.algorithm, flags, total, every = CASES[case]
        self.total, self.folder, self.forks = int(total * share), folder, forks
        self.flags = [*flags, f"--total_frames={self.total}", f"--checkpoint_interval={every}"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.script = ROOT / "examples" / self.algorithm / f"{self.algorithm}.py"
        if forks:
            spec = importlib.util.spec_from_file_location(f"killed_{self.algorithm}", self.script)
            self.module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = self.module
            spec.loader.exec_module(self.module)

    def run(self, flags: list[str], kill_after: float | None = None, *, in_training: bool = True) -> bool:
        """Run a command; kill it some seconds after it began, or after its folder was ready; answer whether so."""
        before, process = set(self.runs()), self._start(flags)
        if kill_after is not None:
            while in_training and process.poll() is None and not set(self.runs()) - before:
                time.sleep(0.005)
            self._wait(process, kill_after)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
        if process.wait():
            raise AssertionError(f"{flags} ended with status {process.returncode}")
        return False

    def runs(self) -> list[Path]:
        """List the folders of runs, in the order of their beginning."""
        ready = [path for path in self.folder.glob("runs/*") if (path / "config.txt").is_file()]
        return sorted(ready, key=lambda path: (path / "config.txt").stat().st_mtime_ns)

    def go_on(self) -> list[str] | None:
        """Return the flags that go on with what there is, or begin anew; None where the training is at its end."""
        runs = self.runs()
        while runs:
            newest = newest_checkpoint(runs[-1])
            if newest is not None:
                return None if frames_of(newest) >= self.total else [f"--resume={runs[-1]}", "--folder=runs"]
            first = (runs.pop() / "config.txt").read_text().splitlines()[0]
            assert not re.search("resumed from", first), f"a resumed run without a checkpoint: {first}"
        shutil.rmtree(self.folder / FILES, ignore_errors=True)
        return [*self.flags, "--folder=runs"]

    def final(self) -> dict:
        """Return the state in the newest checkpoint of the newest run."""
        return load_checkpoint(newest_checkpoint(self.runs()[-1]) / AGENT)

    def _wait(self, process: subprocess.Popen | Fork, seconds: float) -> None:
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)

    def _start(self, flags: list[str]) -> subprocess.Popen | Fork:
        if self.forks:
            return Fork(self.module.main, flags, self.folder)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, str(self.script), *flags], cwd=self.folder, env=environment, **quiet)


class Fork:
    """A fork of this process that runs a command, with the methods of a ``subprocess.Popen`` that are used here."""

    def __init__(self, main, flags: list[str], folder: Path) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.chdir(folder)
                quiet = os.open(os.devnull, os.O_WRONLY)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
                warnings.simplefilter("ignore")
                main(flags)
                status = 0
            finally:
                os._exit(status)

    def poll(self) -> int | None:
        """Return how it ended, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        """Wait for its end."""
        while self.poll() is None:
            time.sleep(0.002)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


def undisturbed(case: str, folder: Path, **options) -> tuple[dict, float, float]:
    """Run a case without a kill; return its final state, the seconds until its folder is there, and from then on."""
    runner = Runner(case, folder / "whole", **options)
    began = time.time()
    runner.run([*runner.flags, "--folder=runs"])
    ended, ready = time.time(), (runner.runs()[-1] / "config.txt").stat().st_mtime
    return runner.final(), ready - began, ended - ready


def chain(case: str, folder: Path, draw: random.Random, seconds: tuple[float, float], kills: int, **options):
    """Kill and resume a case several times, then let it end; return the final state and what was seen of each kill."""
    runner, seen = Runner(case, folder, **options), []
    while (flags := runner.go_on()) is not None:
        in_training = draw.random() < 0.85
        moment = draw.uniform(0, seconds[in_training])
        if not runner.run(flags, moment if len(seen) < kills else None, in_training=in_training):
            break
        seen.append(_what_was_left(runner, in_training))
    return runner.final(), seen


def _what_was_left(runner: Runner, in_training: bool) -> str:
    runs = runner.runs()
    parts = [path for run in runs[-1:] for path in run.glob("checkpoints/.partial-*")]
    if parts:
        return "while it wrote or removed a checkpoint"
    newest = newest_checkpoint(runs[-1]) if runs else None
    if newest is not None and frames_of(newest) >= runner.total:
        return "after the last frame"
    if not in_training:
        return "in its start"
    return "before its first checkpoint" if newest is None else "between two checkpoints"


def require_equal(one: object, other: object, place: str) -> int:
    """Hold that two nested states are equal, bit for bit; return the number of tensors."""
    if isinstance(one, TensorDict):
        one, other = one.to_dict(), other.to_dict()
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        return sum(require_equal(one[key], other[key], f"{place}/{key}") for key in one)
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other), place
        return sum(require_equal(a, b, f"{place}/{at}") for at, (a, b) in enumerate(zip(one, other, strict=True)))
    if hasattr(one, "numpy"):
        assert torch.equal(one, other), f"{place} differs"
        return 1
    if hasattr(one, "tobytes"):
        assert one.tobytes() == other.tobytes(), f"{place} differs"
        return 0
    assert one == other, f"{place} differs: {one} and {other}"
    return 0


def kill(case: str, num_kills: int, seed: int, folder: Path, **options) -> str:
    """Kill a case so many times, and return a line of the table; raise if an end differs."""
    expected, *seconds = undisturbed(case, folder, **options)
    draw, seen, num_chains, num_tensors = random.Random(f"{case} {seed}"), [], 0, 0
    while len(seen) < num_kills:
        most = min(KILLS_OF_A_CHAIN, num_kills - len(seen))
        state, places = chain(case, folder / f"chain_{num_chains}", draw, seconds, most, **options)
        num_tensors = sum(require_equal(expected[part], state[part], part) for part in SAME)
        num_chains += 1
        seen += places
        print(f"{case}: {len(seen)} of {num_kills} kills, {places}", file=sys.stderr, flush=True)
    places = ", ".join(f"{num} {place}" for place, num in Counter(seen).most_common())
    return f"| {case} | {len(seen)} | {num_chains} | {places} | {num_tensors} tensors equal in each |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--kills", type=int, help="of each case, instead of 30 in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    print("| case | kills | chains | killed | at the end |\n|---|---|---|---|---|")
    for case in args.case:
        with tempfile.TemporaryDirectory() as folder:
            print(kill(case, args.kills or KILLS[case], args.seed, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
