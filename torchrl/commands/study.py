"""Draw the values of a sweep's trials by Optuna, and keep trials and results in a file. It runs nothing.

The file is Optuna's journal, one line for each thing that happened. Its own lock is a file that a killed process leaves
behind, and half a line makes it unreadable for good (``findings/optuna_journal_after_kill.sh``): so a study is opened
by one process at a time, which holds the kernel's lock on the folder, and a half-written last line is cut off.

Every trial draws from a seed of its own, made of the sweep's seed and its number. A sampler that is seeded once draws
the first trials' values again when a sweep goes on (``findings/optuna_seed_after_resume.sh``); so, a sweep that was
killed draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchrl.extras import require
from torchrl.recipes.config_file import format_value
from torchrl.recipes.ranges import Range

NAME = "sweep"  # of the study in its file
JOURNAL = "journal.log"


@dataclass(frozen=True)
class Trial:
    """Hold what a study knows of one trial.

    >>> Trial(3, "complete", {"lr": "0.001"}, 480.0).number
    3

    Attributes:
        number: counted from 0.
        state: ``"running"``, ``"complete"``, ``"pruned"`` or ``"failed"``.
        values: by key, as they stand in a config file.
        result: mean return, of a pruned trial that of its last evaluation; None where there is none.
    """

    number: int
    state: str
    values: dict[str, str]
    result: float | None


class Study:
    """The trials of a sweep: new ones get values that did well so far, and poor ones are ended early.

    Values are drawn by Optuna's ``TPESampler``, the first ten trials' at random. A trial is ended where its best
    evaluation so far is below the median of what the completed trials had at the same evaluation, once five have
    completed (``MedianPruner``).

    Args:
        folder: where the journal lies; one process at a time may have it open.
        ranges: what is drawn, by key.
        seed: of all draws.

    Raises:
        MissingExtraError: Optuna is not installed.
    """

    def __init__(self, folder: Path, ranges: Mapping[str, object], *, seed: int) -> None:
        self._optuna = require("optuna", extra="sweep", purpose="torchrl sweep")
        journal = require("optuna.storages.journal", extra="sweep", purpose="torchrl sweep")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._ranges, self._seed = dict(ranges), seed
        _cut_half_line(folder / JOURNAL)
        backend = journal.JournalFileBackend(str(folder / JOURNAL), lock_obj=_NoLock())
        self._storage = self._optuna.storages.JournalStorage(backend)
        self._study = self._optuna.create_study(
            study_name=NAME,
            storage=self._storage,
            direction="maximize",
            load_if_exists=True,
            pruner=self._optuna.pruners.MedianPruner(n_startup_trials=5),
        )

    def trials(self) -> list[Trial]:
        """Return all trials, in the order of their numbers."""
        return [self._describe(one) for one in self._study.get_trials(deepcopy=False)]

    def begin(self) -> Trial:
        """Begin a new trial, and return it with its values."""
        self._study.sampler = self._sampler(len(self._study.get_trials(deepcopy=False)))
        return self.complete_values(self._study.ask().number)

    def complete_values(self, number: int) -> Trial:
        """Return a running trial, with values drawn for it where a killed process had not come to it."""
        self._study.sampler = self._sampler(number)
        trial = self._optuna.trial.Trial(self._study, self._id(number))
        for key, drawn in self._ranges.items():
            if not isinstance(drawn, Range):
                trial.suggest_categorical(key, drawn.options)
            elif drawn.is_whole:
                trial.suggest_int(key, drawn.low, drawn.high, log=drawn.is_log)
            else:
                trial.suggest_float(key, drawn.low, drawn.high, log=drawn.is_log)
        return self._describe(self._storage.get_trial(self._id(number)))

    def goes_on(self, number: int, evaluation: int, means: Mapping[int, float]) -> bool:
        """Note an evaluation of a running trial, and answer whether the trial is worth going on.

        Args:
            number: of the trial.
            evaluation: its number, counted from 1.
            means: mean returns by the number of the evaluation, of this attempt: what an attempt that was killed had
                reached does not count.
        """
        noted = self._storage.get_trial(self._id(number))
        if evaluation not in noted.intermediate_values:  # an attempt that was killed had the same one
            self._storage.set_trial_intermediate_value(self._id(number), evaluation, means[evaluation])
        noted.intermediate_values = dict(means)
        return not self._study.pruner.prune(self._study, noted)

    def end(self, number: int, state: str, result: float | None = None) -> None:
        """Note that a trial has ended.

        Args:
            number: of the trial.
            state: see :class:`Trial`.
            result: of one that is complete; a pruned one has that of its last evaluation.
        """
        states = self._optuna.trial.TrialState
        kind = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[state]
        self._study.tell(number, result if state == "complete" else None, state=kind)

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(NAME)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _sampler(self, number: int) -> Any:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _describe(self, frozen: Any) -> Trial:
        state = {"FAIL": "failed"}.get(frozen.state.name, frozen.state.name.lower())
        values = {
            key: frozen.params[key] if isinstance(frozen.params[key], str) else format_value(frozen.params[key])
            for key in self._ranges
            if key in frozen.params
        }
        return Trial(frozen.number, state, values, frozen.value)


class _NoLock:
    """Stands in for the journal's lock file: the study is one process's alone."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _cut_half_line(path: Path) -> None:
    """Cut off what follows the last whole line of a file, which a process began to write when it was killed."""
    if path.is_file():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
