import csv

import pytest

from torchrl.record import CSVLogger

HEAD = "# {algorithm} on {task}\nlr = {lr}\nseed = {seed}\nnum_cells = [64, 64]\n"


@pytest.fixture
def make_run(tmp_path):
    """Write the folder of a run as it would be after 128 frames, with returns that count from ``first``."""

    def make(name, first=0.0, *, algorithm="ppo", task="CartPole-v1", lr="0.1", seed=0):
        folder = tmp_path / name
        with CSVLogger(folder) as logger:
            for step in (64, 128):
                logger.log_scalars({"eval/return_mean": first + step, "time/seconds": step / 32}, step=step)
        (folder / "config.txt").write_text(HEAD.format(algorithm=algorithm, task=task, lr=lr, seed=seed))
        return folder

    return make


def rows(path):
    with path.open() as file:
        return [*csv.DictReader(file)]


def test_runs_that_differ_by_their_seed_have_a_mean_and_an_interval(torchrl, make_run, tmp_path):
    for seed in (0, 1, 10):
        make_run(f"runs/seed_{seed}", float(seed), seed=seed)
    (tmp_path / "runs" / "config.txt").write_text(HEAD.format(algorithm="ppo", task="CartPole-v1", lr="0.1", seed=0))
    lines = torchrl("plot", "runs")
    assert lines[0].startswith("CartPole-v1, ppo: eval/return_mean 131.7 at the end (3 runs, 128.")
    assert lines[1] == "picture: runs/plot.png, its numbers: runs/plot.csv"
    first, last = rows(tmp_path / "runs" / "plot.csv")
    assert (first["frames"], float(first["mean"]), first["runs"]) == ("64.0", pytest.approx(64 + 11 / 3), "3")
    assert 128 <= float(last["low"]) < float(last["mean"]) < float(last["high"]) <= 138
    assert (tmp_path / "runs" / "plot.png").read_bytes()[1:4] == b"PNG"


def test_groups_are_named_by_what_differs_and_tasks_have_panels(torchrl, make_run, tmp_path):
    make_run("a", lr="0.1")
    make_run("b", lr="0.2")
    make_run("c", task="Pendulum-v1", algorithm="sac")
    lines = torchrl("plot", "a", "b", "c", "--x=seconds", "--output=all.svg", "--title=three")
    assert [line.split(":")[0] for line in lines[:3]] == [
        "CartPole-v1, ppo lr=0.1", "CartPole-v1, ppo lr=0.2", "Pendulum-v1, sac"
    ]  # fmt: skip
    assert "128.0 at the end (1 run)" in lines[0]
    assert [row["time/seconds"] for row in rows(tmp_path / "all.csv")] == ["2.0", "4.0"] * 3


def test_mistakes_are_one_message(refused, make_run, tmp_path):
    make_run("a")
    assert "Did you mean 'eval/return_mean'" in refused("plot", "a", "--metric=eval/return")
    assert "RUN" in refused("plot", "nothing")
    for name in ("numbers.csv", "picture.foo"):
        assert "a name with .png" in refused("plot", "a", f"--output={name}")
    (tmp_path / "a" / "progress.csv").write_text("frames,eval/return_mean\n64,\n")
    assert "got none of CartPole-v1, ppo" in refused("plot", "a") and not (tmp_path / "a" / "plot.png").exists()
    (tmp_path / "a" / "progress.csv").unlink()
    assert "a run with progress.csv" in refused("plot", "a")
