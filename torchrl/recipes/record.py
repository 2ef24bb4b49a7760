"""Write and print the results of a run: its folder, logs, evaluations and last report."""

from __future__ import annotations

import platform
import re
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path

from torchrl import __version__
from torchrl.agents import (
    AGENT,
    BEST,
    CHECKPOINTS,
    LAST,
    Agent,
    Anneal,
    EvaluationProcess,
    Evaluator,
    Hook,
    KeepCheckpoints,
    LinearSchedule,
    MinibatchEpochs,
    ProgressBar,
    RecordVideo,
    ReplayUpdates,
    SaveBuffer,
    StopAtReturn,
    SuccessShare,
    summarise,
    write_summary,
)
from torchrl.data.replay import ReplayBuffer
from torchrl.envs import Env
from torchrl.errors import CheckpointError, ConfigError, MissingExtraError, explain
from torchrl.recipes.atari import frame_skip_of
from torchrl.recipes.collectors import num_trained
from torchrl.recipes.config import ConfigParser, load_config, save_config
from torchrl.recipes.config_file import format_value
from torchrl.recipes.envs import FILM, task_name
from torchrl.recipes.parts import Command
from torchrl.recipes.settings import parser_of, values_of
from torchrl.record import learning_curve, require_video
from torchrl.seeding import named_seeds

CONFIG, PROGRESS, SUMMARY, CURVE = "config.txt", "progress.csv", "summary.json", "learning_curve.png"
MAX_EVALUATION_ENVS = 10
LIBRARIES = ("torch", "tensordict", "gymnasium", "numpy")  # what a run may depend on, beside the environment's own


def make_run_folder(
    algorithm: str, settings: Command, folder: Path | None = None, *, fill: Callable[[Path], None] | None = None
) -> Path:
    """Make and return a new folder ``<folder>/<name>_<date>/`` for a run, and write its settings to ``config.txt``.

    Args:
        algorithm: names the default of ``--folder``, ``<algorithm>_logging``.
        settings: of the command.
        folder: is taken instead, where somebody has made it for this run.
        fill: is called with the folder before the settings are written; a folder without them is no run.

    Raises:
        ConfigError: the folder cannot be made.
    """
    if folder is not None:
        if fill is not None:
            fill(folder)
        _save_settings(algorithm, settings, folder)
        return folder
    recording, task = settings.recording, task_name(settings.environment)
    runs = Path(f"{algorithm}_logging" if recording.folder is None else recording.folder)
    stem = f"{recording.name or task}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    for suffix in ["", *(f"_{number}" for number in range(2, 1000))]:
        folder = runs / f"{stem}{suffix}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if folder.is_dir():
                continue
            flag = "--name" if recording.folder is None else "--folder"
            raise ConfigError(explain(flag, expected="a folder that can be made", got=str(error))) from error
        if fill is not None:
            fill(folder)
        _save_settings(algorithm, settings, folder)
        return folder
    raise ConfigError(explain("--name", expected="a name that is free", got=stem))


def make_seed_folder(algorithm: str, settings: Command, parent: Path) -> Path:
    """Make and return the folder of one run out of several that ``--seeds`` began, and write its settings into it."""
    folder = parent / f"seed_{settings.recording.seed}"
    folder.mkdir()
    _save_settings(algorithm, settings, folder)
    return folder


def _save_settings(algorithm: str, settings: Command, folder: Path) -> None:
    values = {key: value for key, value in values_of(settings).items() if key not in ("evaluate", "resume")}
    origin = f", resumed from {settings.recording.resume}" if settings.recording.resume else ""
    comment = f"{algorithm} on {task_name(settings.environment)}{origin}"
    save_config(Namespace(**values), folder / CONFIG, comment=comment)


def saved_run(path: str | Path) -> tuple[Path, list[str]]:
    """Split the path that ``--resume`` or ``--evaluate`` names into a run's folder and the names of its checkpoints."""
    path = Path(path)
    one = path.parent if path.name == AGENT else path
    if one.parent.name == CHECKPOINTS:  # RUN/checkpoints/000000010000, with or without /agent.pt
        return one.parent.parent, [f"{CHECKPOINTS}/{one.name}/{AGENT}"]
    is_checkpoint = path.is_file() or path.suffix == Path(LAST).suffix
    return (path.parent, [path.name]) if is_checkpoint else (path, [LAST, BEST])


@contextmanager
def naming_other_networks(settings: Command, folder: Path) -> Iterator[None]:
    """Name the flags by which networks differ from a saved run's, where its checkpoint does not fit in the block."""
    try:
        yield
    except CheckpointError as error:
        mine = vars(settings.networks)
        saved = vars(load_config(parser_of(type(settings)), folder / CONFIG, leaves_out_unknown=True))
        others = [name for name, value in mine.items() if format_value(saved[name]) != format_value(value)]
        if not others:
            raise
        due, got = (" ".join(f"--{name}={format_value(values[name])}" for name in others) for values in (saved, mine))
        hint = "Leave these flags out: they are as the run was trained."
        raise CheckpointError(explain(f"run {folder}", expected=f"networks of {due}", got=got, hint=hint)) from error


def make_evaluator(settings: Command) -> Evaluator | EvaluationProcess:
    """Build the evaluator that runs every ``record_interval`` training frames and finds the best checkpoint.

    >>> make_evaluator(settings).every_frames
    50000
    """
    recording, make_env = settings.recording, _evaluation_env(settings, settings.recording.record_episodes)
    options = {
        "num_episodes": recording.record_episodes,
        "seed": named_seeds(recording.seed, "evaluation")["evaluation"],
        "every_frames": recording.record_interval,
        "success_key": settings.environment.success_key,
    }
    return EvaluationProcess(make_env, **options) if recording.evaluate_beside else Evaluator(make_env(), **options)


def make_reporter(settings: Command) -> Evaluator:
    """Build the evaluator of the last report, with other seeds than the evaluations that chose the best checkpoint."""
    num_episodes, seed = settings.recording.eval_episodes, named_seeds(settings.recording.seed, "report")["report"]
    options = {"num_episodes": num_episodes, "seed": seed, "success_key": settings.environment.success_key}
    return Evaluator(_evaluation_env(settings, num_episodes)(), **options)


def _evaluation_env(settings: Command, num_episodes: int) -> Callable[[], Env]:
    return partial(settings.make_env, num_envs=min(MAX_EVALUATION_ENVS, num_episodes), training=False)


def make_hooks(
    settings: Command, optimise: MinibatchEpochs | ReplayUpdates, buffer: ReplayBuffer | None = None
) -> list[Hook]:
    """Build a run's hooks by its settings: lower the learning rate, save the buffer, show progress, stop early, film.

    >>> [type(hook).__name__ for hook in make_hooks(settings, optimise=None)]
    ['ProgressBar']

    Args:
        settings: of the command.
        optimise: has the optimizer whose learning rate goes to 0 over the run, if ``lr_schedule`` is linear.
        buffer: is saved with the checkpoints, if ``save_buffer`` asks for it.
    """
    recording, optimising, hooks = settings.recording, settings.optimising, []
    if optimising.lr_schedule == "linear":
        falling = LinearSchedule(optimising.lr, 0.0, settings.collecting.total_frames)
        hooks.append(Anneal(optimise.optimizer, "lr", falling))
    saved = buffer if buffer is not None and settings.replay.save_buffer else None
    if saved is not None and recording.checkpoint_interval is None:
        hooks.append(SaveBuffer(saved))
    if settings.environment.success_key is not None:
        hooks.append(SuccessShare(settings.environment.success_key))
    if recording.progress_bar:
        hooks.append(ProgressBar())
    if recording.target_return is not None:
        hooks.append(StopAtReturn(recording.target_return))
    if recording.record_video and not recording.evaluate:
        require_video()
        make_env = partial(settings.make_env, num_envs=1, training=False, filmed=True)
        hooks.append(RecordVideo(make_env, key=FILM, seed=named_seeds(recording.seed, "film")["film"]))
    if recording.checkpoint_interval is not None:  # the last: what others change in a batch is in its checkpoint
        hooks.append(KeepCheckpoints(recording.checkpoint_interval, keep=recording.keep_checkpoints, buffer=saved))
    return hooks


def with_saved_config(parser: ConfigParser, flags: Sequence[str], algorithm: str | None = None) -> Namespace:
    """Parse flags; with ``--evaluate`` or ``--resume``, flags that are not given are as in that run's ``config.txt``.

    With ``--evaluate``, a key of that file that is not known any more gives a warning.

    Raises:
        ConfigError: the folder holds no run, or a run of another algorithm; or two of ``--evaluate``, ``--resume`` and
            ``--config`` are given.
    """
    args = parser.parse_args(flags)
    named = [name for name in ("evaluate", "resume", "config") if getattr(args, name) is not None]
    if named in ([], ["config"]):
        return args
    if len(named) > 1:
        raise ConfigError(
            explain(f"--{named[0]}", expected="it alone", got=" and ".join(f"--{name}" for name in named))
        )
    folder, _ = saved_run(getattr(args, named[0]))
    began_with = algorithm_of(folder, f"--{named[0]}")
    if began_with is not None and algorithm not in (None, began_with):
        hint = f"Go on with the command that began it, {began_with}.py."
        expected, got = f"a run of {algorithm}", f"one of {began_with}"
        raise ConfigError(explain(f"--{named[0]}", expected=expected, got=got, hint=hint))
    return load_config(parser, folder / CONFIG, flags, leaves_out_unknown=named == ["evaluate"])


def algorithm_of(folder: Path, who: str) -> str | None:
    """Return the algorithm that the ``config.txt`` of a saved run names; None where it names none.

    Raises:
        ConfigError: the folder holds no run; ``who`` asked for one.
    """
    path = folder / CONFIG
    if not path.is_file():
        expected, got = "the folder of a run", f"no {path}"
        raise ConfigError(explain(who, expected=expected, got=got, hint=_newest(folder)))
    named = re.match(r"# (\w+) on ", path.read_text(encoding="utf-8", errors="replace"))
    return None if named is None else named[1]


def _newest(folder: Path) -> str:
    """Return the name of the newest run in a folder, or in its parent folder where the folder holds none."""
    runs = folder if folder.is_dir() else folder.parent
    files = sorted(runs.glob(f"*/{CONFIG}"), key=lambda path: path.stat().st_mtime)
    return f"The newest run in {runs} is {files[-1].parent}." if files else ""


def origin_of(algorithm: str, settings: Command) -> dict[str, object]:
    """Return what a summary says of how the run was made."""
    return {
        "algorithm": algorithm,
        "env": task_name(settings.environment),
        "parent": settings.recording.resume,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), "torchrl": __version__}
        | {library: metadata.version(library) for library in LIBRARIES},
    }


def make_summary(algorithm: str, settings: Command, agent: Agent, reporter: Evaluator) -> dict[str, object]:
    """Evaluate the trained agent, and write and return its summary.

    Returns:
        What :func:`~torchrl.agents.summarise` gathers, after ``algorithm``, ``env``, ``parent`` (the run that this one
        went on from), ``date``, ``versions`` and ``simulator_steps``.
    """
    summary = origin_of(algorithm, settings)
    summary["simulator_steps"] = agent.frames * frame_skip_of(settings.environment)
    summary |= summarise(agent, reporter, seed=settings.recording.seed)
    write_summary(agent.folder / SUMMARY, summary)
    agent.logger.log_summary(summary, agent.frames)
    return summary


def report(algorithm: str, settings: Command, agent: Agent, reporter: Evaluator) -> dict[str, object]:
    """Evaluate the trained agent, write its summary and learning curve, and print the results.

    Returns:
        See :func:`make_summary`.
    """
    folder, recording, task = agent.folder, settings.recording, task_name(settings.environment)
    summary = make_summary(algorithm, settings, agent, reporter)
    has_best = (folder / BEST).is_file()
    best = f" (best checkpoint: {summary['best_eval_return_mean']:.1f})" if has_best else ""
    if (share := summary.get("eval_success_share")) is not None:
        best += f"; {share:.0%} succeeded" + (f" ({summary['best_eval_success_share']:.0%})" if has_best else "")
    print(
        f"{task}: evaluation return {summary['eval_return_mean']:.1f} ± {summary['eval_return_std']:.1f} "
        f"over {recording.eval_episodes} episodes{best}\n"
        f"{summary['frames']:,} frames{_simulator_steps(settings, summary['frames'])} in {summary['seconds']:.1f} s "
        f"(collecting {summary['collect_seconds']:.1f}, optimising {summary['optimise_seconds']:.1f}, "
        f"evaluating {summary['evaluate_seconds']:.1f}): {summary['fps']:,.0f} frames per second\n"
        f"{_restarts(agent.collector)}"
        f"logs:        {folder}  (tensorboard --logdir {folder.parent})\n"
        f"checkpoints: {', '.join(str(folder / name) for name in (LAST, BEST) if (folder / name).is_file())}"
    )
    if not (folder / PROGRESS).is_file():  # stopped before the first batch was trained on, or by --loggers
        return summary
    try:
        learning_curve(folder / PROGRESS, folder / CURVE, title=task)
    except MissingExtraError as error:
        print(f"curve:       not drawn. {error}")
    else:
        print(f"curve:       {folder / CURVE}")
    return summary


def announce(settings: Command, folder: Path) -> None:
    """Print the task, frames, seed and folder of a run that is about to begin."""
    num_frames, recording = num_trained(settings.collecting), settings.recording
    frames = f"{num_frames:,} frames{_simulator_steps(settings, num_frames)}"
    origin = f", going on from {recording.resume}" if recording.resume else ""
    task = task_name(settings.environment)
    print(f"{task}: {frames}, seed {recording.seed}{origin}; configuration and logs in {folder}")


def _simulator_steps(settings: Command, frames: int) -> str:
    skip = frame_skip_of(settings.environment)
    return f" ({frames * skip:,} simulator steps)" if skip != 1 else ""


def _restarts(collector: object) -> str:
    num = getattr(collector, "num_restarts", 0)
    return f"workers:     {num} restarted, {collector.dropped_frames:,} frames dropped\n" if num else ""
