"""Gymnasium ids: advise on unknown ids, and register in worker processes the ids that a script has registered.

Imports no torch: workers use it.
"""

from __future__ import annotations

import difflib
import pickle
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Any

import cloudpickle
import gymnasium
from gymnasium.envs.registration import EnvSpec

from torchrl.errors import EnvError, explain

ATARI = (
    "Adventure|AirRaid|Alien|Amidar|Assault|Asterix|Asteroids|Atlantis|BankHeist|BattleZone|BeamRider|Berzerk|"
    "Bowling|Boxing|Breakout|Carnival|Centipede|ChopperCommand|CrazyClimber|Defender|DemonAttack|DoubleDunk|"
    "ElevatorAction|Enduro|FishingDerby|Freeway|Frostbite|Gopher|Gravitar|Hero|IceHockey|Jamesbond|JourneyEscape|"
    "Kangaroo|Krull|KungFuMaster|MontezumaRevenge|MsPacman|NameThisGame|Phoenix|Pitfall|Pong|Pooyan|PrivateEye|"
    "Qbert|Riverraid|RoadRunner|Robotank|Seaquest|Skiing|Solaris|SpaceInvaders|StarGunner|Tennis|TimePilot|"
    "Tutankham|UpNDown|Venture|VideoPinball|WizardOfWor|YarsRevenge|Zaxxon"
)
# Of packages that bring ids: the module, what pip calls it, and how the ids begin.
PACKAGES = (
    ("ale_py", "ale-py", rf"ALE/|({ATARI})(-ram)?(Deterministic|NoFrameskip)?(-v\d+)?$"),
    ("minigrid", "minigrid", r"MiniGrid-|BabyAI-"),
    (
        "highway_env",
        "highway-env",
        r"(highway|merge|roundabout|parking|intersection|racetrack|exit|two-way|u-turn)(-|$)",
    ),
    (
        "gymnasium_robotics",
        "gymnasium-robotics",
        r"Fetch|HandManipulate|HandReach|AntMaze|PointMaze|Adroit|FrankaKitchen",
    ),
    ("miniworld", "miniworld", r"MiniWorld-"),
    ("panda_gym", "panda-gym", r"Panda(Reach|Push|Slide|PickAndPlace|Stack|Flip)"),
    ("flappy_bird_gymnasium", "flappy-bird-gymnasium", r"FlappyBird-"),
    ("metaworld", "metaworld", r"Meta-World/"),
    ("PyFlyt.gym_envs", "PyFlyt", r"PyFlyt/"),
    ("shimmy", "shimmy", r"dm_control/|bsuite/"),
    (
        "mo_gymnasium",
        "mo-gymnasium",
        r"mo-|(deep-sea-treasure|resource-gathering|minecart|four-room|fruit-tree|breakable-bottles|fishwood)(-|$)",
    ),
    ("vizdoom.gymnasium_wrapper", "vizdoom", r"Vizdoom"),
    ("minihack", "minihack", r"MiniHack-"),
    ("nle", "nle", r"NetHack"),
)
OWN_EXTRAS = {"ale-py": "atari", "minigrid": "minigrid"}  # of packages that an extra of this one installs: which
ALIKE = 0.8  # how much a name must look like another to be taken for a slip of the pen


def is_atari(env_id: str) -> bool:
    """Answer whether an id is one of ale-py's, by its form alone.

    >>> is_atari("ale_py:PongNoFrameskip-v4"), is_atari("CartPole-v1")
    (True, False)
    """
    (pattern,) = (pattern for module, _, pattern in PACKAGES if module == "ale_py")
    return re.match(pattern, env_id.removeprefix("ale_py:")) is not None


def package_hint(env_id: str) -> str | None:
    """Return advice on an unknown gymnasium id of a known package: install it, or write another id; else None."""
    for module, package, pattern in PACKAGES:
        if re.match(pattern, env_id):
            name = _name_in(module, env_id)
            if _is_installed(module):
                near = name if name != env_id else similar_id(env_id)
                return f'Did you mean "{near}"?' if near else f"{package} is installed and registers no such id."
            return (
                f'It comes with another package: {_installing(package)}, and write "{module}:{name}", which imports it '
                "wherever the environment is built."
            )
    return None


def with_module(env_id: str) -> str:
    """Return ``"module:id"`` for an id that an installed but not yet imported package registers; else the id unchanged.

    >>> with_module("CartPole-v1")
    'CartPole-v1'
    """
    if ":" in env_id or env_id in gymnasium.registry:
        return env_id
    for module, _, pattern in PACKAGES:
        if re.match(pattern, env_id) and _is_installed(module):
            return f"{module}:{env_id}" if _name_in(module, env_id) == env_id else env_id
    return env_id


def similar_id(env_id: str) -> str | None:
    """Return the registered id most like ``env_id`` by name, in its newest version; None where none is alike."""
    names = {_name_of(known).lower(): known for known in sorted(gymnasium.registry, key=_version_of)}
    found = difflib.get_close_matches(_name_of(env_id).lower(), names, n=1, cutoff=ALIKE)
    return names[found[0]] if found else None


def _name_in(module: str, env_id: str) -> str:
    """Return an id with the namespace that its package uses, such as ``ALE/``, if the user left that out."""
    return f"ALE/{env_id}" if module == "ale_py" and env_id.endswith("-v5") and "/" not in env_id else env_id


def _is_installed(module: str) -> bool:
    return find_spec(module.split(".")[0]) is not None


def _installing(package: str) -> str:
    extra = OWN_EXTRAS.get(package)
    return f'pip install -c constraints.txt -e ".[{extra}]"' if extra else f"pip install {package}"


def _name_of(env_id: str) -> str:
    return re.sub(r"-v\d+$", "", env_id)


def _version_of(env_id: str) -> int:
    version = re.search(r"-v(\d+)$", env_id)
    return int(version[1]) if version else -1


def install_hint(module: str) -> str:
    """Say how to install the package of a module that could not be imported."""
    packages = {name.split(".")[0]: package for name, package, _ in PACKAGES}
    return f"{_installing(packages[module])}." if module in packages else f'Install the package that brings "{module}".'


class SentEntryPoint:
    """Hold the entry point of a gymnasium id as bytes, to be unpickled in another process only at its first use.

    So a worker imports only the modules that its own environments need, not those of all registered ids.

    Args:
        env_id: the id.
        entry_point: what its :class:`gymnasium.envs.registration.EnvSpec` holds under that name, and is no string.
    """

    def __init__(self, env_id: str, entry_point: Callable[..., Any]) -> None:
        self.env_id = env_id
        self._state = cloudpickle.dumps(entry_point)

    @cached_property
    def _loaded(self) -> Callable[..., Any]:
        try:
            return pickle.loads(self._state)
        except Exception as error:
            raise _not_sent(self.env_id, f"{type(error).__name__}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"env_id": self.env_id, "_state": self._state}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Build an environment."""
        return self._loaded(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the entry point, such as ``metadata``, which gymnasium reads."""
        if name.startswith("_"):  # of pickle and copy, which come before there is anything to load
            raise AttributeError(name)
        return getattr(self._loaded, name)


def with_registered_ids(build: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``build`` so that, in another process, the gymnasium ids registered here are registered before it runs.

    These are the ids that a script, its modules or packages have registered, not gymnasium's own. Entry points in
    ``__main__`` are sent along.

    Args:
        build: called there with the arguments that the result is called with.
    """
    specs = [spec for spec in gymnasium.registry.values() if not _is_of_gymnasium(spec)]
    return partial(_build_with, [_pack(spec) for spec in specs], build)


def _is_of_gymnasium(spec: EnvSpec) -> bool:
    entry = spec.entry_point
    home = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    return home.startswith("gymnasium.")


def _pack(spec: EnvSpec) -> tuple[str, bytes, str]:
    """Return an id, its pickled spec, and the reason why it cannot be pickled (empty if it can)."""
    try:
        entries = {name: _to_send(spec.id, getattr(spec, name)) for name in ("entry_point", "vector_entry_point")}
        main = {name: _in_main(name) for name in map(_name_in_main, _wrappers_of(spec)) if name}
        return spec.id, cloudpickle.dumps((replace(spec, **entries), main)), ""
    except Exception as error:  # raised when this id is built; other ids work
        return spec.id, b"", f"{type(error).__name__}: {error}"


def _to_send(env_id: str, entry: Callable[..., Any] | str | None) -> Callable[..., Any] | str | None:
    name = _name_in_main(entry)
    if name:
        return SentEntryPoint(env_id, _in_main(name))
    return SentEntryPoint(env_id, entry) if callable(entry) and not isinstance(entry, SentEntryPoint) else entry


def _wrappers_of(spec: EnvSpec) -> list[str]:
    return [wrapper.entry_point for wrapper in spec.additional_wrappers]


def _name_in_main(entry: Any) -> str:
    """Return the name ``"World"`` of an entry point like ``"__main__:World"``; empty for others."""
    return entry.split(":")[1] if isinstance(entry, str) and entry.startswith("__main__:") else ""


def _in_main(name: str) -> Any:
    return getattr(sys.modules["__main__"], name)


def _build_with(packed: list[tuple[str, bytes, str]], build: Callable[..., Any], *arguments: Any) -> Any:
    for env_id, state, reason in packed:
        gymnasium.registry[env_id] = _unpack(env_id, state, reason)
    # A module that is imported here registers them again: nothing is overridden that was not the same.
    warnings.filterwarnings("ignore", message=r".*Overriding environment .* already in registry")
    return build(*arguments)


def _unpack(env_id: str, state: bytes, reason: str) -> EnvSpec:
    if not reason:
        try:
            spec, main = pickle.loads(state)
        except Exception as error:  # as above
            reason = f"{type(error).__name__}: {error}"
        else:
            vars(sys.modules["__main__"]).update(main)
            return spec
    return EnvSpec(env_id, entry_point=partial(_refuse, env_id, reason))


def _refuse(env_id: str, reason: str, **kwargs: Any) -> None:
    raise _not_sent(env_id, reason)


def _not_sent(env_id: str, reason: str) -> EnvError:
    hint = 'Register it in a module, and write that module\'s name before it: "module:id".'
    got = f"a registration that could not be sent: {reason}"
    return EnvError(explain(f"the id {env_id!r}", expected="one that this process knows", got=got, hint=hint))
