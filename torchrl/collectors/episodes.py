"""The collector of whole episodes: batches of n, of different lengths, padded or packed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.collectors.checks import (
    act_checked,
    postprocessed,
    random_policy,
    require_arguments,
    require_choices,
    require_finite,
    require_specs,
)
from torchrl.collectors.continuation import capture_env, restore_or_seed, was_moved
from torchrl.collectors.placement import PlacedPolicy, acting_layers, place_policy
from torchrl.collectors.rows import GrowingRows
from torchrl.collectors.slots import freeze_rows, set_info
from torchrl.data.batch_functions import BatchFunction, require_batch_function
from torchrl.data.trajectories import TRAJ_IDS, unpack
from torchrl.envs.base import Env
from torchrl.envs.driving import leave_env, take_env
from torchrl.envs.learned import Learned, joined
from torchrl.envs.stepping import another_layout
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.modules import ExplorationType, exploration_type, set_exploration_type
from torchrl.modules.training_layers import acting_mode

IDLE = -1  # the number of the episode of a slot that plays none


class EpisodeCollector:
    """Collect batches of ``num_episodes`` whole episodes.

    Episodes are numbered over the whole run in the order in which they begin; of those that begin at once, the lower
    slot is first. Row n of a batch is one episode from its first to its last step, ``[N, T]`` with T the length of the
    longest, ``("collector", "mask")`` false and everything else zero behind the end. Beside the transition's keys and
    the mask a batch holds, int64 ``[N, T]``, ``("collector", "traj_ids")``: the number of the episode;
    ``("collector", "policy_version")``: how often the weights had been updated when the step was taken; and
    ``("collector", "slot")``: which slot of the environment played it. A batch is the receiver's own.

    What happens to a slot whose episode is over:

    - ``finished="leave"``: every batch restarts the whole environment and consists of the ``num_episodes`` episodes
      that begin first, in that order. A slot begins another one as long as some of them have not begun, then it waits
      (:meth:`Env.freeze_`). No episode is left out because it is long, so lengths and returns are not biased. Where the
      environment cannot let a slot wait, it is stepped on and what it does is dropped. A slot that leaves was restarted
      before it waits, and is restarted again for the next batch.
    - ``finished="restart"``: slots go on for ever, and a batch is the next ``num_episodes`` episodes in the order in
      which they end; of those that end at once, the lower slot is first. Unfinished ones are kept and delivered whole
      by a later batch, so that they may span several policy versions; nothing is dropped. Short episodes come first.

    Args:
        env: the environment, ``[*B]``.
        policy: maps a root to the same root with ``action``; None acts at random. Actions are sampled unless an outer
            :func:`set_exploration_type` says otherwise; dropout and batch norms act in eval mode.
        num_episodes: episodes per batch, N.
        total_frames: stop iterating after this many delivered steps, rounded up to whole batches; -1 never stops.
            Only steps of delivered episodes count.
        finished: ``"leave"`` or ``"restart"``.
        packed: lay the episodes one behind the other, ``[sum of lengths]``, without padding and mask: one lane, which
            estimators cut at ``is_init``, and which :func:`~torchrl.data.split_trajectories` pads.
        max_episode_steps: refuse to go on with a longer episode, so that an environment without an end does not hang.
        device: where a copy of the policy acts; None uses the policy itself where it is.
        storage_device: where batches are handed out; None leaves them on the environment's device.
        seed: seeds the environment, and the actions if ``policy`` is None; None leaves it as it is. A policy draws from
            its own generators, or from torch's global stream, which is not seeded here.
        postproc: applied to every batch before it is handed out.

    Attributes:
        frames: steps delivered so far.
        policy_version: how often the weights have been updated.

    Raises:
        EnvError: ``env`` is no environment, or something else steps it, such as an evaluator.
        ConfigError: a number that is none, an unknown ``finished``, or ``policy`` cannot be called.
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
    ) -> None:
        require_arguments("EpisodeCollector", env, policy, total_frames)
        for name, value in (("num_episodes", num_episodes), ("max_episode_steps", max_episode_steps)):
            if not isinstance(value, Integral) or value < 1:
                raise ConfigError(explain(name, expected="a whole number of at least 1", got=value))
        if finished not in _FINISHED:
            raise ConfigError(explain("finished", expected=" or ".join(map(repr, _FINISHED)), got=repr(finished)))
        self.env = env
        self.policy = random_policy(env, seed) if policy is None else policy
        self.num_episodes = num_episodes
        self.total_frames = total_frames
        self.packed = packed
        self.max_episode_steps = max_episode_steps
        self.storage_device = None if storage_device is None else torch.device(storage_device)
        require_batch_function("EpisodeCollector, postproc", postproc)
        self.postproc = postproc
        self.frames = 0
        self.policy_version = 0
        self._finished = _FINISHED[finished]
        self._act = place_policy(self.policy, device, env.device)
        self._layers = acting_layers(self._act)
        self._seed = seed
        self._can_freeze = True
        self._idle: list[int] = []  # slots that are stepped on for nothing, where the environment cannot freeze them
        self._rows: GrowingRows | None = None
        self._num_begun = 0
        self._root: TensorDict | None = None  # None: all slots begin anew
        self._numbers: list[int] = []  # of the episode that each slot plays
        self._begun_at: list[int] = []  # at which step of the next batch it began, negative where it goes on
        self._num_open = 0.0  # how many episodes may still begin
        self._ended: list[int] = []  # numbers of the episodes that are over and not delivered, in that order
        self._kept: TensorDict | None = None  # steps that are not delivered yet, of each episode in their order
        self._num_moves = 0  # of the environment, when it stood where the root says
        take_env("EpisodeCollector", env, self)
        if seed is not None:
            env.set_seed(seed)

    def __iter__(self) -> Iterator[TensorDict]:
        """Yield batches until ``total_frames`` were delivered."""
        while self.total_frames < 0 or self.frames < self.total_frames:
            yield self.collect()

    @torch.no_grad()
    def collect(self) -> TensorDict:
        """Collect and return the next batch, ``[N, T]``, or ``[sum of lengths]`` if packed.

        Raises:
            EnvError: an episode goes on for more than ``max_episode_steps``.
            SpecError: a transition does not have the layout of the first, or the first does not fit the specs.
            NonFiniteError: a reward or observation is NaN or infinite.
        """
        root, self._root = self._root, None  # an exception leaves none: new episodes start, nothing is joined wrongly
        if root is None or was_moved("EpisodeCollector", self.env, self._num_moves):
            root = self._begin()
        kind = exploration_type()
        with acting_mode(self._layers), set_exploration_type(ExplorationType.RANDOM if kind is None else kind):
            root, played = self._play(root)
        batch = self._deliver(self._steps(played))
        self._root, self._num_moves = None if self._finished.begins_anew else root, self.env.num_moves
        if self.storage_device is not None:
            batch = batch.to(self.storage_device)
        return postprocessed(self.postproc, batch)

    def reset(self) -> None:
        """Let all slots begin new episodes before the next batch; unfinished ones, and what is kept, are dropped."""
        self._root = None

    def update_policy_weights_(self) -> None:
        """Let the next batch act with the policy's present weights, and count one more version."""
        if isinstance(self._act, PlacedPolicy):
            self._act.refresh()
        self.policy_version += 1

    def learned_states(self) -> list[Learned]:
        """Copy what the environment's transforms have learned, see :meth:`Env.learned_state_dict`; a list of one."""
        return [self.env.learned_state_dict()]

    def load_learned_states(self, states: Sequence[Learned], *, for_acting: bool = False) -> None:
        """Take over what the transforms of one environment or several have learned, all of them joined.

        Args:
            states: of a collector's :meth:`learned_states`.
            for_acting: see :meth:`Env.load_learned_state_dict`.
        """
        self.env.load_learned_state_dict(joined(self.env.transforms, states), for_acting=for_acting)

    def state_dict(self) -> dict:
        """Capture counters, unfinished episodes, the environment (where it can be captured) and the root to go on from.

        ``env`` is None, with the reason in ``env_error``, where a simulator's state cannot be captured.
        """
        if self._root is not None and was_moved("EpisodeCollector", self.env, self._num_moves):
            self._root = None
        state = {
            "frames": self.frames,
            "policy_version": self.policy_version,
            "num_begun": self._num_begun,
            "root": None,
            **capture_env(self.env),
        }
        if state["env"] is not None and self._root is not None:
            state["root"] = self._root.clone().to_dict()
            state["numbers"], state["begun_at"] = list(self._numbers), list(self._begun_at)
            state["ended"] = list(self._ended)
            state["kept"] = None if self._kept is None else self._kept.clone().to_dict()
        return state

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; where the environment was not captured, new episodes start, with a warning."""
        self.frames = state["frames"]
        self.policy_version = state["policy_version"]
        self._num_begun = state["num_begun"]
        self._root = None
        if isinstance(self._act, PlacedPolicy):
            self._act.refresh()
        continues = restore_or_seed(self.env, state, self._seed)
        self._num_moves = self.env.num_moves
        if continues:
            self._root = TensorDict(state["root"], batch_size=self.env.batch_size)
            self._numbers, self._begun_at = list(state["numbers"]), list(state["begun_at"])
            self._ended, self._num_open = list(state["ended"]), self._finished.num_to_begin(self.num_episodes)
            kept = state["kept"]
            self._kept = None if kept is None else TensorDict(kept, batch_size=kept["is_init"].shape[:1])

    def shutdown(self) -> None:
        """Close the environment, which others may take then; may be called twice."""
        self.env.close()
        leave_env(self.env, self)

    def set_info(self, *, agent_info: TensorDictBase | None = None, env_info: TensorDictBase | None = None) -> None:
        """Change the parameters of the slots, ``[*B]``, see :meth:`Env.set_info_`.

        ``agent_info`` holds from the next batch on, also for unfinished episodes; ``env_info`` from a slot's next
        restart.

        Raises:
            ConfigError: something that batches did not hold from the first on.
            SpecError: another batch size, or another form than before.
        """
        held = None if self._rows is None else self._rows.keys()
        set_info("EpisodeCollector", self.env, self._root, held, agent_info=agent_info, env_info=env_info)

    def _begin(self) -> TensorDict:
        """Restart all slots and number their episodes; return the root to act on."""
        root = self.env.reset()
        self._kept, self._ended, self._idle = None, [], []
        self._num_open = self._finished.num_to_begin(self.num_episodes)
        num_slots = self.env.batch_size.numel()
        self._numbers = [self._next_number() for _ in range(num_slots)]
        self._begun_at = [0] * num_slots
        self._let_wait([slot for slot, number in enumerate(self._numbers) if number == IDLE])
        return root

    def _next_number(self) -> int:
        """Number the episode that begins now; IDLE if none is to begin."""
        if not self._num_open:
            return IDLE
        self._num_open -= 1
        self._num_begun += 1
        return self._num_begun - 1

    def _play(self, root: TensorDict) -> tuple[TensorDict, list[list[int]]]:
        """Step until enough episodes have ended; return the root to go on from, and the numbers played at each step."""
        played: list[list[int]] = []
        num_checked = 1 if self.frames else 2  # the second shows what is carried
        last_step = self._last_step()
        while len(self._ended) < self.num_episodes:
            step = len(played)
            if step >= last_step:
                raise self._no_end(step)
            acted = self._act_checked(root) if step < num_checked else self._act(root)
            transition, root = self.env.step_and_reset(acted)
            if step < num_checked:
                self._require_fit(transition)
            if not self._rows[step].update_(transition):
                raise another_layout("EpisodeCollector", transition, self._rows[step].views)
            played.append(self._numbers)
            done = transition.get("next").get("done")
            if bool(done.any()):
                self._end_episodes(done.flatten().nonzero().flatten().tolist(), step + 1)
                last_step = self._last_step()
        if played and not self._rows[len(played) - 1].fits(transition):
            raise another_layout("EpisodeCollector", transition, self._rows[len(played) - 1].views)
        self._begun_at = [begun_at - len(played) for begun_at in self._begun_at]
        return root, played

    def _act_checked(self, root: TensorDict) -> TensorDictBase:
        return act_checked(self._act, root, self.env, is_first=self._rows is None)

    def _end_episodes(self, slots: Sequence[int], step: int) -> None:
        """Count the episodes of these slots as over; those that follow begin at ``step``."""
        numbers = list(self._numbers)
        for slot in slots:
            if numbers[slot] != IDLE:
                self._ended.append(numbers[slot])
                numbers[slot] = self._next_number()
                self._begun_at[slot] = step
        self._let_wait([slot for slot in slots if numbers[slot] == IDLE])
        self._numbers = numbers

    def _let_wait(self, slots: Sequence[int]) -> None:
        """Freeze slots until the next batch where the environment can; else they are stepped on, for nothing."""
        if not slots:
            return
        if self._can_freeze:
            self._can_freeze = freeze_rows(self.env, self._mask_of(slots))
        if not self._can_freeze:
            self._idle = [*self._idle, *slots]
            self.env.ignore_(self._mask_of(self._idle))

    def _mask_of(self, slots: Sequence[int]) -> torch.Tensor:
        """Return where some slots are, bool ``[*B]``."""
        rows = torch.zeros(self.env.batch_size.numel(), dtype=torch.bool, device=self.env.device)
        rows[list(slots)] = True
        return rows.reshape(self.env.batch_size)

    def _last_step(self) -> int:
        """Return the step of this batch before which the oldest running episode must have ended."""
        running = zip(self._begun_at, self._numbers, strict=True)
        oldest = min((begun_at for begun_at, number in running if number != IDLE), default=0)
        return oldest + self.max_episode_steps

    def _no_end(self, step: int) -> EnvError:
        slots = [
            slot
            for slot, number in enumerate(self._numbers)
            if number != IDLE and step - self._begun_at[slot] >= self.max_episode_steps
        ]
        return EnvError(
            explain(
                "EpisodeCollector",
                expected=f"episodes of at most {self.max_episode_steps} steps",
                got=f"one that goes on in the slots {slots}",
                hint="Give the environment a time limit, or raise max_episode_steps.",
            )
        )

    def _require_fit(self, transition: TensorDict) -> None:
        """Hold a transition against the rows, which the first one makes after it was held against the specs."""
        if self._rows is None:
            require_specs("EpisodeCollector", transition, self.env)
            self._rows = GrowingRows(transition)
        self._rows.require_fit(transition)

    def _steps(self, played: list[list[int]]) -> TensorDict:
        """Return the steps that are not delivered yet, ``[R]``: each episode's own in their order."""
        if not played:
            return self._kept
        recorded = self._rows.recorded(len(played))
        require_finite(recorded, self.env)
        require_choices(recorded.get("action"), self.env.action_spec, len(self.env.batch_size))
        numbers = torch.tensor(played, device=self.env.device).T  # [slots, T]
        slots = torch.arange(len(numbers), device=self.env.device).unsqueeze(-1).expand_as(numbers)
        facts = {"traj_ids": numbers, "policy_version": torch.full_like(numbers, self.policy_version), "slot": slots}
        steps = recorded.reshape(numbers.shape).set("collector", TensorDict(facts, batch_size=numbers.shape))
        steps = steps[numbers != IDLE]
        return steps if self._kept is None else torch.cat([self._kept, steps])

    def _deliver(self, steps: TensorDict) -> TensorDict:
        """Return the batch of the episodes that are due, out of ``[R]`` steps, and keep the others."""
        due, self._ended = self._ended[: self.num_episodes], self._ended[self.num_episodes :]
        due = self._finished.order(due)
        numbers = steps.get(TRAJ_IDS)
        first = int(numbers.min())
        rows = torch.full(
            (int(numbers.max()) - first + 1,), len(due), device=numbers.device
        )  # not due: behind the others
        rows[torch.tensor(due, device=numbers.device) - first] = torch.arange(len(due), device=numbers.device)
        row = rows[numbers - first]
        order = row.argsort(stable=True)
        lengths = row.bincount(minlength=len(due) + 1)[: len(due)]
        num_steps = int(lengths.sum())
        self._kept = steps[order[num_steps:]] if num_steps < len(order) else None
        self.frames += num_steps
        packed = steps[order[:num_steps]]
        return packed if self.packed else unpack(packed, lengths)


class _Leave:
    """As many episodes begin in a batch as are delivered, in that order."""

    begins_anew = True

    def num_to_begin(self, num_episodes: int) -> float:
        return num_episodes

    def order(self, ended: list[int]) -> list[int]:
        return sorted(ended)


class _Restart:
    """Slots go on for ever; what ends first is delivered first."""

    begins_anew = False

    def num_to_begin(self, num_episodes: int) -> float:
        return math.inf

    def order(self, ended: list[int]) -> list[int]:
        return ended


_FINISHED = {"leave": _Leave(), "restart": _Restart()}
