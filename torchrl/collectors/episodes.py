"""The collector of whole episodes, which yields batches of n episodes of different lengths, padded or packed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from tensordict import TensorDict

from torchrl.collectors.checks import require_arguments
from torchrl.collectors.growing import GrowingBatch
from torchrl.collectors.local import LocalCollector
from torchrl.counts import is_count
from torchrl.data.batch_functions import BatchFunction
from torchrl.data.trajectories import TRAJ_IDS, unpack
from torchrl.envs.base import Env
from torchrl.envs.stepping import another_layout
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.modules.training_layers import acting_mode

IDLE = -1  # the number of the episode of a row that plays none


class EpisodeCollector(LocalCollector):
    """Collect batches of ``num_episodes`` whole episodes.

    Episodes are numbered over the whole run in the order in which they begin; of those that begin at once, that of the
    lower row of the environment is first. Row n of a batch is one episode from its first to its last step, ``[N, T]``
    with T the length of the longest, ``("collector", "mask")`` false and everything else zero behind the end. Beside
    the transition's keys and the mask a batch holds, int64 ``[N, T]``, ``("collector", "traj_ids")``: the number of the
    episode; ``("collector", "policy_version")``: how often the weights had been updated when the step was taken; and
    ``("collector", "env_row")``: which row of the environment played it. No batch shares memory with a later one.

    What happens to a row of the environment whose episode is over:

    - ``finished="leave"``: every batch restarts the whole environment and consists of the ``num_episodes`` episodes
      that begin first, in that order. A row begins another episode until ``num_episodes`` have begun, then it is frozen
      (:meth:`Env.freeze_`). No episode is left out because it is long, so lengths and returns are not biased. Where the
      environment cannot freeze a row, the row is stepped further and its steps are dropped. A row is restarted before
      it is frozen, and again for the next batch.
    - ``finished="restart"``: rows are never frozen, and a batch is the next ``num_episodes`` episodes in the order in
      which they end; of those that end at once, that of the lower row is first. Unfinished ones are kept and delivered
      whole by a later batch, so that they may span several policy versions; nothing is dropped. Short episodes come
      first.

    >>> batch = EpisodeCollector(env, actor, num_episodes=3, seed=0).collect()
    >>> len(batch), batch["collector", "traj_ids"][:, 0].tolist()
    (3, [0, 1, 2])

    Args:
        env: the environment, ``[*B]``.
        policy: maps a root to the same root with ``action``; None acts at random. Actions are sampled unless an outer
            :func:`set_exploration_type` says otherwise; dropout and batch norms act in eval mode.
        num_episodes: episodes per batch, N.
        total_frames: stop iterating after this many delivered steps, rounded up to whole batches; -1 never stops.
            Only steps of delivered episodes count.
        finished: ``"leave"`` or ``"restart"``.
        packed: lay the episodes one behind the other, ``[sum of lengths]``, without padding and mask. Estimators tell
            them apart by ``is_init``; :func:`~torchrl.data.split_trajectories` pads them.
        max_episode_steps: raise at a longer episode, so that an environment whose episodes never end does not hang.
        device: where a copy of the policy acts; None uses the policy itself where it is.
        storage_device: the device of the batches that are returned; None leaves them on the environment's device.
        seed: seeds the environment, and the actions if ``policy`` is None; None leaves it as it is. A policy draws from
            its own generators, or from torch's global stream, which is not seeded here.
        postproc: a function that is applied to every batch before it is returned.
        compile: let ``policy`` act by one compiled graph, see :class:`GraphPolicy`.

    Attributes:
        frames: steps delivered so far.
        policy_version: how often the weights have been updated.

    Raises:
        EnvError: ``env`` is no environment, or something else steps it, such as an evaluator.
        ConfigError: a count that is no valid number, an unknown ``finished``, or ``policy`` cannot be called.
    """

    def __init__(
        self,
        env: Env,
        policy: Callable | None = None,
        *,
        num_episodes: int,
        total_frames: int = -1,
        finished: str = "leave",
        packed: bool = False,
        max_episode_steps: int = 100_000,
        device: torch.device | str | None = None,
        storage_device: torch.device | str | None = None,
        seed: int | None = None,
        postproc: BatchFunction | None = None,
        compile: bool = False,
    ) -> None:
        require_arguments("EpisodeCollector", env, policy, total_frames)
        for name, value in (("num_episodes", num_episodes), ("max_episode_steps", max_episode_steps)):
            if not is_count(value):
                raise ConfigError(explain(name, expected="a whole number of at least 1", got=value))
        if finished not in ("leave", "restart"):
            raise ConfigError(explain("finished", expected="'leave' or 'restart'", got=repr(finished)))
        self.num_episodes = num_episodes
        self.packed = packed
        self.max_episode_steps = max_episode_steps
        self._restarts = finished == "restart"
        self._idle: list[int] = []  # rows that are stepped on for nothing, where the environment cannot freeze them
        self._recording: GrowingBatch | None = None
        self._num_begun = 0
        self._numbers: list[int] = []  # of the episode that each row of the environment plays
        self._begun_at: list[int] = []  # at which step of the next batch it began, negative where it goes on
        self._num_open = 0.0  # how many episodes may still begin
        self._ended: list[int] = []  # numbers of the episodes that are over and not delivered, in that order
        self._kept: TensorDict | None = None  # steps that are not delivered yet, of each episode in their order
        super().__init__(
            "EpisodeCollector",
            env,
            policy,
            total_frames=total_frames,
            device=device,
            storage_device=storage_device,
            seed=seed,
            postproc=postproc,
            compile=compile,
        )

    @torch.no_grad()
    def collect(self) -> TensorDict:
        """Collect and return the next batch, ``[N, T]``, or ``[sum of lengths]`` if packed.

        Raises:
            EnvError: an episode goes on for more than ``max_episode_steps``.
            SpecError: a transition does not have the layout of the first, or the first does not fit the specs.
            NonFiniteError: a reward or observation is NaN or infinite.
        """
        root = self._take_root()
        root = self._begin() if root is None else root
        with acting_mode(self._layers), self._acting():
            root, played = self._play(root)
        batch = self._deliver(self._steps(played))
        self._keep_root(root if self._restarts else None)
        return self._hand_out(batch)

    def reset(self) -> None:
        """Let all rows begin new episodes before the next batch; steps that no batch has delivered yet are dropped."""
        self._root = None

    def state_dict(self) -> dict:
        """Return counters, unfinished episodes, the environment's state and the root that the next batch starts from.

        With it the stream of the actions if there is no policy but a seed. Nothing of a policy: neither weights nor
        random generators.

        ``env`` is None, with the reason in ``env_error``, where a simulator's state cannot be captured.
        """
        state = super().state_dict() | {"num_begun": self._num_begun}
        if state["root"] is not None:
            state["numbers"], state["begun_at"] = list(self._numbers), list(self._begun_at)
            state["ended"] = list(self._ended)
            state["kept"] = None if self._kept is None else self._kept.clone().to_dict()
        return state

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; where the environment was not captured, new episodes start, with a warning."""
        super().load_state_dict(state)
        self._num_begun = state["num_begun"]
        if self._root is not None:
            self._numbers, self._begun_at = list(state["numbers"]), list(state["begun_at"])
            self._ended, self._num_open = list(state["ended"]), self._num_to_begin()
            kept = state["kept"]
            self._kept = None if kept is None else TensorDict(kept, batch_size=kept["is_init"].shape[:1])
            if kept is not None and "slot" in kept["collector"]:  # a state of an earlier version
                self._kept.rename_key_(("collector", "slot"), ("collector", "env_row"))

    def _recorded_names(self) -> Collection[str] | None:
        return None if self._recording is None else self._recording.keys()

    def _make_writers(self, transition: TensorDict) -> None:
        self._writers = self._recording = GrowingBatch(transition)

    def _begin(self) -> TensorDict:
        """Restart all rows and number their episodes; return the root to act on."""
        root = self.env.reset()
        self._kept, self._ended, self._idle = None, [], []
        self._num_open = self._num_to_begin()
        num_rows = self.env.batch_size.numel()
        self._numbers = [self._next_number() for _ in range(num_rows)]
        self._begun_at = [0] * num_rows
        self._stop_rows([row for row, number in enumerate(self._numbers) if number == IDLE])
        return root

    def _num_to_begin(self) -> float:
        """Return how many episodes may begin during a batch: any number (``"restart"``) or ``num_episodes``."""
        return math.inf if self._restarts else self.num_episodes

    def _next_number(self) -> int:
        """Return the number of an episode that begins now, counting it; IDLE if the batch has begun enough of them."""
        if not self._num_open:
            return IDLE
        self._num_open -= 1
        self._num_begun += 1
        return self._num_begun - 1

    def _play(self, root: TensorDict) -> tuple[TensorDict, list[list[int]]]:
        """Step until enough episodes have ended; return the next root, and per step each row's episode number."""
        played: list[list[int]] = []
        num_checked = 1 if self.frames else 2  # the second shows what is carried
        last_step = self._last_step()
        while len(self._ended) < self.num_episodes:
            step = len(played)
            if step >= last_step:
                raise self._no_end(step)
            if step < num_checked:
                transition, root = self._record_checked_step(root, step)
            else:
                transition, root = self.env.step_and_reset(self._act(root))
                if not self._writers[step].update_(transition):
                    raise another_layout("EpisodeCollector", transition, self._writers[step].views)
            played.append(self._numbers)
            done = transition.get("next").get("done")
            if bool(done.any()):
                self._end_episodes(done.flatten().nonzero().flatten().tolist(), step + 1)
                last_step = self._last_step()
        if played and not self._writers[len(played) - 1].fits(transition):
            raise another_layout("EpisodeCollector", transition, self._writers[len(played) - 1].views)
        self._begun_at = [begun_at - len(played) for begun_at in self._begun_at]
        return root, played

    def _end_episodes(self, rows: Sequence[int], step: int) -> None:
        """Note that the episodes of these rows have ended; number the next ones, from ``step`` on, or stop the rows."""
        numbers = list(self._numbers)
        for row in rows:
            if numbers[row] != IDLE:
                self._ended.append(numbers[row])
                numbers[row] = self._next_number()
                self._begun_at[row] = step
        self._stop_rows([row for row in rows if numbers[row] == IDLE])
        self._numbers = numbers

    def _stop_rows(self, rows: Sequence[int]) -> None:
        """Freeze rows until the next batch; if the environment cannot, keep stepping them and ignore their steps."""
        if rows and self.env.can_freeze:
            self.env.freeze_(self._mask_of(rows))
        elif rows:
            self._idle = [*self._idle, *rows]
            self.env.ignore_(self._mask_of(self._idle))

    def _mask_of(self, rows: Sequence[int]) -> torch.Tensor:
        """Return a mask that is true at the given flat row indices, bool ``[*B]``."""
        mask = torch.zeros(self.env.batch_size.numel(), dtype=torch.bool, device=self.env.device)
        mask[list(rows)] = True
        return mask.reshape(self.env.batch_size)

    def _last_step(self) -> int:
        """Return the step of this batch at which the oldest running episode reaches ``max_episode_steps``."""
        running = zip(self._begun_at, self._numbers, strict=True)
        oldest = min((begun_at for begun_at, number in running if number != IDLE), default=0)
        return oldest + self.max_episode_steps

    def _no_end(self, step: int) -> EnvError:
        rows = [
            row
            for row, number in enumerate(self._numbers)
            if number != IDLE and step - self._begun_at[row] >= self.max_episode_steps
        ]
        expected = f"episodes of at most {self.max_episode_steps} steps"
        hint = "Give the environment a time limit, or raise max_episode_steps."
        got = f"one that goes on in the rows {rows} of the environment"
        return EnvError(explain("EpisodeCollector", expected=expected, got=got, hint=hint))

    def _steps(self, played: list[list[int]]) -> TensorDict:
        """Return all steps that no batch has delivered yet, ``[R]``; those of one episode are in order of time."""
        if not played:
            return self._kept
        recorded = self._recording.recorded(len(played))
        self._require_sound(recorded)
        numbers = torch.tensor(played, device=self.env.device).T  # [rows, T]
        rows = torch.arange(len(numbers), device=self.env.device).unsqueeze(-1).expand_as(numbers)
        facts = {"traj_ids": numbers, "policy_version": torch.full_like(numbers, self.policy_version), "env_row": rows}
        steps = recorded.reshape(numbers.shape).set("collector", TensorDict(facts, batch_size=numbers.shape))
        steps = steps[numbers != IDLE]
        return steps if self._kept is None else torch.cat([self._kept, steps])

    def _deliver(self, steps: TensorDict) -> TensorDict:
        """Make the next batch out of ``[R]`` steps; keep the steps of other episodes for later batches.

        The steps of each episode are in order of time already, so a stable sort by the episode's position in the batch
        lays whole episodes one behind the other; steps for later batches are sorted to the end.
        """
        due, self._ended = self._ended[: self.num_episodes], self._ended[self.num_episodes :]
        due = due if self._restarts else sorted(due)
        numbers = steps.get(TRAJ_IDS)
        first, num_due = int(numbers.min()), len(due)
        places = torch.full((int(numbers.max()) - first + 1,), num_due, device=numbers.device)  # by number
        places[torch.tensor(due, device=numbers.device) - first] = torch.arange(num_due, device=numbers.device)
        place = places[numbers - first]
        order = place.argsort(stable=True)
        lengths = place.bincount(minlength=num_due + 1)[:num_due]
        num_steps = int(lengths.sum())
        self._kept = steps[order[num_steps:]] if num_steps < len(order) else None
        self.frames += num_steps
        packed = steps[order[:num_steps]]
        return packed if self.packed else unpack(packed, lengths)
