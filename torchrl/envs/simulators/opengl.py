"""The error to raise where MuJoCo cannot draw, for the gymnasium and dm_control adapters."""

from __future__ import annotations

from torchrl.errors import EnvError, explain

HINT = (
    "Without a display, set the environment variable MUJOCO_GL before Python starts: MUJOCO_GL=egl (needs PyOpenGL and "
    "a system package such as libegl1), or MUJOCO_GL=osmesa to draw on the CPU (needs PyOpenGL and libosmesa6)."
)


def no_opengl(who: str, error: Exception, expected: str = "a picture drawn by OpenGL") -> EnvError:
    """Return the error for MuJoCo's failure to draw; its message says what to install or set.

    Args:
        who: the part that was asked to draw.
        error: what MuJoCo or its OpenGL library raised.
        expected: what it was asked for.
    """
    got = f"{type(error).__name__} ({error})"
    return EnvError(explain(who, expected=expected, got=got, hint=HINT))
