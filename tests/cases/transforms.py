"""Every public transform and chains of them, in the worlds in which they are held against the laws.

One entry per class: what is particular about a case -> (make_env(num_envs), make_transform).
"""

import torch
from torch import nn

from cases.transform_worlds import NamedMenu, board, camera, crane, drift, film, menu, menus, walker
from torchrl.data.specs import Categorical, Composite, Unbounded
from torchrl.envs.transforms import (
    ActionClip,
    ActionDiscretizer,
    ActionMask,
    ActionScaling,
    BinarizeReward,
    BitsToFloat,
    CatTensors,
    Compose,
    DeviceCast,
    DiscreteActionProjection,
    DoubleToFloat,
    Exclude,
    FiniteCheck,
    Flatten,
    FrameStack,
    GrayScale,
    GSDENoise,
    LastAction,
    LastReward,
    MaskVelocity,
    ObservationNorm,
    ObservationStatistics,
    OneHotAction,
    OneHotObservation,
    Permute,
    PinMemory,
    Rename,
    Resize,
    RewardBonus,
    RewardClipping,
    RewardNorm,
    RewardScaling,
    ScaleByBounds,
    Select,
    SignTransform,
    Squeeze,
    StepCounter,
    TargetReturn,
    TensorDictPrimer,
    TimeMax,
    Transform,
    Unsqueeze,
    VecNorm,
)
from torchrl.modules import Operator

LEFT, RIGHT, NEAR, LEGAL = ("body", "left"), ("body", "right"), ("depth", "near"), ("info", "legal")
HIDDEN = {"hidden": Unbounded((2, 3))}


def nested_state():
    return Composite({"lstm": {"h": Unbounded((4,)), "c": Unbounded((4,), torch.float64)}, "task": Categorical(5)})


class Total(nn.Module):
    """Weigh the sums of all that it is given, by a frozen parameter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5, dtype=torch.float64), requires_grad=False)

    def forward(self, *inputs):
        return sum((self.weight * x.double()).flatten(-1).sum(-1, keepdim=True) for x in inputs)


def bonus(*in_keys):
    return RewardBonus(Operator(Total(), in_keys=in_keys, out_keys=["bonus"]), coef=-0.3)


def chain():
    return [
        CatTensors(),
        ObservationNorm(torch.arange(8.0), 2.0),
        ActionScaling(),
        RewardNorm(0.9),
        RewardScaling(-2.0, 1.0),
        ActionClip(),
    ]


def stateful_chain():
    return [
        StepCounter(max_steps=3),
        VecNorm(["position", LEFT]),
        FrameStack(2, ["position", RIGHT]),
        LastAction(),
        ActionScaling(),
        RewardScaling(2.0),
        TensorDictPrimer(HIDDEN, defaults={"hidden": 1.5}),
        TargetReturn(10.0),
        CatTensors(["position", LEFT, RIGHT, "speed"]),
        LastReward(("last", "reward")),
    ]


REGISTRY = {
    "ActionClip": {"": (walker, ActionClip)},
    "ActionDiscretizer": {
        "": (walker, lambda: ActionDiscretizer(3)),
        "at both ends": (walker, lambda: ActionDiscretizer([2, 5], at="ends")),
        "of doubles": (drift, lambda: ActionDiscretizer(4, at="low")),
    },
    "ActionMask": {
        "": (menu, lambda: ActionMask(LEGAL)),
        "of several choices": (menus, lambda: ActionMask(LEGAL)),
        "named below": (NamedMenu, lambda: ActionMask(LEGAL)),
    },
    "ActionScaling": {
        "": (walker, ActionScaling),
        "of doubles": (drift, ActionScaling),
    },
    "BinarizeReward": {
        "": (walker, BinarizeReward),
        "bounded": (drift, BinarizeReward),
        "nonzero": (walker, lambda: BinarizeReward(nonzero=True)),
    },
    "BitsToFloat": {
        "": (board, BitsToFloat),
        "beside a mask": (NamedMenu, BitsToFloat),
    },
    "CatTensors": {
        "": (walker, CatTensors),
        "kept": (walker, lambda: CatTensors([LEFT, "position"], ("all", "x"), delete=False)),
        "into one of its own": (walker, lambda: CatTensors([LEFT, "position"], LEFT)),
    },
    "Compose": {
        "of none": (walker, Compose),
        "": (walker, lambda: Compose(*chain())),
        "in Compose": (walker, lambda: Compose(Compose(*chain()[:2]), *chain()[2:4], Compose(*chain()[4:]))),
        "of doubles": (drift, lambda: Compose(DoubleToFloat(), CatTensors(["observation"], "x"), RewardNorm(0.9))),
        "of shapes": (
            camera,
            lambda: Compose(
                Permute((2, 0, 1), ["pixels", NEAR]),
                Squeeze(0, ["pixels"]),
                Unsqueeze(-1, [NEAR]),
                Flatten(in_keys=[NEAR]),
                Flatten(0, 1, in_keys=["pixels"]),
            ),
        ),
        "of images": (
            film,
            lambda: Compose(Resize(4), GrayScale(), Permute((2, 0, 1), ["pixels"]), FrameStack(3, ["pixels"], dim=-3)),
        ),
        "of numbers": (
            board,
            lambda: Compose(
                OneHotObservation(),
                BitsToFloat(),
                ScaleByBounds(),
                Flatten(in_keys=["map", ("hand", "cards"), "clock"]),
                CatTensors(),
            ),
        ),
        "laid out": (
            board,
            lambda: Compose(BitsToFloat(), ScaleByBounds(), CatTensors(["map", ("hand", "cards"), "level"])),
        ),
        "of masks": (
            menu,
            lambda: Compose(
                Rename({"info": "deep"}),
                ActionMask(("deep", "legal")),
                Rename({("deep", "legal"): "legal"}),
                DiscreteActionProjection(5),
                OneHotAction(),
                Select(["legal"]),
            ),
        ),
        "of masks of several choices": (
            menus,
            lambda: Compose(ActionMask(LEGAL), OneHotAction(dtype=torch.bool), Rename({"info": "deep"})),
        ),
        "of choices": (
            walker,
            lambda: Compose(ActionScaling(), ActionDiscretizer([3, 2], at="high"), OneHotAction()),
        ),
        "of stateless": (
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
        "of stateful": (walker, lambda: Compose(*stateful_chain())),
        "of noises": (walker, lambda: Compose(GSDENoise(2, 2), GSDENoise(2, 2, out_key="more"))),
    },
    "DeviceCast": {
        "": (walker, lambda: DeviceCast("cpu")),
        "of nested actions": (crane, lambda: DeviceCast("cpu")),
    },
    "DiscreteActionProjection": {
        "": (camera, lambda: DiscreteActionProjection(7)),
        "of none": (camera, lambda: DiscreteActionProjection(3)),
        "masked": (NamedMenu, lambda: DiscreteActionProjection(6)),
    },
    "DoubleToFloat": {
        "": (drift, DoubleToFloat),
        "without doubles": (walker, DoubleToFloat),
    },
    "Exclude": {
        "": (walker, lambda: Exclude(["speed", LEFT])),
        "a level": (walker, lambda: Exclude([LEFT, RIGHT])),
    },
    "FiniteCheck": {
        "": (walker, FiniteCheck),
        "of doubles": (drift, FiniteCheck),
    },
    "Flatten": {
        "": (camera, lambda: Flatten(in_keys=["pixels", NEAR, "flags"])),
        "some": (camera, lambda: Flatten(-3, 1, in_keys=["pixels", NEAR])),
        "one": (drift, Flatten),
        "a scalar": (walker, lambda: Flatten(in_keys=["speed", "position"])),
    },
    "FrameStack": {
        "": (drift, lambda: FrameStack(4)),
        "nested": (walker, lambda: FrameStack(3, ["position", LEFT, RIGHT])),
        "of planes": (camera, lambda: FrameStack(2, ["pixels", NEAR], dim=-3)),
        "after zeros": (drift, lambda: FrameStack(3, start="zeros")),
    },
    "GSDENoise": {
        "": (walker, lambda: GSDENoise(4, 2)),
        "redrawn": (drift, lambda: GSDENoise(1, 2, resample_every=3, out_key=("noise", "gsde"))),
    },
    "GrayScale": {"": (film, lambda: GrayScale(["pixels", "depth"]))},
    "LastAction": {
        "": (walker, LastAction),
        "of doubles": (drift, lambda: LastAction(("last", "action"))),
        "discrete": (camera, LastAction),
        "nested": (crane, LastAction),
        "nested, deeper": (crane, lambda: LastAction(("last", "action"))),
    },
    "LastReward": {
        "": (walker, LastReward),
        "of doubles": (drift, lambda: LastReward(("last", "reward"))),
    },
    "MaskVelocity": {
        "": (walker, lambda: MaskVelocity([2, 0], ["position"])),
        "nested": (walker, lambda: MaskVelocity([1], ["position", LEFT])),
        "of doubles": (drift, lambda: MaskVelocity([0])),
    },
    "ObservationNorm": {
        "": (walker, lambda: ObservationNorm(torch.tensor([0.3, -1.0, 7.0]), 0.1, ["position"])),
        "nested": (
            walker,
            lambda: ObservationNorm(0.5, 3.0, [LEFT, "speed", RIGHT]),
        ),
        "of doubles": (drift, lambda: ObservationNorm(0.1, torch.tensor([0.1, 2.0]))),
    },
    "OneHotAction": {"": (camera, OneHotAction)},
    "OneHotObservation": {"": (board, OneHotObservation)},
    "Permute": {"": (camera, lambda: Permute((2, 0, 1), ["pixels", NEAR]))},
    "Rename": {
        "": (walker, lambda: Rename({"position": "observation"})),
        "nested": (walker, lambda: Rename({LEFT: "left", "speed": ("body", "speed"), "position": ("a", "b", "c")})),
        "a level": (walker, lambda: Rename({"body": ("deep", "down")})),
        "in a circle": (walker, lambda: Rename({LEFT: RIGHT, RIGHT: "speed", "speed": LEFT})),
    },
    "PinMemory": {"": (walker, PinMemory)},
    "Resize": {
        "": (film, lambda: Resize(3, 2, ["pixels", "depth"])),
        "to more": (film, lambda: Resize(9, in_keys=["depth", "pixels"])),
    },
    "RewardBonus": {
        "": (walker, lambda: bonus(("next", "position"))),
        "of roots": (walker, lambda: bonus(LEFT, "position", "action", ("next", *RIGHT))),
        "of doubles": (drift, lambda: bonus("observation", "action")),
        "of nested actions": (crane, lambda: bonus(("action", "lift"), ("next", "observation"))),
    },
    "RewardClipping": {
        "": (walker, lambda: RewardClipping(-0.1, 2.0)),
        "bounded": (drift, lambda: RewardClipping(-0.1, 9.0)),
    },
    "RewardNorm": {
        "": (walker, lambda: RewardNorm(0.99, clip=1.5)),
        "of doubles": (drift, lambda: RewardNorm(0.99)),
    },
    "RewardScaling": {
        "": (walker, lambda: RewardScaling(0.1, -3.0)),
        "bounded": (drift, lambda: RewardScaling(-0.7, 0.2)),
    },
    "ScaleByBounds": {"": (board, ScaleByBounds)},
    "Select": {
        "": (walker, lambda: Select(["position", RIGHT])),
        "a level": (walker, lambda: Select(["body"])),
        "all": (drift, lambda: Select(["observation"])),
    },
    "SignTransform": {
        "": (walker, SignTransform),
        "bounded": (drift, SignTransform),
        "of observations": (walker, lambda: SignTransform(["position", LEFT, RIGHT, "speed"])),
        "of all": (drift, lambda: SignTransform(["observation", "reward"])),
    },
    "Squeeze": {"": (camera, lambda: Squeeze(0, [NEAR]))},
    "StepCounter": {
        "": (walker, StepCounter),
        "that truncates early": (walker, lambda: StepCounter(max_steps=3)),
        "that truncates": (drift, lambda: StepCounter(max_steps=2)),
    },
    "TargetReturn": {
        "": (walker, lambda: TargetReturn(5.0)),
        "constant": (drift, lambda: TargetReturn(torch.tensor([5.0]), "constant", out_key=("to", "go"))),
    },
    "TensorDictPrimer": {
        "": (walker, lambda: TensorDictPrimer(HIDDEN)),
        "nested": (
            walker,
            lambda: TensorDictPrimer(nested_state(), defaults={("lstm", "h"): torch.arange(4.0), "task": 2}),
        ),
        "of doubles": (drift, lambda: TensorDictPrimer({("a", "b"): Unbounded((), torch.float64)})),
    },
    "TimeMax": {
        "": (drift, lambda: TimeMax(3)),
        "nested": (walker, lambda: TimeMax(2, ["position", LEFT, RIGHT, "speed"])),
        "of bytes": (camera, lambda: TimeMax(2, ["pixels", NEAR])),
    },
    "Unsqueeze": {
        "": (drift, lambda: Unsqueeze(0)),
        "last": (walker, lambda: Unsqueeze(-1, ["speed", LEFT, "position"])),
        "inside": (camera, lambda: Unsqueeze(1, ["pixels", NEAR, "flags"])),
    },
    "VecNorm": {
        "": (drift, VecNorm),
        "nested": (walker, lambda: VecNorm(["position", LEFT, RIGHT, "speed"], decay=0.9, eps=1e-3)),
        "of bytes": (camera, lambda: VecNorm(["pixels"], decay=1.0)),
        "given statistics": (
            walker,
            lambda: VecNorm([LEFT], statistics=ObservationStatistics({"other": (), LEFT: (2,)})),
        ),
    },
    "Transform": {"": (walker, Transform)},
}
if not torch.cuda.is_available():
    del REGISTRY["PinMemory"]
CASES = {f"{name} {what}".strip(): case for name, cases in REGISTRY.items() for what, case in cases.items()}
