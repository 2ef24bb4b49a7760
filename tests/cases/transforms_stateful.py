"""Transforms that remember or draw: name -> (make_env(num_envs), make_transform), to be held against the laws."""

import torch

from cases.transform_worlds import camera, crane, drift, walker
from torchrl.data.specs import Categorical, Composite, Unbounded
from torchrl.envs.transforms import (
    ActionScaling,
    CatTensors,
    Compose,
    DeviceCast,
    FrameStack,
    GSDENoise,
    InitTracker,
    LastAction,
    LastReward,
    ObservationStatistics,
    PinMemory,
    RewardScaling,
    RewardSum,
    StepCounter,
    TargetReturn,
    TensorDictPrimer,
    TimeMax,
    VecNorm,
)

LEFT, RIGHT, NEAR = ("body", "left"), ("body", "right"), ("depth", "near")
HIDDEN = {"hidden": Unbounded((2, 3))}


def nested_state():
    return Composite({"lstm": {"h": Unbounded((4,)), "c": Unbounded((4,), torch.float64)}, "task": Categorical(5)})


def chain():
    return [
        StepCounter(max_steps=3),
        VecNorm(["position", LEFT]),
        FrameStack(2, ["position", RIGHT]),
        LastAction(),
        ActionScaling(),
        RewardScaling(2.0),
        RewardSum(),
        TensorDictPrimer(HIDDEN, defaults={"hidden": 1.5}),
        TargetReturn(10.0),
        CatTensors(["position", LEFT, RIGHT, "speed"]),
        LastReward(("last", "reward")),
    ]


CASES = {
    "VecNorm": (drift, VecNorm),
    "VecNorm nested": (walker, lambda: VecNorm(["position", LEFT, RIGHT, "speed"], decay=0.9, eps=1e-3)),
    "VecNorm of bytes": (camera, lambda: VecNorm(["pixels"], decay=1.0)),
    "VecNorm given statistics": (
        walker,
        lambda: VecNorm([LEFT], statistics=ObservationStatistics({"other": (), LEFT: (2,)})),
    ),
    "RewardSum": (walker, RewardSum),
    "RewardSum nested": (walker, lambda: RewardSum(("body", "sum"))),
    "RewardSum of doubles": (drift, lambda: RewardSum(("a", "b"))),
    "StepCounter": (walker, StepCounter),
    "StepCounter nested": (walker, lambda: StepCounter(("info", "steps"))),
    "StepCounter that truncates early": (walker, lambda: StepCounter(max_steps=3)),
    "StepCounter that truncates": (drift, lambda: StepCounter(max_steps=2)),
    "InitTracker": (walker, InitTracker),
    "FrameStack": (drift, lambda: FrameStack(4)),
    "FrameStack nested": (walker, lambda: FrameStack(3, ["position", LEFT, RIGHT])),
    "FrameStack of planes": (camera, lambda: FrameStack(2, ["pixels", NEAR], dim=-3)),
    "FrameStack of one": (walker, lambda: FrameStack(1, ["position"])),
    "TimeMax": (drift, lambda: TimeMax(3)),
    "TimeMax nested": (walker, lambda: TimeMax(2, ["position", LEFT, RIGHT, "speed"])),
    "TimeMax of bytes": (camera, lambda: TimeMax(2, ["pixels", NEAR])),
    "TensorDictPrimer": (walker, lambda: TensorDictPrimer(HIDDEN)),
    "TensorDictPrimer nested": (
        walker,
        lambda: TensorDictPrimer(nested_state(), defaults={("lstm", "h"): torch.arange(4.0), "task": 2}),
    ),
    "TensorDictPrimer of doubles": (drift, lambda: TensorDictPrimer({("a", "b"): Unbounded((), torch.float64)})),
    "TargetReturn": (walker, lambda: TargetReturn(5.0)),
    "TargetReturn constant": (drift, lambda: TargetReturn(torch.tensor([5.0]), "constant", out_key=("to", "go"))),
    "LastAction": (walker, LastAction),
    "LastAction of doubles": (drift, lambda: LastAction(("last", "action"))),
    "LastAction discrete": (camera, LastAction),
    "LastAction nested": (crane, LastAction),
    "LastAction nested, deeper": (crane, lambda: LastAction(("last", "action"))),
    "LastReward": (walker, LastReward),
    "LastReward of doubles": (drift, lambda: LastReward(("last", "reward"))),
    "GSDENoise": (walker, lambda: GSDENoise(4, 2)),
    "GSDENoise redrawn": (drift, lambda: GSDENoise(1, 2, resample_every=3, out_key=("noise", "gsde"))),
    "DeviceCast": (walker, lambda: DeviceCast("cpu")),
    "DeviceCast of nested actions": (crane, lambda: DeviceCast("cpu")),
    "Compose of stateful": (walker, lambda: Compose(*chain())),
    "Compose of noises": (walker, lambda: Compose(GSDENoise(2, 2), GSDENoise(2, 2, out_key="more"))),
}
if torch.cuda.is_available():
    CASES["PinMemory"] = (walker, PinMemory)
