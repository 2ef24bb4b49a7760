"""The collector over EnvPool's asynchronous mode: whichever simulators are done first are acted on next."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Collection

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.collectors.checks import act_and_check, require_arguments, steps_of
from torchrl.collectors.columns import Columns
from torchrl.collectors.local import LocalCollector
from torchrl.counts import is_count
from torchrl.data.batch_functions import BatchFunction
from torchrl.envs.vector.envpool import EnvPoolEnv
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.modules.training_layers import acting_mode
from torchrl.seeding import child_seeds, named_seeds

WHO = "AsyncEnvPoolCollector"


class AsyncEnvPoolCollector(LocalCollector):
    """Collect fragments of many EnvPool simulators that do not wait for each other, and hand out the first B.

    B, the number of rows of ``env``, is how many simulators are acted on at a time: the first that have answered, while
    EnvPool's threads step the others. A batch ``[B, T]`` has T consecutive steps of each of B different simulators. The
    next fragment of a simulator goes on where its last one ended, in whichever batch it comes; while a fragment that is
    whole waits to be handed out, its simulator waits, too.

    Beside the transition's keys a batch holds under ``"collector"``, ``[B, T]`` int64 each: ``env_ids``, the number of
    the simulator; ``traj_ids``, unique over the whole run; ``policy_version``, how often the weights had been updated
    when the action was chosen. A simulator may have begun its fragment before the last update, so a row may have
    several versions. No batch shares memory with a later one. Which simulators are fastest depends on chance, and with
    it what comes in which batch; a simulator's own steps depend on its seed and its actions alone.

    As the rows of a batch are other simulators each time, what joins batches by their rows (slices of a replay buffer,
    :class:`~torchrl.data.MultiStepStream`) joins nothing over the borders of fragments.

    >>> env = EnvPoolEnv("Pong-v5", 16, num_threads=16)  # doctest: +SKIP
    >>> collector = AsyncEnvPoolCollector(env, actor, num_envs=64, frames_per_batch=2048)  # doctest: +SKIP
    >>> collector.collect().shape  # doctest: +SKIP
    torch.Size([16, 128])

    Args:
        env: says which simulators, and how many rows; it is not stepped. No transforms: they know rows, not simulators.
        policy: maps a root to the same root with ``action``, without memory; None acts at random. Actions are sampled
            unless an outer :func:`set_exploration_type` says otherwise; dropout and batch norms act in eval mode.
        num_envs: number of simulators, at least 3 · B - 2: B - 1 may wait for their action, and B - 1 to be handed out.
        frames_per_batch: transitions per batch, B · T.
        total_frames: stop iterating after this many frames, rounded up to whole batches; -1 never stops.
        device: where a copy of the policy acts; None uses the policy itself where it is.
        storage_device: the device of the batches that are returned; None leaves them on the CPU.
        seed: seeds the simulators, and the actions if ``policy`` is None.
        postproc: a function that is applied to every batch before it is returned.
        compile: let ``policy`` act by one compiled graph, see :class:`GraphPolicy`.

    Raises:
        EnvError: ``env`` is no EnvPoolEnv, or something else steps it.
        ConfigError: too few simulators, ``frames_per_batch`` is not a positive multiple of B, ``total_frames`` no
            number of frames, or ``policy`` cannot be called.
    """

    def __init__(
        self,
        env: EnvPoolEnv,
        policy: Callable | None = None,
        *,
        num_envs: int,
        frames_per_batch: int,
        total_frames: int = -1,
        device: torch.device | str | None = None,
        storage_device: torch.device | str | None = None,
        seed: int | None = None,
        postproc: BatchFunction | None = None,
        compile: bool = False,
    ) -> None:
        if not isinstance(env, EnvPoolEnv):
            hint = "Transforms keep what they know by row: normalise in the network, or by postproc."
            raise EnvError(explain(WHO, expected="an EnvPoolEnv without transforms", got=repr(env), hint=hint))
        require_arguments(WHO, env, policy, total_frames)
        self._num_rows = env.batch_size.numel()
        least = 3 * self._num_rows - 2
        if not is_count(num_envs, least=least):
            expected = f"num_envs of at least {least}, for an env of {self._num_rows} rows"
            hint = "Each time the first rows of many are acted on. To wait for all of them, use Collector(env)."
            raise ConfigError(explain(WHO, expected=expected, got=num_envs, hint=hint))
        self.num_envs, self.frames_per_batch = num_envs, frames_per_batch
        self._num_steps = steps_of(frames_per_batch, self._num_rows)
        self._queue = env.make_queue(num_envs)
        self._answers = _views(self._queue.answers)
        self._num_begun, self._num_pools = 0, 0  # trajectories; pools that were built
        self._acts: Columns | None = None  # what the policy saw and did at each step of each simulator
        self._is_running = False
        options = {"total_frames": total_frames, "device": device, "storage_device": storage_device, "seed": seed}
        super().__init__(WHO, env, policy, postproc=postproc, compile=compile, **options)

    @torch.no_grad()
    def collect(self) -> TensorDict:
        """Collect and return the next batch, ``[B, T]``.

        Raises:
            SpecError: the policy writes other entries than before, or an observation or action does not fit its spec.
            ConfigError: the policy has a memory.
            NonFiniteError: a reward or observation is NaN or infinite.
        """
        try:
            if not self._is_running:
                self._begin()
            with acting_mode(self._layers), self._acting():
                while len(self._whole) < self._num_rows:
                    if len(self._ready) < self._num_rows:
                        self._record()
                    else:
                        self._step(np.array([self._ready.popleft() for _ in range(self._num_rows)]))
            batch = self._take()
            self._require_sound(batch)
        except BaseException:
            self.reset()  # some simulators have answers under way that belong to nothing
            raise
        self.frames += self.frames_per_batch
        return self._hand_out(batch)

    def reset(self) -> None:
        """Drop all fragments and begin new episodes in all simulators with the next batch."""
        self._queue.close()
        self._is_running = False

    def set_info(self, **infos: TensorDictBase | None) -> None:
        """Refuse parameters of each row, see :meth:`Collector.set_info`: rows are other simulators in each batch.

        Raises:
            ConfigError: always.
        """
        expected = "a collector whose rows are the same simulators in each batch"
        raise ConfigError(explain(f"{WHO}.set_info", expected=expected, got=f"{sorted(infos)} for this one"))

    def state_dict(self) -> dict:
        """Return counters: EnvPool's simulators cannot be saved."""
        counters = {"num_trajectories": self._num_begun, "num_pools": self._num_pools}
        return {"frames": self.frames, "policy_version": self.policy_version, **counters}

    def load_state_dict(self, state: dict) -> None:
        """Restore the counters of :meth:`state_dict`; new episodes begin, with a warning."""
        self.frames, self.policy_version = state["frames"], state["policy_version"]
        self._num_begun, self._num_pools = state["num_trajectories"], state["num_pools"]
        self._refresh()
        self.reset()
        if state["frames"]:
            warnings.warn("New episodes start after loading: EnvPool's simulators cannot be saved.", stacklevel=2)

    def shutdown(self) -> None:
        """End the pool and its threads; may be called twice."""
        self.reset()
        super().shutdown()

    def _recorded_names(self) -> Collection[str] | None:
        return None

    def _begin(self) -> None:
        """Begin an episode in each simulator of a new pool."""
        name = f"pool {self._num_pools}"
        seed = np.random.SeedSequence().entropy if self._seed is None else self._seed
        self._queue.begin(child_seeds(named_seeds(seed, name)[name] if self._num_pools else seed, self.num_envs))
        self._num_pools += 1
        num = self.num_envs
        self._count = np.zeros(num, np.int64)  # of the steps that each simulator's fragment has
        self._id = np.full(num, -1)  # of its trajectory
        self._return, self._length = np.zeros((num, 1), np.float32), np.zeros((num, 1), np.int64)
        self._is_init, self._has_root = np.zeros((num, 1), bool), np.zeros(num, bool)
        self._seen = Columns(WHO, self._answers.select(*self.env.observation_spec.keys()), num)  # at the present
        self._ready: deque[int] = deque()  # simulators that wait for an action
        self._whole: deque[int] = deque()  # simulators whose fragment is whole
        self._is_running = True

    # ---- a step of some simulators -----------------------------------------------------------------------------------

    def _step(self, ids: np.ndarray) -> None:
        """Act on the simulators ``ids``, ``[B]``, write down what the policy saw and did, and send the actions."""
        root = self._seen.read(torch.from_numpy(ids))
        for name, column in (("is_init", self._is_init), ("episode_return", self._return)):
            root.set(name, torch.from_numpy(column[ids]))
        root.set("episode_length", torch.from_numpy(self._length[ids]))
        is_first = self._acts is None
        if is_first:
            for key, spec in self.env.observation_spec.items():
                spec.assert_contains(root.get(key), f"observation {key!r}")
        acted = act_and_check(self._act, root, self.env, is_first=True) if is_first else self._act(root)
        if "next" in acted.keys():
            got, hint = (
                "one that writes its next state",
                "Collect with Collector(env) or the collectors over processes.",
            )
            raise ConfigError(explain(f"{WHO}, policy", expected="a policy without memory", got=got, hint=hint))
        facts = {"env_ids": ids, "traj_ids": self._id[ids], "policy_version": np.full_like(ids, self.policy_version)}
        acted.set("collector", _views(facts))
        if is_first:
            self._acts = Columns(WHO, acted, self.num_envs * self._num_steps)
            outcome = self._outcome(np.arange(self._num_rows), ids)
            self._outcomes = Columns(WHO, outcome, self.num_envs * self._num_steps)
        self._acts.write_(acted, self._places(ids))
        self._queue.send(ids, acted.get("action"))

    def _record(self) -> None:
        """Receive B answers: outcomes of steps, which are written down, and first observations of episodes."""
        ids, begins = self._queue.receive()
        at = np.flatnonzero(~begins)
        stepped, begun = ids[at], ids[begins]
        self._return[stepped] += self._queue.answers["reward"][at]
        self._length[stepped] += 1
        if len(stepped):
            self._outcomes.write_(self._outcome(at, stepped), self._places(stepped))
        self._count[stepped] += 1
        self._return[begun], self._length[begun] = 0, 0
        self._id[begun] = self._num_begun + np.arange(len(begun))
        self._num_begun += len(begun)
        self._is_init[ids] = begins[:, None]
        self._seen.write_(self._answers.select(*self.env.observation_spec.keys()), torch.from_numpy(ids))
        ended = stepped[self._queue.answers["done"][at, 0]]
        self._has_root[ids] = True
        self._has_root[ended] = False
        self._queue.begin_next_episodes(ended)
        is_whole = self._count == self._num_steps
        self._whole.extend(stepped[is_whole[stepped]].tolist())
        self._ready.extend(ids[self._has_root[ids] & ~is_whole[ids]].tolist())

    def _take(self) -> TensorDict:
        """Copy the B fragments that were whole first, in the order of their simulators, and let these go on."""
        ids = np.sort([self._whole.popleft() for _ in range(self._num_rows)])
        places = torch.from_numpy(ids[:, None] * self._num_steps + np.arange(self._num_steps))
        batch = self._acts.read(places)
        batch.set("next", self._outcomes.read(places))
        self._count[ids] = 0
        self._ready.extend(ids[self._has_root[ids]].tolist())
        return batch

    def _outcome(self, at: np.ndarray, ids: np.ndarray) -> TensorDict:
        """Return what is under ``next`` after a step of ``ids``, whose answers stand at ``at``, both ``[n]``."""
        outcome = self._answers[torch.from_numpy(at)]
        outcome.set("episode_return", torch.from_numpy(self._return[ids]))
        return outcome.set("episode_length", torch.from_numpy(self._length[ids]))

    def _places(self, ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(ids * self._num_steps + self._count[ids])


def _views(tree: dict) -> TensorDict:
    """Wrap a tree of arrays ``[n, ...]`` in a TensorDict ``[n]`` over the same memory."""
    entries = {key: _views(x) if isinstance(x, dict) else torch.from_numpy(x) for key, x in tree.items()}
    return TensorDict(entries, batch_size=next(iter(entries.values())).shape[:1])
