"""Open a saved run: build its agent, evaluate its checkpoints, hand its policy over. It trains nothing."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import torch

from torchrl.agents import AGENT, Agent, Evaluation, Evaluator, load_checkpoint, newest_checkpoint
from torchrl.deploy import export_onnx
from torchrl.envs import Env
from torchrl.errors import CheckpointError, explain
from torchrl.recipes.parts import Command
from torchrl.recipes.record import make_reporter, naming_other_networks, saved_run
from torchrl.recipes.sense import remarks, require_sense
from torchrl.recipes.settings import from_flags
from torchrl.record import bootstrap_interval


@contextmanager
def open_run(
    settings: type[Command], args: Namespace, make_agent: Callable[[Command], Agent], flags: Sequence[str]
) -> Iterator[tuple[Command, Agent, Evaluator]]:
    """Build the agent of a saved run in this process, without the worker processes of its configuration.

    Its networks are new ones until :func:`report_saved` or :func:`load_best` fills them.

    Args:
        settings: the dataclass of the command's settings.
        args: parsed flags, with those of the run that ``--evaluate`` names.
        make_agent: builds the agent.
        flags: as they were typed.

    Yields:
        The settings, the agent and the evaluator of the last report; the last two are closed after the block.
    """
    alone = {"num_workers": 0, "env_workers": 0, "on_worker_failure": "raise", "evaluate_beside": False}
    alone |= {name: False for name in ("async_collection", "keep_learning") if name in args}
    alone |= {"collection_devices": args.collection_devices[:1]}
    chosen = from_flags(settings, vars(args) | alone)
    require_sense(chosen, flags)
    prepare_torch(chosen)
    for line in remarks(chosen, flags):
        print(line)
    with closing(make_reporter(chosen)) as reporter, closing(make_agent(chosen)) as agent:
        yield chosen, agent, reporter


def prepare_torch(settings: Command) -> None:
    """Set torch's number of threads, and let it flush denormal numbers to 0."""
    torch.set_num_threads(settings.optimising.num_threads)
    # Adam's averages of a unit that died fade into numbers below 1e-38, on which a CPU computes very slowly: after
    # 3,000 frames of SAC they were 28 % of all, and every update took 0.8 ms longer.
    torch.set_flush_denormal(True)


def report_saved(settings: Command, agent: Agent, reporter: Evaluator) -> dict[str, Evaluation]:
    """Evaluate the checkpoints of the run that ``--evaluate`` names, or the one, and print their returns.

    A checkpoint that cannot be read gives a warning if another can be read.

    Returns:
        The evaluation of each, by its name: the last, then the best.

    Raises:
        CheckpointError: there is no checkpoint, none can be read, or one does not fit the agent.
    """
    results = {}
    for path in _readable(settings):
        _load(settings, agent, path)
        results[path.name] = agent.evaluate(reporter)
        print(f"{path.name}: {_returns(results[path.name])}")
    return results


def load_best(settings: Command, agent: Agent) -> Path:
    """Load the networks of the best checkpoint of the run that ``--evaluate`` names, else of the last, or of the one.

    Returns:
        The path of the checkpoint.

    Raises:
        CheckpointError: there is no checkpoint, none can be read, or it does not fit the agent.
    """
    path = _readable(settings)[-1]
    _load(settings, agent, path)
    return path


def export_policy(path: str | Path, agent: Agent, env: Env) -> None:
    """Write the policy of an agent to a file, as ONNX where its suffix says so, and print where it lies."""
    write = partial(export_onnx, agent) if Path(path).suffix == ".onnx" else agent.save_policy
    write(path, env=env)
    print(f"the policy is in {path}")


def _readable(settings: Command) -> list[Path]:
    """Return the paths of the checkpoints that can be read, the best as the last; warn about the others."""
    folder, wanted = saved_run(settings.recording.evaluate)
    paths = [folder / name for name in wanted if (folder / name).is_file()]
    if not paths and len(wanted) > 1 and (newest := newest_checkpoint(folder)) is not None:
        paths = [newest / AGENT]  # it was killed before its first evaluation
    if not paths:
        expected, got = " or ".join(wanted), f"{'none' if len(wanted) == 1 else 'neither'} in {folder}"
        raise CheckpointError(explain("--evaluate", expected=expected, got=got))
    found = []
    for path in paths:
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            if not found and path == paths[-1]:
                raise
            warnings.warn(f"{error} It is left out.", stacklevel=3)
        else:
            found.append(path)
    return found


def _load(settings: Command, agent: Agent, path: Path) -> None:
    with naming_other_networks(settings, path.parent):
        agent.load_networks(path)


def _returns(result: Evaluation) -> str:
    share = "" if result.success_share is None else f", {result.success_share:.0%} succeeded"
    values = result.returns.tolist()
    return f"return {result.mean:.1f} ± {result.std:.1f} over {len(values)} episodes{interval_text(values)}{share}"


def interval_text(values: Sequence[float]) -> str:
    """Return a text that says between which numbers the mean of such values lies, empty for one value.

    >>> interval_text([1.0, 2.0, 3.0])
    ', mean 1.0 to 3.0 (95 %, bootstrap)'
    """
    low, high = bootstrap_interval(values)
    return "" if len(values) == 1 else f", mean {low:.1f} to {high:.1f} (95 %, bootstrap)"
