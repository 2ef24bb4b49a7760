"""The collector of one process: an environment, a policy, and batches of transitions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from numbers import Integral

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.collectors.loop import allocate, collect, require_same_layout
from torchrl.collectors.placement import PlacedPolicy, placed
from torchrl.data.specs import Categorical, Composite, MultiCategorical, TensorSpec
from torchrl.envs.base import Env, action_of
from torchrl.errors import ConfigError, EnvError, NonFiniteError, SpecError, explain
from torchrl.modules import ExplorationType, RandomPolicy, exploration_type, set_exploration_type
from torchrl.seeding import named_seeds
from torchrl.unchecked import Row


class Collector:
    """Collect batches ``[*B, T]`` of consecutive transitions; episodes go on from batch to batch.

    Beside the transition's keys a batch holds ``("collector", "traj_ids")``, ``[*B, T]`` int64, unique over the whole
    run, and
    ``("collector", "policy_version")``, ``[*B, T]`` int64: how often the weights had been updated when the row was
    collected. A batch that is handed out is the receiver's own.

    Args:
        env: the environment, ``[*B]``.
        policy: maps a root to the same root with ``action``; None acts at random. Actions are sampled unless an outer
            :func:`set_exploration_type` says otherwise.
        frames_per_batch: rows per batch, a multiple of the number of environments.
        total_frames: stop iterating when so many were collected, rounded up to whole batches; -1 never stops.
        device: where a copy of the policy acts; None uses the policy itself where it is.
        storage_device: where batches are handed out; None leaves them on the environment's device.
        seed: seeds the environment; None leaves it as it is.
        postproc: applied to every batch before it is handed out.

    Raises:
        EnvError: ``env`` is no environment.
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
        postproc: Callable[[TensorDict], TensorDict] | None = None,
    ) -> None:
        if not isinstance(env, Env):
            hint = "A simulator becomes one by SerialEnv(make_simulator, num_envs), a task's name by GymEnv(name)."
            raise EnvError(explain("Collector", expected="an Env", got=repr(env), hint=hint))
        if policy is not None and not callable(policy):
            expected = "a policy that can be called with a root, or None"
            raise ConfigError(explain("Collector", expected=expected, got=repr(policy)))
        if not isinstance(total_frames, Integral) or total_frames < -1:
            expected = "a number of frames, or -1, which never stops"
            raise ConfigError(explain("total_frames", expected=expected, got=total_frames))
        num_envs = env.batch_size.numel()
        if not isinstance(frames_per_batch, Integral) or frames_per_batch < 1 or frames_per_batch % num_envs:
            raise ConfigError(
                explain(
                    "frames_per_batch",
                    expected=f"a positive multiple of the {num_envs} environments",
                    got=frames_per_batch,
                    hint=f"Use {max(1, round(frames_per_batch / num_envs)) * num_envs}.",
                )
            )
        self.env = env
        self.policy = _random_policy(env, seed) if policy is None else policy
        self.frames_per_batch = frames_per_batch
        self.total_frames = total_frames
        self.storage_device = None if storage_device is None else torch.device(storage_device)
        self.postproc = postproc
        self.frames = 0
        self.policy_version = 0
        self._act = placed(self.policy, device, env.device)
        self._seed = seed
        self._num_steps = frames_per_batch // num_envs
        self._root: TensorDict | None = None
        self._batch: TensorDict | None = None
        self._rows: list[Row] = []
        self._traj_ids = torch.full(env.batch_size, -1, dtype=torch.int64, device=env.device)
        self._num_trajectories = 0
        if seed is not None:
            env.set_seed(seed)

    def __iter__(self) -> Iterator[TensorDict]:
        """Yield batches until ``total_frames`` were collected."""
        while self.total_frames < 0 or self.frames < self.total_frames:
            yield self.collect()

    @torch.no_grad()
    def collect(self) -> TensorDict:
        """Collect and return the next batch, ``[*B, T]``.

        Raises:
            SpecError: a transition does not have the layout of the first, or the first does not fit the specs.
            NonFiniteError: a reward or observation is NaN or infinite.
        """
        root, self._root = self._root, None  # an exception leaves none: new episodes start, nothing is joined wrongly
        if root is None:
            root = self.env.reset()
        kind = exploration_type()
        with set_exploration_type(ExplorationType.RANDOM if kind is None else kind):
            num_checked = min(self._num_steps, 1 if self.frames else 2)  # the second shows what is carried
            for index in range(num_checked):
                root = self._checked_step(root, index)
            root = collect(self.env, self._act, root, self._rows[num_checked:])
        batch = self._batch.clone()
        require_finite(batch, self.env)
        require_choices(batch.get("action"), self.env.action_spec, len(self.env.batch_size))
        self._root = root
        self.frames += self.frames_per_batch
        batch.set("collector", self._facts(batch))
        if self.storage_device is not None:
            batch = batch.to(self.storage_device)
        if self.postproc is None:
            return batch
        processed = self.postproc(batch)
        if not isinstance(processed, TensorDictBase):
            hint = "A postproc returns the batch, also where it edits it in place."
            raise SpecError(explain("postproc", expected="a TensorDict", got=type(processed).__name__, hint=hint))
        return processed

    def reset(self) -> None:
        """Restart every environment before the next batch; new trajectories begin."""
        self._root = self.env.reset()

    def update_policy_weights_(self) -> None:
        """Let the next batch act with the policy's present weights, and count one more version."""
        if isinstance(self._act, PlacedPolicy):
            self._act.refresh()
        self.policy_version += 1

    def state_dict(self) -> dict:
        """Capture counters, the environment (where it can be captured) and the root to continue from.

        ``env`` is None, with the reason in ``env_error``, where a simulator's state cannot be captured.
        """
        state = {
            "frames": self.frames,
            "policy_version": self.policy_version,
            "traj_ids": self._traj_ids.clone(),
            "num_trajectories": self._num_trajectories,
            "env": None,
            "root": None,
            "env_error": "",
        }
        try:
            state["env"] = self.env.state_dict()
        except EnvError as error:
            state["env_error"] = str(error)
        else:
            state["root"] = None if self._root is None else self._root.clone().to_dict()
        return state

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; where the environment was not captured, new episodes start, with a warning."""
        self.frames = state["frames"]
        self.policy_version = state["policy_version"]
        self._traj_ids = state["traj_ids"].to(self.env.device, copy=True)
        self._num_trajectories = state["num_trajectories"]
        if isinstance(self._act, PlacedPolicy):
            self._act.refresh()
        if state["env"] is None:
            warnings.warn(f"New episodes start after loading: {state['env_error']}", stacklevel=2)
            if self._seed is not None:  # not the episodes the run began with
                stream = f"resumed at {self.frames}"
                self.env.set_seed(named_seeds(self._seed, stream)[stream])
            self._root = None
            return
        if state["root"] is None and not self.frames:  # nothing had begun: the seed still waits for the first reset
            return
        self.env.load_state_dict(state["env"])
        self._root = None if state["root"] is None else TensorDict(state["root"], batch_size=self.env.batch_size)

    def shutdown(self) -> None:
        """Close the environment; may be called twice."""
        self.env.close()

    def _checked_step(self, root: TensorDict, index: int) -> TensorDict:
        """Fill one row with a transition that was held against the rows' layout; return the next root."""
        shown = dict(root.items(include_nested=True, leaves_only=True))
        acted = self._act(root)
        if not isinstance(acted, TensorDictBase):
            hint = "A policy writes into the TensorDict it was given and returns it."
            raise SpecError(explain("policy", expected="a TensorDict", got=type(acted).__name__, hint=hint))
        replaced = [key for key, value in shown.items() if acted.get(key, None) is not value]
        if replaced:
            hint = 'Write the state to go on with under ("next", key), and other results under keys of their own.'
            expected = "a policy that leaves what it is shown as it is"
            got = f"another value under {_spelled(replaced[0])!r}"
            raise SpecError(explain("policy", expected=expected, got=got, hint=hint))
        self.env.action_spec.assert_form(action_of(acted), "action")
        require_choices(acted.get("action"), self.env.action_spec, len(self.env.batch_size))
        transition, root = self.env.step_and_reset(acted)
        if self._batch is None:
            self._start(transition)
        require_same_layout(transition, self._rows[index].views)
        self._rows[index].update_(transition)
        return root

    def _start(self, transition: TensorDict) -> None:
        """Make the rows after the first transition, once it was held against the specs."""
        env = self.env
        for name, source in (("observation", transition), ("next observation", transition.get("next"))):
            for key, spec in env.observation_spec.items():
                if source.get(key, None) is None:
                    got = f"the keys {sorted(map(str, source.keys()))}"
                    raise SpecError(explain("Collector", expected=f"{name} with the key {key!r}", got=got))
                spec.assert_contains(source.get(key), f"{name} {key!r}")
        env.reward_spec.assert_contains(transition.get(("next", "reward")), "reward")
        self._batch, self._rows = allocate(transition, self._num_steps)

    def _facts(self, batch: TensorDict) -> TensorDict:
        """Trajectory ids and policy version of a batch, ``[*B, T]`` each."""
        starts = batch.get("is_init").squeeze(-1)
        rank = starts.reshape(-1).cumsum(0).reshape(starts.shape) + (self._num_trajectories - 1)
        ids = torch.where(starts, rank, -1)
        ids[..., 0] = torch.maximum(ids[..., 0], self._traj_ids)
        ids = ids.cummax(-1).values
        self._traj_ids = ids[..., -1].clone()
        self._num_trajectories += int(starts.sum())
        version = torch.full_like(ids, self.policy_version)
        return TensorDict({"traj_ids": ids, "policy_version": version}, batch_size=batch.batch_size)


def require_finite(batch: TensorDict, env: Env) -> None:
    """Refuse a batch ``[*B, T]`` with a NaN or infinite reward or observation, after a reset or a step.

    Raises:
        NonFiniteError: naming the key and the first environment and step where it happened.
    """
    time_dim = len(env.batch_size)
    outcome = batch.get("next").items(include_nested=True, leaves_only=True)
    values = [(("next", key), value) for key, value in outcome]
    values += [(key, batch.get(key)) for key, _ in env.observation_spec.leaves()]
    for key, value in values:
        if not value.is_floating_point() or torch.isfinite(value.sum()):
            continue
        bad = ~torch.isfinite(value)
        if not bool(bad.any()):  # the sum of finite numbers overflowed
            continue
        place = bad.nonzero()[0].tolist()
        raise NonFiniteError(
            explain(
                f"Collector, key {_spelled(key)!r}",
                expected="finite numbers",
                got=f"{value[tuple(place)].item()} in environment {place[:time_dim]} at step {place[time_dim]}",
                hint="The batch was not handed out; look at the simulator, or at the action it was given.",
            )
        )


def require_choices(action: torch.Tensor | TensorDictBase | None, spec: TensorSpec, batch_dims: int) -> None:
    """Refuse discrete actions that the environment does not have; a missing action is the environment's to refuse.

    Args:
        action: ``[*B, ...]`` or ``[*B, T, ...]``.
        spec: the environment's ``action_spec``, ``[*B, ...]``.
        batch_dims: number of the dimensions ``*B``.

    Raises:
        SpecError: an index below 0 or not below the number of choices.
    """
    if isinstance(spec, Composite):
        for key, leaf in spec.leaves() if isinstance(action, TensorDictBase) else ():
            _require_choices_of_leaf(f"action {_spelled(key)!r}", action.get(key, None), leaf, batch_dims)
    else:
        _require_choices_of_leaf("action", action, spec, batch_dims)


def _require_choices_of_leaf(name: str, action: torch.Tensor | None, spec: TensorSpec, batch_dims: int) -> None:
    if action is None or not isinstance(spec, (Categorical, MultiCategorical)) or action.dtype is not spec.dtype:
        return
    hint = "Give the actor's network as many outputs as there are choices."
    if isinstance(spec, Categorical):
        least, most = action.aminmax()
        if least < 0 or most >= spec.n:
            got = f"indices from {int(least)} to {int(most)}"
            raise SpecError(explain(name, expected=f"an index from 0 to {spec.n - 1}", got=got, hint=hint))
        return
    nvec = spec.nvec[(0,) * batch_dims]
    rows = action.reshape(-1, *spec.shape[batch_dims:])
    if bool(((rows < 0) | (rows >= nvec)).any()):
        got = f"indices up to {rows.amax(0).tolist()}, from {rows.amin(0).tolist()}"
        raise SpecError(explain(name, expected=f"indices below {nvec.tolist()}", got=got, hint=hint))


def _spelled(key: str | tuple) -> str:
    return key if isinstance(key, str) else "/".join(_spelled(part) for part in key)


def _random_policy(env: Env, seed: int | None) -> RandomPolicy:
    generator = None if seed is None else torch.Generator().manual_seed(named_seeds(seed, "actions")["actions"])
    return RandomPolicy(env.action_spec, mask_key=env.action_mask_key, generator=generator)
