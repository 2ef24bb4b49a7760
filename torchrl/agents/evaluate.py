"""Measure a policy by whole episodes from fixed starts, without leaving a trace in the training. Trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.collectors.checks import act_and_check, require_policy
from torchrl.counts import is_count
from torchrl.envs import Env
from torchrl.envs.driving import leave_env, take_env
from torchrl.envs.learned import Learned, frozen, refuse_learning_simulators
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.keys import Key
from torchrl.modules import ExplorationType, set_exploration_type
from torchrl.modules.randomness import keep_randomness
from torchrl.seeding import child_seeds


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of the episodes of one evaluation.

    >>> evaluation = Evaluation(returns=torch.tensor([1.0, 3.0]), lengths=torch.tensor([10, 30]))
    >>> evaluation.mean, evaluation.std
    (2.0, 1.0)

    Attributes:
        returns: undiscounted return of each episode, in the order of the start seeds, ``[n]`` float32.
        lengths: number of steps of each episode, ``[n]`` int64.
        successes: whether each episode ended in success, ``[n]`` bool; None where the evaluator has no ``success_key``.
    """

    returns: torch.Tensor
    lengths: torch.Tensor
    successes: torch.Tensor | None = None

    @property
    def mean(self) -> float:
        """Mean return."""
        return self.returns.double().mean().item()

    @property
    def std(self) -> float:
        """Standard deviation of the returns over the episodes (divided by n)."""
        return self.returns.double().std(correction=0).item()

    @property
    def success_share(self) -> float | None:
        """Share of the episodes that ended in success, from 0 to 1; None where nobody asked for it."""
        return None if self.successes is None else self.successes.double().mean().item()


class Evaluator:
    """Measure a policy by whole episodes in an environment of the evaluator's own, always from the same starts.

    Episode k starts from ``start_seeds[k]`` whatever the number of rows. Where rows cannot be seeded one by one
    (:attr:`Env.seeds_rows`: an ``EnvPoolEnv``, some vector environments), only the first episode of each row does, and
    later ones continue the row's random stream. The policy acts in eval mode; afterwards its training flags, its
    generators and torch's global random stream are restored. The environment's transforms do not update their
    statistics, and use those that the training's transforms learned. So training with and without evaluation is
    bit-identical.

    >>> evaluator = Evaluator(env, num_episodes=3, seed=7)
    >>> evaluator(actor).returns.shape
    torch.Size([3])
    >>> torch.equal(evaluator(actor).returns, evaluator(actor).returns)  # the same starts
    True

    Args:
        env: ``[*B]``, for the evaluator alone: nothing else steps it until :meth:`close`, or until this is deleted.
        num_episodes: how many episodes.
        seed: the start seeds are derived from it, and so is the stream of a policy that samples.
        start_seeds: one seed per episode, instead of those derived.
        exploration_type: how the policy acts.
        every_frames: frames from one evaluation of a training agent to the next; None: only ``agent.evaluate()``.
        max_episode_steps: raise at a longer episode, so that an environment without an end does not hang.
        success_key: the observation that says, by a number other than 0 at an episode's end, that it succeeded; None
            counts no successes.

    Raises:
        ConfigError: a count below one, not one start seed per episode, or no such observation.
        EnvError: ``env`` is no environment, cannot be seeded, or something else steps it, such as a collector; or its
            simulators normalise what they show by statistics of their own (gymnasium's ``NormalizeObservation`` or
            ``NormalizeReward``).
    """

    def __init__(
        self,
        env: Env,
        *,
        num_episodes: int = 10,
        seed: int = 0,
        start_seeds: Sequence[int] | None = None,
        exploration_type: ExplorationType = ExplorationType.DETERMINISTIC,
        every_frames: int | None = None,
        max_episode_steps: int = 100_000,
        success_key: Key | None = None,
    ) -> None:
        counts = {"num_episodes": num_episodes, "every_frames": every_frames, "max_episode_steps": max_episode_steps}
        for name, value in counts.items():
            if not (value is None or is_count(value)):
                raise ConfigError(explain(f"Evaluator, {name}", expected="at least 1, a whole number", got=value))
        if not isinstance(env, Env):
            hint = "GymEnv(name, num_envs=n) makes one."
            raise EnvError(explain("Evaluator", expected="an Env", got=repr(env), hint=hint))
        env.require_seeds()
        refuse_learning_simulators("Evaluator", env)
        self.env = env
        self.num_episodes = num_episodes
        self.start_seeds = child_seeds(seed, num_episodes) if start_seeds is None else list(start_seeds)
        self.exploration_type = exploration_type
        self.every_frames = every_frames
        self.max_episode_steps = max_episode_steps
        self.success_key = _known(env, success_key)
        self._sampling_seed = child_seeds(seed, num_episodes + 1)[-1]
        if len(self.start_seeds) != num_episodes:
            raise ConfigError(
                explain(
                    "Evaluator", expected=f"{num_episodes} start seeds, one per episode", got=f"{len(self.start_seeds)}"
                )
            )
        take_env("Evaluator", env, self)

    @torch.no_grad()
    def __call__(
        self, policy: Callable[[TensorDictBase], TensorDictBase], *, learned: Sequence[Learned] | None = None
    ) -> Evaluation:
        """Run the episodes with a policy, and return the return and the length of each.

        Args:
            policy: what is measured.
            learned: statistics of the training's transforms, ``collector.learned_states()``, which an agent passes by
                itself; None uses the statistics of the environment's own transforms.

        Raises:
            EnvError: an episode does not end within ``max_episode_steps``.
            SpecError: the policy does not fit the action spec.
            ConfigError: the policy cannot be called; or the environment's transforms differ from the training's, or
                one of them has no statistics yet.
        """
        require_policy("Evaluator", policy)
        if policy is None:
            raise ConfigError(explain("Evaluator", expected="a policy", got=None))
        with (
            own_randomness(policy, self._sampling_seed),
            eval_mode(policy),
            frozen(self.env, learned),
            set_exploration_type(self.exploration_type),
        ):
            return self._episodes(move_roots_to_policy(policy, self.env.device))

    def close(self) -> None:
        """Close the environment, which others may take then; may be called twice."""
        self.env.close()
        leave_env(self.env, self)

    def _episodes(self, act: Callable[[TensorDictBase], TensorDictBase]) -> Evaluation:
        env, rows = self.env, self.env.batch_size.numel()
        returns = torch.zeros(self.num_episodes)
        lengths = torch.zeros(self.num_episodes, dtype=torch.int64)
        successes = None if self.success_key is None else torch.zeros(self.num_episodes, dtype=torch.bool)
        episode_of = list(range(rows))  # which episode each row plays; those past the last are played and not counted
        num_begun, num_missing = rows, self.num_episodes
        root = env.reset(seed=self._seeds(episode_of))
        is_first = True
        while num_missing:
            acted = act_and_check(act, root, env, is_first=True) if is_first else act(root)
            is_first = False
            transition, root = env.step_and_reset(acted)
            outcome = transition.get("next")
            done = outcome.get("done").reshape(rows)
            self._require_progress(outcome, episode_of)
            if not bool(done.any()):
                continue
            totals, steps = outcome.get("episode_return").reshape(rows), outcome.get("episode_length").reshape(rows)
            for row in done.nonzero().squeeze(-1).tolist():
                if episode_of[row] < self.num_episodes:
                    returns[episode_of[row]], lengths[episode_of[row]] = totals[row], steps[row]
                    if successes is not None:
                        successes[episode_of[row]] = outcome.get(self.success_key).reshape(rows)[row] != 0
                    num_missing -= 1
                episode_of[row] = num_begun
                num_begun += 1
            root = self._restart(root, done, episode_of)
        return Evaluation(returns, lengths, successes)

    def _restart(self, root: TensorDict, done: torch.Tensor, episode_of: list[int]) -> TensorDict:
        """Reset the ended rows with the seeds of their next episodes, if ``env`` can; other rows keep their entries."""
        if not self.env.seeds_rows:
            return root
        return self.env.reset(done.reshape(self.env.batch_size), seed=self._seeds(episode_of), root=root)

    def _seeds(self, episode_of: list[int]) -> list[int]:
        return [self.start_seeds[episode % self.num_episodes] for episode in episode_of]

    def _require_progress(self, outcome: TensorDictBase, episode_of: list[int]) -> None:
        longest = int(outcome.get("episode_length").max())
        if longest > self.max_episode_steps:
            raise EnvError(
                explain(
                    "Evaluator",
                    expected=f"episodes of at most {self.max_episode_steps} steps",
                    got="one that goes on",
                    hint="Give the environment a time limit, or raise the evaluator's max_episode_steps.",
                )
            )


def _known(env: Env, key: Key | None) -> Key | None:
    """Return the key of an observation of one number per row; None if there is none to look at."""
    leaves = dict(env.observation_spec.leaves())
    if key is None or (key in leaves and leaves[key].shape.numel() == env.batch_size.numel()):
        return key
    expected = "an observation of one number"
    raise ConfigError(explain("Evaluator, success_key", expected=expected, got=f"{key!r} of {sorted(leaves, key=str)}"))


@contextmanager
def eval_mode(policy: object) -> Iterator[None]:
    """Put a policy into eval mode inside the block; on exit restore the training flag of every submodule."""
    modules = list(policy.modules()) if isinstance(policy, nn.Module) else []
    flags = [module.training for module in modules]
    if modules:
        policy.eval()
    try:
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


@contextmanager
def own_randomness(policy: object, seed: int) -> Iterator[None]:
    """Seed a policy's generators and torch's global streams inside the block; restore their states on exit."""
    with keep_randomness(policy) as generators:
        torch.manual_seed(seed)
        for index, generator in enumerate(generators):
            generator.manual_seed(seed + index)
        yield


def move_roots_to_policy(policy: Callable, device: torch.device) -> Callable:
    """Return a function that acts on roots on ``device``: the policy, or one that moves roots to its device first."""
    tensors = [*policy.parameters(), *policy.buffers()] if isinstance(policy, nn.Module) else []
    if not tensors or tensors[0].device == device:
        return policy
    return lambda root: root.update(policy(root.to(tensors[0].device)).to(device))
