"""Every example and config runs with a tiny budget, and a user's mistakes end in one message and status 2."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fakes import wait_until
from torchrl.agents import load_checkpoint
from torchrl.record import read_csv

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "ppo" / "ppo.py"
ALGORITHMS = sorted(path.parent.name for path in (ROOT / "examples").glob("*/configs"))
CONFIGS = sorted((ROOT / "examples").glob("*/configs/*.txt"))
OFF_POLICY = {
    "dqn": "loss_value",
    "ddpg": "loss_critic",
    "td3": "loss_critic",
    "sac": "loss_critic",
    "redq": "loss_critic",
}
SMALL = [
    "--num_cells",
    "8",
    "8",
    "--batch_size=16",
    "--init_random_frames=64",
    "--start_frames=64",
    "--log_interval=64",
]
TINY = [
    "--total_frames=256",
    "--frames_per_batch=128",
    "--num_envs=2",
    "--max_episode_steps=16",
    "--record_interval=128",
    "--record_episodes=2",
    "--eval_episodes=2",
    "--no-progress_bar",
]


def run(*flags, cwd, algorithm="ppo"):
    example = ROOT / "examples" / algorithm / f"{algorithm}.py"
    return subprocess.run([sys.executable, str(example), *flags], cwd=cwd, capture_output=True, text=True)


def load(algorithm):
    """Import an example."""
    path = ROOT / "examples" / algorithm / f"{algorithm}.py"
    spec = importlib.util.spec_from_file_location(f"{algorithm}_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_here(tmp_path, monkeypatch):
    """Run an example in this process, which saves the start of another."""
    monkeypatch.chdir(tmp_path)
    yield lambda algorithm, *flags: load(algorithm).main(list(flags))
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_config_runs_and_leaves_what_it_promises(config, run_here, tmp_path):
    algorithm = config.parts[-3]
    if "LunarLander" in config.read_text():
        pytest.importorskip("Box2D", reason="LunarLander needs the extra box2d")
    flags = {"ppo": ["--num_epochs=1"]}.get(algorithm, SMALL if algorithm in OFF_POLICY else [])
    run_here(algorithm, f"--config={config}", *TINY, *flags)
    (folder,) = (tmp_path / f"{algorithm}_logging").iterdir()
    files = {path.name for path in folder.iterdir()}
    assert {"config.txt", "progress.csv", "summary.json", "learning_curve.png", "last.pt", "best.pt"} <= files
    assert any(name.startswith("events.") for name in files)
    summary = json.loads((folder / "summary.json").read_text())
    assert {"eval_return_mean", "eval_return_std", "best_eval_return_mean", "frames", "seconds", "fps", "seed"} <= set(
        summary
    )
    assert summary["frames"] == 256 and summary["num_parameters"] > 0
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
def test_a_command_trains_without_a_config(algorithm, run_here, tmp_path):
    flags = ["--updates_per_frame=0.2", "--actor_interval=1"] if algorithm == "redq" else []  # it makes 20 in a frame
    run_here(algorithm, "--total_frames=200", "--max_episode_steps=16", "--eval_episodes=2", *flags)
    (folder,) = (tmp_path / f"{algorithm}_logging").iterdir()
    assert json.loads((folder / "summary.json").read_text())["frames"] >= 200


@pytest.mark.parametrize("algorithm", ["ddpg", "redq", "td3"])
def test_a_task_with_choices_is_refused_where_an_algorithm_needs_vectors(algorithm, run_here, capsys):
    with pytest.raises(SystemExit):
        run_here(algorithm, "--env_name=CartPole-v1")
    told = capsys.readouterr().err
    assert "--env_name: expected a task with a vector of bounded actions" in told and "examples dqn, sac" in told


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_has_an_example_that_names_its_configs(algorithm, run_here, capsys):
    assert (ROOT / "configs" / algorithm).is_dir()
    with pytest.raises(SystemExit) as ended:
        run_here(algorithm, "--help")
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for group in ("environment", "networks", "collecting", "loss", "optimising", "recording"):
        assert f"{group}:" in shown
    assert shown.count("(default:") >= 40


def test_other_forms_of_an_algorithm_run(tmp_path):
    config = f"--config={ROOT}/configs/reinforce/cartpole.txt"
    done = run(config, *TINY, "--no-baseline", cwd=tmp_path, algorithm="reinforce")
    assert done.returncode == 0, done.stderr
    config = f"--config={ROOT}/configs/ppo/cartpole.txt"
    for objective in ("kl_penalty", "plain"):
        done = run(config, *TINY, f"--objective={objective}", f"--name={objective}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_a_saved_run_is_evaluated_and_its_configuration_runs_again(tmp_path):
    config = ROOT / "configs" / "ppo" / "cartpole.txt"
    assert run(f"--config={config}", "--name=first", *TINY, cwd=tmp_path).returncode == 0
    (folder,) = (tmp_path / "ppo_logging").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    done = run(f"--evaluate={folder}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"last.pt: return {summary['eval_return_mean']:.1f}" in done.stdout
    again = run(f"--config={folder / 'config.txt'}", "--name=second", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    second = next(path for path in (tmp_path / "ppo_logging").iterdir() if path.name.startswith("second"))
    assert json.loads((second / "summary.json").read_text())["eval_return_mean"] == summary["eval_return_mean"]
    networks = [load_checkpoint(path / "last.pt")["networks"]["loss"] for path in (folder, second)]
    assert all((networks[0][key] == networks[1][key]).all() for key in networks[0])


def test_a_saved_run_goes_on_where_it_stood(tmp_path):
    config = f"--config={ROOT}/configs/ppo/cartpole.txt"
    constant = ["--lr_schedule=constant", "--clip_schedule=constant"]  # a line over the run depends on its length
    assert run(config, "--name=whole", *TINY, *constant, "--total_frames=512", cwd=tmp_path).returncode == 0
    assert run(config, "--name=half", *TINY, *constant, cwd=tmp_path).returncode == 0
    runs = {path.name.split("_")[0]: path for path in (tmp_path / "ppo_logging").iterdir()}
    done = run(f"--resume={runs['half']}", "--name=rest", "--total_frames=512", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = {path.name.split("_")[0]: path for path in (tmp_path / "ppo_logging").iterdir()}
    whole, rest = (load_checkpoint(runs[name] / "last.pt")["networks"]["loss"] for name in ("whole", "rest"))
    assert all((whole[key] == rest[key]).all() for key in whole)


def test_a_resumed_run_has_the_weights_of_its_flags_and_the_optimizer_it_began_with(
    example, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    example.main(["--name=half", *TINY])
    (half,) = (tmp_path / "ppo_logging").iterdir()
    more = [f"--resume={half}", "--name=rest", "--total_frames=512"]
    with pytest.raises(SystemExit):
        example.main([*more, "--optimizer=adamw"])
    assert "--optimizer: expected adam, as the run began, got adamw" in capsys.readouterr().err
    example.main([*more, "--entropy_coef=0.25", "--clip_epsilon=0.125"])
    (rest,) = (tmp_path / "ppo_logging").glob("rest*")
    loss = load_checkpoint(rest / "last.pt")["networks"]["loss"]
    assert (loss["_entropy_coef"], loss["_clip_epsilon"], loss["_critic_coef"]) == (0.25, 0.125, 0.5)


def test_a_resumed_run_keeps_its_table_and_names_its_parent(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example.main(["--name=half", "--folder=runs", "--minibatch_size=64", *TINY])
    (half,) = (tmp_path / "runs").iterdir()
    example.main([f"--resume={half}/last.pt", "--name=rest", "--total_frames=500"])
    printed = capsys.readouterr().out
    assert f"going on from {half}/last.pt" in printed
    assert "--total_frames=500 is rounded up to whole batches of 128: 512 frames" in printed
    (rest,) = (tmp_path / "runs").glob("rest*")
    table = read_csv(rest / "progress.csv")
    assert table["frames"] == [128, 256, 384, 512] and table["time/seconds"] == sorted(table["time/seconds"])
    assert (rest / "learning_curve.png").is_file()
    summary = json.loads((rest / "summary.json").read_text())
    assert (summary["algorithm"], summary["env"], summary["parent"]) == ("ppo", "CartPole-v1", f"{half}/last.pt")
    assert summary["simulator_steps"] == 512 and summary["versions"]["torch"] == torch.__version__
    assert summary["date"].startswith("20")


def test_one_checkpoint_is_evaluated_and_a_cut_one_does_not_block_another(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example.main(["--loggers=csv", "--minibatch_size=64", *TINY])
    (folder,) = (tmp_path / "ppo_logging").iterdir()
    assert not list(folder.glob("events.*"))
    capsys.readouterr()
    example.main([f"--evaluate={folder}/best.pt"])
    printed = capsys.readouterr().out
    assert "best.pt: return" in printed and "last.pt" not in printed
    (folder / "last.pt").write_bytes((folder / "last.pt").read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"cut short: .*last.pt'. It is left out"):
        example.main([f"--evaluate={folder}"])
    assert "best.pt: return" in capsys.readouterr().out
    with pytest.warns(UserWarning, match=r"cut short: .*last.pt'. best.pt is taken instead"):
        example.main([f"--resume={folder}", "--total_frames=512"])
    with pytest.raises(SystemExit):
        example.main([f"--resume={folder}/last.pt", "--total_frames=512"])
    assert "cut short" in capsys.readouterr().err


def test_a_key_of_an_older_configuration_is_a_warning_where_a_run_is_evaluated(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example.main(["--loggers", *TINY, "--minibatch_size=64", "--name=old"])
    (folder,) = (tmp_path / "ppo_logging").iterdir()
    config = folder / "config.txt"
    config.write_text(config.read_text() + "of_yore = 3\n")
    with pytest.warns(UserWarning, match=r"config.txt, line \d+: the unknown key 'of_yore' is left out"):
        example.main([f"--evaluate={folder}"])
    assert not (folder / "progress.csv").exists()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        example.main([f"--resume={folder}", "--total_frames=512"])
    assert "expected a known key, got 'of_yore'" in capsys.readouterr().err


def test_a_run_of_another_algorithm_is_refused_by_its_name(tmp_path, run_here, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.txt").write_text("# ppo on CartPole-v1, resumed from x\n")
    for flag in ("evaluate", "resume"):
        with pytest.raises(SystemExit):
            run_here("sac", f"--{flag}={run}")
        told = capsys.readouterr().err
        assert f"--{flag}: expected a run of sac, got one of ppo. Go on with the command that began it, ppo.py." in told


def test_a_command_prints_a_warning_as_one_line(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.txt").write_text("# ppo on CartPole-v1\nof_yore = 1\n")
    told = subprocess.run([sys.executable, str(EXAMPLE), f"--evaluate={run}"], capture_output=True, text=True).stderr
    first, last = told.splitlines()
    assert first == f"warning: {run}/config.txt, line 2: the unknown key 'of_yore' is left out."
    assert last.startswith("ppo.py: --evaluate: expected last.pt or best.pt")


def test_a_folder_without_a_run_is_refused_and_the_newest_run_named(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "ppo_logging" / "CartPole-v1_2026"
    run.mkdir(parents=True)
    (run / "config.txt").touch()
    for wrong in ("ppo_logging", "ppo_logging/CartPole-v1_2025"):
        with pytest.raises(SystemExit):
            example.main([f"--evaluate={wrong}"])
        assert "The newest run in ppo_logging is ppo_logging/CartPole-v1_2026." in capsys.readouterr().err


def test_a_finished_run_is_not_resumed_without_more_frames(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example.main([f"--config={ROOT}/configs/ppo/cartpole.txt", *TINY])
    (folder,) = (tmp_path / "ppo_logging").iterdir()
    with pytest.raises(SystemExit):
        example.main([f"--resume={folder}"])
    assert "--total_frames: expected more than 256" in capsys.readouterr().err
    assert len(list((tmp_path / "ppo_logging").iterdir())) == 1


PROCESSES = ["--num_workers=2", "--evaluate_beside", "--collection_devices", "cpu", "cpu"]


def test_a_run_over_several_processes_goes_on_and_is_evaluated_without_them(
    example, tmp_path, monkeypatch, capsys, leaves_nothing
):
    monkeypatch.chdir(tmp_path)
    config = [f"--config={ROOT}/configs/ppo/cartpole.txt", "--lr_schedule=constant", "--clip_schedule=constant"]
    example.main([*config, *TINY, *PROCESSES, "--name=half", "--num_epochs=1"])
    (half,) = (tmp_path / "ppo_logging").iterdir()
    example.main([f"--resume={half}", "--name=rest", "--total_frames=512"])
    example.main([*config, *TINY, *PROCESSES, "--name=whole", "--num_epochs=1", "--total_frames=512"])
    runs = {path.name.split("_")[0]: path for path in (tmp_path / "ppo_logging").iterdir()}
    whole, rest = (load_checkpoint(runs[name] / "last.pt")["networks"]["loss"] for name in ("whole", "rest"))
    assert all((whole[key] == rest[key]).all() for key in whole)
    rows = list(csv.DictReader((runs["whole"] / "progress.csv").open()))
    measured = [(row["frames"], float(row["eval/policy_version"])) for row in rows if row["eval/return_mean"]]
    assert measured == [("128", 1), ("256", 2), ("384", 3), ("512", 4)]
    summary = json.loads((runs["whole"] / "summary.json").read_text())

    def refused(*arguments, **options):
        raise AssertionError("a run that is only evaluated started a process")

    monkeypatch.setattr("torchrl.collectors.workers.RemoteObject", refused)
    monkeypatch.setattr("torchrl.agents.evaluate_beside.RemoteObject", refused)
    capsys.readouterr()
    example.main([f"--evaluate={runs['whole']}"])
    assert f"last.pt: return {summary['eval_return_mean']:.1f}" in capsys.readouterr().out


def test_ctrl_c_ends_a_run_over_several_processes_with_its_report_and_leaves_none(tmp_path):
    command = [sys.executable, str(EXAMPLE), *TINY, *PROCESSES, "--total_frames=100_000_000", "--num_epochs=1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes) as process:
        try:
            while not any(tmp_path.glob("ppo_logging/*/best.pt")):
                assert process.poll() is None
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            out, err = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "Stopping after this batch" in err and "Traceback" not in err and "evaluation return" in out
    wait_until(lambda: not _is_group(process.pid))


def test_sigterm_to_the_whole_job_ends_a_run_with_its_checkpoint_and_status_143_and_leaves_none(tmp_path):
    command = [sys.executable, str(EXAMPLE), *TINY, *PROCESSES, "--total_frames=100_000_000", "--num_epochs=1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes) as process:
        try:
            wait_until(lambda: process.poll() is not None or any(tmp_path.glob("ppo_logging/*/best.pt")))
            (last,) = tmp_path.glob("ppo_logging/*/last.pt")
            last.unlink()
            os.killpg(process.pid, signal.SIGTERM)  # as schedulers do
            _, err = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 143, err
    assert "SIGTERM: stopping after this batch" in err and "Traceback" not in err
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


@pytest.fixture(scope="module")
def example():
    yield load("ppo")
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_users_mistake_ends_in_one_message_and_status_2(mistake, example, tmp_path, monkeypatch, capsys):
    flags, names = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        example.main(flags)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert names in message and len(message.strip().splitlines()) == 1
    assert not (tmp_path / "ppo_logging").exists()


def test_a_mistake_leaves_no_traceback(tmp_path):
    done = run("--gama=0.5", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_checkpoint_cut_short_is_refused(tmp_path):
    assert run(f"--config={ROOT}/configs/ppo/cartpole.txt", *TINY, cwd=tmp_path).returncode == 0
    (folder,) = (tmp_path / "ppo_logging").iterdir()
    for checkpoint in (folder / "last.pt", folder / "best.pt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = run(f"--evaluate={folder}", cwd=tmp_path)
    assert done.returncode == 2 and "cut short" in done.stderr and "Traceback" not in done.stderr
