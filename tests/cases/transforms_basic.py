"""The transforms of the straight line: a world and a maker for each, to be held against the laws."""

import torch

from cases.transform_worlds import drift, walker
from torchrl.envs.transforms import (
    ActionClip,
    ActionScaling,
    CatTensors,
    Compose,
    DoubleToFloat,
    ObservationNorm,
    RewardNorm,
    RewardScaling,
    Transform,
)


def chain():
    return [
        CatTensors(),
        ObservationNorm(torch.arange(8.0), 2.0),
        ActionScaling(),
        RewardNorm(0.9),
        RewardScaling(-2.0, 1.0),
        ActionClip(),
    ]


CASES = {
    "nothing": (walker, Transform),
    "DoubleToFloat": (drift, DoubleToFloat),
    "DoubleToFloat without doubles": (walker, DoubleToFloat),
    "CatTensors": (walker, CatTensors),
    "CatTensors named": (walker, lambda: CatTensors(["speed", ("body", "right")], "observation")),
    "CatTensors kept": (walker, lambda: CatTensors([("body", "left"), "position"], ("all", "x"), delete=False)),
    "CatTensors into one of its own": (walker, lambda: CatTensors([("body", "left"), "position"], ("body", "left"))),
    "ObservationNorm": (walker, lambda: ObservationNorm(torch.tensor([0.3, -1.0, 7.0]), 0.1, ["position"])),
    "ObservationNorm nested": (
        walker,
        lambda: ObservationNorm(0.5, 3.0, [("body", "left"), "speed", ("body", "right")]),
    ),
    "ObservationNorm of doubles": (drift, lambda: ObservationNorm(0.1, torch.tensor([0.1, 2.0]))),
    "RewardScaling": (walker, lambda: RewardScaling(0.1, -3.0)),
    "RewardScaling bounded": (drift, lambda: RewardScaling(-0.7, 0.2)),
    "RewardNorm": (walker, lambda: RewardNorm(0.99, clip=1.5)),
    "RewardNorm of doubles": (drift, lambda: RewardNorm(0.99)),
    "ActionScaling": (walker, ActionScaling),
    "ActionScaling of doubles": (drift, ActionScaling),
    "ActionClip": (walker, ActionClip),
    "Compose of none": (walker, Compose),
    "Compose": (walker, lambda: Compose(*chain())),
    "Compose in Compose": (walker, lambda: Compose(Compose(*chain()[:2]), *chain()[2:4], Compose(*chain()[4:]))),
    "Compose of doubles": (drift, lambda: Compose(DoubleToFloat(), CatTensors(["observation"], "x"), RewardNorm(0.9))),
}
