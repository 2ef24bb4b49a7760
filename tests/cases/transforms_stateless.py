"""Transforms that remember nothing: name -> (make_env(num_envs), make_transform), to be held against the laws."""

from cases.transform_worlds import drift, walker
from torchrl.envs.transforms import (
    ActionScaling,
    BinarizeReward,
    CatTensors,
    Compose,
    Exclude,
    FiniteCheck,
    Rename,
    RewardClipping,
    RewardScaling,
    Select,
    SignTransform,
)

LEFT, RIGHT = ("body", "left"), ("body", "right")

CASES = {
    "RewardClipping": (walker, lambda: RewardClipping(-0.1, 2.0)),
    "RewardClipping above": (walker, lambda: RewardClipping(float("-inf"), 0.3)),
    "RewardClipping bounded": (drift, lambda: RewardClipping(-0.1, 9.0)),
    "BinarizeReward": (walker, BinarizeReward),
    "BinarizeReward bounded": (drift, BinarizeReward),
    "BinarizeReward nonzero": (walker, lambda: BinarizeReward(nonzero=True)),
    "SignTransform": (walker, SignTransform),
    "SignTransform bounded": (drift, SignTransform),
    "SignTransform of observations": (walker, lambda: SignTransform(["position", LEFT, RIGHT, "speed"])),
    "SignTransform of all": (drift, lambda: SignTransform(["observation", "reward"])),
    "Rename": (walker, lambda: Rename({"position": "observation"})),
    "Rename nested": (walker, lambda: Rename({LEFT: "left", "speed": ("body", "speed"), "position": ("a", "b", "c")})),
    "Rename a level": (walker, lambda: Rename({"body": ("deep", "down")})),
    "Rename in a circle": (walker, lambda: Rename({LEFT: RIGHT, RIGHT: "speed", "speed": LEFT})),
    "Select": (walker, lambda: Select(["position", RIGHT])),
    "Select a level": (walker, lambda: Select(["body"])),
    "Select all": (drift, lambda: Select(["observation"])),
    "Exclude": (walker, lambda: Exclude(["speed", LEFT])),
    "Exclude a level": (walker, lambda: Exclude([LEFT, RIGHT])),
    "FiniteCheck": (walker, FiniteCheck),
    "FiniteCheck of some": (walker, lambda: FiniteCheck([LEFT, "reward"])),
    "FiniteCheck of doubles": (drift, FiniteCheck),
    "Compose of stateless": (
        walker,
        lambda: Compose(
            FiniteCheck(),
            Exclude(["speed"]),
            Rename({"body": "arms"}),
            CatTensors([("arms", "right"), "position"]),
            Select(["observation"]),
            RewardScaling(0.5),
            RewardClipping(-1.0, 1.0),
            SignTransform(["observation"]),
            ActionScaling(),
        ),
    ),
}
