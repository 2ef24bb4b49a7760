"""Save and restore the console of an Atari game as plain data, for the gymnasium adapter; ale-py does the work."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchrl.envs.simulators.base import FRESH, State
from torchrl.errors import EnvError, explain
from torchrl.extras import require

STICKY = "repeat_action_probability"


def is_console(value: object) -> bool:
    """Answer whether an object is ale-py's interface to a console, which an Atari environment holds as ``ale``."""
    return type(value).__module__.split(".")[0] == "ale_py"


def get_console(ale: Any) -> State:
    """Return the whole state of a console with its random generator, enough to continue bit for bit.

    The picture on its screen is not part of it: it is drawn anew by the next step.

    Args:
        ale: ``ale_py.ALEInterface``.

    Raises:
        EnvError: actions are sticky. ale-py 0.12.1 saves the random numbers that decide whether the action before is
            repeated, but not which action that was.
    """
    sticky = ale.getFloat(STICKY)
    if sticky:
        expected = f"a game with {STICKY}=0, since ale-py does not save the action that is repeated"
        raise EnvError(explain("get_state", expected=expected, got=f"{sticky:g}", hint=FRESH))
    return {"console": np.frombuffer(ale.cloneState(include_rng=True).serialize(), np.uint8).copy()}


def set_console(ale: Any, state: State) -> None:
    """Restore a console to what :func:`get_console` of one with the same game returned.

    Args:
        ale: ``ale_py.ALEInterface``.
        state: of the console.
    """
    ale_py = require("ale_py", extra="atari", purpose="the state of an Atari game")
    ale.restoreState(ale_py.ALEState(state["console"].tobytes()))
