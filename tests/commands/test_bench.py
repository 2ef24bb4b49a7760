from dataclasses import replace

import cloudpickle
import pytest

from torchrl.commands import bench
from torchrl.commands.bench import Bench, Measuring, frames_per_second, layouts_of, measure, print_table
from torchrl.recipes.parts import Environment

CARTPOLE = Bench(Environment(num_envs=4), Measuring(workers=(2, 4)))


def flags_of(settings):
    return [layout.flags for layout in layouts_of(settings, 16)]


def test_layouts_are_few_and_many_rows_here_then_processes():
    processes = ["--env_workers=2", "--num_workers=2", "--num_workers=2 --async_collection"]
    processes += [words.replace("2", "4") for words in processes]
    assert flags_of(CARTPOLE) == ["--num_envs=1", "--num_envs=4", *(f"--num_envs=4 {words}" for words in processes)]
    assert flags_of(replace(CARTPOLE, environment=Environment()))[:2] == ["--num_envs=1", "--num_envs=8"]
    native = replace(CARTPOLE, environment=Environment(env_library="native", env_name="CartPole", num_envs=4))
    assert not [words for words in flags_of(native) if "env_workers" in words]


def test_the_table_names_the_fastest_and_what_noise_hides(capsys):
    layouts = layouts_of(CARTPOLE, 16)[:3]
    print_table(layouts, [[10, 11, 30], [900, 1000, 2000], [950, 1100, 1300]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["frames/s,", "3", "rounds", "in", "turn", "median", "lowest", "-", "highest"]
    assert lines[1].split() == ["--num_envs=1", "11", "10", "-", "30"]
    assert lines[4] == "within noise of the fastest: --num_envs=4"
    assert lines[5] == "fastest here: --num_envs=4 --env_workers=2, 1,100 frames/s, 100.0 x --num_envs=1"
    print_table(layouts, [[10], [20], [30]])
    assert "fewer than 3 rounds" in capsys.readouterr().out


def test_rounds_alternate_until_the_time_is_up(monkeypatch):
    clock, measured = [0.0], []

    def take_a_second(layout, seconds):
        clock[0] += 1.0
        measured.append(layout)
        return clock[0]

    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(bench, "frames_per_second", take_a_second)
    assert measure(["a", "b"], 5.0, 0.0) == [[1.0, 3.0], [2.0, 4.0]]
    assert measured == ["a", "b", "a", "b"]
    clock[0] = 0.0
    assert measure(["a", "b"], 0.1, 0.0) == [[1.0], [2.0]]


def test_a_layout_is_measured_and_one_of_processes_can_be_sent_to_them():
    assert frames_per_second(layouts_of(CARTPOLE, 8)[1], 0.01) > 0
    assert cloudpickle.loads(cloudpickle.dumps(layouts_of(CARTPOLE, 8)[4].make_env)) is not None


def test_the_command_measures_layouts_and_its_last_line_names_one(torchrl, monkeypatch):
    monkeypatch.setattr(bench, "frames_per_second", lambda layout, seconds: layout.environment.num_envs)
    lines = torchrl("bench", "Pendulum-v1", "--num_envs=2", "--seconds=1")
    assert lines[0].startswith("Pendulum-v1: ") and len(lines) == 9
    assert lines[-1] == "fastest here: --num_envs=2, 2 frames/s, 2.0 x --num_envs=1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CartPol-v1"], "CartPole"),
        (["CartPole-v1", "--workers=3"], "--workers: expected divisors of --num_envs=16, got 3"),
        (["CartPole-v1", "--env_workers=2"], "--env_workers: expected --workers"),
        (["native/CartPole", "--env_library=toy"], "expected --env_library=native, or none"),
        ([], "ENV_ID"),
    ],
)
def test_a_mistake_is_one_message(words, message, refused):
    assert message in refused("bench", *words)
