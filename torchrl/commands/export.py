"""Export the policy of a run's best checkpoint to a file that torch, or onnxruntime, reads alone."""

from __future__ import annotations

from collections.abc import Sequence

from torchrl.commands.parsing import make_parser
from torchrl.commands.runs import open_saved
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.record import saved_run
from torchrl.recipes.saved import export_policy, load_best

POLICY = "policy.pt2"
DESCRIPTION = "Write the policy of a run to a file: what acts, and nothing of the training."


def parser() -> ConfigParser:
    """Make the parser of the command.

    >>> parser().parse_args(["ppo_logging/one", "policy.onnx"]).file
    'policy.onnx'
    """
    run = "the folder of a run, whose best checkpoint is taken, or one checkpoint, RUN/last.pt"
    file = f"optional: FILE.pt2 or FILE.onnx (with the extra: onnx), else RUN/{POLICY}"
    return make_parser("export", DESCRIPTION, run=run, file=file)


def run(flags: Sequence[str]) -> None:
    """Export a policy; the last line says in which file it is.

    Args:
        flags: the run and, if wanted, the file.

    Raises:
        ConfigError: there is no such run.
        CheckpointError: it has no checkpoint that can be read.
        MissingExtraError: ONNX is asked for, and the extra ``onnx`` is not installed.
    """
    args = parser().parse_args(flags)
    with open_saved(args.run, "--eval_episodes=1") as (settings, agent, reporter):
        print(f"taken from {load_best(settings, agent)}")
        export_policy(args.file or saved_run(args.run)[0] / POLICY, agent, reporter.env)
