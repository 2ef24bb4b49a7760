"""Which OpenGL MuJoCo draws with where there is no display, and the error where there is none. Imports no MuJoCo."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import sys

from torchrl.errors import EnvError, explain

HINT = (
    "Without a display, MuJoCo draws by EGL (Debian: apt-get install libegl1 libgl1) or by OSMesa, on the CPU (Debian: "
    "apt-get install libosmesa6), and PyOpenGL; the first that is there is taken. To choose, set the environment "
    "variable before Python starts: MUJOCO_GL=egl, or MUJOCO_GL=osmesa."
)
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
OF_DM_CONTROL = "dm_control._render"  # the module that chooses, once, when it is imported


def choose_opengl() -> None:
    """Let MuJoCo draw without a display: set the environment variable ``MUJOCO_GL`` to a library that is there.

    Nothing is done where there is a display, where the variable is set, on systems other than Linux, and where neither
    EGL nor OSMesa is found. dm_control reads the variable when it is imported, so its choice is then made again.

    Raises:
        ImportError: the library that was found cannot be loaded.
    """
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ or any(os.environ.get(name) for name in DISPLAYS):
        return
    name = find_opengl()
    if name is None:
        return
    os.environ["MUJOCO_GL"] = name
    if OF_DM_CONTROL in sys.modules:
        importlib.reload(sys.modules[OF_DM_CONTROL])


def find_opengl() -> str | None:
    """Return the name of a library that draws without a display, as ``MUJOCO_GL`` takes it; None where there is none.

    EGL, which also draws on a GPU, comes before OSMesa.
    """
    return "egl" if _num_egl_devices() else "osmesa" if _is_there("libOSMesa.so.8") else None


def no_opengl(who: str, error: Exception, expected: str = "a picture drawn by OpenGL") -> EnvError:
    """Return the error for MuJoCo's failure to draw; its message says what to install or set.

    Args:
        who: the part that was asked to draw.
        error: what MuJoCo or its OpenGL library raised.
        expected: what it takes OpenGL for.
    """
    got = f"{type(error).__name__} ({error})"
    return EnvError(explain(who, expected=expected, got=got, hint=HINT))


@functools.cache
def _num_egl_devices() -> int:
    """Return how many devices EGL can draw on without a display, Mesa's software among them; 0 without EGL."""
    if not _is_there("libEGL.so.1"):
        return 0
    egl = ctypes.CDLL("libEGL.so.1")
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not address:
        return 0
    count = ctypes.c_int(0)
    arguments = (ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
    is_known = ctypes.CFUNCTYPE(ctypes.c_uint, *arguments)(address)(0, None, ctypes.byref(count))
    return count.value if is_known else 0


def _is_there(library: str) -> bool:
    """Answer whether a shared library can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
