"""The example with parameters of each row: skills in one batch, told apart by where they lead."""

import math
from contextlib import closing

import cloudpickle
import pytest
import torch

from cases.examples import load, settings_of
from torchrl.record import read_csv


@pytest.fixture
def make_agent():
    """Build the example's agent by flags, and close it."""
    agents = []

    def make_agent(*flags):
        agents.append(load("diayn").make_agent(settings_of("diayn", "--no-progress_bar", *flags)))
        return agents[-1]

    yield make_agent
    for agent in agents:
        agent.close()


def test_every_row_keeps_its_skill_and_is_paid_for_showing_it(make_agent):
    agent = make_agent("--num_envs=6", "--num_skills=3", "--frames_per_batch=150")
    batch = agent.collector.collect()  # 25 steps, across an ending
    skills = batch["skill"]
    assert torch.equal(skills, torch.eye(3).repeat(2, 1).unsqueeze(1).expand(6, 25, 3))
    log_q = agent.loss.discriminator(batch["next", "observation"]).log_softmax(-1)
    paid = agent.advantage(batch)["next", "reward"]
    torch.testing.assert_close(paid.squeeze(-1), log_q[skills.bool()].reshape(6, 25) + math.log(3))
    terms = agent.loss(batch)
    torch.testing.assert_close(terms["loss_discriminator"], math.log(3) - paid.mean())
    assert terms["accuracy"] == (log_q.argmax(-1) == skills.argmax(-1)).float().mean()
    terms["loss_discriminator"].backward()
    assert agent.loss.discriminator.layers[0].weight.grad is not None
    assert all(parameter.grad is None for parameter in agent.loss.actor.parameters())


@pytest.mark.usefixtures("leaves_nothing")
def test_each_process_plays_all_skills():
    flags = ("--num_envs=12", "--num_skills=3", "--num_workers=2", "--frames_per_batch=12")
    example = load("diayn")
    cloudpickle.register_pickle_by_value(example)  # as what a script defines, which no process could import
    try:
        with closing(example.make_agent(settings_of("diayn", *flags))) as agent:
            batch = agent.collector.collect()
    finally:
        cloudpickle.unregister_pickle_by_value(example)
    assert batch["skill"].argmax(-1).flatten().tolist() == [0, 1, 2] * 4


def test_skills_are_told_apart_after_training_and_not_before(tmp_path):
    flags = ["--total_frames=20000", "--record_interval=10000", "--loggers", "csv", "--no-progress_bar"]
    load("diayn").main([*flags, f"--folder={tmp_path}"])
    torch.set_flush_denormal(False)
    (folder,) = tmp_path.iterdir()
    accuracy = read_csv(folder / "progress.csv")["loss/accuracy"]
    assert accuracy[0] < 0.45 and sum(accuracy[-5:]) / 5 >= 0.6  # chance is 0.2


@pytest.mark.parametrize("flags", [["--num_envs=7"], ["--num_envs=10", "--num_workers=5"]])
def test_rows_that_cannot_be_shared_out_are_one_message(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        load("diayn").main(flags)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "--num_envs: expected a multiple of the 5 of --num_skills" in told
