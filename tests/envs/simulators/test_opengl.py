"""Which OpenGL is chosen without a display, when none is, and what the error names. Drawing is in test_dm_control."""

import os
import sys

import pytest

from torchrl.envs.simulators import opengl
from torchrl.envs.simulators.opengl import choose_opengl, no_opengl


@pytest.fixture
def machine(monkeypatch):
    """Pretend a machine: what it has, and its variables; dm_control was not imported."""

    def pretend(*, egl=0, osmesa=False, platform="linux", **variables):
        monkeypatch.setattr(opengl, "_num_egl_devices", lambda: egl)
        monkeypatch.setattr(opengl, "_is_there", lambda library: osmesa and library == "libOSMesa.so.8")
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.delitem(sys.modules, opengl.OF_DM_CONTROL, raising=False)
        for name in ("MUJOCO_GL", *opengl.DISPLAYS):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    yield pretend
    os.environ.pop("MUJOCO_GL", None)


@pytest.mark.parametrize(
    ("has", "chosen"),
    [
        ({"egl": 1}, "egl"),
        ({"egl": 2, "osmesa": True}, "egl"),
        ({"osmesa": True}, "osmesa"),
        ({}, None),
        ({"egl": 1, "DISPLAY": ":0"}, None),
        ({"egl": 1, "WAYLAND_DISPLAY": "wayland-0"}, None),
        ({"egl": 1, "DISPLAY": ""}, "egl"),
        ({"egl": 1, "platform": "darwin"}, None),
        ({"egl": 1, "MUJOCO_GL": "osmesa"}, "osmesa"),
        ({"egl": 1, "MUJOCO_GL": ""}, ""),
    ],
)
def test_the_first_library_that_is_there_unless_something_was_chosen(has, chosen, machine):
    machine(**has)
    choose_opengl()
    assert os.environ.get("MUJOCO_GL") == chosen


def test_devices_are_counted_where_egl_is():
    assert opengl._num_egl_devices() >= 0 and not opengl._is_there("libNothingOfThisName.so.1")


def test_the_error_names_the_packages_of_debian_and_the_variable():
    text = str(no_opengl("render", RuntimeError("no context")))
    for word in ("RuntimeError (no context)", "libegl1", "libosmesa6", "PyOpenGL", "MUJOCO_GL=egl", "MUJOCO_GL=osmesa"):
        assert word in text
    assert "expected a terrain" in str(no_opengl("reset", RuntimeError(), "a terrain"))
