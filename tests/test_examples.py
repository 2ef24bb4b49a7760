"""Every example and config runs with a tiny budget, and a user's mistakes end in one message and status 2."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import torchrl
from cases.examples import load
from fakes import wait_until
from torchrl.agents import load_checkpoint
from torchrl.envs.simulators.opengl import find_opengl
from torchrl.record import read_csv

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "ppo" / "ppo.py"
ALGORITHMS = sorted(path.parent.name for path in (ROOT / "examples").glob("*/configs"))
CONFIGS = sorted((ROOT / "examples").glob("*/configs/*.txt"))
OFF_POLICY = {
    "dqn": "loss_value",
    "r2d2": "loss_value",
    "ddpg": "loss_critic",
    "td3": "loss_critic",
    "sac": "loss_critic",
    "redq": "loss_critic",
}
SMALL = ["--num_cells", "8", "8", "--batch_size=16", "--init_random_frames=64", "--start_frames=64"]
SMALL += ["--log_interval=64"]
TINY = ["--total_frames=256", "--frames_per_batch=128", "--num_envs=2", "--max_episode_steps=16"]
TINY += ["--record_interval=128", "--record_episodes=2", "--eval_episodes=2", "--no-progress_bar"]
CARTPOLE = f"--config={ROOT}/configs/ppo/cartpole.txt"
CONSTANT = ["--lr_schedule=constant", "--clip_schedule=constant"]  # a line over the run depends on its length


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an example in this process, which saves the start of another."""
    monkeypatch.chdir(tmp_path)
    yield lambda algorithm, *flags: load(algorithm).main(list(flags))
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The folder of a run of 256 frames."""
    folder = tmp_path_factory.mktemp("runs")
    load("ppo").main([CARTPOLE, *TINY, *CONSTANT, "--name=half", "--loggers=csv", f"--folder={folder}"])
    torch.set_flush_denormal(False)
    return next(folder.iterdir())


@pytest.fixture
def half(finished_run, tmp_path):
    """A copy of that folder, to go on from and to spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "half"))


def read_weights(folder):
    return load_checkpoint(folder / "last.pt")["networks"]["loss"]


def assert_equal_weights(folder, other):
    one, two = read_weights(folder), read_weights(other)
    assert all((one[key] == two[key]).all() for key in one)


def refuse(run, *flags, algorithm="ppo"):
    """Run a command that ends with status 2 before it does anything."""
    with pytest.raises(SystemExit) as ended:
        run(algorithm, *flags)
    assert ended.value.code == 2


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_config_runs_and_leaves_what_it_promises(config, run, tmp_path):
    algorithm = config.parts[-3]
    if "LunarLander" in config.read_text():
        pytest.importorskip("Box2D", reason="LunarLander needs the extra box2d")
    for words, package in (("env_library = gymnax", "gymnax"), ("gymnasium_robotics:", "gymnasium_robotics")):
        if words in config.read_text():
            pytest.importorskip(package, reason="it installs beside other versions of the rest")
    if "atari = true" in config.read_text():
        pytest.importorskip("ale_py", reason="Atari games need the extra atari")
        pytest.importorskip("cv2", reason="Atari games need the extra atari")
    flags = {"diayn": ["--num_skills=2"], "ppo": ["--num_epochs=1"], "redq": [*SMALL, "--updates_per_frame=1"]}
    flags["r2d2"] = [*SMALL, "--sub_traj_len=8", "--burn_in=2"]
    flags = flags.get(algorithm, SMALL if algorithm in OFF_POLICY else [])
    if algorithm in OFF_POLICY and "\nmemory =" in config.read_text():
        flags = [*flags, "--updates_per_frame=0.1"]
    if "atari = true" in config.read_text():
        flags = [*flags, "--image_size=36", "--num_cells", "8"]
    if "updates_per_frame" in config.read_text() and "num_workers" in config.read_text():
        flags = [*flags, "--num_workers=0", "--no-async_collection"]  # the processes of on-policy configs are enough
    if "from_pixels" in (text := config.read_text()):
        flags = [*flags, "--image_size=40"] + (["--updates_per_frame=0.1"] if algorithm in OFF_POLICY else [])
        if "dm_control" in text and find_opengl() is None:
            pytest.skip("there is no OpenGL to draw with")
    num_frames = 256
    if is_drawn := "from_pixels" in text and "dm_control" in text:  # 20 ms of processor time a picture
        num_frames = 48
        flags += ["--init_random_frames=16", "--start_frames=16"] if algorithm in OFF_POLICY else []
        flags += ["--num_envs=1", "--record_episodes=1", "--eval_episodes=1", "--max_episode_steps=8"]
    elif "dm_control" in text or "atari = true" in text:  # a step takes milliseconds
        num_frames = 128
    flags += [f"--total_frames={num_frames}", f"--frames_per_batch={num_frames // 2}"]
    flags += [f"--record_interval={num_frames if is_drawn else num_frames // 2}"]
    run(algorithm, f"--config={config}", *TINY, *flags)
    (folder,) = (tmp_path / f"{algorithm}_logging").iterdir()
    files = {path.name for path in folder.iterdir()}
    assert {"config.txt", "progress.csv", "summary.json", "learning_curve.png", "last.pt", "best.pt"} <= files
    assert any(name.startswith("events.") for name in files)
    summary = json.loads((folder / "summary.json").read_text())
    assert {"eval_return_mean", "eval_return_std", "best_eval_return_mean", "frames", "seconds", "fps", "seed"} <= set(
        summary
    )
    assert summary["frames"] == num_frames and summary["num_parameters"] > 0
    columns = next(csv.reader((folder / "progress.csv").open()))
    if algorithm in OFF_POLICY:
        replay = {"replay/fill", "replay/updates", "replay/updates_per_frame", "time/updates_per_s"}
        names = {OFF_POLICY[algorithm], "td_error", "q_value", "target_value", "grad_norm"}
        assert replay | {f"loss/{name}" for name in names} <= set(columns)
        assert algorithm not in ("sac", "redq") or {"loss/entropy", "loss/temperature"} <= set(columns)
        assert algorithm not in ("ddpg", "td3") or "exploration/AdditiveGaussian" in columns
    else:
        assert {"loss/loss_objective", "loss/loss_critic", "loss/entropy", "loss/explained_variance"} <= set(columns)
    assert algorithm != "ppo" or {"loss/approx_kl", "loss/clip_fraction"} <= set(columns)
    assert {"frames", "time/collect_s", "time/optimise_s", "time/evaluate_s", "collect/policy_lag"} <= set(columns)
    assert {"train/episode_return", "eval/return_mean", "eval/return_std"} <= set(columns)
    assert config.read_text().startswith("# "), "the first line of a config says what it should reach"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_command_trains_without_a_config(algorithm, run, tmp_path):
    flags = ["--updates_per_frame=0.2", "--actor_interval=1"] if algorithm == "redq" else []  # it makes 20 in a frame
    run(algorithm, "--total_frames=200", "--max_episode_steps=16", "--eval_episodes=2", *flags)
    (folder,) = (tmp_path / f"{algorithm}_logging").iterdir()
    assert json.loads((folder / "summary.json").read_text())["frames"] >= 200


@pytest.mark.parametrize("algorithm", ["ddpg", "redq", "td3"])
def test_a_task_with_choices_is_refused_where_an_algorithm_needs_vectors(algorithm, run, capsys):
    with pytest.raises(SystemExit):
        run(algorithm, "--env_name=CartPole-v1")
    told = capsys.readouterr().err
    assert "--env_name: expected a task with a vector of bounded actions" in told and "examples dqn, sac" in told


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_has_an_example_that_names_its_configs(algorithm, run, capsys):
    assert (ROOT / "configs" / algorithm).is_dir()
    with pytest.raises(SystemExit) as ended:
        run(algorithm, "--help")
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for group in ("environment", "networks", "collecting", "loss", "optimising", "recording"):
        assert f"{group}:" in shown
    assert shown.count("(default:") >= 40


@pytest.mark.parametrize(
    ("algorithm", "flag"),
    [
        ("reinforce", "--no-baseline"),
        ("reinforce", "--episodes_per_batch=4"),
        ("ppo", "--objective=kl_penalty"),
        ("ppo", "--objective=plain"),
    ],
)
def test_other_forms_of_an_algorithm_run(algorithm, flag, run, tmp_path):
    run(algorithm, f"--config={ROOT}/configs/{algorithm}/cartpole.txt", *TINY, flag, "--loggers")
    (folder,) = (tmp_path / f"{algorithm}_logging").iterdir()
    assert (folder / "summary.json").is_file() and not (folder / "progress.csv").exists()


def test_a_saved_run_is_evaluated_and_its_configuration_runs_again(half, run, tmp_path, capsys):
    summary = json.loads((half / "summary.json").read_text())
    run("ppo", f"--evaluate={half}", f"--export={tmp_path / 'policy.pt2'}")
    shown = capsys.readouterr().out
    assert f"last.pt: return {summary['eval_return_mean']:.1f}" in shown
    assert "the policy is in " in shown and "no effect" not in shown
    assert torchrl.load_policy(tmp_path / "policy.pt2")(np.zeros(4)) in (0, 1)
    run("ppo", f"--config={half / 'config.txt'}", "--name=second", "--folder=again")
    (second,) = (tmp_path / "again").iterdir()
    assert json.loads((second / "summary.json").read_text())["eval_return_mean"] == summary["eval_return_mean"]
    assert_equal_weights(half, second)


def test_a_saved_run_goes_on_where_it_stood_keeps_its_table_and_names_its_parent(half, run, tmp_path, capsys):
    run("ppo", CARTPOLE, *TINY, *CONSTANT, "--name=whole", "--total_frames=512", "--folder=runs")
    capsys.readouterr()
    run("ppo", f"--resume={half}/last.pt", "--name=rest", "--total_frames=500", "--folder=runs")
    printed = capsys.readouterr().out
    assert f"going on from {half}/last.pt" in printed
    assert "--total_frames=500 is rounded up to whole batches of 128: 512 frames" in printed
    (whole,), (rest,) = ((tmp_path / "runs").glob(f"{name}*") for name in ("whole", "rest"))
    assert_equal_weights(whole, rest)
    table = read_csv(rest / "progress.csv")
    assert table["frames"] == [128, 256, 384, 512] and table["time/seconds"] == sorted(table["time/seconds"])
    assert (rest / "learning_curve.png").is_file()
    summary = json.loads((rest / "summary.json").read_text())
    assert (summary["algorithm"], summary["env"], summary["parent"]) == ("ppo", "CartPole-v1", f"{half}/last.pt")
    assert summary["simulator_steps"] == 512 and summary["versions"]["torch"] == torch.__version__
    assert summary["date"].startswith("20")


def test_a_resumed_run_has_the_weights_of_its_flags_and_the_optimizer_it_began_with(half, run, tmp_path, capsys):
    more = [f"--resume={half}", "--name=rest", "--total_frames=384", "--folder=runs"]
    refuse(run, *more, "--optimizer=adamw")
    assert "--optimizer: expected adam, as the run began, got adamw" in capsys.readouterr().err
    run("ppo", *more, "--entropy_coef=0.25", "--clip_epsilon=0.125")
    loss = read_weights(next((tmp_path / "runs").iterdir()))
    assert (loss["_entropy_coef"], loss["_clip_epsilon"], loss["_critic_coef"]) == (0.25, 0.125, 0.5)


def test_a_checkpoint_cut_short_is_refused_and_does_not_block_another(half, run, capsys):
    assert not list(half.glob("events.*"))  # its logger was the table
    run("ppo", f"--evaluate={half}/best.pt")
    printed = capsys.readouterr().out
    assert "best.pt: return" in printed and "last.pt" not in printed
    (half / "last.pt").write_bytes((half / "last.pt").read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"cut short: .*last.pt'. It is left out"):
        run("ppo", f"--evaluate={half}")
    assert "best.pt: return" in capsys.readouterr().out
    with pytest.warns(UserWarning, match=r"cut short: .*last.pt'. best.pt is taken instead"):
        run("ppo", f"--resume={half}", "--total_frames=384")
    refuse(run, f"--resume={half}/last.pt", "--total_frames=512")
    assert "cut short" in capsys.readouterr().err
    (half / "best.pt").write_bytes((half / "best.pt").read_bytes()[:1000])
    with pytest.warns(UserWarning, match="cut short"):
        refuse(run, f"--evaluate={half}")
    assert "cut short" in capsys.readouterr().err


def test_a_key_of_an_older_configuration_is_a_warning_where_a_run_is_evaluated(half, run, capsys):
    config = half / "config.txt"
    config.write_text(config.read_text() + "of_yore = 3\n")
    with pytest.warns(UserWarning, match=r"config.txt, line \d+: the unknown key 'of_yore' is left out"):
        run("ppo", f"--evaluate={half}")
    capsys.readouterr()
    refuse(run, f"--resume={half}", "--total_frames=512")
    assert "expected a known key, got 'of_yore'" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["evaluate", "resume"])
def test_a_run_of_another_algorithm_is_refused_by_its_name(flag, tmp_path, run, capsys):
    (tmp_path / "config.txt").write_text("# ppo on CartPole-v1, resumed from x\n")
    refuse(run, f"--{flag}={tmp_path}", algorithm="sac")
    told = capsys.readouterr().err
    assert f"--{flag}: expected a run of sac, got one of ppo. Go on with the command that began it, ppo.py." in told


def test_a_command_prints_a_warning_as_one_line_and_a_mistake_without_a_traceback(tmp_path):
    (tmp_path / "config.txt").write_text("# ppo on CartPole-v1\nof_yore = 1\n")
    done = subprocess.run([sys.executable, str(EXAMPLE), f"--evaluate={tmp_path}"], capture_output=True, text=True)
    first, last = done.stderr.splitlines()
    assert done.returncode == 2
    assert first == f"warning: {tmp_path}/config.txt, line 2: the unknown key 'of_yore' is left out."
    assert last.startswith("ppo.py: --evaluate: expected last.pt or best.pt")


@pytest.mark.parametrize("wrong", ["ppo_logging", "ppo_logging/CartPole-v1_2025"])
def test_a_folder_without_a_run_is_refused_and_the_newest_run_named(wrong, run, tmp_path, capsys):
    newest = tmp_path / "ppo_logging" / "CartPole-v1_2026"
    newest.mkdir(parents=True)
    (newest / "config.txt").touch()
    refuse(run, f"--evaluate={wrong}")
    assert "The newest run in ppo_logging is ppo_logging/CartPole-v1_2026." in capsys.readouterr().err


def test_a_finished_run_is_not_resumed_without_more_frames(half, run, tmp_path, capsys):
    refuse(run, f"--resume={half}", "--folder=runs")
    assert "--total_frames: expected more than 256" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def require_same_where_resumed(run, folder, *flags, algorithm="ppo"):
    """Hold that a run of two halves ends with the weights of a whole one; return the folder of the latter."""
    runs = folder / f"{algorithm}_logging"
    run(algorithm, *flags, "--name=half")
    (half,) = runs.iterdir()
    run(algorithm, f"--resume={half}", "--name=rest", "--total_frames=512")
    run(algorithm, *flags, "--name=whole", "--total_frames=512")
    (whole,), (rest,) = (runs.glob(f"{name}*") for name in ("whole", "rest"))
    assert_equal_weights(whole, rest)
    return whole


def test_a_run_in_a_native_env_goes_on_and_is_evaluated(run, tmp_path, capsys):
    flags = [*TINY, "--env_library=native", "--env_name=TMaze", "--env_kwargs", "length=2", "--num_cells", "8"]
    flags += ["--num_epochs=1", "--loggers=csv"]
    whole = require_same_where_resumed(run, tmp_path, *flags)
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["env"] == "TMaze"
    capsys.readouterr()
    run("ppo", f"--evaluate={whole}")
    assert f"last.pt: return {summary['eval_return_mean']:.1f}" in capsys.readouterr().out


def test_options_go_on_where_their_run_was_saved_and_are_evaluated(run, tmp_path, capsys):
    flags = [*TINY, "--num_epochs=1", "--loggers=csv", "--lr_schedule=constant", "--every=5"]
    whole = require_same_where_resumed(run, tmp_path, *flags, algorithm="hierarchical")
    endings = read_csv(whole / "progress.csv")["loss/termination"]
    assert all(0 < share < 1 for share in endings)
    summary = json.loads((whole / "summary.json").read_text())
    capsys.readouterr()
    run("hierarchical", f"--evaluate={whole}")
    assert f"last.pt: return {summary['eval_return_mean']:.1f}" in capsys.readouterr().out


PROCESSES = ["--num_workers=2", "--evaluate_beside", "--collection_devices", "cpu", "cpu"]


@pytest.mark.usefixtures("leaves_nothing")
def test_a_run_over_several_processes_goes_on_and_is_evaluated_without_them(run, tmp_path, monkeypatch, capsys):
    flags = [CARTPOLE, *CONSTANT, *TINY, *PROCESSES, "--num_epochs=1"]
    whole = require_same_where_resumed(run, tmp_path, *flags)
    rows = list(csv.DictReader((whole / "progress.csv").open()))
    measured = [(row["frames"], float(row["eval/policy_version"])) for row in rows if row["eval/return_mean"]]
    assert measured == [("128", 1), ("256", 2), ("384", 3), ("512", 4)]
    summary = json.loads((whole / "summary.json").read_text())

    def refused(*arguments, **options):
        raise AssertionError("a run that is only evaluated started a process")

    monkeypatch.setattr("torchrl.processes.pool.RemoteObject", refused)
    capsys.readouterr()
    run("ppo", f"--evaluate={whole}")
    assert f"last.pt: return {summary['eval_return_mean']:.1f}" in capsys.readouterr().out


def test_workers_that_do_not_wait_go_on_where_their_run_was_saved(run, tmp_path, capsys):
    flags = [*TINY, "--frames_per_batch=32", "--record_interval=256", "--lr_schedule=constant", "--folder=runs"]
    run("impala", *flags, "--name=half")
    (half,) = (tmp_path / "runs").iterdir()
    run("impala", f"--resume={half}", "--name=rest", "--total_frames=512", "--folder=runs")
    (rest,) = (tmp_path / "runs").glob("rest*")
    table = read_csv(rest / "progress.csv")
    lags = table["collect/policy_lag"]
    assert table["frames"] == list(range(32, 513, 32)) and lags[0] == 0 and min(lags) >= 0
    assert lags == [round(lag) for lag in lags]  # no batch mixes the versions before and after
    run("impala", f"--evaluate={rest}", "--no-progress_bar")
    assert "last.pt: return" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 0, "Stopping after this batch"), (signal.SIGTERM, 143, "SIGTERM: stopping after this batch")],
)
def test_a_signal_to_the_whole_job_ends_a_run_with_its_checkpoint_and_leaves_none(number, status, said, tmp_path):
    command = [sys.executable, str(EXAMPLE), *TINY, *PROCESSES, "--total_frames=100_000_000", "--num_epochs=1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes) as process:
        try:
            wait_until(lambda: process.poll() is not None or any(tmp_path.glob("ppo_logging/*/best.pt")))
            (last,) = tmp_path.glob("ppo_logging/*/last.pt")
            last.unlink()
            os.killpg(process.pid, number)  # as a terminal and schedulers do
            out, err = process.communicate()
        finally:
            process.kill()
    assert process.returncode == status, err
    assert said in err and "Traceback" not in err
    assert status or "evaluation return" in out
    assert load_checkpoint(last)["counters"]["frames"] > 0
    wait_until(lambda: not _is_group(process.pid))


def _is_group(number):
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


MISTAKES = {
    "unknown flag": (["--gama=0.5"], "--gamma"),
    "abbreviation": (["--gam=0.5"], "--gamma"),
    "missing config file": (["--config=nowhere.txt"], "nowhere.txt"),
    "unknown env": (["--env_name=CartPol-v1"], "CartPole-v1"),
    "unknown task": (["--env_library=dm_control", "--env_name=humanoid", "--env_task=wlk"], "walk"),
    "no task": (["--env_library=dm_control", "--env_name=humanoid"], "task"),
    "absent device": (["--collection_devices=cuda:63"], "cpu"),
    "two devices": (["--collection_devices", "cpu", "cpu"], "one device"),
    "indivisible workers": (["--num_workers=3"], "divides the 8 of --num_envs"),
    "indivisible batch": (["--frames_per_batch=100", "--num_envs=8"], "multiple of the 8 environments"),
    "two clippings": (["--max_grad_value=1"], "max_grad_norm or max_grad_value"),
    "no run to evaluate": (["--evaluate=nowhere"], "nowhere"),
    "evaluate and resume": (["--evaluate=a", "--resume=b"], "--evaluate and --resume"),
    "wrong type": (["--lr=fast"], "--lr"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_users_mistake_ends_in_one_message_and_status_2(mistake, run, tmp_path, capsys):
    flags, names = MISTAKES[mistake]
    refuse(run, *flags)
    message = capsys.readouterr().err
    assert names in message and len(message.strip().splitlines()) == 1
    assert not (tmp_path / "ppo_logging").exists()
