"""An Env around a ``BatchSimulator``: worlds that are a batch already, in numpy or C."""

from __future__ import annotations

from functools import partial
from numbers import Integral

from gymnasium import Space

from torchrl.envs.driving import innermost
from torchrl.envs.simulators.batch import BatchSimulator
from torchrl.envs.simulators.foreign import foreign_hint
from torchrl.envs.vector.base import WorkerEnv
from torchrl.envs.vector.batch_worker import AUTORESETS, BatchWorker, batch_method
from torchrl.envs.vector.building import require_free_names, shared_options
from torchrl.errors import ConfigError, EnvError, explain

LOST = ("refuse", "repeat")
NEEDED = ("num_envs", "observation_space", "action_space", "autoreset", "reset", "step")


class BatchEnv(WorkerEnv):
    """Present a :class:`~torchrl.envs.simulators.BatchSimulator` as an env ``[num_envs]``.

    ``next`` holds the true successor observations, and no transition is a reset, also where the simulator restarts rows
    itself. One that loses their last observation then is refused, unless ``lost_last="repeat"``: so ``next`` repeats,
    where an episode ended, the observation that was acted on. Its value does not count after a termination; a
    truncation, after which it would, is an error.

    The state can be saved where the simulator's can. Rows are not frozen: all are stepped together.

    >>> from gymnasium import spaces
    >>> from torchrl.envs.simulators import BatchSimulator
    >>> class Guesses(BatchSimulator):
    ...     observation_space, action_space, num_envs = spaces.Box(0, 1, (1,)), spaces.Discrete(2), 64
    ...     def reset(self, rows, *, seeds=None, options=None): ...
    ...     def step(self, actions):
    ...         self.arrays.rewards[:] = actions
    ...         self.arrays.terminated[:] = actions == 0
    >>> BatchEnv(Guesses()).rollout(10)["next", "reward"].shape
    torch.Size([64, 10, 1])

    Args:
        simulator: a :class:`~torchrl.envs.simulators.BatchSimulator`, or an object with its members; closing the env
            closes it.
        lost_last: ``"refuse"`` or ``"repeat"``.

    Raises:
        ConfigError: another ``lost_last``.
        EnvError: ``simulator`` lacks a member, has another ``autoreset``, or loses last observations.
        SpecError: a space without a matching spec, or arrays of its own that do not fit the space.
    """

    def __init__(self, simulator: BatchSimulator, *, lost_last: str = "refuse") -> None:
        if lost_last not in LOST:
            raise ConfigError(explain("BatchEnv", expected=f"lost_last of {', '.join(LOST)}", got=repr(lost_last)))
        _require_members(simulator)
        _require_autoreset(simulator, lost_last)
        require_free_names("BatchEnv", simulator.observation_space)
        super().__init__(
            partial(BatchWorker, simulator),
            observation_space=simulator.observation_space,
            action_space=simulator.action_space,
            batch_size=[int(simulator.num_envs)],
        )
        self.simulator = simulator
        self.task = getattr(simulator, "task", "")
        self.step_limit = batch_method("step_limit", simulator)()

    @property
    def restarts_rows(self) -> bool:
        """Whether the simulator restarts single rows; see :attr:`Env.restarts_rows`."""
        return getattr(self.simulator, "restarts_rows", True)

    def require_options(self, options: list[dict]) -> None:
        """Refuse reset options that differ from row to row: one call restarts all rows."""
        super().require_options(options)
        shared_options("BatchEnv", options)

    def driven_things(self) -> list:
        """List what stepping this env steps: itself and the simulator. See :meth:`Env.driven_things`."""
        return [self, innermost(self.simulator)]


def _require_members(simulator: object) -> None:
    """Refuse an object that is no batch simulator."""
    lacking = [name for name in NEEDED if not hasattr(simulator, name)]
    if isinstance(simulator, type) or lacking:
        what = f"the class {simulator.__name__}" if isinstance(simulator, type) else type(simulator).__name__
        got = what if isinstance(simulator, type) else f"{what} without {', '.join(lacking)}"
        hint = foreign_hint(simulator) or "Build it first: BatchEnv(MyWorld(num_envs=64))."
        if "num_envs" in lacking and "autoreset" in lacking:
            hint = foreign_hint(simulator) or "One world, one row: SerialEnv(make_simulator, num_envs)."
        raise EnvError(explain("BatchEnv", expected="a BatchSimulator", got=got, hint=hint))
    num_envs = simulator.num_envs
    if isinstance(num_envs, bool) or not isinstance(num_envs, Integral) or num_envs < 1:
        raise EnvError(explain("BatchEnv", expected="num_envs of at least 1", got=repr(num_envs)))
    for name in ("observation_space", "action_space"):
        space = getattr(simulator, name)
        if not isinstance(space, Space):
            expected, got = f"an {name} of gymnasium, that of one row", type(space).__name__
            raise EnvError(explain(f"BatchEnv({type(simulator).__name__})", expected=expected, got=got))


def _require_autoreset(simulator: BatchSimulator, lost_last: str) -> None:
    """Refuse a way to restart rows that would give wrong transitions."""
    who = f"BatchEnv({type(simulator).__name__})"
    if simulator.autoreset not in AUTORESETS:
        hint = (
            "A step that is a reset is no transition, so 'next_step' is none of them: let reset(rows) restart rows "
            "that ended, at once, and say 'disabled'."
        )
        raise EnvError(
            explain(who, expected=f"autoreset of {', '.join(AUTORESETS)}", got=repr(simulator.autoreset), hint=hint)
        )
    if simulator.autoreset == "disabled":
        if not getattr(simulator, "restarts_rows", True):
            expected = "rows that can be restarted one by one, or autoreset 'same_step'"
            raise EnvError(explain(who, expected=expected, got="a simulator that restarts all or none"))
    elif not getattr(simulator, "keeps_last", True) and lost_last == "refuse":
        expected = "the true last observation of each episode"
        got = "a simulator that overwrites it with the first one of the next"
        hint = 'BatchEnv(simulator, lost_last="repeat") repeats the one before; see docs/concepts/batch_simulators.md.'
        raise EnvError(explain(who, expected=expected, got=got, hint=hint))
