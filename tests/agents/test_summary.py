"""The report at the end of a run."""

import json

import pytest
import torch

from torchrl.agents import BEST, Evaluator, load_checkpoint, save_checkpoint, summarise, write_summary
from torchrl.envs import GymEnv
from torchrl.errors import CheckpointError


@pytest.fixture
def evaluator():
    env = GymEnv("CartPole-v1", num_envs=2)
    yield Evaluator(env, num_episodes=4, seed=77)
    env.close()


def test_last_and_best_are_measured_on_the_evaluators_seeds_and_the_agent_is_left_as_it_was(
    make_agent, evaluator, tmp_path
):
    agent = make_agent(total_frames=512, evaluate_every=128, folder=tmp_path)
    agent.train()
    best = load_checkpoint(tmp_path / BEST)
    with torch.no_grad():  # a best policy that always pushes left
        networks = best["networks"]
        for state in networks.values():
            for name, value in state.items():
                if name.endswith("module.1.0.weight") or "actor" in name and name.endswith("weight"):
                    value.zero_()
                if "actor" in name and name.endswith("bias") and value.shape == (2,):
                    value.copy_(torch.tensor([1.0, 0.0]))
    save_checkpoint(tmp_path / BEST, best)
    before = {name: value.clone() for name, value in agent.loss.state_dict().items()}
    seconds = dict(agent.seconds)
    summary = summarise(agent, evaluator, seed=3)
    last = evaluator(agent.policy)
    assert summary["eval_return_mean"] == last.mean and summary["eval_return_std"] == last.std
    assert 8 <= summary["best_eval_return_mean"] <= 11 and summary["best_eval_return_mean"] != last.mean
    assert summary["frames"] == 512 and summary["seed"] == 3 and summary["eval_episodes"] == 4
    assert summary["num_parameters"] == (4 * 16 + 16) * 2 + 17 * 2 + 17
    assert agent.seconds == seconds and summary["seconds"] == pytest.approx(sum(seconds.values()))
    assert summary["fps"] == pytest.approx(512 / (seconds["collect"] + seconds["optimise"]))
    assert {f"{phase}_seconds": summary[f"{phase}_seconds"] for phase in seconds} == {
        f"{phase}_seconds": value for phase, value in seconds.items()
    }
    for name, value in agent.loss.state_dict().items():
        assert torch.equal(value, before[name])


def test_without_a_best_checkpoint_the_last_policy_counts(make_agent, evaluator, tmp_path):
    summary = summarise(make_agent(folder=tmp_path), evaluator, seed=0)
    assert summary["best_eval_return_mean"] == summary["eval_return_mean"] and summary["fps"] == 0.0


def test_a_best_checkpoint_of_other_networks_is_refused(make_agent, evaluator, tmp_path):
    make_agent(width=8).save(tmp_path / BEST)
    with pytest.raises(CheckpointError, match="instead of"):
        summarise(make_agent(folder=tmp_path), evaluator, seed=0)


def test_a_summary_is_written_whole_as_json(tmp_path):
    write_summary(tmp_path / "run" / "summary.json", {"frames": 3, "fps": 1.5})
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == {"frames": 3, "fps": 1.5}
