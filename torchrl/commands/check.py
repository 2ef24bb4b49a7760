"""Check whether an environment keeps the rules: a report, and status 1 where it breaks one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from torchrl.commands.parsing import make_parser
from torchrl.commands.worlds import ENV_ID, settings_for, spaces_of
from torchrl.envs import check_env
from torchrl.errors import TorchRLError
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.envs import make_env
from torchrl.recipes.parts import Environment
from torchrl.recipes.settings import NonNegativeInt, PositiveInt, add_parts

DESCRIPTION = "Act at random, twice from one seed, and report where the environment breaks its specs or the rules."


@dataclass(frozen=True)
class Looking:
    """How long, and from which starts."""

    steps: PositiveInt = 200
    "steps of all rows; enough to see an episode end"
    seed: NonNegativeInt = 0
    "of both runs"
    repeats: bool = True
    "a seed must repeat the run; --no-repeats where it cannot, as with the contacts of Box2D"


@dataclass(frozen=True)
class Check:
    """Check an environment."""

    environment: Environment = Environment(num_envs=4)
    looking: Looking = Looking()


def parser() -> ConfigParser:
    """Make the parser of the command.

    >>> parser().parse_args(["CartPole-v1", "--steps=50"]).steps
    50
    """
    return add_parts(make_parser("check", DESCRIPTION, env_id=ENV_ID), Check)


def run(flags: Sequence[str]) -> None:
    """Check an environment as commands make it, and print what was found; the last line says whether it passed.

    Args:
        flags: the environment's id, flags of the environment, ``--steps``, ``--seed`` and ``--no-repeats``.

    Raises:
        ConfigError: flags that do not fit each other.
        EnvError: there is no such environment.
        SystemExit: with status 1, it broke a rule.
    """
    args = parser().parse_args(flags)
    settings = settings_for(Check, args)
    environment, looking = settings.environment, settings.looking
    problem = None
    with closing(make_env(environment, num_envs=environment.num_envs, training=True, gamma=0.99)) as env:
        print(f"{args.env_id}, {environment.num_envs} rows:", *(f"  {line}" for line in spaces_of(env)), sep="\n")
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            try:
                check_env(env, num_steps=looking.steps, seed=looking.seed, repeats=looking.repeats)
            except TorchRLError as error:
                problem = error
    for warning in found:
        print(f"  warning: {warning.message}")
    if problem is not None:
        print(f"  broken: {problem}")
        print(f"{args.env_id} breaks a rule; what is due stands in docs/concepts/environments.md")
        raise SystemExit(1)
    what = "keys, shapes, types, bounds, endings, restarts, last observations"
    again = ", and a seed repeats the run" if looking.repeats else ""
    print(f"{args.env_id} keeps the rules over {looking.steps} steps of each row: {what}{again}")
