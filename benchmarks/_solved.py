"""Train one task by Stable-Baselines3 to its goal: what ``time_to_solved.py`` times ours against.

    python benchmarks/_solved.py ppo_cartpole SEED FOLDER

Settings are those of our shipped configs, the tuned ones of the RL Baselines3 Zoo. The last line that it prints is
``FRAMES RETURN``: what it was trained on, and the mean return of the best evaluation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EPISODES = 10  # of one evaluation, each in an environment of its own, as ours plays them


@dataclass(frozen=True)
class Goal:
    """A mean return to reach by a shipped config, and the frames between two evaluations, the config's own."""

    algorithm: str
    config: str
    env: str
    target: float
    budget: float
    total_frames: int
    every_frames: int
    num_envs: int = 1

    @property
    def title(self) -> str:
        """Name algorithm, task and goal."""
        return f"{self.algorithm.upper()} {self.env}, {self.target:g}"


GOALS = {
    "ppo_cartpole": Goal("ppo", "cartpole", "CartPole-v1", 475, 0.5, 100_000, 10_000, num_envs=8),
    "dqn_cartpole": Goal("dqn", "cartpole", "CartPole-v1", 475, 0.65, 50_000, 5_000),
    "sac_pendulum": Goal("sac", "pendulum", "Pendulum-v1", -160, 0.65, 20_000, 5_000),
    "ppo_lunarlander": Goal("ppo", "lunarlander", "LunarLander-v3", 200, 0.5, 999_424, 50_000, num_envs=16),
}


def falling(start: float) -> Callable[[float], float]:
    """Return what goes from ``start`` to 0 with the part of the run that remains."""
    return lambda remaining: remaining * start


def options_of(name: str) -> dict:
    """Return a task's settings, in the words of Stable-Baselines3."""
    return {
        "ppo_cartpole": {
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "learning_rate": falling(1e-3),
            "clip_range": falling(0.2),
        },
        "dqn_cartpole": {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
        "sac_pendulum": {"learning_rate": 1e-3},
        "ppo_lunarlander": {
            "n_steps": 1024,
            "batch_size": 64,
            "n_epochs": 4,
            "gamma": 0.999,
            "gae_lambda": 0.98,
            "ent_coef": 0.01,
        },
    }[name]


def main(name: str, seed: int, folder: Path) -> None:
    """Train until the goal or the last frame, and print how it ended."""
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    goal = GOALS[name]
    env = make_vec_env(goal.env, goal.num_envs, seed=seed)
    evaluation = EvalCallback(
        make_vec_env(goal.env, EPISODES, seed=seed + 1000),
        callback_on_new_best=StopTrainingOnRewardThreshold(goal.target),
        n_eval_episodes=EPISODES,
        eval_freq=goal.every_frames // goal.num_envs,
        best_model_save_path=str(folder),
        log_path=str(folder),
        verbose=0,
    )
    model = getattr(stable_baselines3, goal.algorithm.upper())("MlpPolicy", env, seed=seed, **options_of(name))
    model.learn(goal.total_frames, callback=evaluation)
    print(model.num_timesteps, float(evaluation.best_mean_reward))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
