"""A run in this process, as a user would write it."""

import shutil

import pytest
import torch

from torchrl.commands.main import main

TINY = ["--total_frames=64", "--frames_per_batch=32", "--num_envs=2", "--minibatch_size=32", "--num_epochs=1"]
TINY += ["--record_interval=32", "--record_episodes=1", "--eval_episodes=2", "--max_episode_steps=8"]
TINY += ["--no-progress_bar", "--loggers=csv"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a run of 64 frames, in a folder of its own."""
    folder = tmp_path_factory.mktemp("runs")
    main(["train", "ppo", "--config=cartpole", *TINY, f"--folder={folder}"])
    torch.set_flush_denormal(False)
    return next(folder.iterdir())


@pytest.fixture
def saved_run(trained, tmp_path):
    """A copy of that run, in the folder in which commands run: ``run``."""
    return shutil.copytree(trained, tmp_path / "run").relative_to(tmp_path)


@pytest.fixture
def saved_seeds(trained, tmp_path):
    """The folder ``runs`` as ``--seeds=0,10,2`` makes it."""
    for seed in (0, 10, 2):
        shutil.copytree(trained, tmp_path / "runs" / f"seed_{seed}")
    shutil.copy(trained / "config.txt", tmp_path / "runs")
    return (tmp_path / "runs").relative_to(tmp_path)


@pytest.fixture
def torchrl(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; return the lines that it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        main(list(words))
        return capsys.readouterr().out.splitlines()

    yield run
    torch.set_flush_denormal(False)


@pytest.fixture
def refused(torchrl, capsys):
    """Run a command that ends with status 2; return its one message."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            torchrl(*words)
        printed = capsys.readouterr()
        assert ended.value.code == 2
        assert printed.out == "" and printed.err.count("\n") == 1
        return printed.err

    return run
