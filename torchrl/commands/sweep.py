"""Search a config's ranges for values that do well, by many runs.

The config holds ranges among its values (``torchrl/recipes/ranges.py``), and each trial is an ordinary run, with values
drawn from them, in a process and a folder of its own. What it is measured by is the mean return of its best checkpoint
in its last report, whose starts are others than those that chose the checkpoint. A trial whose periodic evaluations are
below the median of others is ended early; its checkpoints stay.

The same command goes on where an earlier one was killed or stopped: trials that have ended stay as they are, and those
that ran begin anew, under their number and with their values. They end when the command ends, however that ends; the
next one waits for that before it begins, so that no trial runs twice at once.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from torchrl.commands.examples import load_script
from torchrl.commands.one_run import RESULT, train_trial
from torchrl.commands.run_processes import INTERRUPTED, ORPHANS_S, OUTPUT, Run, held, run_all
from torchrl.commands.several import split_flags
from torchrl.commands.study import Study, Trial
from torchrl.errors import ConfigError, ProcessError, explain
from torchrl.files import write_whole
from torchrl.recipes.config import ConfigParser, load_config
from torchrl.recipes.config_file import Entry, write_entries
from torchrl.recipes.parts import Recording
from torchrl.recipes.ranges import SweepConfig, read_sweep
from torchrl.recipes.sense import require_sense
from torchrl.recipes.settings import from_flags, parser_of
from torchrl.recipes.value_types import non_negative_int, positive_int, typed_names

DESCRIPTION = (
    "Search a config's ranges, as lr = range(1e-5, 1e-2, log) or num_cells = choice(64 64, 256 256), for values that "
    "do well: each trial is a run. The same command goes on with a sweep that was stopped or killed."
)
SPACE, TABLE, BEST = "sweep.txt", "trials.csv", "best.txt"


def run(flags: Sequence[str]) -> None:
    """Search a config's ranges; the last line says where table, runs and the best trial's config lie.

    Args:
        flags: the config, then flags of this command and of the algorithm.

    Raises:
        ConfigError: a mistake of the user, or the folder holds another sweep.
        ProcessError: every trial failed.
    """
    own, flags = split_flags("sweep", DESCRIPTION, flags, _add_flags, refused=["seeds", "name"])
    kind, _ = load_script(own.algorithm)
    parser = parser_of(kind)
    config = read_sweep(parser, own.config, without=typed_names(flags))
    tuned = [key for key in config.ranges if hasattr(Recording, key)]
    if tuned:
        expected, got = "no range for what says how a run is measured", f"{tuned[0]}, in {own.config}"
        raise ConfigError(explain("torchrl sweep", expected=expected, got=got))
    folder = Path(own.folder or f"{own.algorithm}_logging/{own.config.stem}_sweep")
    folder.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(own, parser, config, flags, folder)
    settings = from_flags(
        kind, parser.parse_args(sweep.flags_of({key: _first(one) for key, one in config.ranges.items()}))
    )
    require_sense(settings, flags)
    with held(folder / ".lock", timeout_s=0.0):
        with held(folder / ".runs", timeout_s=ORPHANS_S):  # the trials of a killed command have ended
            pass
        sweep.search()


class Sweep:
    """The trials of one sweep: start them, note what comes of them, and write table and best config.

    Args:
        own: values of the command's own flags.
        parser: of the algorithm.
        config: the file's values and ranges.
        flags: of the algorithm, as they were typed.
        folder: of the sweep, which this process alone has.
    """

    def __init__(
        self, own: Namespace, parser: ConfigParser, config: SweepConfig, flags: Sequence[str], folder: Path
    ) -> None:
        self.own, self.parser, self.config, self.flags, self.folder = own, parser, config, list(flags), folder
        self._means: dict[str, dict[int, float]] = {}  # of the trials that run, by the number of the evaluation

    def search(self) -> None:
        """Run trials until there are as many as were asked for, and report.

        Raises:
            ConfigError: the folder holds another sweep.
            ProcessError: every trial failed.
        """
        self._keep_space()
        self.study = Study(self.folder, self.config.ranges, seed=self.own.seed)
        ended = sum(trial.state != "running" for trial in self.study.trials())
        print(f"{self.own.algorithm}, {self.own.config.name}: {self.own.trials} trials, {ended} ended; {self.folder}")
        try:
            run_all(self._starts(), self.own.processes, hear=self._hear, conclude=self._conclude)
        except KeyboardInterrupt:
            print(f"stopped by Ctrl-C; the same command goes on: {self.folder}")
            sys.exit(INTERRUPTED)
        self._report()

    def flags_of(self, values: dict[str, str]) -> list[str]:
        """Return the flags of a trial's run: the file's values, those drawn, and last what was typed."""
        drawn = {key: Entry(text, f"{self.own.config}") for key, text in values.items()}
        entries = self.config.fixed | drawn
        words = [word for key, entry in entries.items() for word in self.parser.words_of(key, entry)]
        return [*words, *self.flags, f"--seed={self.own.seed}"]

    def _keep_space(self) -> None:
        """Write what is searched into the folder, or refuse a folder in which something else is searched."""
        entries = {key: str(entry) for key, entry in self.config.fixed.items()}
        entries |= {key: repr(one) for key, one in self.config.ranges.items()}
        entries |= {"algorithm": self.own.algorithm, "seed": str(self.own.seed), "flags": " ".join(self.flags)}
        path = self.folder / SPACE
        saved = dict(line.split(" = ", 1) for line in path.read_text().splitlines()) if path.is_file() else entries
        others = [key for key in saved.keys() | entries.keys() if saved.get(key) != entries.get(key)]
        if others:
            key = sorted(others)[0]
            expected, got = (
                f"{key} = {saved.get(key, 'nothing')}, as it began",
                f"{key} = {entries.get(key, 'nothing')}",
            )
            hint = "Take another --folder for another sweep."
            raise ConfigError(explain(f"the sweep in {self.folder}", expected=expected, got=got, hint=hint))
        with write_whole(path) as temporary:
            temporary.write_text("".join(f"{key} = {text}\n" for key, text in entries.items()))

    def _starts(self) -> Iterator[partial[Run]]:
        """Yield what starts the next trial's run: first those that a command before this one did not end."""
        for trial in self.study.trials():
            if trial.state == "running":
                trial = self.study.complete_values(trial.number)
                folder = self._folder(trial)
                if (folder / RESULT).is_file():  # its run had ended, and only the journal did not know
                    self._note(trial.number, folder)
                    continue
                shutil.rmtree(folder, ignore_errors=True)
                yield partial(self._start, trial, "again")
        while len(self.study.trials()) < self.own.trials:
            yield partial(self._start, self.study.begin(), "begins")

    def _start(self, trial: Trial, verb: str) -> Run:
        values = ", ".join(f"{key} = {text}" for key, text in trial.values.items())
        print(f"trial {trial.number} {verb}: {values}", flush=True)
        self._means[str(trial.number)] = {}
        work = partial(train_trial, algorithm=self.own.algorithm, flags=self.flags_of(trial.values))
        return Run(str(trial.number), work, self._folder(trial), lock=self.folder / ".runs")

    def _hear(self, run: Run, evaluation: int, frames: int, mean: float) -> bool:
        means = self._means[run.name]
        means[evaluation] = mean
        return self.study.goes_on(int(run.name), evaluation, means) or not self.own.prune

    def _conclude(self, run: Run) -> None:
        error = run.error()
        if error is None:
            self._note(int(run.name), run.folder)
            return
        self.study.end(int(run.name), "failed")
        print(f"trial {run.name} failed: {error} ({run.folder / OUTPUT})", flush=True)
        self._write_table()

    def _note(self, number: int, folder: Path) -> None:
        """Note in the journal what the run of a trial left in its folder."""
        result = json.loads((folder / RESULT).read_text())
        value = result["return"]
        state = result["state"] if math.isfinite(value) else "failed"
        self.study.end(number, state, value)
        print(f"trial {number} {state}: return {value:.1f} after {result['frames']:,} frames", flush=True)
        self._write_table()

    def _write_table(self) -> None:
        with write_whole(self.folder / TABLE) as temporary, temporary.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["trial", "state", "return", *self.config.ranges])
            for trial in self.study.trials():
                result = "" if trial.result is None else trial.result
                values = [trial.values.get(key, "") for key in self.config.ranges]
                table.writerow([trial.number, trial.state, result, *values])

    def _report(self) -> None:
        trials = self.study.trials()
        complete = [trial for trial in trials if trial.state == "complete"]
        if not complete:
            hint = f"What they printed is in {self.folder}/trial_…/{OUTPUT}."
            got = "none of them"
            raise ProcessError(explain("torchrl sweep", expected="a trial that completes", got=got, hint=hint))
        best = max(complete, key=lambda trial: trial.result)
        saved = vars(load_config(self.parser, self._folder(best) / "config.txt"))
        keys = [*self.config.fixed, *self.config.ranges, *typed_names(self.flags), "seed"]
        comment = f"{self.own.algorithm} on values of trial {best.number}, the best of {len(trials)}: {best.result:.1f}"
        with write_whole(self.folder / BEST) as temporary:
            temporary.write_text(write_entries({key: saved[key] for key in keys if key in saved}, comment=comment))
        counts = ", ".join(
            f"{sum(one.state == state for one in trials)} {state}" for state in ("complete", "pruned", "failed")
        )
        print(f"best: trial {best.number}, return {best.result:.1f}; {counts}")
        print(f"table:  {self.folder / TABLE}")
        print(f"config: torchrl train {self.own.algorithm} --config={self.folder / BEST}")

    def _folder(self, trial: Trial) -> Path:
        return self.folder / f"trial_{trial.number}"


def _add_flags(parser: ConfigParser) -> None:
    parser.add_argument("--trials", type=positive_int, default=50, help="trials in all, earlier ones included")
    parser.add_argument("--processes", type=positive_int, default=1, help="how many trials run at once")
    text = "where all lies; by default <config>_sweep in <algorithm>_logging"
    parser.add_argument("--folder", default=None, help=text)
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of what is drawn, and of each run")
    parser.add_switch("--prune", default=True, help="end trials early whose evaluations are below the median of others")


def _first(drawn: object) -> str:
    """Return one value of a range, to look at flags before any run begins."""
    return drawn.options[0] if hasattr(drawn, "options") else str(drawn.low)
