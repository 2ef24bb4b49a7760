"""What it costs a training to be logged to TensorBoard, CSV and Weights & Biases (offline) together.

    python benchmarks/loggers.py

PPO on CartPole-v1 by its shipped config, 20,480 frames: a line for every 256. Each round trains once with the loggers,
as the commands make them, and once without, in turn. A whole training differs from round to round by more than they
take, so the figure is what their lines took, as a share of the seconds that the training spent to collect, optimise and
evaluate. Beside it stands the ratio of processor times, W&B's own process included, and the seconds to open and close,
which do not grow with the run. Budget: 2 % for the lines. Predicted: 80 lines of 20 numbers at 0.35 ms, of 3 s, so 1 %.
Exits with status 1 where the budget is missed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from torchrl import recipes
from torchrl.errors import MissingExtraError
from torchrl.recipes.config import load_config
from torchrl.recipes.loggers import make_logger
from torchrl.recipes.settings import from_flags, values_of
from torchrl.record.passing_on import PassingOn

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, FRAMES, BUDGET = 5, 20_480, 0.02


class Timed(PassingOn):
    """Pass everything on to a logger, and add up the seconds that its lines and its other calls take."""

    def __init__(self, logger: object) -> None:
        self.logger = logger
        self.lines = self.others = 0.0

    def pass_on(self, method: str, *arguments: object) -> None:
        """Call a method of the logger, and add its seconds."""
        start = time.perf_counter()
        getattr(self.logger, method)(*arguments)
        spent = time.perf_counter() - start
        if method == "log_scalars":
            self.lines += spent
        else:
            self.others += spent


def load_script() -> tuple[type, object]:
    """Import the example's settings and its ``make_agent``."""
    spec = importlib.util.spec_from_file_location("ppo_script", ROOT / "examples" / "ppo" / "ppo.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PPO, module.make_agent


def processor_time() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def train(settings: object, make_agent: object, folder: Path | None) -> tuple[float, float, Timed | None, float]:
    """Train once; return processor seconds, the training's seconds, the timed logger and the seconds to make it."""
    with closing(make_agent(settings)) as agent:
        start, timed = time.perf_counter(), None
        if folder is not None:
            timed = Timed(make_logger(settings.recording, folder))
        made, begin = time.perf_counter() - start, processor_time()
        agent.logger = timed
        if timed is not None:
            timed.log_config(values_of(settings))
        agent.train()
        if timed is not None:
            timed.close()
        return processor_time() - begin, sum(agent.seconds.values()), timed, made


def main() -> None:
    """Print the share of each round, and whether the budget holds."""
    torch.set_num_threads(1)
    kind, make_agent = load_script()
    args = load_config(recipes.parser_of(kind), ROOT / "configs" / "ppo" / "cartpole.txt")
    settings = from_flags(kind, vars(args) | {"total_frames": FRAMES, "progress_bar": False})
    recording = replace(settings.recording, loggers=("tensorboard", "csv", "wandb"))
    settings = replace(settings, recording=recording)
    shares, ratios, apart = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS + 1):  # the first imports and warms up
            plain, _, _, _ = train(settings, make_agent, None)
            try:
                logged, seconds, timed, made = train(settings, make_agent, Path(folder, str(number)))
            except MissingExtraError as error:
                print(f"not measured: {error}")
                return
            if number:
                shares.append(timed.lines / seconds)
                ratios.append(logged / plain)
                apart.append(made + timed.others)
    for name, values in (("share of the lines", shares), ("processor time, logged / not", ratios)):
        print(f"{name:<32}{median(values):8.4f}   {min(values):.4f} - {max(values):.4f}")
    print(f"{'start, config and end, seconds':<32}{median(apart):8.2f}   {min(apart):.2f} - {max(apart):.2f}")
    print(f"budget: {BUDGET} of a training for its lines")
    sys.exit(int(median(shares) > BUDGET))


if __name__ == "__main__":
    main()
