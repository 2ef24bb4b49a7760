"""The compiled side of :class:`JaxEnv`: all rows of a world stepped, and some of them restarted, in one call. No torch.

Each row draws from a key of its own. A step and a restart split it, use the second half and keep the first, so that
what a row draws depends on its seed and on its own past alone.
"""

from __future__ import annotations

from functools import lru_cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from torchrl.envs.on_jax.world import JaxWorld
from torchrl.errors import EnvError, explain
from torchrl.extras import require


class Rows(NamedTuple):
    """Hold all rows between two calls, in arrays of jax.

    Attributes:
        state: the pytree of the world, leaves ``[B, ...]``.
        keys: uint32 ``[B, 2]``, the random keys.
        observation: the last observations, a dict of leaves ``[B, ...]`` or of such dicts.
        length: int32 ``[B, 1]``, steps of the episode.
        total: float32 ``[B, 1]``, its return.
    """

    state: Any
    keys: Any
    observation: dict
    length: Any
    total: Any


class Outcome(NamedTuple):
    """Hold what a step gave beside the rows.

    Attributes:
        reward: float32 ``[B, 1]``.
        flags: bool ``[3, B, 1]``: terminated, truncated, and whether either is true.
    """

    reward: Any
    flags: Any


class Programs:
    """Compile a world for a batch: ``step`` for all rows, ``restart`` for some of them.

    Restarts go through the rows that begin anew in pieces of a sixteenth of the batch, so that a start that is costly
    is not computed for rows that go on.

    Args:
        world: the functions of one row.
        num_rows: how many rows, B.
        device: name of the back end of jax, such as ``"cpu"``.

    Raises:
        EnvError: the two functions do not fit each other.
        MissingExtraError: jax is not installed.

    Attributes:
        blank: shapes and dtypes of :class:`Rows`.
        step: ``step(rows, action) -> (rows, outcome)``.
        step_some: ``step_some(rows, action, waits)``, with bool ``[B]`` true where a row stays as it is.
        restart: ``restart(rows, places, count) -> rows``, see :meth:`places`.
    """

    def __init__(self, world: JaxWorld, num_rows: int, device: str) -> None:
        self._jax = jax = import_jax()
        self._world, self._num_rows = world, num_rows
        self._limit = np.iinfo(np.int32).max if world.max_episode_steps is None else world.max_episode_steps
        self._piece = min(num_rows, max(8, -(-num_rows // 16)))
        self._device = jax.devices(device)[0]
        self._form = self._check()
        self.blank = jax.eval_shape(self._blank)
        self.step, self.step_some = jax.jit(self._step), jax.jit(self._step_some)
        self.restart = jax.jit(self._restart)
        self._seed = jax.jit(self._seed_rows)

    def new_rows(self) -> Rows:
        """Return rows with the keys of the seeds 0, 1, ..., which :meth:`restart` has to start."""
        rows = self._jax.device_put(self._jax.jit(self._blank)(), self._device)
        return self.seed(rows, list(range(self._num_rows)))

    def seed(self, rows: Rows, seeds: list[int | None]) -> Rows:
        """Give each row that has a seed the key ``jax.random.PRNGKey(seed)``.

        Raises:
            EnvError: a seed has more than 32 bits, of which jax would drop some.
        """
        given = [0 if seed is None else seed for seed in seeds]
        if max(given) >= 2**32:
            raise EnvError(explain("JaxEnv.reset", expected="seeds below 2**32, as keys of jax", got=max(given)))
        mask = np.array([seed is not None for seed in seeds])
        return rows._replace(keys=self._seed(rows.keys, mask, np.array(given, np.uint32)))

    def take(self, tensor: Any) -> Any:
        """Return a contiguous tensor as an array, by dlpack or, on the CPU, as numpy's, which costs less."""
        return tensor.numpy() if tensor.device.type == "cpu" else self._jax.dlpack.from_dlpack(tensor)

    def wait(self, rows: Rows) -> Rows:
        """Return the rows as soon as they are computed, since until then jax reads what :meth:`take` gave it."""
        self._jax.block_until_ready(rows.length)
        return rows

    def places(self, mask: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the numbers of the rows of a mask, bool ``[B]``, in whole pieces, and how many they are.

        They are found here and not in a program, where XLA takes a hundred microseconds for 4,096 rows.
        """
        found = np.flatnonzero(mask)
        places = np.full(-(-self._num_rows // self._piece) * self._piece, self._num_rows, np.int32)
        places[: len(found)] = found
        return places, len(found)

    def save(self, rows: Rows) -> list[Any]:
        """Return the leaves of the rows as arrays of numbers; random keys become their data."""
        return [self._jax.random.key_data(leaf) if self._is_key(leaf) else leaf for leaf in self._jax.tree.leaves(rows)]

    def load(self, leaves: list[Any]) -> Rows:
        """Return the rows of :meth:`save`, whose unsigned numbers may be given as the same bits of signed ones."""
        blank, structure = self._jax.tree.flatten(self.blank)
        found = [list(leaf.shape) for leaf in leaves]
        forms = self._jax.eval_shape(self.save, self.blank)
        expected = [list(form.shape) for form in forms]
        if found != expected:
            raise EnvError(explain("JaxEnv.load_state_dict", expected=f"leaves of {expected}", got=found))
        arrays = [self._jax.numpy.asarray(leaf) for leaf in leaves]
        bits = self._jax.lax.bitcast_convert_type
        arrays = [a if a.dtype == form.dtype else bits(a, form.dtype) for a, form in zip(arrays, forms, strict=True)]
        kept = [
            self._key(leaf, like.dtype) if self._is_key(like) else leaf
            for leaf, like in zip(arrays, blank, strict=True)
        ]
        return self._jax.device_put(self._jax.tree.unflatten(structure, kept), self._device)

    # ---- what is traced ----------------------------------------------------------------------------------------------

    def _step(self, rows: Rows, action: Any) -> tuple[Rows, Outcome]:
        jax, jnp = self._jax, self._jax.numpy
        kept, used = self._split(rows.keys)
        state, observation, reward, terminated, truncated = jax.vmap(self._one_step)(used, rows.state, action)
        reward = reward.reshape(-1, 1)
        length = rows.length + 1
        terminated = terminated.reshape(-1, 1)
        truncated = truncated.reshape(-1, 1) | (length >= self._limit)
        flags = jnp.stack([terminated, truncated, terminated | truncated])
        return Rows(state, kept, observation, length, rows.total + reward), Outcome(reward, flags)

    def _step_some(self, rows: Rows, action: Any, waits: Any) -> tuple[Rows, Outcome]:
        stepped, outcome = self._step(rows, action)
        kept = self._jax.tree.map(partial(self._where, waits), rows, stepped)
        goes_on = ~waits[:, None]
        return kept, Outcome(outcome.reward * goes_on, outcome.flags & goes_on)

    def _restart(self, rows: Rows, places: Any, count: Any) -> Rows:
        jax, jnp, piece = self._jax, self._jax.numpy, self._piece

        def restart_piece(number: Any, rows: Rows) -> Rows:
            at = jax.lax.dynamic_slice(places, (number * piece,), (piece,))
            kept, used = self._split(rows.keys.at[at].get(mode="clip"))
            state, observation = jax.vmap(self._one_reset)(used)
            zero = jnp.zeros((piece, 1), jnp.int32)
            fresh = Rows(state, kept, observation, zero, zero.astype(jnp.float32))
            # The places after the last are no row's, and what is written there is dropped.
            return jax.tree.map(lambda old, new: old.at[at].set(new, mode="drop"), rows, fresh)

        return jax.lax.fori_loop(0, (count + piece - 1) // piece, restart_piece, rows)

    def _split(self, keys: Any) -> tuple[Any, Any]:
        halves = self._jax.vmap(self._jax.random.split)(keys)
        return halves[:, 0], halves[:, 1]

    def _one_reset(self, key: Any) -> tuple[Any, dict]:
        state, observation = self._world.reset(key)
        return self._cast((state, named(observation)))

    def _one_step(self, key: Any, state: Any, action: Any) -> tuple[Any, dict, Any, Any, Any]:
        start = getattr(self._world.action_space, "start", 0)
        state, observation, reward, terminated, truncated = self._world.step(key, state, action + start)
        jnp = self._jax.numpy
        state, observation = self._cast((state, named(observation)))
        flags = (jnp.asarray(flag).astype(bool) for flag in (terminated, truncated))
        return state, observation, jnp.asarray(reward).astype(jnp.float32), *flags

    def _cast(self, tree: Any) -> Any:
        """Give leaves the dtypes of a reset, none of them weak: a step would be compiled a second time for those."""
        jnp = self._jax.numpy
        return self._jax.tree.map(
            lambda leaf, like: leaf if self._is_key(leaf) else jnp.asarray(leaf).astype(like.dtype), tree, self._form
        )

    def _seed_rows(self, keys: Any, mask: Any, seeds: Any) -> Any:
        return self._where(mask, self._jax.vmap(self._jax.random.PRNGKey)(seeds), keys)

    def _where(self, mask: Any, new: Any, old: Any) -> Any:
        jnp = self._jax.numpy
        return jnp.where(mask.reshape(-1, *[1] * (jnp.ndim(new) - 1)), new, old)

    def _blank(self) -> Rows:
        jax, jnp = self._jax, self._jax.numpy
        key = jax.random.PRNGKey(0)
        state, observation = jax.tree.map(lambda leaf: jnp.zeros((self._num_rows, *leaf.shape), leaf.dtype), self._form)
        length = jnp.zeros((self._num_rows, 1), jnp.int32)
        keys = jnp.zeros((self._num_rows, *key.shape), key.dtype)
        return Rows(state, keys, observation, length, length.astype(jnp.float32))

    def _key(self, data: Any, dtype: Any) -> Any:
        """Return random keys of a dtype from their data."""
        random = self._jax.random
        return random.wrap_key_data(data, impl=random.key_impl(self._jax.numpy.zeros((), dtype)))

    def _is_key(self, leaf: Any) -> bool:
        return self._jax.dtypes.issubdtype(self._jax.numpy.result_type(leaf), self._jax.dtypes.prng_key)

    # ---- what a world must be ----------------------------------------------------------------------------------------

    def _check(self) -> tuple[Any, dict]:
        """Trace both functions once, and return the form of one row's state and observation."""
        jax = self._jax
        key = jax.random.PRNGKey(0)
        found = jax.eval_shape(self._world.reset, key)
        require_tuple("reset", found, "(state, observation)")
        form = (found[0], named(found[1]))
        space = self._world.action_space
        action = jax.ShapeDtypeStruct(space.shape, action_dtype(space))
        found = jax.eval_shape(self._world.step, key, form[0], action)
        require_tuple("step", found, "(state, observation, reward, terminated, truncated)")
        shapes = [jax.tree.map(lambda leaf: tuple(leaf.shape), tree) for tree in (form, (found[0], named(found[1])))]
        if jax.tree.structure(form) != jax.tree.structure((found[0], named(found[1]))) or shapes[0] != shapes[1]:
            hint = "A compiled step takes and returns the same pytree: give reset every entry that step has."
            expected = f"a step with the state and observation of reset, {shapes[0]}"
            raise EnvError(explain("JaxWorld", expected=expected, got=shapes[1], hint=hint))
        scalars = dict(zip(("reward", "terminated", "truncated"), found[2:], strict=True))
        for name, leaf in scalars.items():
            if getattr(leaf, "shape", ()) not in ((), (1,)):
                raise EnvError(explain("JaxWorld, step", expected=f"one {name} for one row", got=list(leaf.shape)))
        return form


@lru_cache(maxsize=16)
def compiled(world: JaxWorld, num_rows: int, device: str) -> Programs:
    """Return the :class:`Programs` of a world and a number of rows, the same object for the same world.

    So two envs of one world, such as those of two trainings in one process, compile once.
    """
    return Programs(world, num_rows, device)


def import_jax() -> ModuleType:
    """Import jax on first use.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require("jax", extra="jax", purpose="JaxEnv")


def named(observation: Any) -> dict:
    """Return an observation as a dict: one array under the key ``observation``, a dict as it is.

    Raises:
        EnvError: it is neither.
    """
    if isinstance(observation, dict):
        return {key: named(part) if isinstance(part, dict) else part for key, part in observation.items()}
    if not hasattr(observation, "shape"):
        expected = "an observation that is one array, or a dict of arrays"
        raise EnvError(explain("JaxWorld", expected=expected, got=type(observation).__name__))
    return {"observation": observation}


def action_dtype(space: Any) -> np.dtype:
    """Return the dtype of the actions that a world gets: float32 for floats, int32 for the rest."""
    return np.dtype(np.float32 if space.dtype.kind == "f" else np.int32)


def require_tuple(name: str, found: Any, form: str) -> None:
    """Refuse what is no tuple of as many values as ``form`` names.

    Raises:
        EnvError: saying what was expected.
    """
    num = form.count(",") + 1
    if not isinstance(found, tuple) or len(found) != num:
        got = f"{len(found)} values" if isinstance(found, tuple) else type(found).__name__
        raise EnvError(explain(f"JaxWorld, {name}", expected=form, got=got))
