"""Turn the simulator's observations into what networks read: one picture, or one vector of floats.

The spec of each key decides: choices become one-hot vectors, bits 0 and 1, bounded integers their position between the
bounds, and tensors of several dimensions, or none, are flattened. Which observation is a picture ``--pictures`` may
say; the run prints its decision at the start.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torchrl.data.specs import Bounded, MultiCategorical, TensorSpec
from torchrl.envs import Env, TransformedEnv
from torchrl.envs.transforms import (
    BitsToFloat,
    CatTensors,
    DoubleToFloat,
    Flatten,
    FrameStack,
    GrayScale,
    MaskVelocity,
    OneHotObservation,
    Permute,
    Rename,
    Resize,
    ScaleByBounds,
    Transform,
    Unsqueeze,
)
from torchrl.envs.transforms.images import DTYPES
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key, key_name
from torchrl.modules import ConvNet
from torchrl.recipes.parts import Environment

IMAGE_FRAMES = 4  # Mnih et al. (2015), methods: what does not move in one frame does in four
CHANNELS = (1, 3, 4)
MOST_CHOICES = 2**16  # numbers of one-hot vectors, from which on a table of embeddings would be due


def observation_transforms(settings: Environment, env: Env, seen: Sequence[Key]) -> list[Transform]:
    """Build transforms from the observations ``seen`` to one picture, uint8 ``[*B, C, height, width]``, or one vector.

    Args:
        settings: of the environment.
        env: as it comes from the simulators.
        seen: the observations that networks read, in the order of the vector.

    Raises:
        ConfigError: a picture beside other observations, or of a wrong shape; an unknown name; too many choices;
            ``--mask_velocity`` in a task whose velocities are not known.
    """
    picture = _picture_of(settings, env, seen)
    transforms = _vector_transforms(env, seen) if picture is None else _picture_transforms(settings, env, picture)
    if settings.mask_velocity:
        transforms.insert(0, _mask_velocity(env, picture))
    if (num_frames := num_stacked(settings, is_image=picture is not None)) > 1:
        if picture is None and list(seen) == ["observation"]:
            transforms.append(CatTensors(seen))  # one-hot vectors side by side are numbers
        transforms.append(FrameStack(num_frames, dim=-1 if picture is None else -3))
    return transforms


def describe_observations(settings: Environment, env: Env) -> str | None:
    """Return one line on what a run's networks see and how it is made; None if they see the simulator's own vector.

    Args:
        settings: of the environment.
        env: the run's environment, or another that was made by the same flags.
    """
    seen_as = env.observation_spec["observation"].shape[len(env.batch_size) :]
    while isinstance(env, TransformedEnv):
        env = env.env
    unseen = (env.action_mask_key, settings.success_key)
    leaves = {key: leaf for key, leaf in _rows(env).items() if key not in unseen}
    picture = _picture_of(settings, env, list(leaves))
    if picture is not None:
        was = f"{key_name(picture)} {[*leaves[picture].shape]}"
        return f"observes a picture: {was} as {[*seen_as]} (--pictures=none takes its numbers)"
    treatments = {key: _treatment(leaf) for key, leaf in leaves.items()}
    if settings.mask_velocity:
        treatments["observation"] = "without velocities"
    if treatments == {"observation": ""}:
        return None
    parts = [f"{key_name(key)} {[*leaf.shape]} {treatments[key]}".rstrip() for key, leaf in leaves.items()]
    return f"observes {seen_as.numel()} numbers: {'; '.join(parts)}"


def num_stacked(settings: Environment, *, is_image: bool) -> int:
    """Return how many consecutive observations are stacked: ``frame_stack``; if that is None, 4 images or 1 vector."""
    return settings.frame_stack or (IMAGE_FRAMES if is_image else 1)


def sees_images(env: Env) -> bool:
    """Answer whether the env's entry ``observation`` is an image, ``[*B, C, H, W]``, and not a vector."""
    leaf = dict(env.observation_spec.leaves()).get("observation")
    return leaf is not None and leaf.ndim == len(env.batch_size) + 3


# ---- pictures --------------------------------------------------------------------------------------------------------


def _picture_of(settings: Environment, env: Env, seen: Sequence[Key]) -> Key | None:
    """Return the key of the observation that is a picture, or None.

    Raises:
        ConfigError: there are other observations beside it, its shape is wrong, or ``--pictures`` names no observation.
    """
    leaves = _rows(env)
    names = {key_name(key): key for key in seen}
    if settings.pictures == "none":
        return None
    if settings.pictures == "auto":
        found = [key for key in seen if settings.from_pixels or _looks_like_pictures(leaves[key])]
    else:
        unknown = [name for name in settings.pictures.split(",") if name not in names]
        if unknown:
            expected = f"auto, none or one of {sorted(names)}"
            raise ConfigError(explain("--pictures", expected=expected, got=repr(unknown[0])))
        found = [names[name] for name in settings.pictures.split(",")]
    if not found:
        return None
    if len(seen) > 1:
        others = " ".join(name for name, key in names.items() if key != found[0])
        hint = f"--leave_out {others} leaves the rest out; --pictures=none takes all as numbers."
        raise ConfigError(explain("networks", expected="an image and nothing beside it", got=[*seen], hint=hint))
    (key,) = found
    shape, dtype = leaves[key].shape, leaves[key].dtype
    if dtype not in DTYPES or not (len(shape) == 2 or (len(shape) == 3 and shape[-1] in CHANNELS)):
        hint = "--pictures=none takes its numbers; other forms of pictures are composed in Python."
        expected = "an image [H, W, C] with 1, 3 or 4 channels"
        got = f"{key!r} of shape {[*shape]}, {str(dtype).removeprefix('torch.')}"
        raise ConfigError(explain("networks", expected=expected, got=got, hint=hint))
    return key


def _looks_like_pictures(leaf: TensorSpec) -> bool:
    """Answer whether one row's spec is uint8 from 0 to 255, with two dimensions large enough for the convolutions."""
    if not isinstance(leaf, Bounded) or leaf.dtype != torch.uint8 or leaf.ndim < 2:
        return False
    is_full = bool((leaf.low == 0).all() and (leaf.high == 255).all())
    return is_full and sum(size >= ConvNet(1).smallest for size in leaf.shape) >= 2


def _picture_transforms(settings: Environment, env: Env, key: Key) -> list[Transform]:
    keys = ["observation"]
    transforms: list[Transform] = [] if key == "observation" else [Rename({key: "observation"})]
    shape = _rows(env)[key].shape
    if len(shape) == 2:
        transforms.append(Unsqueeze(-1, keys))
    height, width, channels = (*shape, 1)[:3]
    if (height, width) != (settings.image_size,) * 2:
        transforms.append(Resize(settings.image_size, in_keys=keys))
    if settings.grayscale and channels == 3:
        transforms.append(GrayScale(keys))
    return [*transforms, Permute((2, 0, 1), keys)]


# ---- vectors ---------------------------------------------------------------------------------------------------------


def _vector_transforms(env: Env, seen: Sequence[Key]) -> list[Transform]:
    leaves = _rows(env)
    for key in seen:
        if (num := _num_choices(leaves[key])) > MOST_CHOICES:
            hint = f"Leave it out, --leave_out {key_name(key)}, or give it an embedding in Python."
            expected = f"at most {MOST_CHOICES:,} choices to write one-hot"
            raise ConfigError(explain("networks", expected=expected, got=f"{num:,} in {key!r}", hint=hint))
    transforms: list[Transform] = []
    for encode in (OneHotObservation, BitsToFloat, ScaleByBounds, DoubleToFloat):
        if keys := [key for key in seen if encode.takes(leaves[key])]:
            transforms.append(encode(keys))
    if keys := [key for key in seen if _is_flattened(leaves[key])]:
        transforms.append(Flatten(in_keys=keys))
    return transforms if list(seen) == ["observation"] else [*transforms, CatTensors(seen)]


def _mask_velocity(env: Env, picture: Key | None) -> Transform:
    """Build the transform that takes the velocities of a known task out of its vector.

    Raises:
        ConfigError: a picture is seen, or the task's velocities are not known.
    """
    if picture is None and env.task.rpartition("-v")[0] in MaskVelocity.known:
        return MaskVelocity()
    expected = f"a vector of one of {', '.join(MaskVelocity.known)}"
    got = "a picture" if picture is not None else env.task or "a task of another kind"
    hint = "--leave_out velocity leaves out what has that name; MaskVelocity(indices=[...]), in Python, any feature."
    raise ConfigError(explain("--mask_velocity", expected=expected, got=got, hint=hint))


def _is_flattened(leaf: TensorSpec) -> bool:
    return leaf.ndim != 1 and not OneHotObservation.takes(leaf)


def _num_choices(leaf: TensorSpec) -> int:
    if not OneHotObservation.takes(leaf):
        return 0
    return int(leaf.nvec.sum()) if isinstance(leaf, MultiCategorical) else leaf.n * leaf.shape.numel()


def _treatment(leaf: TensorSpec) -> str:
    """Return words on how an observation is changed, such as "one-hot"; an empty text if it is not changed."""
    kinds = {"one-hot": OneHotObservation, "as bits": BitsToFloat, "scaled by its bounds": ScaleByBounds}
    kinds["in float32"] = DoubleToFloat
    words = [word for word, encode in kinds.items() if encode.takes(leaf)]
    return ", ".join([*words, "flattened"] if _is_flattened(leaf) else words)


def _rows(env: Env) -> dict[Key, TensorSpec]:
    """Return the spec of one row of each observation."""
    first = (0,) * len(env.batch_size)
    return {key: leaf[first] for key, leaf in env.observation_spec.leaves()}
