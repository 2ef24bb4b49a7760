"""A window as a fake of tkinter shows it: this suite runs where there is no display."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from torchrl.errors import SpecError
from torchrl.record import picture_window


class TclError(Exception):
    pass


class Tk:
    """What the module does of tkinter: one window, with a picture in it."""

    def __init__(self):
        self.pictures, self.is_gone = [], False
        self.module = SimpleNamespace(
            TclError=TclError, Tk=lambda: self, Label=self.label, PhotoImage=lambda data: data
        )

    def label(self, root):
        return SimpleNamespace(pack=lambda: None, configure=lambda image: self.pictures.append(image))

    def title(self, text):
        self.text = text

    def update(self):
        if self.is_gone:
            raise TclError

    def destroy(self):
        self.is_gone = True


@pytest.fixture
def tk(monkeypatch):
    fake = Tk()
    monkeypatch.setitem(sys.modules, "tkinter", fake.module)
    return fake


def test_pictures_are_shown_as_they_are(tk):
    picture = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
    with picture_window("Cart", fps=1000) as show:
        show(picture)
        with pytest.raises(SpecError, match="a picture"):
            show(picture[..., 0])
    assert tk.text == "Cart" and tk.pictures == [b"P6 4 1 255 " + bytes(range(12))] and tk.is_gone


def test_a_window_that_its_user_closes_takes_no_more_pictures(tk):
    with picture_window("Cart", fps=1000) as show:
        tk.is_gone = True
        show(np.zeros((1, 1, 3), np.uint8))
        show(np.zeros((1, 1, 3), np.uint8))
    assert len(tk.pictures) == 1


def test_without_a_display_there_is_none(tk, monkeypatch):
    def fail():
        raise TclError

    tk.module.Tk = fail
    with picture_window("Cart") as show:
        assert show is None
    monkeypatch.setitem(sys.modules, "tkinter", None)  # not installed
    with picture_window("Cart") as show:
        assert show is None
