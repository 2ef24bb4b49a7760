"""Every public module: one exported graph serves every batch size, copies and saved weights compute the same.

Of families this is their deterministic side.
"""

import copy
import inspect
import warnings

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import nn

import torchrl.modules
from torchrl.data.specs import Bounded, Categorical as Choice
from torchrl.modules import (
    GRU,
    LSTM,
    MLP,
    Actor,
    ActorCriticOperator,
    ActorCriticWrapper,
    ActorValueOperator,
    AdditiveGaussian,
    BatchRenorm,
    Bernoulli,
    Categorical,
    CenterCrop,
    CompositeDistribution,
    ConvNet,
    Delta,
    Detached,
    Distribution,
    DistributionalQValueActor,
    DuelingHead,
    DuelingMLP,
    EGreedy,
    Encoded,
    Ensemble,
    ExplorationType,
    GSDEHead,
    GSDEMarginal,
    GSDENormal,
    GSDETanhNormal,
    IntrinsicCuriosity,
    MaskedCategorical,
    MaskedOneHotCategorical,
    MultiCategorical,
    NoisyLinear,
    Normal,
    NormalHead,
    ObservationNormalizer,
    OneHotCategorical,
    Operator,
    Options,
    OrnsteinUhlenbeck,
    ParallelHeads,
    PerOption,
    ProbabilisticActor,
    Projected,
    QuantileQValueActor,
    QValueActor,
    RandomNetworkDistillation,
    ResidualConvNet,
    Sequence,
    StateDependentNormalHead,
    TanhDelta,
    TanhHead,
    TanhNormal,
    Transformer,
    TruncatedNormal,
    ValueEnsemble,
    ValueOperator,
    set_exploration_type,
)

SIZES = (1, 8, 5_000)  # 5,000 rows of 64 are where the fast tanh is
BOX = Bounded(low=-1.0, high=2.0, shape=(2,))


def rows(*shapes):
    """Make inputs ``[n, *shape]`` of a number n."""
    return lambda num: tuple(torch.randn(num, *shape) for shape in shapes)


def images(num):
    return (torch.randint(0, 256, (num, 2, 6, 6), dtype=torch.uint8),)


def with_positive(*shapes):
    return lambda num: (*rows(*shapes[:-1])(num), torch.rand(num, *shapes[-1]) + 0.1)


def with_mask(num):
    return torch.randn(num, 3), torch.arange(3).expand(num, 3) < 2


def with_legal(num):
    return torch.randn(num, 4), torch.arange(3).expand(num, 3) < 2


def with_windows(num):
    window = torch.randn(num, 2, 17)
    window[..., -1] = torch.arange(2) < torch.arange(num).unsqueeze(1) % 3  # valid places of each row: 0, 1 or 2
    return torch.randn(num, 4), window, beginnings(num)


def beginnings(num):
    return torch.arange(num).unsqueeze(1) % 2 == 0  # every other row begins an episode


def with_state(*shape):
    return lambda num: (*rows((4,), shape)(num), beginnings(num))


class Chosen(nn.Module):
    """What a family answers without chance."""

    def __init__(self, family, *questions):
        super().__init__()
        self.family, self.questions = family, questions

    def forward(self, *parameters):
        distribution = self.family(*parameters)
        answers = [getattr(distribution, question) for question in self.questions]
        answers = [answer() if callable(answer) else answer for answer in answers]
        return tuple(answer["a"] if isinstance(answer, TensorDict) else answer for answer in answers)


def options():
    """Three options of two actions, without chance between equal ones."""
    network = PerOption(MLP(4, 3 * 2), 3)
    worker = ProbabilisticActor(network, Categorical, in_keys=["observation", ("option", "index")])
    return Options(3, MLP(4, 3), worker, termination=MLP(4, 3), every=4)


def with_options(num):
    """Make rows of which the options 0 to 2 run, or none (3), and their ages."""
    return torch.randn(num, 4), torch.arange(num) % 4, torch.arange(num) % 3


def trunk():
    return Operator(MLP(4, 8), in_keys=["observation"], out_keys=["hidden"])


def actor():
    return ProbabilisticActor(MLP(4, 3), Categorical)


def normal_network():
    return nn.Sequential(MLP(4, 2), NormalHead(2))


def squashed():
    return Actor(nn.Sequential(MLP(4, 2), TanhHead(-1.0, 2.0)))


FOUR = rows((4,))
ASK = ("mode", "mean", "entropy")
MODULES = {
    "Actor": (squashed, FOUR),
    "ActorCriticOperator": (
        lambda: ActorCriticOperator(
            trunk(),
            Actor(MLP(8, 2), in_keys=["hidden"]),
            ValueOperator(MLP(10, 1), in_keys=["hidden", "action"]),
        ),
        FOUR,
    ),
    "ActorCriticWrapper": (lambda: ActorCriticWrapper(actor(), ValueOperator(MLP(4, 1))), FOUR),
    "ActorValueOperator": (
        lambda: ActorValueOperator(
            trunk(),
            ProbabilisticActor(MLP(8, 3), Categorical, in_keys=["hidden"]),
            ValueOperator(MLP(8, 1), in_keys=["hidden"]),
        ),
        FOUR,
    ),
    "AdditiveGaussian": (lambda: AdditiveGaussian(squashed(), BOX), FOUR),
    "BatchRenorm": (lambda: BatchRenorm(4), FOUR),
    "CenterCrop": (lambda: CenterCrop(5), images),
    "ConvNet": (lambda: ConvNet(2, num_cells=(4,), kernel_sizes=(3,), strides=(2,), norm=nn.LayerNorm), images),
    "DistributionalQValueActor": (
        lambda: DistributionalQValueActor(DuelingMLP(4, 3, num_outputs=5), low=0.0, high=1.0),
        FOUR,
    ),
    "DuelingHead": (lambda: DuelingHead(4, 3, num_outputs=5), FOUR),
    "DuelingMLP": (lambda: DuelingMLP(4, 3, num_cells=(64, 64), activation=nn.Tanh), FOUR),
    "EGreedy": (lambda: EGreedy(QValueActor(MLP(4, 3)), Choice(3), num_frames=1), FOUR),
    "Detached": (lambda: Detached(MLP(4, 3)), FOUR),
    "Encoded": (lambda: Encoded(MLP(4, 3), MLP(5, 2)), rows((4,), (2,))),
    "Ensemble": (lambda: Ensemble(lambda: MLP(4, 2, norm=nn.LayerNorm), 3), FOUR),
    "GSDEHead": (lambda: GSDEHead(4, 2), rows((4,), (4, 2))),
    "GSDEMarginal": (lambda: GSDEMarginal(GSDEHead(4, 2)), FOUR),
    "MLP": (lambda: MLP(6, 2), rows((4,), (2,))),
    "NoisyLinear": (lambda: NoisyLinear(4, 2), FOUR),
    "NormalHead": (lambda: NormalHead(4), FOUR),
    "ObservationNormalizer": (lambda: ObservationNormalizer(4), FOUR),
    "Operator": (trunk, FOUR),
    "Options": (options, with_options),
    "OrnsteinUhlenbeck": (lambda: OrnsteinUhlenbeck(squashed(), BOX, num_frames=1), rows((4,), (2,))),
    "ParallelHeads": (lambda: ParallelHeads(nn.Linear(4, 3), normal_network()), FOUR),
    "PerOption": (lambda: PerOption(MLP(4, 4 * 2), 4), lambda num: with_options(num)[:2]),
    "ProbabilisticActor": (lambda: ProbabilisticActor(normal_network(), TanhNormal.within(-1.0, 2.0)), FOUR),
    "Projected": (lambda: Projected(Actor(MLP(4, 2)), BOX), FOUR),
    "GRU": (lambda: GRU(4, 8, num_layers=2), with_state(2, 1, 8)),
    "IntrinsicCuriosity": (
        lambda: IntrinsicCuriosity(MLP(4, 8), MLP(16, 2), MLP(8 + 2, 8), num_actions=None),
        rows((4,), (2,), (4,)),
    ),
    "RandomNetworkDistillation": (lambda: RandomNetworkDistillation(MLP(4, 8), MLP(4, 8), shape=4), FOUR),
    "LSTM": (lambda: LSTM(4, 8), with_state(1, 2, 8)),
    "Transformer": (lambda: Transformer(4, 8, window=3, num_layers=2), with_windows),
    "QValueActor": (lambda: QValueActor(MLP(4, 3), one_hot=True, mask_key="mask"), with_legal),
    "QuantileQValueActor": (lambda: QuantileQValueActor(DuelingMLP(4, 3, num_outputs=5)), FOUR),
    "ResidualConvNet": (lambda: ResidualConvNet(2, num_cells=(4,), num_blocks=1), images),
    "Sequence": (lambda: Sequence(trunk(), Actor(MLP(8, 2), in_keys=["hidden"]), out_keys=["action"]), FOUR),
    "StateDependentNormalHead": (StateDependentNormalHead, FOUR),
    "TanhHead": (lambda: TanhHead(-1.0, torch.arange(4.0)), FOUR),
    "ValueEnsemble": (lambda: ValueEnsemble(lambda: MLP(6, 1), 3), rows((4,), (2,))),
    "ValueOperator": (lambda: ValueOperator(MLP(4, 1)), FOUR),
    "Bernoulli": (lambda: Chosen(Bernoulli, "mode", "entropy"), rows((3,))),
    "Categorical": (lambda: Chosen(Categorical, "mode", "entropy"), rows((3,))),
    "CompositeDistribution": (
        lambda: Chosen(CompositeDistribution.of(a=Categorical, b=TanhNormal.within(-1.0, 2.0)), "mode", "entropy"),
        with_positive((3,), (2,), (2,)),
    ),
    "Delta": (lambda: Chosen(Delta, "mode", "mean"), rows((3,))),
    "GSDENormal": (
        lambda: Chosen(lambda loc, noise, scale: GSDENormal(loc, scale, noise), *ASK),
        with_positive((3,), (3,), (3,)),
    ),
    "GSDETanhNormal": (
        lambda: Chosen(lambda loc, noise, scale: GSDETanhNormal(loc, scale, noise), *ASK),
        with_positive((3,), (3,), (3,)),
    ),
    "MaskedCategorical": (lambda: Chosen(MaskedCategorical, "mode", "entropy"), with_mask),
    "MaskedOneHotCategorical": (lambda: Chosen(MaskedOneHotCategorical, "mode", "entropy"), with_mask),
    "MultiCategorical": (lambda: Chosen(MultiCategorical.of([1, 2]), "mode", "entropy"), rows((3,))),
    "Normal": (lambda: Chosen(Normal, *ASK), with_positive((3,), (3,))),
    "OneHotCategorical": (lambda: Chosen(OneHotCategorical, "mode", "entropy"), rows((3,))),
    "TanhDelta": (lambda: Chosen(TanhDelta.within(-1.0, 2.0), "mode", "mean"), rows((3,))),
    "TanhNormal": (
        lambda: Chosen(TanhNormal.within(-torch.ones(3), torch.arange(3.0)), *ASK),
        with_positive((3,), (3,)),
    ),
    "TruncatedNormal": (lambda: Chosen(TruncatedNormal.within(-1.0, 2.0), *ASK), with_positive((3,), (3,))),
}
# Not to be called, or nothing but chance.
BASES = {"AnnealedExploration", "CuriosityModule", "Distribution", "Memory", "RandomPolicy"}


def test_the_table_has_every_public_module_and_family():
    public = {
        name
        for name, value in vars(torchrl.modules).items()
        if name in torchrl.modules.__all__ and inspect.isclass(value) and issubclass(value, (nn.Module, Distribution))
    }
    assert public - BASES == MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_one_graph_for_all_batch_sizes(name):
    make, make_inputs = MODULES[name]
    torch.manual_seed(0)
    module = make().eval()
    graph = exported(module, make_inputs(3))
    for num in SIZES:
        inputs = make_inputs(num)
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            came, due = graph(*inputs), module(*inputs)
        came, due = ((x,) if isinstance(x, torch.Tensor) else x for x in (came, due))
        for one, other in zip(came, due, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def exported(module, inputs):
    """Export a module for batches of any size; return what runs the graph."""
    batch = torch.export.Dim("batch", min=1)
    each = tuple({0: batch} for _ in inputs)
    names = inspect.signature(module.forward).parameters.values()
    front = [one for one in names if one.kind is one.POSITIONAL_OR_KEYWORD][: len(inputs)]
    shapes = (*each[: len(front)], each[len(front) :]) if len(front) < len(inputs) else each
    with warnings.catch_warnings(), torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        warnings.simplefilter("ignore")
        return torch.export.export(module, inputs, dynamic_shapes=shapes).module()


@pytest.mark.parametrize(
    "name", [name for name, (make, _) in MODULES.items() if any(True for _ in make().parameters())]
)
def test_copies_and_saved_weights_compute_the_same(name):
    make, make_inputs = MODULES[name]
    module, other, inputs = make().eval(), make().eval(), make_inputs(5)
    other.load_state_dict(module.state_dict())
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        for twin in (other, copy.deepcopy(module)):
            torch.testing.assert_close(twin(*inputs), module(*inputs), rtol=0, atol=0)


def test_an_mlp_keeps_its_fast_tanh_outside_of_a_graph():
    x = torch.full((70, 64), 0.5)
    layer = MLP(64, 64, num_cells=(64,))
    hidden = nn.functional.linear(x, layer.layers[0].weight, layer.layers[0].bias)
    fast = (torch.sigmoid(2 * hidden) * 2 - 1) @ layer.layers[2].weight.T + layer.layers[2].bias
    torch.testing.assert_close(layer(x), fast, rtol=0, atol=1e-6)


def test_every_module_of_keys_is_a_module_that_takes_tensors():
    for name, (make, make_inputs) in MODULES.items():
        module = make().eval()
        if not isinstance(module, TensorDictModuleBase):
            continue
        inputs = dict(zip(module.in_keys, make_inputs(5), strict=True))
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            written = module(TensorDict(inputs, batch_size=[5]))
            came = module(**{key if isinstance(key, str) else "_".join(key): x for key, x in inputs.items()})
        due = [written.get(key, None) for key in module.out_keys]
        for one, other in zip(came if len(due) > 1 else (came,), due, strict=True):
            assert one is other is None or torch.allclose(one, other), name
