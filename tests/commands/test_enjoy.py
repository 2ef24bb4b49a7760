import av
import numpy as np

from torchrl.agents import VIDEOS
from torchrl.commands import enjoy


def num_pictures(path):
    with av.open(str(path)) as container:
        return len([*container.decode(video=0)])


def test_it_films_episodes_of_the_best_checkpoint_into_the_run(torchrl, saved_run):
    taken, *lines, last = torchrl("enjoy", str(saved_run), "--episodes=2", "--no-window")
    assert taken == "taken from run/best.pt" and last == f"films: run/{VIDEOS}"
    assert [line.split(":")[0] for line in lines] == ["enjoy_0.mp4", "enjoy_1.mp4"]
    for line in lines:
        name, rest = line.split(": return ")
        total, length = rest.removesuffix(" steps").split(" in ")
        assert float(total) == float(length)  # CartPole pays 1 for each step
        assert num_pictures(saved_run / VIDEOS / name) == int(length) + 1


def test_a_window_shows_what_is_filmed_and_its_absence_is_said(torchrl, saved_run, monkeypatch):
    shown = []

    class Window:
        def __init__(self, show):
            self.show = show

        def __enter__(self):
            return self.show

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(enjoy, "picture_window", lambda title, fps: Window(shown.append))
    *_, line, _ = torchrl("enjoy", str(saved_run), "--fps=60")
    assert len(shown) == int(line.split()[-2]) + 1 and np.asarray(shown[0]).shape == (400, 600, 3)
    monkeypatch.setattr(enjoy, "picture_window", lambda title, fps: Window(None))
    assert "no window: there is no display" in torchrl("enjoy", str(saved_run))


def test_what_it_is_not_given_is_said_in_a_line(refused, saved_run):
    assert "episodes" in refused("enjoy", str(saved_run), "--episodes=0")
    assert "nothing" in refused("enjoy", "nothing")
