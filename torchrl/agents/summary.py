"""The summary of a run: returns of its last and its best policy, from starts that did not choose the best one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from torchrl.agents.agent import Agent
from torchrl.agents.evaluate import Evaluation, Evaluator
from torchrl.agents.recording import BEST
from torchrl.files import write_whole


def summarise(agent: Agent, evaluator: Evaluator, *, seed: int) -> dict[str, float | int]:
    """Evaluate the last and the best policy of a trained agent, and gather the figures of the run.

    >>> from torchrl.agents import Evaluator
    >>> summary = summarise(agent, Evaluator(env, num_episodes=2, seed=1), seed=0)
    >>> summary["frames"], summary["eval_episodes"], summary["seed"]
    (0, 2, 0)

    Args:
        agent: after training; it is left as it was.
        evaluator: with other start seeds than the agent's own, which chose the best checkpoint.
        seed: the run's, for the record.

    Returns:
        ``eval_return_mean`` and ``eval_return_std`` of the policy as it stands, ``best_eval_return_mean`` of the best
        checkpoint (of the policy as it stands where there is none), ``eval_success_share`` and
        ``best_eval_success_share`` where the evaluator has a ``success_key``, ``eval_episodes`` (its own), ``frames``,
        ``seconds`` (all phases of training, this report not), ``collect_seconds``, ``optimise_seconds``,
        ``evaluate_seconds``, ``fps`` (frames per second of collecting and optimising), ``seed``, ``num_parameters``.
    """
    seconds = dict(agent.seconds)
    last = agent.evaluate(evaluator)
    best = _evaluate_best(agent, evaluator) or last
    agent.seconds = seconds
    training = seconds["collect"] + seconds["optimise"]
    return {
        "eval_return_mean": last.mean,
        "eval_return_std": last.std,
        "best_eval_return_mean": best.mean,
        **_shares(eval_success_share=last, best_eval_success_share=best),
        "eval_episodes": evaluator.num_episodes,
        "frames": agent.frames,
        "seconds": sum(seconds.values()),
        **{f"{phase}_seconds": spent for phase, spent in seconds.items()},
        "fps": agent.frames / training if training else 0.0,
        "seed": seed,
        "num_parameters": agent.num_parameters,
    }


def _shares(**evaluations: Evaluation) -> dict[str, float]:
    shares = {name: evaluation.success_share for name, evaluation in evaluations.items()}
    return {name: share for name, share in shares.items() if share is not None}


def write_summary(path: str | os.PathLike, summary: dict) -> None:
    """Write a summary as JSON, whole or not at all.

    >>> write_summary(folder / "summary.json", {"frames": 64, "seed": 0})
    >>> json.loads((folder / "summary.json").read_text())
    {'frames': 64, 'seed': 0}
    """
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")


def _evaluate_best(agent: Agent, evaluator: Evaluator) -> Evaluation | None:
    """Evaluate the best checkpoint's networks and statistics, then restore the agent's; None without a checkpoint."""
    path = None if agent.folder is None else Path(agent.folder) / BEST
    if path is None or not path.exists():
        return None
    networks = agent.networks
    present = {
        name: {key: value.clone() for key, value in module.state_dict().items()} for name, module in networks.items()
    }
    learned = agent.collector.learned_states()
    try:
        agent.load_networks(path)
        return agent.evaluate(evaluator)
    finally:
        for name, module in networks.items():
            module.load_state_dict(present[name])
        agent.collector.load_learned_states(learned, for_acting=True)
