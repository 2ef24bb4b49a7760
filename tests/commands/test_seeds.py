import json

import pytest

from cases import toy_runs
from cases.examples import ROOT
from torchrl.commands import seeds
from torchrl.commands.several import algorithm_of
from torchrl.record import CSVLogger, learning_curve, read_csv

CARTPOLE = str(ROOT / "configs" / "ppo" / "cartpole.txt")
TINY = ["--total_frames=64", "--frames_per_batch=32", "--num_envs=2", "--minibatch_size=32", "--num_epochs=1"]
TINY += ["--record_interval=32", "--record_episodes=1", "--eval_episodes=1", "--max_episode_steps=8"]
TINY += ["--no-progress_bar", "--loggers=csv", "--num_cells", "8", "8"]


@pytest.fixture(scope="module", autouse=True)
def fonts(tmp_path_factory):
    """Draw a picture: matplotlib keeps the files of its fonts open from the first one on."""
    with CSVLogger(tmp_path_factory.mktemp("drawn")) as logger:
        logger.log_scalars({"eval/return_mean": 0.0}, 0)
    learning_curve(logger.path, logger.path.with_suffix(".png"))


def test_a_seed_is_a_run_as_of_the_command_line(torchrl, tmp_path, leaves_nothing):
    torchrl("seeds", CARTPOLE, "--seeds=5", *TINY, "--folder=runs")
    torchrl("train", "ppo", f"--config={CARTPOLE}", *TINY, "--folder=alone", "--seed=5")
    (folder,), (alone,) = (tmp_path / "runs").iterdir(), (tmp_path / "alone").iterdir()
    ours, theirs = (read_csv(run / "progress.csv") for run in (folder / "seed_5", alone))
    assert ours.keys() == theirs.keys() and "eval/return_mean" in ours
    for name in {name for name in theirs if not name.startswith("time/")}:
        assert ours[name] == pytest.approx(theirs[name], nan_ok=True), name
    configs = [(run / "config.txt").read_text().splitlines() for run in (folder / "seed_5", alone)]
    assert [line for line in configs[0] if line not in configs[1]] == ["folder = runs"]
    assert (folder / "seed_5" / "output.txt").read_text().startswith("CartPole-v1: 64 frames, seed 5")


def test_a_seed_that_fails_is_named_and_the_others_are_reported(torchrl, tmp_path, capsys, monkeypatch, leaves_nothing):
    monkeypatch.setattr(seeds, "train_run", toy_runs.train_seed)
    with pytest.raises(SystemExit) as ended:
        torchrl("seeds", CARTPOLE, "--seeds=0..2", "--processes=3", "--folder=runs", "--num_cells", "8", "8")
    printed, (folder,) = capsys.readouterr(), (tmp_path / "runs").iterdir()
    assert ended.value.code == 2
    assert "1 of 3 seeds: expected CartPole-v1 to be trained with each seed, got seed 1: it broke." in printed.err
    assert f"{folder.relative_to(tmp_path)}/seed_…/output.txt" in printed.err
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["seeds"] == [0, 2] and summary["eval_returns"] == [0.0, 2.0] and summary["eval_return_mean"] == 1.0
    assert summary["eval_return_interval"] == [0.0, 2.0]
    lines = printed.out.splitlines()
    assert "  95 % interval of the mean, by resampling seeds: 0.0 to 2.0" in lines
    assert {"seed 1 failed: it broke", "seed 2: 100 frames, evaluation return 2.0"} <= set(lines)
    assert lines[-1] == f"curve:       {folder.relative_to(tmp_path)}/learning_curve.png"
    assert "seeds = 0..2" in (folder / "config.txt").read_text().splitlines()
    assert sorted(path.name for path in folder.iterdir()) == [
        *("config.txt", "learning_curve.png", "seed_0", "seed_1", "seed_2", "summary.json")
    ]


def test_ctrl_c_ends_the_seeds_and_reports_those_that_are_done(torchrl, tmp_path, capsys, monkeypatch, leaves_nothing):
    def stop(run, *_):
        if run.name == "seed 2":
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(seeds, "train_run", toy_runs.train_seed)
    monkeypatch.setattr(seeds, "_hear", stop)
    with pytest.raises(SystemExit) as ended:
        torchrl("seeds", CARTPOLE, "--seeds=0,2", "--folder=runs")
    (folder,) = (tmp_path / "runs").iterdir()
    assert ended.value.code == 130
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"stopped by Ctrl-C after 1 of 2 seeds: {folder.relative_to(tmp_path)}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([CARTPOLE, "--seeds=1,1"], "--seeds: expected seeds, each once, as 0..7 or 0,3,5, got '1,1'"),
        ([CARTPOLE, "--seed=1"], "expected flags that fit several runs, got --seed. seeds sets it for each run."),
        ([CARTPOLE, "--resume=x"], "got --resume. Go on with one of the runs: torchrl train."),
        ([CARTPOLE, "--lr=fast"], "command line: --lr: expected a number, got 'fast'"),
        ([CARTPOLE, "--lrr=1"], "expected a known flag, got --lrr. Did you mean --lr?"),
        ([CARTPOLE, "--algorithm=pppo"], "got pppo. Did you mean ppo?"),
        (["cartpole.txt"], "Write --algorithm=ppo, or another."),
        (["cartpol", "--algorithm=ppo"], "got cartpol. Did you mean cartpole?"),
        (["--seeds=0"], "torchrl: command line: "),
        ([], "the following arguments are required: FILE"),
    ],
)
def test_a_mistake_is_one_message(words, message, refused):
    assert message in refused("seeds", *words)


def test_the_algorithm_is_that_of_the_nearest_folder_or_of_the_run(tmp_path):
    assert algorithm_of(tmp_path / "ppo" / "old" / "sac" / "x.txt") == "sac"
    (tmp_path / "config.txt").write_text("# dqn on CartPole-v1\nlr = 0.1\n")
    assert algorithm_of(tmp_path / "config.txt") == "dqn"
