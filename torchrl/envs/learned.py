"""Save, load, merge and freeze the *learned state* of an environment's transforms: tensors such as running statistics.

It is independent of rows and episodes: it can be saved where simulators cannot, is kept when a worker process is
replaced, and is loaded into the environment of an evaluation, which must not change it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from torchrl.errors import ConfigError, EnvError, SpecError, explain
from torchrl.keys import key_name

if TYPE_CHECKING:
    from torchrl.envs.base import Env
    from torchrl.envs.transforms.base import Transform

Learned = dict[str, dict[str, torch.Tensor]]  # tensors by their name in a transform, by the name of the transform
REWARD = "reward/"  # begins the names of transforms that change the reward alone, which no policy needs to act


def learned_state(transforms: Sequence[Transform]) -> Learned:
    """Return a dict from transform name to copies of its learned tensors; transforms that learn nothing are left out.

    Warns about plain attributes that a user's transform changes: only buffers are saved.
    """
    for transform in transforms:
        if changed := transform.changed_attributes():
            warnings.warn(
                f"{type(transform).__name__}: its attributes {changed} change as it works, and are neither saved nor "
                "handed on to evaluations and other processes. What a transform learns goes into register_buffer, what "
                "it remembers of each row into register_memory.",
                stacklevel=3,
            )
    return {name: transform.learned_state_dict() for name, transform in _by_name(transforms).items()}


def load_learned_(transforms: Sequence[Transform], state: Learned, *, for_acting: bool = False) -> None:
    """Overwrite the transforms' learned tensors, in place, with those that :func:`learned_state` returned.

    Args:
        transforms: of an environment.
        state: the learned state of equal transforms.
        for_acting: skip transforms that only change the reward; these may then differ.

    Raises:
        SpecError: the state is of other transforms, or its tensors have other names or shapes; nothing is written then.
    """
    named = _by_name(transforms)
    if for_acting:
        named, state = (
            {name: value for name, value in one.items() if not name.startswith(REWARD)} for one in (named, state)
        )
    if named.keys() != state.keys():
        expected = f"what {list(named)} have learned"
        raise SpecError(explain("learned state", expected=expected, got=f"that of {list(state)}"))
    for name, transform in named.items():
        require_same_form(name, transform, state[name])
    for name, transform in named.items():
        transform.load_learned_state_dict(state[name])


def join_learned(transforms: Sequence[Transform], states: Sequence[Learned]) -> Learned:
    """Merge the learned states of several environments into one, by each transform's :attr:`Transform.merge_learned`.

    Raises:
        ConfigError: a transform's states differ, and its class has no ``merge_learned``.
    """
    named = _by_name(transforms)
    return {name: _join(name, named.get(name), [state[name] for state in states]) for name in states[0]}


def restore_own_(transforms: Sequence[Transform], state: Learned) -> None:
    """Load the learned state that a process had before it died into the transforms of its replacement.

    Tensors in shared memory are skipped: the other processes have kept them up to date.
    """
    for name, transform in _by_name(transforms).items():
        if not _is_common(transform):
            transform.load_learned_state_dict(state[name])


def equalise_(transforms: Sequence[Transform], states: Sequence[Learned]) -> None:
    """Merge the learned states of all workers and write the result into ``transforms``, where their class can merge.

    Tensors in shared memory are skipped: all processes have the same ones.
    """
    named = _by_name(transforms)
    for name in states[0]:
        transform = named[name]
        if transform.merge_learned is not None and not _is_common(transform):
            transform.load_learned_state_dict(transform.merge_learned([state[name] for state in states]))


@contextmanager
def frozen(env: Env, states: Sequence[Learned] | None = None) -> Iterator[None]:
    """Keep an environment's transforms from learning inside a ``with`` block, as in an evaluation.

    Args:
        env: its transforms are put into eval mode; on exit they get their training flags back.
        states: learned states of one or more other environments, which the transforms use inside the block; on exit
            their own are put back. None uses their own.

    Raises:
        ConfigError: the env's transforms are not those that learned ``states``; or, without ``states``, a transform
            has learned nothing yet.
    """
    transforms = env.transforms
    modules = [module for transform in transforms for module in transform.modules()]
    flags = [module.training for module in modules]
    replaced = []
    if states is None:
        _require_learned(transforms)
    else:
        state = join_learned(transforms, states)
        require_same_view(env, state)
        named = _by_name(transforms)
        replaced = [(named[name], tensors) for name, tensors in state.items() if name in named]
    before = [(transform, _exchange(transform, tensors)) for transform, tensors in replaced]
    for transform in transforms:
        transform.eval()
    try:
        yield
    finally:
        for transform, tensors in reversed(before):  # two of them may share their statistics
            _exchange(transform, tensors)
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


def require_same_view(env: Env, state: Learned) -> None:
    """Refuse an environment whose transforms differ from those that learned ``state``; a policy would see other values.

    Transforms that only change the reward may differ.

    Raises:
        ConfigError: naming the transforms that differ.
        SpecError: learned tensors of other names or shapes.
    """
    named = _by_name(env.transforms)
    missing, extra = (
        [name for name in one if name not in other and not name.startswith(REWARD)]
        for one, other in ((state, named), (named, state))
    )
    if missing or extra:
        parts = [f"without {missing}"] if missing else []
        parts += [f"with {extra}"] if extra else []
        hint = "Build it with the transforms of the training environment; what those have learned is handed on to it."
        expected = "an environment seen through the transforms that the policy is trained behind"
        raise ConfigError(explain("evaluation", expected=expected, got=f"one {' and '.join(parts)}", hint=hint))
    for name in state.keys() & named.keys():
        require_same_form(name, named[name], state[name])


def refuse_learning_simulators(who: str, env: Env) -> None:
    """Refuse to evaluate in an env whose simulators have wrappers that normalise by running statistics of their own.

    Raises:
        EnvError: naming the wrapper.
    """
    name = env.learning_wrapper
    if name:
        has_rewards = "Reward" in name
        instead = "TransformedEnv(env, RewardNorm(gamma)) there" if has_rewards else "TransformedEnv(env, VecNorm())"
        hint = f"Leave it out, here and in the training, and write {instead}."
        expected = "rewards as the simulators pay them" if has_rewards else "observations as in the training"
        got = f"gymnasium's {name}, whose statistics are those of each simulator alone"
        raise EnvError(explain(who, expected=expected, got=got, hint=hint))


def is_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor] | None) -> bool:
    """Answer whether the learned tensors of two transforms have the same names and values."""
    if other is None or one.keys() != other.keys():
        return False
    return all(torch.equal(other[key], value) for key, value in one.items())


def differences(states: Sequence[Learned]) -> list[Learned] | None:
    """Reduce several envs' learned states to the transforms whose tensors differ between them; None if none differ."""
    first, *others = states
    names = [name for name, tensors in first.items() if not all(is_same(tensors, other[name]) for other in others)]
    return [{name: state[name] for name in names} for state in states] if names else None


def require_same_form(name: str, transform: Transform, came: dict[str, torch.Tensor]) -> None:
    """Refuse learned tensors whose names or shapes differ from the transform's; a buffer that is None accepts any.

    Raises:
        SpecError: naming both.
    """
    have = transform.learned_tensors()
    if transform.learns_later():
        came = {key: value for key, value in came.items() if key in have}
    ours, theirs = ({key: list(value.shape) for key, value in tensors.items()} for tensors in (have, came))
    if ours != theirs:
        hint = "What a transform remembers of each row goes into register_memory, not register_buffer."
        hint = hint if ours.keys() == theirs.keys() else ""
        raise SpecError(explain(f"learned state of {name}", expected=f"{ours}", got=f"{theirs}", hint=hint))


def _by_name(transforms: Sequence[Transform]) -> dict[str, Transform]:
    """Return the transforms with learned state by name: class and observations, and a number from the second one on."""
    named: dict[str, Transform] = {}
    for transform in transforms:
        if not transform.learned_tensors() and not transform.learns_later():
            continue
        keys = getattr(transform, "in_keys", None)
        name = (REWARD if transform.changes_reward_only else "") + type(transform).__name__
        name += f"[{', '.join(map(key_name, keys))}]" if keys else ""
        count = sum(known.partition(" #")[0] == name for known in named)
        named[f"{name} #{count + 1}" if count else name] = transform
    return named


def _is_common(transform: Transform) -> bool:
    """Answer whether a transform's learned tensors are in shared memory."""
    return any(tensor.is_shared() for tensor in transform.learned_tensors().values())


def _join(name: str, transform: Transform | None, states: Sequence[dict]) -> dict[str, torch.Tensor]:
    first, *others = states
    if transform is None or all(is_same(first, other) for other in others):  # a missing transform reads nothing
        return first
    if transform.merge_learned is None:
        hint = "Give its class a static method merge_learned(states) that joins them."
        got = f"{len(states)} different states of {name}"
        raise ConfigError(explain("learned state", expected="the same in all workers", got=got, hint=hint))
    return transform.merge_learned(states)


def _require_learned(transforms: Sequence[Transform]) -> None:
    for transform in transforms:
        if not transform.has_learned():
            hint = "Pass learned=collector.learned_states() of the training, as an Agent does by itself."
            got = f"a {type(transform).__name__} that has seen nothing"
            raise ConfigError(explain("evaluation", expected="transforms that have learned", got=got, hint=hint))


def _exchange(transform: Transform, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replace a transform's learned tensors by others, and return the old ones.

    The buffers are replaced, not written to, since the old ones may be in memory that a training process shares.
    """
    before = {}
    for path, value in tensors.items():
        owner, _, name = path.rpartition(".")
        module = transform.get_submodule(owner)
        places = module._buffers if name in module._buffers else module._parameters
        before[path] = mine = places[name]
        if isinstance(mine, nn.Parameter) and not isinstance(value, nn.Parameter):
            value = nn.Parameter(value, requires_grad=False)
        is_moved = value is not mine and value is not None and mine is not None
        places[name] = value.to(mine.device) if is_moved else value
    return before
