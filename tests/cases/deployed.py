"""Policies to hand over, one of each kind, with a world that shows random observations and notes what it is sent."""

import functools

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data.specs import Binary, Bounded, Categorical as Choice, Composite, MultiCategorical, Unbounded
from torchrl.envs import Compose, Env, TransformedEnv
from torchrl.envs.transforms import (
    ActionClip,
    ActionDiscretizer,
    ActionMask,
    ActionScaling,
    CatTensors,
    FrameStack,
    GrayScale,
    GSDENoise,
    LastAction,
    OneHotAction,
    OneHotObservation,
    Permute,
    Resize,
    RewardScaling,
    ScaleByBounds,
    TensorDictPrimer,
    VecNorm,
)
from torchrl.modules import (
    GRU,
    LSTM,
    MLP,
    Actor,
    AdditiveGaussian,
    Bernoulli,
    Categorical,
    CompositeDistribution,
    ConvNet,
    DuelingHead,
    EGreedy,
    GSDEHead,
    GSDETanhNormal,
    MaskedCategorical,
    MultiCategorical as MultiChoice,
    Normal,
    NormalHead,
    ObservationNormalizer,
    OneHotCategorical,
    Operator,
    Options,
    ParallelHeads,
    PerOption,
    ProbabilisticActor,
    QValueActor,
    Sequence,
    TanhHead,
    TanhNormal,
    Transformer,
)

SENSES = Unbounded((4,))
TORQUES = Bounded(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 5.0]), (2,))


class World(Env):
    """Rows of random observations; every third step the second row ends.

    Attributes:
        shown: the observations to act on, ``[N]``, as the simulators have them.
        received: the last actions.
    """

    def __init__(self, num_rows, observation, action, mask_key=None):
        observation = observation if isinstance(observation, Composite) else Composite({"observation": observation})
        super().__init__(
            batch_size=[num_rows],
            observation_spec=observation.expand(num_rows),
            action_spec=action.expand(num_rows, *action.shape),
        )
        self.action_mask_key = mask_key
        self.generator = torch.Generator().manual_seed(num_rows)
        self.shown = self.received = None
        self.num_steps = 0

    def reset_rows(self, mask, *, seeds, options):
        root = self.observe()
        if mask is not None:
            root = TensorDict({}, self.batch_size).update(self.shown)
        self.shown = root.clone()
        return self.with_figures(root, begins=torch.ones(self.batch_size) if mask is None else mask)

    def step_rows(self, tensordict):
        self.received = tensordict["action"].clone()
        self.num_steps += 1
        self.shown = self.observe()
        done = torch.zeros(*self.batch_size, 1, dtype=torch.bool)
        done[1:2] = self.num_steps % 3 == 0
        next_ = self.shown.clone().update(
            {
                "reward": torch.ones(*self.batch_size, 1),
                "terminated": done,
                "truncated": torch.zeros_like(done),
                "done": done,
            }
        )
        return next_, self.with_figures(self.shown.clone(), begins=torch.zeros(self.batch_size)), bool(done.any())

    def observe(self):
        root = TensorDict({}, self.batch_size)
        for key, leaf in self.observation_spec.leaves():
            value = leaf.rand(generator=self.generator)
            if key == self.action_mask_key:
                value[..., 0] = True
            root.set(key, value)
        return root

    def with_figures(self, root, begins):
        return root.set("is_init", begins.bool().unsqueeze(-1))


def world(observation, action, *transforms, mask_key=None):
    """Make a function from a number of rows to a world, with new transforms around it."""

    def make(num_rows):
        env = World(num_rows, observation, action, mask_key)
        made = [transform() for transform in transforms]
        return TransformedEnv(env, Compose(*made)) if made else env

    return make


def normal(num_in=4, num_out=2, family=Normal, **options):
    return ProbabilisticActor(
        nn.Sequential(MLP(num_in, num_out), NormalHead(num_out, init_log_std=-0.7)), family, **options
    )


def normalised():
    normalizer = ObservationNormalizer(4)
    normalizer.update(3 * torch.randn(64, 4) + 1)
    return ProbabilisticActor(nn.Sequential(normalizer, MLP(4, 3)), Categorical)


def gsde():
    trunk = Operator(nn.Sequential(MLP(4, 8), nn.Tanh()), in_keys=["observation"], out_keys=["hidden"])
    head = GSDEHead(8, 2, init_log_std=-1.0)
    return Sequence(
        trunk,
        ProbabilisticActor(head, GSDETanhNormal.within(TORQUES.low, TORQUES.high), in_keys=["hidden", "gsde_noise"]),
    )


def pictured():
    encoder = ConvNet(3, num_cells=(4,), kernel_sizes=(3,), strides=(2,))
    return QValueActor(
        nn.Sequential(encoder, DuelingHead(encoder(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape[-1], 3))
    )


def nested():
    family = CompositeDistribution.of(steer=Categorical, feet={"gas": TanhNormal})
    network = ParallelHeads(MLP(7, 3), nn.Sequential(MLP(7, 1), NormalHead(1)))
    return ProbabilisticActor(network, family)


def remembering(memory):
    return Sequence(memory, ProbabilisticActor(MLP(8, 3), Categorical, in_keys=["hidden"]))


def options():
    worker = ProbabilisticActor(PerOption(MLP(4, 3 * 2), 3), Categorical, in_keys=["observation", ("option", "index")])
    return Options(3, MLP(4, 3), worker, termination=MLP(4, 3), every=4)


MEMORIES = {
    "LSTM": lambda: LSTM(4, 8),
    "GRU": lambda: GRU(4, 8, num_layers=2, learn_initial_state=True),
    "transformer": lambda: Transformer(4, 8, window=3),
}
BODY = Composite({"joints": {"left": Unbounded((2,)), "right": Unbounded((2,))}, "gait": Choice(3)})
PARTS = Composite({"steer": Choice(3), "feet": Composite({"gas": Bounded(-1.0, 1.0, (1,))})})
LEGAL = Composite({"observation": SENSES, "legal": Binary((3,), torch.bool)})

# kind -> (make policy, make env of a number of rows)
KINDS = {
    "categorical": (normalised, world(SENSES, Choice(3), lambda: RewardScaling(2.0))),
    "one-hot": (lambda: ProbabilisticActor(MLP(4, 3), OneHotCategorical), world(SENSES, Choice(3), OneHotAction)),
    "multi-categorical": (
        lambda: ProbabilisticActor(MLP(4, 5), MultiChoice.of([2, 3])),
        world(SENSES, MultiCategorical([2, 3])),
    ),
    "bernoulli": (lambda: ProbabilisticActor(MLP(4, 3), Bernoulli), world(SENSES, Binary((3,)))),
    "masked": (
        lambda: ProbabilisticActor(MLP(4, 3), MaskedCategorical, mask_key="legal"),
        world(LEGAL, Choice(3), lambda: ActionMask("legal"), mask_key="legal"),
    ),
    "normal": (normal, world(SENSES, TORQUES, VecNorm, ActionClip)),
    "tanh-normal": (lambda: normal(family=TanhNormal), world(SENSES, TORQUES, ActionScaling)),
    "tanh-normal by dimension": (
        lambda: normal(family=TanhNormal.within(TORQUES.low, TORQUES.high)),
        world(SENSES, TORQUES),
    ),
    "gSDE": (gsde, world(SENSES, TORQUES, lambda: GSDENoise(8, 2, resample_every=4))),
    "deterministic": (
        lambda: AdditiveGaussian(Actor(nn.Sequential(MLP(4, 2), TanhHead(TORQUES.low, TORQUES.high))), TORQUES),
        world(SENSES, TORQUES),
    ),
    "Q values": (
        lambda: EGreedy(QValueActor(MLP(9, 3)), Choice(3), num_frames=10),
        world(
            Composite({"number": Bounded(0, 8, (1,), torch.int32), "choice": Choice(8)}),
            Bounded(-2.0, 2.0, (1,)),
            OneHotObservation,
            lambda: ScaleByBounds(["number"]),
            CatTensors,
            lambda: ActionDiscretizer(3),
        ),
    ),
    "dueling from pictures": (
        pictured,
        world(
            Composite({"observation": Bounded(0, 255, (12, 10, 3), torch.uint8)}),
            Choice(3),
            lambda: Resize(8, in_keys=["observation"]),
            lambda: GrayScale(["observation"]),
            lambda: Permute((2, 0, 1), ["observation"]),
            lambda: FrameStack(3, dim=-3),
        ),
    ),
    "nested": (nested, world(BODY, PARTS, OneHotObservation, CatTensors)),
    "last action": (
        lambda: normal(12),
        world(SENSES, TORQUES, LastAction, CatTensors, lambda: FrameStack(2, start="zeros")),
    ),
    "options": (options, world(SENSES, Choice(2), lambda: TensorDictPrimer(options().initial_state()))),
    **{
        name: (
            functools.partial(lambda make: remembering(make()), make),
            world(SENSES, Choice(3), functools.partial(lambda make: TensorDictPrimer(make().initial_state()), make)),
        )
        for name, make in MEMORIES.items()
    },
}
