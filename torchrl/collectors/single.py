"""The collector of one process, which steps an env with a policy and yields batches of equally many transitions."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from tensordict import TensorDict

from torchrl.collectors.checks import require_arguments, steps_of
from torchrl.collectors.local import LocalCollector, TrajectoryIds
from torchrl.collectors.loop import collect
from torchrl.collectors.recording import Recording
from torchrl.data.batch_functions import BatchFunction
from torchrl.envs.base import Env
from torchrl.modules.training_layers import acting_mode


class Collector(LocalCollector):
    """Collect batches ``[*B, T]`` of consecutive transitions; episodes go on from batch to batch.

    Beside the transition's keys a batch holds ``("collector", "traj_ids")``, ``[*B, T]`` int64, unique over the whole
    run, and
    ``("collector", "policy_version")``, ``[*B, T]`` int64: how often the weights had been updated when the step was
    taken. No batch shares memory with a later one.

    >>> collector = Collector(env, actor, frames_per_batch=16, total_frames=32, seed=0)
    >>> for batch in collector:
    ...     print(batch.shape, batch["collector", "policy_version"].unique())
    ...     collector.update_policy_weights_()  # after training on the batch
    torch.Size([2, 8]) tensor([0])
    torch.Size([2, 8]) tensor([1])

    Args:
        env: the environment, ``[*B]``.
        policy: maps a root to the same root with ``action``; None acts at random. Actions are sampled unless an outer
            :func:`set_exploration_type` says otherwise; dropout and batch norms act in eval mode.
        frames_per_batch: transitions per batch, B · T, a multiple of the number of environments.
        total_frames: stop iterating after this many frames, rounded up to whole batches; -1 never stops.
        device: where a copy of the policy acts; None uses the policy itself where it is.
        storage_device: the device of the batches that are returned; None leaves them on the environment's device.
        seed: seeds the environment, and the actions if ``policy`` is None; None leaves it as it is. A policy draws from
            its own generators, or from torch's global stream, which is not seeded here.
        postproc: a function that is applied to every batch before it is returned.
        compile: let ``policy`` act by one compiled graph, see :class:`GraphPolicy`.

    Raises:
        EnvError: ``env`` is no environment, or something else steps it, such as an evaluator.
        ConfigError: ``frames_per_batch`` is not a positive multiple of the number of environments, ``total_frames`` no
            number of frames, or ``policy`` cannot be called.
    """

    def __init__(
        self,
        env: Env,
        policy: Callable | None = None,
        *,
        frames_per_batch: int,
        total_frames: int = -1,
        device: torch.device | str | None = None,
        storage_device: torch.device | str | None = None,
        seed: int | None = None,
        postproc: BatchFunction | None = None,
        compile: bool = False,
    ) -> None:
        require_arguments("Collector", env, policy, total_frames)
        self.frames_per_batch = frames_per_batch
        self.trajectories = TrajectoryIds(env.batch_size, env.device)
        self._num_steps = steps_of(frames_per_batch, env.batch_size.numel())
        self._recording: Recording | None = None
        super().__init__(
            "Collector",
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
        """Collect and return the next batch, ``[*B, T]``.

        Raises:
            SpecError: a transition does not have the layout of the first, or the first does not fit the specs.
            NonFiniteError: a reward or observation is NaN or infinite.
        """
        root = self._take_root()
        root = self.env.reset() if root is None else root
        if self._recording is not None:
            self._recording.renew()
        with acting_mode(self._layers), self._acting():
            num_checked = min(self._num_steps, 1 if self.frames else 2)  # the second shows what is carried
            for index in range(num_checked):
                _, root = self._record_checked_step(root, index)
            root = collect(self.env, self._act, root, self._writers[num_checked:])
        batch = self._recording.take()
        self._require_sound(batch)
        self._keep_root(root)
        self.frames += self.frames_per_batch
        ids = self.trajectories.of(batch.get("is_init").squeeze(-1))
        facts = {"traj_ids": ids, "policy_version": torch.full_like(ids, self.policy_version)}
        batch.set("collector", TensorDict(facts, batch_size=batch.batch_size))
        return self._hand_out(batch)

    def reset(self) -> None:
        """Restart every environment before the next batch; new trajectories begin."""
        self._keep_root(self.env.reset())

    def state_dict(self) -> dict:
        """Return counters, the environment's state and the root that the next batch starts from.

        With it the statistics of transforms, and the stream of the actions if there is no policy but a seed. Nothing of
        a policy: neither weights nor random generators.

        ``env`` is None, with the reason in ``env_error``, where a simulator's state cannot be captured.
        """
        ids = {"traj_ids": self.trajectories.current.clone(), "num_trajectories": self.trajectories.num_begun}
        return super().state_dict() | ids

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; where the environment was not captured, new episodes start, with a warning."""
        self.trajectories.current = state["traj_ids"].to(self.env.device, copy=True)
        self.trajectories.num_begun = state["num_trajectories"]
        super().load_state_dict(state)

    def _recorded_names(self) -> Collection[str] | None:
        return None if self._recording is None else self._recording.keys()

    def _make_writers(self, transition: TensorDict) -> None:
        self._recording = Recording(transition, self._num_steps)
        self._writers = self._recording.steps
