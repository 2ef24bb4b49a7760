"""``--seeds`` trains a run for each seed in one process: tables of single runs, their folders, and what is refused."""

import json

import pytest
import torch

from cases.examples import load
from torchrl.recipes import parser_of
from torchrl.record import CSVLogger, learning_curve, read_csv

TINY = ["--total_frames=64", "--num_envs=2", "--max_episode_steps=10", "--record_interval=32", "--record_episodes=2"]
TINY += ["--eval_episodes=2", "--no-progress_bar", "--loggers=csv", "--num_cells", "8", "8", "--folder=runs"]
REPLAYED = ["--frames_per_batch=8", "--batch_size=8", "--init_random_frames=16", "--start_frames=16"]
REPLAYED += ["--log_interval=16"]
CARTPOLE = "--env_name=CartPole-v1"
RUNS = {
    "ppo": [CARTPOLE, "--frames_per_batch=32", "--minibatch_size=16", "--num_epochs=2"],
    "a2c": [CARTPOLE, "--frames_per_batch=16"],
    "dqn": [CARTPOLE, *REPLAYED],
    "sac": ["--env_name=Pendulum-v1", *REPLAYED],
}


@pytest.fixture(scope="module", autouse=True)
def fonts(tmp_path_factory):
    """Draw a picture: matplotlib keeps the files of its fonts open from the first one on."""
    with CSVLogger(tmp_path_factory.mktemp("drawn")) as logger:
        logger.log_scalars({"eval/return_mean": 0.0}, 0)
    learning_curve(logger.path, logger.path.with_suffix(".png"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command of one of the algorithms in this process; return the folder that it made."""
    monkeypatch.chdir(tmp_path)

    def start(algorithm, *flags):
        before = set(tmp_path.glob("runs/*"))
        load(algorithm).main([*RUNS[algorithm], *TINY, *flags])
        (folder,) = set(tmp_path.glob("runs/*")) - before
        return folder

    yield start
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("algorithm", RUNS)
def test_each_seed_writes_the_table_of_its_own_run(run, algorithm, leaves_nothing):
    together, alone = run(algorithm, "--seeds=0,3"), run(algorithm, "--seed=3", "--name=alone")
    ours, theirs = (read_csv(folder / "progress.csv") for folder in (together / "seed_3", alone))
    assert ours.keys() == theirs.keys() and "eval/return_mean" in ours
    for name in ours.keys() - {name for name in ours if name.startswith("time/")}:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4, nan_ok=True), name
    first, other = (json.loads((folder / "summary.json").read_text()) for folder in (together / "seed_3", alone))
    assert first["eval_return_mean"] == pytest.approx(other["eval_return_mean"])
    assert first["seed"] == other["seed"] == 3


def test_the_folders_the_table_and_the_curve(run, capsys):
    folder = run("ppo", "--seeds=1..2")
    printed = capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        *("config.txt", "learning_curve.png", "seed_1", "seed_2", "summary.json")
    ]
    for name in ("config.txt", "progress.csv", "summary.json", "last.pt", "best.pt"):
        assert (folder / "seed_2" / name).is_file(), name
    summary = json.loads((folder / "summary.json").read_text())
    returns = [json.loads((folder / f"seed_{k}/summary.json").read_text())["eval_return_mean"] for k in (1, 2)]
    assert summary["seeds"] == [1, 2] and summary["eval_returns"] == returns and summary["frames"] == 128
    assert summary["eval_return_mean"] == pytest.approx(sum(returns) / 2)
    assert summary["eval_return_std_of_seeds"] == pytest.approx(abs(returns[0] - returns[1]) / 2)
    assert "for each of the seeds 1..2" in printed
    lines = [line.split()[:2] for line in printed.splitlines()]
    assert ["seed", "1"] in lines and ["seed", "2"] in lines and ["mean", "±"] in lines


def test_a_seed_is_evaluated_and_goes_on_as_a_run(run, capsys):
    folder = run("ppo", "--seeds=0,1")
    load("ppo").main([f"--evaluate={folder}/seed_1"])
    assert "last.pt: return" in capsys.readouterr().out
    further = run("ppo", f"--resume={folder}/seed_1", "--total_frames=96")
    assert json.loads((further / "summary.json").read_text())["frames"] == 96
    for flag in ("--evaluate", "--resume"):
        assert "RUN/seed_0" in refused(capsys, f"{flag}={folder}")


def test_what_cannot_stand_in_one_env_is_said(run, capsys):
    run("ppo", "--seeds=0,1", "--norm_rewards")
    assert "seeds collect one after another: of one env for all, RewardNorm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--seeds=0..1", "--seed=0"], "--seeds: expected it without --seed"),
        (["--seeds=0..1", "--num_workers=2"], "--env_workers steps"),
        (["--seeds=0..1", "--evaluate_beside"], "it without --evaluate_beside"),
        (["--seeds=3..1"], "expected seeds, each once, as 0..7 or 0,3,5, got '3..1'"),
        (["--seeds=1,1"], "each once"),
        (["--seeds=one"], "each once"),
        (["--seeds="], "each once"),
    ],
)
def test_mistakes_are_one_line_and_status_2(flags, text, capsys):
    assert text in refused(capsys, *flags)


def test_what_replay_cannot_share_is_refused(capsys):
    for flags in (["--buffer_folder=here"], ["--keep_learning"], ["--async_collection"]):
        assert f"it without {flags[0].partition('=')[0]}" in refused(capsys, "--seeds=0,1", *flags, algorithm="dqn")


def test_other_commands_have_no_such_flag(capsys):
    assert "got --seeds" in refused(capsys, "--seeds=0..1", algorithm="td3")
    flags = {algorithm: parser_of(settings).parse_args([]) for algorithm, settings in settings_with_seeds()}
    assert sorted(flags) == ["a2c", "dqn", "ppo", "sac"]


def settings_with_seeds():
    for algorithm in ("a2c", "ddpg", "diayn", "dqn", "impala", "ppo", "r2d2", "redq", "reinforce", "sac", "td3"):
        for name, kind in vars(load(algorithm)).items():
            recording = getattr(kind, "recording", None)
            if isinstance(kind, type) and name.lower() == algorithm and hasattr(recording, "seeds"):
                yield algorithm, kind


def refused(capsys, *flags, algorithm="ppo"):
    """Run a command that ends in status 2; return the one line that it says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        load(algorithm).main(list(flags))
    torch.set_flush_denormal(False)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    return line
