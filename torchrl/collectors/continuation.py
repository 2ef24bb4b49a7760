"""What collectors save of their environment, and how they go on from it."""

from __future__ import annotations

import warnings

from torchrl.envs.base import Env
from torchrl.errors import EnvError
from torchrl.seeding import named_seeds


def capture_env(env: Env) -> dict:
    """Capture an environment: what it has learned under ``learned``, where its worlds stand under ``env``.

    Where worlds cannot be captured, ``env`` is None, and the reason stands under ``env_error``.
    """
    learned = env.learned_state_dict()
    try:
        return {"learned": learned, "env": env.state_dict(), "env_error": ""}
    except EnvError as error:
        return {"learned": learned, "env": None, "env_error": str(error)}


def was_moved(who: str, env: Env, num_moves: int) -> bool:
    """Answer whether somebody moved an environment since its collector did, and warn that new episodes start.

    Args:
        who: the collector's name.
        env: which.
        num_moves: what :attr:`Env.num_moves` was then.
    """
    if env.num_moves == num_moves:
        return False
    warnings.warn(
        f"{who}: its environment was reset or stepped by hand since the last batch, so all rows begin new episodes. "
        "Build another environment to look at.",
        stacklevel=4,
    )
    return True


def restore_or_seed(env: Env, state: dict, seed: int | None) -> bool:
    """Restore an environment from a collector's state, and return whether there is a root to go on from.

    What it has learned goes on in any case. Where its worlds were not captured, new episodes are to start, with a
    warning, and not those that the run began with. Where nothing had begun, the environment's seed still waits for the
    first reset.

    Args:
        env: the environment that was captured.
        state: with :func:`captured`, ``frames`` and ``root``, a dict of tensors or None.
        seed: of the collector.
    """
    env.load_learned_state_dict(state["learned"])
    if state["env"] is None:
        warnings.warn(f"New episodes start after loading: {state['env_error']}", stacklevel=3)
        if seed is not None:
            stream = f"resumed at {state['frames']}"
            env.set_seed(named_seeds(seed, stream)[stream])
        return False
    if state["root"] is not None or state["frames"]:
        env.load_state_dict(state["env"])
    return state["root"] is not None
