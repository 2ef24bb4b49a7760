"""A command's run is resumed from its newest whole checkpoint, bit for bit, also after SIGKILL at any moment."""

import shutil
from pathlib import Path

import kill_table
import pytest

from cases.examples import load
from cases.same import assert_same_state
from torchrl.agents import checkpoints_in, load_checkpoint, newest_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FLAGS = ["--num_envs=2", "--frames_per_batch=32", "--num_epochs=1", "--minibatch_size=32", "--num_cells", "8"]
FLAGS += ["--total_frames=128", "--checkpoint_interval=32", "--record_interval=96", "--record_episodes=1"]
FLAGS += ["--eval_episodes=1", "--max_episode_steps=16", "--loggers", "--no-progress_bar"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    load("ppo").main([*FLAGS, f"--folder={folder}", "--name=whole"])
    (run,) = folder.iterdir()
    return run


@pytest.fixture
def killed(finished, tmp_path, monkeypatch):
    """A copy of that run as if it had been killed before its end, at the last but one of its checkpoints."""
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(finished, tmp_path / "killed"))
    shutil.rmtree(newest_checkpoint(run))
    (run / "last.pt").unlink()
    return run


def resume(*flags):
    load("ppo").main([*flags, "--folder=runs"])
    return max(Path("runs").iterdir(), key=lambda run: (run / "config.txt").stat().st_mtime_ns)


def state_of(run):
    state = load_checkpoint(newest_checkpoint(run) / "agent.pt")
    return {name: state[name] for name in kill_table.SAME}


def names_of(run):
    return [path.name for path in checkpoints_in(run)]


def test_the_newest_folder_goes_on_and_is_linked_into_the_new_run(killed, finished):
    assert names_of(finished) == ["000000000128", "000000000096", "000000000064"]
    run = resume(f"--resume={killed}", "--name=rest")
    assert_same_state(state_of(run), state_of(finished))
    assert names_of(run) == ["000000000128", "000000000096"]
    assert (newest_checkpoint(killed) / "agent.pt").samefile(checkpoints_in(run)[1] / "agent.pt")
    assert (run / "best.pt").is_file()


def test_a_damaged_one_gives_a_warning_and_the_one_before_is_taken(killed, finished, capsys):
    (newest_checkpoint(killed) / "agent.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="agent.pt, which was changed after it was written. It is left out."):
        run = resume(f"--resume={killed}")
    assert_same_state(state_of(run), state_of(finished))
    with pytest.raises(SystemExit):
        resume(f"--resume={killed}/checkpoints/000000000096")
    assert "which was changed after it was written" in capsys.readouterr().err
    run = resume(f"--resume={killed}/checkpoints/000000000064")
    assert_same_state(state_of(run), state_of(finished))


def test_a_newer_last_checkpoint_is_taken_and_a_damaged_one_is_not(killed, finished):
    shutil.copyfile(finished / "last.pt", killed / "last.pt")  # of 128 frames
    shutil.rmtree(newest_checkpoint(killed))
    run = resume(f"--resume={killed}", "--total_frames=160", "--checkpoint_interval=1000")
    assert names_of(run) == ["000000000160"]  # nothing was linked, and frame 64 was not begun from
    (killed / "last.pt").write_bytes(b"PK\x03\x04")
    with pytest.warns(UserWarning, match=r"cut short: .*last.pt'. .*000000000064 is taken instead"):
        run = resume(f"--resume={killed}")
    assert_same_state(state_of(run), state_of(finished))


def test_a_run_without_a_checkpoint_says_where_to_go_on(killed, capsys):
    for path in (killed / "checkpoints", killed / "best.pt"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SystemExit):
        resume(f"--resume={killed}")
    told = capsys.readouterr().err
    assert f"got none in {killed}. Begin anew with its settings: --config={killed}/config.txt" in told
    text = (killed / "config.txt").read_text().splitlines()
    (killed / "config.txt").write_text("\n".join([f"{text[0]}, resumed from runs/first", *text[1:]]))
    with pytest.raises(SystemExit):
        resume(f"--resume={killed}")
    assert "It went on from another one: --resume=runs/first." in capsys.readouterr().err


def test_a_checkpoint_folder_is_evaluated_also_of_a_run_that_has_nothing_else(killed, capsys):
    (killed / "best.pt").unlink()
    load("ppo").main([f"--evaluate={killed}"])
    load("ppo").main([f"--evaluate={killed}/checkpoints/000000000064"])
    assert capsys.readouterr().out.count("agent.pt: return") == 2


@pytest.mark.parametrize("case", ["ppo", "sac_files"])
def test_killed_at_random_moments_every_resume_ends_with_the_same_weights(case, tmp_path):
    """The small version of ``python tests/kill_table.py``, in forks of this process."""
    line = kill_table.kill(case, 2, 1, tmp_path, forks=True, share=0.25)
    assert line.startswith(f"| {case} | 2 |")
