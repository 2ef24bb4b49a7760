"""Atari games that ale-py steps in C++ threads, as one Env. ale-py is imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
from gymnasium import Space
from gymnasium.vector import AutoresetMode, VectorEnv

from torchrl.counts import is_count
from torchrl.envs.simulators.ids import similar_id
from torchrl.envs.vector.ale_worker import FIRE, ALEWorker, one_frame
from torchrl.envs.vector.base import WorkerEnv
from torchrl.envs.vector.info_entries import InfoEntries
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.extras import require

# Arguments of ale-py's class that this one gives, and what to write instead.
OWN = {
    "game": "the id names it",
    "num_envs": "it is an argument",
    "batch_size": "all rows are stepped together",
    "num_threads": "it is an argument",
    "autoreset_mode": "rows restart as in every env",
    "stack_num": "TransformedEnv(env, FrameStack(4)) stacks",
    "frameskip": "write frame_skip",
    "noop_max": "write max_noops",
    "use_fire_reset": "write fire_reset",
    "img_height": "write image_size",
    "img_width": "write image_size",
    "grayscale": "it is an argument",
    "max_num_frames_per_episode": "write max_episode_steps",
    "episodic_life": "it is an argument",
    "life_loss_info": "write episodic_life",
    "reward_clipping": "TransformedEnv(env, RewardClipping(-1, 1)) clips, for the learner alone",
}


class ALEEnv(WorkerEnv):
    """Step many games of one Atari id in the C++ threads of ale-py, pictures grey and scaled there, as one env.

    It shows what :class:`AtariEnv` shows, in one process, without OpenCV: a step repeats its action for ``frame_skip``
    frames, sums their rewards, and observes the maximum of the last two, uint8 ``[B, 84, 84]`` (Mnih et al.,
    "Human-level control through deep reinforcement learning", 2015, methods). In games that wait for it, whose second
    action is FIRE, FIRE is pressed at the start of a game, and takes the place of the first action after a lost life:
    the policy's action has no effect in that step. How often an action is repeated by chance (*sticky*: Machado et
    al., "Revisiting the Arcade Learning Environment", 2018) says the id: 0.25 for ``ALE/...-v5``, 0 for
    ``...NoFrameskip-v4``. Rewards are raw, so returns are scores of the game; transforms clip rewards and stack frames
    for the learner.

    With ``episodic_life`` a lost life terminates an episode and its return, but not the game: the last observation of
    one episode is the first of the next, and no button is pressed in between, which ``check_env`` takes for a mistake
    where no game ends in its steps. Evaluate without it, by whole games. A reset in mid-life begins a new game, and so
    does every reset with a seed, which loads the game anew: a tenth of a second.

    Rows have seeds of their own, restart and wait alone; a waiting row is stepped unseen. The state cannot be saved,
    pictures for films are not drawn, and resets take no options.

    >>> pong = ALEEnv("ALE/Pong-v5", 8)  # doctest: +SKIP
    >>> stacked = TransformedEnv(pong, Compose(Unsqueeze(-3), FrameStack(4, dim=-3)))  # doctest: +SKIP
    >>> stacked.rollout(5)["observation"].shape  # doctest: +SKIP
    torch.Size([8, 5, 4, 84, 84])

    Args:
        name: an id of ale-py, such as ``"ALE/Pong-v5"``.
        num_envs: number of games, B.
        frame_skip: frames of the game per step.
        max_noops: begin games with up to this many no-ops; 0 does none.
        fire_reset: whether FIRE is pressed at the start of a game and after each lost life, in games that wait for it;
            of continuous actions at the start only.
        episodic_life: whether a lost life ends an episode; for training.
        image_size: height and width of pictures, in pixels.
        grayscale: whether pictures are grey, else ``[H, W, 3]``.
        max_episode_steps: steps after which an episode is truncated; None takes the frames that the id allows,
            108,000. No-ops do not count. With ``episodic_life`` it limits the game.
        env_kwargs: further arguments of ale-py's ``AtariVectorEnv``: ``repeat_action_probability``,
            ``full_action_space``, ``continuous``, ``maxpool``, ``thread_affinity_offset``.
        num_threads: threads that step the games; None takes one per core, at most one per game.
        info_keys: entries of ``info`` to be observed, each with its space: ``{"lives": gymnasium.spaces.Discrete(6)}``
            for the lives left. The picture is then called ``observation`` as before.
        seed: as :meth:`set_seed`; None draws one.

    Raises:
        ConfigError: a count that is none, or ``env_kwargs`` repeats what this class gives.
        EnvError: no such id, or ale-py does not take the arguments.
        MissingExtraError: ale-py is not installed.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        *,
        frame_skip: int = 4,
        max_noops: int = 30,
        fire_reset: bool = True,
        episodic_life: bool = False,
        image_size: int = 84,
        grayscale: bool = True,
        max_episode_steps: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        num_threads: int | None = None,
        info_keys: Mapping[str, Space] | None = None,
        seed: int | None = None,
    ) -> None:
        counts = {"num_envs": num_envs, "frame_skip": frame_skip, "max_noops": max_noops + 1, "image_size": image_size}
        counts |= {"max_episode_steps": max_episode_steps or 1, "num_threads": num_threads or 1}
        _require_arguments(counts, env_kwargs or {})
        kind = require("ale_py.vector_env", extra="atari", purpose="ALEEnv").AtariVectorEnv
        arguments = _arguments_of(name) | dict(env_kwargs or {})
        if max_episode_steps is not None:
            arguments["max_num_frames_per_episode"] = max_episode_steps * frame_skip
        arguments |= {"frameskip": frame_skip, "noop_max": max_noops, "use_fire_reset": fire_reset}
        arguments |= {"img_height": image_size, "img_width": image_size, "grayscale": grayscale}
        arguments |= {"num_threads": num_threads or 0, "stack_num": 1, "reward_clipping": False}
        vector_env = _build(kind, name, num_envs, arguments)
        space = one_frame(vector_env.single_observation_space)
        infos = InfoEntries(space, info_keys) if info_keys else None
        options = {"infos": infos, "env_name": "ALEEnv", "episodic_life": episodic_life, "is_single": True}
        options["fires"] = fire_reset and _waits_for_fire(vector_env)
        super().__init__(
            partial(ALEWorker, vector_env, AutoresetMode.NEXT_STEP, (), **options),
            observation_space=space if infos is None else infos.space,
            action_space=vector_env.single_action_space,
            batch_size=[num_envs],
        )
        self.name = self.task = name
        self.step_limit = -(-arguments["max_num_frames_per_episode"] // frame_skip)
        if seed is not None:
            self.set_seed(seed)


def _require_arguments(counts: dict[str, int], env_kwargs: Mapping[str, Any]) -> None:
    for name, value in counts.items():
        if not is_count(value):
            raise ConfigError(explain(f"ALEEnv, {name}", expected="a whole number, large enough", got=value))
    taken = [name for name in env_kwargs if name in OWN]
    if taken:
        hint = f"{taken[0]}: {OWN[taken[0]]}."
        raise ConfigError(explain("ALEEnv, env_kwargs", expected="none of these", got=taken, hint=hint))


def _arguments_of(name: str) -> dict[str, Any]:
    """Return what an id says of a game, for ale-py's class, but for the frames skipped.

    Raises:
        EnvError: no such id, or one of something else.
    """
    try:
        spec = gymnasium.spec(name)
    except gymnasium.error.Error as error:
        near = similar_id(str(name))
        hint = f'Did you mean "{near}"?' if near else 'They look like "ALE/Pong-v5".'
        raise EnvError(explain("ALEEnv", expected="an id of ale-py", got=repr(name), hint=hint)) from error
    if not str(spec.entry_point).startswith("ale_py."):
        hint = f"GymEnv({name!r}, num_envs=n) takes it."
        raise EnvError(explain("ALEEnv", expected="an id of ale-py", got=repr(name), hint=hint))
    return {key: value for key, value in spec.kwargs.items() if key not in ("frameskip", "obs_type")}


def _waits_for_fire(vector_env: VectorEnv) -> bool:
    """Answer whether the second action of a game is FIRE, as of those that wait for it to go on."""
    names = [action.name for action in vector_env.ale.get_action_set()]
    return names[FIRE : FIRE + 1] == ["FIRE"] and not vector_env.continuous


def _build(kind: Callable[..., VectorEnv], name: str, num_envs: int, arguments: dict[str, Any]) -> VectorEnv:
    try:
        return kind(num_envs=num_envs, autoreset_mode=AutoresetMode.NEXT_STEP, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        expected, got = "arguments that ale-py takes", f"{arguments}: {error}"
        raise EnvError(explain(f"ALEEnv({name!r})", expected=expected, got=got)) from error
