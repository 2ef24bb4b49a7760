"""Run folders, loggers, evaluation and the last report from flags."""

from __future__ import annotations

import platform
import re
import shutil
import time
import warnings
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

from torchrl import __version__
from torchrl.agents import (
    BEST,
    BUFFER,
    LAST,
    Agent,
    Evaluation,
    EvaluationProcess,
    Evaluator,
    Hook,
    ProgressBar,
    RecordVideo,
    ReplayUpdates,
    StopAtReturn,
    load_checkpoint,
    summarise,
    write_summary,
)
from torchrl.errors import CheckpointError, ConfigError, MissingExtraError, explain
from torchrl.objectives.costs import Coefficient
from torchrl.recipes.config import (
    ConfigParser,
    default_of,
    file_name,
    load_config,
    non_negative_int,
    positive_int,
    real,
    save_config,
)
from torchrl.recipes.envs import FILM, make_env, task_name
from torchrl.recipes.sense import num_trained
from torchrl.record import CSVLogger, FanOut, Logger, TensorBoardLogger, copy_table, learning_curve, require_video
from torchrl.seeding import named_seeds

CONFIG, PROGRESS, SUMMARY, CURVE = "config.txt", "progress.csv", "summary.json", "learning_curve.png"
MAX_EVALUATION_ENVS = 10
LOGGERS = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
LIBRARIES = ("torch", "tensordict", "gymnasium", "numpy")  # what a run may depend on, beside the environment's own


def add_record_arguments(parser: ConfigParser) -> None:
    """Add the flags about seeds, evaluation and logs."""
    group = parser.add_argument_group("recording")
    group.add_argument(
        "--folder", help="where the runs' folders go; none takes <algorithm>_logging below the current folder"
    )
    group.add_argument("--name", type=file_name, default="", help="name of the run's folder; empty takes the task's")
    group.add_argument(
        "--loggers",
        nargs="*",
        choices=sorted(LOGGERS),
        default=sorted(LOGGERS),
        help="where the numbers of the run go, beside its summary; csv is the table that the curve is drawn from",
    )
    group.add_argument("--seed", type=non_negative_int, default=0, help="all random streams derive from it")
    group.add_argument("--record_interval", type=positive_int, default=50_000, help="frames between two evaluations")
    group.add_argument(
        "--record_episodes",
        type=positive_int,
        default=default_of(Evaluator, "num_episodes"),
        help="episodes of these evaluations, which choose the best checkpoint",
    )
    group.add_switch(
        "--evaluate_beside",
        default=False,
        help="run these evaluations in a process of their own while training goes on",
    )
    group.add_argument(
        "--eval_episodes", type=positive_int, default=20, help="episodes of the last report, from other starts"
    )
    group.add_switch(
        "--record_video",
        default=False,
        help="film an episode of the policy after each of these evaluations (needs the extra: video)",
    )
    group.add_argument("--target_return", type=real, help="stop when an evaluation reaches this mean return")
    group.add_switch("--progress_bar", default=True, help="show a progress bar")
    group.add_argument(
        "--evaluate",
        metavar="RUN",
        help="train nothing: evaluate the run saved in this folder, or one checkpoint, RUN/best.pt",
    )
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with the run saved in this folder, or one checkpoint, RUN/last.pt, in a new folder; needs more "
        "--total_frames",
    )


def make_run_folder(algorithm: str, args: Namespace) -> Path:
    """Make ``<folder>/<name>_<date>/``, never one that exists, with ``config.txt``.

    Args:
        algorithm: names the folder of the runs, ``<algorithm>_logging``, where ``--folder`` names no other.
        args: the parsed flags.

    Raises:
        ConfigError: the folder cannot be made.
    """
    runs = Path(f"{algorithm}_logging" if args.folder is None else args.folder)
    stem = f"{args.name or task_name(args)}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    for suffix in ["", *(f"_{number}" for number in range(2, 1000))]:
        folder = runs / f"{stem}{suffix}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if folder.is_dir():
                continue
            flag = "--name" if args.folder is None else "--folder"
            raise ConfigError(explain(flag, expected="a folder that can be made", got=str(error))) from error
        settings = {key: value for key, value in vars(args).items() if key not in ("evaluate", "resume")}
        origin = f", resumed from {args.resume}" if args.resume else ""
        save_config(Namespace(**settings), folder / CONFIG, comment=f"{algorithm} on {task_name(args)}{origin}")
        return folder
    raise ConfigError(explain("--name", expected="a name that is free", got=stem))


def saved_run(path: str | Path) -> tuple[Path, list[str]]:
    """Read what ``--resume`` and ``--evaluate`` name: a run's folder and its checkpoints, or one of them alone."""
    path = Path(path)
    is_checkpoint = path.is_file() or path.suffix == Path(LAST).suffix
    return (path.parent, [path.name]) if is_checkpoint else (path, [LAST, BEST])


def take_over(args: Namespace, agent: Agent) -> None:
    """Copy into the folder of a resumed run what its parent has reached: the best checkpoint, and the table so far."""
    parent, _ = saved_run(args.resume)
    if (parent / BEST).is_file():
        shutil.copyfile(parent / BEST, agent.folder / BEST)
    if "csv" in args.loggers and (parent / PROGRESS).is_file():
        copy_table(parent / PROGRESS, agent.folder / PROGRESS, until=agent.frames)


def resume(args: Namespace, agent: Agent) -> None:
    """Let an agent go on from the run that ``--resume`` names, with the learning rate and the weights of the flags.

    The checkpoint holds them too, as part of the optimizer and of the loss; a flag goes before it. Of a run whose last
    checkpoint cannot be read the best one is taken, and a warning says so.

    Raises:
        CheckpointError: the run has no checkpoint, or it does not fit the flags.
        ConfigError: the run has all its frames, or had another optimizer.
    """
    folder, names = saved_run(args.resume)
    buffer = folder / BUFFER
    if buffer.is_dir() and isinstance(agent.optimise, ReplayUpdates):
        agent.optimise.buffer.load(buffer)  # first: without it, updates wait for frames to be collected anew
    agent.load_state_dict(_first_readable(folder, names))
    if agent.frames >= args.total_frames:
        got = f"{args.total_frames:,}, which the run has"
        raise ConfigError(explain("--total_frames", expected=f"more than {agent.frames:,}", got=got))
    began_with = agent.configuration.get("optimizer", args.optimizer)
    if args.optimizer != began_with:
        raise ConfigError(explain("--optimizer", expected=f"{began_with}, as the run began", got=args.optimizer))
    agent.configuration = vars(args)
    for name, value in vars(args).items():
        if isinstance(getattr(type(agent.loss), name, None), Coefficient):
            setattr(agent.loss, name, value)
    for group in agent.optimizer.param_groups:
        group |= {"lr": args.lr, "weight_decay": args.weight_decay}


def _first_readable(folder: Path, names: Sequence[str]) -> dict:
    """Read the first of some checkpoints that can be read; warn where it is not the first of all."""
    while True:
        name, *names = names
        try:
            return load_checkpoint(folder / name)
        except CheckpointError as error:
            if not any((folder / other).is_file() for other in names):
                raise
            warnings.warn(f"{error} {names[0]} is taken instead.", stacklevel=3)


def make_logger(args: Namespace, folder: Path) -> Logger:
    """Write to what ``--loggers`` names."""
    return FanOut(*(LOGGERS[name](folder) for name in dict.fromkeys(args.loggers)))


def make_evaluator(args: Namespace) -> Evaluator | EvaluationProcess:
    """Build the periodic evaluation, which chooses the best checkpoint."""
    stream, num_episodes, every_frames = "evaluation", args.record_episodes, args.record_interval
    if not args.evaluate_beside:
        return _evaluator(args, stream, num_episodes, every_frames)
    seed = named_seeds(args.seed, stream)[stream]
    make = _evaluation_env(args, num_episodes)
    return EvaluationProcess(make, num_episodes=num_episodes, seed=seed, every_frames=every_frames)


def make_reporter(args: Namespace) -> Evaluator:
    """Build the evaluation of the last report, on start seeds that chose nothing."""
    return _evaluator(args, "report", args.eval_episodes)


def _evaluator(args: Namespace, stream: str, num_episodes: int, every_frames: int | None = None) -> Evaluator:
    env = _evaluation_env(args, num_episodes)()
    seed = named_seeds(args.seed, stream)[stream]
    return Evaluator(env, num_episodes=num_episodes, seed=seed, every_frames=every_frames)


def _evaluation_env(args: Namespace, num_episodes: int) -> partial:
    return partial(make_env, args, num_envs=min(MAX_EVALUATION_ENVS, num_episodes), training=False)


def make_record_hooks(args: Namespace) -> list[Hook]:
    """Build the hooks that show progress, film, and end a run early."""
    hooks: list[Hook] = [ProgressBar()] if args.progress_bar else []
    if args.target_return is not None:
        hooks.append(StopAtReturn(args.target_return))
    if args.record_video and not args.evaluate:
        require_video()
        make = partial(make_env, args, num_envs=1, training=False, filmed=True)
        hooks.append(RecordVideo(make, key=FILM, seed=named_seeds(args.seed, "film")["film"]))
    return hooks


def with_saved_config(parser: ConfigParser, flags: Sequence[str], algorithm: str | None = None) -> Namespace:
    """Parse flags; where ``--evaluate`` or ``--resume`` names a run, its configuration stands below the other flags.

    A key of a run that is to be evaluated and that is not known any more is a warning.

    Raises:
        ConfigError: the folder holds no run, or one of another than ``algorithm``, or both are given, or one of them
            and ``--config``.
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
    path = folder / CONFIG
    if not path.is_file():
        flag, hint = f"--{named[0]}", _newest(folder)
        raise ConfigError(explain(flag, expected="the folder of a run", got=f"no {path}", hint=hint))
    others = re.match(r"# (\w+) on ", path.read_text(encoding="utf-8", errors="replace"))
    if others is not None and algorithm not in (None, others[1]):
        hint = f"Go on with the command that began it, {others[1]}.py."
        expected, got = f"a run of {algorithm}", f"one of {others[1]}"
        raise ConfigError(explain(f"--{named[0]}", expected=expected, got=got, hint=hint))
    return load_config(parser, path, flags, leaves_out_unknown=named == ["evaluate"])


def _newest(folder: Path) -> str:
    """Name the run that was written to last, in a folder or, where there is none, beside it."""
    runs = folder if folder.is_dir() else folder.parent
    files = sorted(runs.glob(f"*/{CONFIG}"), key=lambda path: path.stat().st_mtime)
    return f"The newest run in {runs} is {files[-1].parent}." if files else ""


def report_saved(agent: Agent, reporter: Evaluator, path: str | Path) -> dict[str, Evaluation]:
    """Evaluate the checkpoints of a run, or one of them, and print what they reach.

    One that cannot be read is a warning where another can.

    Raises:
        CheckpointError: there is none, none can be read, or one does not fit.
    """
    folder, wanted = saved_run(path)
    names = [name for name in wanted if (folder / name).is_file()]
    if not names:
        expected, got = " or ".join(wanted), f"{'none' if len(wanted) == 1 else 'neither'} in {folder}"
        raise CheckpointError(explain("--evaluate", expected=expected, got=got))
    results = {}
    for index, name in enumerate(names):
        try:
            load_checkpoint(folder / name)
        except CheckpointError as error:
            if not results and index == len(names) - 1:
                raise
            warnings.warn(f"{error} It is left out.", stacklevel=2)
            continue
        agent.load_networks(folder / name)
        results[name] = agent.evaluate(reporter)
        print(f"{name}: {_returns(results[name])}")
    return results


def report(algorithm: str, args: Namespace, agent: Agent, reporter: Evaluator) -> dict[str, object]:
    """Evaluate the trained agent, write summary and picture, and print what a user wants to know.

    Returns:
        What :func:`~torchrl.agents.summarise` gathers, after ``algorithm``, ``env``, ``parent`` (the run that this one
        went on from), ``date``, ``versions`` and ``simulator_steps``.
    """
    folder = agent.folder
    summary = {
        "algorithm": algorithm,
        "env": task_name(args),
        "parent": args.resume,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), "torchrl": __version__}
        | {library: metadata.version(library) for library in LIBRARIES},
        "simulator_steps": agent.frames * args.frame_skip,
    }
    summary |= summarise(agent, reporter, seed=args.seed)
    write_summary(folder / SUMMARY, summary)
    has_best = (folder / BEST).is_file()
    best = f" (best checkpoint: {summary['best_eval_return_mean']:.1f})" if has_best else ""
    print(
        f"{task_name(args)}: evaluation return {summary['eval_return_mean']:.1f} ± {summary['eval_return_std']:.1f} "
        f"over {args.eval_episodes} episodes{best}\n"
        f"{summary['frames']:,} frames{_simulator_steps(args, summary['frames'])} in {summary['seconds']:.1f} s "
        f"(collecting {summary['collect_seconds']:.1f}, optimising {summary['optimise_seconds']:.1f}, "
        f"evaluating {summary['evaluate_seconds']:.1f}): {summary['fps']:,.0f} frames per second\n"
        f"{_restarts(agent.collector)}"
        f"logs:        {folder}  (tensorboard --logdir {folder.parent})\n"
        f"checkpoints: {', '.join(str(folder / name) for name in (LAST, BEST) if (folder / name).is_file())}"
    )
    if not (folder / PROGRESS).is_file():  # stopped before the first batch was trained on, or by --loggers
        return summary
    try:
        learning_curve(folder / PROGRESS, folder / CURVE, title=task_name(args))
    except MissingExtraError as error:
        print(f"curve:       not drawn. {error}")
    else:
        print(f"curve:       {folder / CURVE}")
    return summary


def announce(args: Namespace, folder: Path) -> None:
    """Print what is about to run."""
    frames = f"{num_trained(args):,} frames{_simulator_steps(args, num_trained(args))}"
    origin = f", going on from {args.resume}" if args.resume else ""
    print(f"{task_name(args)}: {frames}, seed {args.seed}{origin}; configuration and logs in {folder}")


def _simulator_steps(args: Namespace, frames: int) -> str:
    return f" ({frames * args.frame_skip:,} simulator steps)" if args.frame_skip != 1 else ""


def _restarts(collector: object) -> str:
    num = getattr(collector, "num_restarts", 0)
    return f"workers:     {num} restarted, {collector.dropped_frames:,} frames dropped\n" if num else ""


def _returns(result: Evaluation) -> str:
    return f"return {result.mean:.1f} ± {result.std:.1f} over {len(result.returns)} episodes"
