"""Run folders, loggers, evaluation and the last report from flags."""

from __future__ import annotations

import shutil
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

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
    summarise,
    write_summary,
)
from torchrl.errors import CheckpointError, ConfigError, MissingExtraError, explain
from torchrl.objectives.costs import Coefficient
from torchrl.recipes.config import (
    ConfigParser,
    default_of,
    load_config,
    non_negative_int,
    positive_int,
    real,
    save_config,
)
from torchrl.recipes.envs import FILM, make_env, task_name
from torchrl.record import CSVLogger, FanOut, Logger, TensorBoardLogger, learning_curve, require_video
from torchrl.seeding import named_seeds

CONFIG, PROGRESS, SUMMARY, CURVE = "config.txt", "progress.csv", "summary.json", "learning_curve.png"
MAX_EVALUATION_ENVS = 10


def add_record_arguments(parser: ConfigParser) -> None:
    """Add the flags about seeds, evaluation and logs."""
    group = parser.add_argument_group("recording")
    group.add_argument("--name", default="", help="name of the run's folder; empty takes the task's")
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
    group.add_argument("--evaluate", metavar="RUN", help="train nothing: evaluate the run saved in this folder")
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with the run saved in this folder, in a new one; needs more --total_frames",
    )


def make_run_folder(algorithm: str, args: Namespace) -> Path:
    """Make ``<algorithm>_logging/<name>_<date>/`` below the current folder, never one that exists, with ``config.txt``.

    Raises:
        ConfigError: the folder cannot be made.
    """
    stem = f"{args.name or task_name(args)}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    for suffix in ["", *(f"_{number}" for number in range(2, 1000))]:
        folder = Path(f"{algorithm}_logging") / f"{stem}{suffix}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if folder.is_dir():
                continue
            raise ConfigError(explain("--name", expected="a folder that can be made", got=str(error))) from error
        settings = {key: value for key, value in vars(args).items() if key not in ("evaluate", "resume")}
        origin = f", resumed from {args.resume}" if args.resume else ""
        save_config(Namespace(**settings), folder / CONFIG, comment=f"{algorithm} on {task_name(args)}{origin}")
        if args.resume and (Path(args.resume) / BEST).is_file():
            shutil.copyfile(Path(args.resume) / BEST, folder / BEST)
        return folder
    raise ConfigError(explain("--name", expected="a name that is free", got=stem))


def resume(args: Namespace, agent: Agent) -> None:
    """Let an agent go on from the run that ``--resume`` names, with the learning rate and the weights of the flags.

    The checkpoint holds them too, as part of the optimizer and of the loss; a flag goes before it.

    Raises:
        CheckpointError: the run has no checkpoint, or it does not fit the flags.
        ConfigError: the run has all its frames, or had another optimizer.
    """
    buffer = Path(args.resume) / BUFFER
    if buffer.is_dir() and isinstance(agent.optimise, ReplayUpdates):
        agent.optimise.buffer.load(buffer)  # first: without it, updates wait for frames to be collected anew
    agent.load(Path(args.resume) / LAST)
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


def make_logger(folder: Path) -> Logger:
    """Write to TensorBoard and to ``progress.csv``."""
    return FanOut(TensorBoardLogger(folder), CSVLogger(folder))


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


def with_saved_config(parser: ConfigParser, flags: Sequence[str]) -> Namespace:
    """Parse flags; where ``--evaluate`` or ``--resume`` names a run, its configuration stands below the other flags.

    Raises:
        ConfigError: the folder holds no run, or both are given, or one of them and ``--config``.
    """
    args = parser.parse_args(flags)
    named = [name for name in ("evaluate", "resume", "config") if getattr(args, name) is not None]
    if named in ([], ["config"]):
        return args
    if len(named) > 1:
        raise ConfigError(
            explain(f"--{named[0]}", expected="it alone", got=" and ".join(f"--{name}" for name in named))
        )
    folder = getattr(args, named[0])
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ConfigError(explain(f"--{named[0]}", expected="the folder of a run", got=f"no {path}"))
    return load_config(parser, path, flags)


def report_saved(agent: Agent, reporter: Evaluator, folder: Path) -> dict[str, Evaluation]:
    """Evaluate the checkpoints of a run and print what they reach.

    Raises:
        CheckpointError: the folder holds none.
    """
    names = [name for name in (LAST, BEST) if (folder / name).is_file()]
    if not names:
        raise CheckpointError(explain("--evaluate", expected=f"{LAST} or {BEST}", got=f"neither in {folder}"))
    results = {}
    for name in names:
        agent.load_networks(folder / name)
        results[name] = agent.evaluate(reporter)
        print(f"{name}: {_returns(results[name])}")
    return results


def report(args: Namespace, agent: Agent, reporter: Evaluator) -> dict[str, float | int]:
    """Evaluate the trained agent, write summary and picture, and print what a user wants to know."""
    folder = agent.folder
    summary = summarise(agent, reporter, seed=args.seed)
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
    if not (folder / PROGRESS).is_file():  # stopped before the first batch was trained on
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
    frames = f"{args.total_frames:,} frames{_simulator_steps(args, args.total_frames)}"
    origin = f", going on from {args.resume}" if args.resume else ""
    print(f"{task_name(args)}: {frames}, seed {args.seed}{origin}; configuration and logs in {folder}")


def _simulator_steps(args: Namespace, frames: int) -> str:
    return f" ({frames * args.frame_skip:,} simulator steps)" if args.frame_skip != 1 else ""


def _restarts(collector: object) -> str:
    num = getattr(collector, "num_restarts", 0)
    return f"workers:     {num} restarted, {collector.dropped_frames:,} frames dropped\n" if num else ""


def _returns(result: Evaluation) -> str:
    return f"return {result.mean:.1f} ± {result.std:.1f} over {len(result.returns)} episodes"
