"""Watch a run's best checkpoint: films of its episodes, and a window where there is a display."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from torchrl.agents import VIDEOS, film_episode
from torchrl.commands.parsing import make_parser
from torchrl.commands.runs import open_saved
from torchrl.modules import ExplorationType
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.envs import FILM, task_name
from torchrl.recipes.record import saved_run
from torchrl.recipes.saved import load_best
from torchrl.recipes.value_types import non_negative_int, positive_int
from torchrl.record import picture_window, require_video
from torchrl.seeding import child_seeds

DESCRIPTION = (
    "Play whole episodes with the best checkpoint of a run, film each, and show them where there is a display."
)


def parser() -> ConfigParser:
    """Make the parser of the command.

    >>> parser().parse_args(["ppo_logging/one", "--episodes=2"]).episodes
    2
    """
    run = "the folder of a run, whose best checkpoint is taken, or one checkpoint, RUN/last.pt"
    made = make_parser("enjoy", DESCRIPTION, run=run)
    made.add_argument("--episodes", default=1, type=positive_int, help="how many")
    made.add_argument("--seed", default=0, type=non_negative_int, help="of the episodes' starts")
    made.add_argument("--fps", default=30, type=positive_int, help="steps that are shown in a second")
    made.add_switch("--window", default=True, help="open a window where there is a display")
    made.add_switch("--sample", default=False, help="draw actions as in training; else the likeliest is taken")
    return made


def run(flags: Sequence[str]) -> None:
    """Film episodes of a run; the last line says where the films lie.

    Args:
        flags: the run, ``--episodes``, ``--seed``, ``--fps``, ``--no-window``, ``--sample``.

    Raises:
        ConfigError: there is no such run, or its environment draws no pictures.
        CheckpointError: it has no checkpoint that can be read.
        MissingExtraError: the extra ``video`` is not installed.
    """
    args = parser().parse_args(flags)
    require_video()
    how = ExplorationType.RANDOM if args.sample else ExplorationType.DETERMINISTIC
    folder = saved_run(args.run)[0] / VIDEOS
    with open_saved(args.run, "--eval_episodes=1") as (settings, agent, _):
        print(f"taken from {load_best(settings, agent)}")
        env = settings.make_env(num_envs=1, training=False, filmed=True)
        options = {"key": FILM, "learned": agent.collector.learned_states(), "exploration_type": how, "fps": args.fps}
        with closing(env), picture_window(task_name(settings.environment), fps=args.fps) as show:
            if args.window and show is None:
                print("no window: there is no display")
            options["show"] = show if args.window else None
            for number, seed in enumerate(child_seeds(args.seed, args.episodes)):
                path = folder / f"enjoy_{number}.mp4"
                end = film_episode(agent.policy, env, path, seed=seed, **options)
                length, total = int(end["episode_length"]), end["episode_return"].flatten().tolist()
                print(f"{path.name}: return {', '.join(f'{value:.1f}' for value in total)} in {length:,} steps")
    print(f"films: {folder}")
