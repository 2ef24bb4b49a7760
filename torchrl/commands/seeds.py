"""Train a config with several seeds, each in a process of its own.

Each seed is an ordinary run, in ``seed_0``, ``seed_1``, … of one folder; at the end come the table of returns with the
interval of their mean, and the picture of all curves. One that fails does not take the others with it. The flag
``--seeds`` of an algorithm's script trains all in one process instead, which with ``--compile`` steps them as one
program: faster where networks are small, and without ``--num_workers``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torchrl.commands.examples import load_script
from torchrl.commands.one_run import train_run
from torchrl.commands.run_processes import INTERRUPTED, OUTPUT, Run, run_all
from torchrl.commands.several import split_flags
from torchrl.errors import ProcessError, explain
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.envs import task_name
from torchrl.recipes.record import SUMMARY, make_run_folder
from torchrl.recipes.seed_lists import seed_list, seeds
from torchrl.recipes.seeds import announce_seeds, has_seeds, report_summaries
from torchrl.recipes.sense import require_sense
from torchrl.recipes.settings import from_flags, parser_of
from torchrl.recipes.value_types import positive_int

DESCRIPTION = (
    "Train a config with several seeds, each a run in a process of its own, then draw all curves. The flag --seeds of "
    "torchrl train takes all seeds in one process instead, with --compile as one program: faster for small networks."
)


def run(flags: Sequence[str]) -> None:
    """Train a config with several seeds; the last line says where the picture of all curves lies.

    Args:
        flags: the config, then flags of this command and of the algorithm.

    Raises:
        ConfigError: a mistake of the user.
        ProcessError: every seed failed.
    """
    own, flags = split_flags("seeds", DESCRIPTION, flags, _add_flags, refused=["seed"])
    flags = [f"--config={own.config}", *flags]
    kind, _ = load_script(own.algorithm)
    settings = from_flags(kind, parser_of(kind).parse_args(flags))
    require_sense(settings, flags)
    if has_seeds(settings):  # so that the folder's config.txt says what was run
        settings = replace(settings, recording=replace(settings.recording, seeds=own.seeds))
    folder = make_run_folder(own.algorithm, settings)
    announce_seeds(settings, own.seeds, folder)
    chosen = seed_list(own.seeds)
    starts = [partial(_start, own.algorithm, flags, seed, folder / f"seed_{seed}") for seed in chosen]
    failed, is_interrupted = {}, False
    try:
        run_all(starts, own.processes, hear=_hear, conclude=partial(_conclude, failed))
    except KeyboardInterrupt:
        is_interrupted = True
    summaries = [json.loads(path.read_text()) for path in _summaries(folder, chosen)]
    if summaries:
        report_summaries(own.algorithm, settings, summaries, folder)
    if is_interrupted:
        print(f"stopped by Ctrl-C after {len(summaries)} of {len(chosen)} seeds: {folder}")
        sys.exit(INTERRUPTED)
    if failed:
        got = "; ".join(f"{name}: {error}" for name, error in failed.items())
        hint = f"What they printed is in {folder}/seed_…/{OUTPUT}."
        expected = f"{task_name(settings.environment)} to be trained with each seed"
        raise ProcessError(explain(f"{len(failed)} of {len(chosen)} seeds", expected=expected, got=got, hint=hint))


def _add_flags(parser: ConfigParser) -> None:
    parser.add_argument("--seeds", type=seeds, default="0..4", metavar="SEEDS", help="as 0..4 or 0,3,5")
    parser.add_argument("--processes", type=positive_int, default=1, help="how many seeds are trained at once")


def _start(algorithm: str, flags: Sequence[str], seed: int, folder: Path) -> Run:
    print(f"seed {seed} begins: {folder / OUTPUT}", flush=True)
    return Run(f"seed {seed}", partial(train_run, algorithm=algorithm, flags=[*flags, f"--seed={seed}"]), folder)


def _hear(run: Run, evaluation: int, frames: int, mean: float) -> bool:
    print(f"{run.name}: {frames:,} frames, evaluation return {mean:.1f}", flush=True)
    return True


def _conclude(failed: dict[str, str], run: Run) -> None:
    error = run.error()
    if error is not None:
        failed[run.name] = error
        print(f"{run.name} failed: {error}", flush=True)


def _summaries(folder: Path, chosen: Sequence[int]) -> list[Path]:
    paths = [folder / f"seed_{seed}" / SUMMARY for seed in chosen]
    return [path for path in paths if path.is_file()]
