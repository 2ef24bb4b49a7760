"""initialise_lazy_: sizes from one call that draws the weights and nothing else."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data.specs import Categorical as CategoricalSpec, Composite, Unbounded
from torchrl.errors import ConfigError, KeyMissing
from torchrl.modules import (
    MLP,
    Actor,
    ActorValueOperator,
    Categorical,
    ConvNet,
    Operator,
    ProbabilisticActor,
    RandomPolicy,
    Sequence,
    ValueOperator,
    initialise_lazy_,
    orthogonal_init_,
)


def make_operator(in_features=None):
    trunk = nn.Sequential(MLP(in_features, 6, num_cells=(8,)), nn.Dropout(0.5), nn.BatchNorm1d(6))
    return ActorValueOperator(
        Operator(trunk, in_keys=["observation"], out_keys=["hidden"]),
        ProbabilisticActor(
            MLP(6, 3, num_cells=()), Categorical, in_keys=["hidden"], generator=torch.Generator().manual_seed(3)
        ),
        ValueOperator(MLP(6, 1, num_cells=()), in_keys=["hidden"]),
    )


def make_root():
    return TensorDict({"observation": torch.ones(2, 4)}, [2])


def test_the_weights_are_those_of_known_sizes_and_nothing_else_is_drawn():
    torch.manual_seed(0)
    lazy = make_operator()
    root = make_root()
    states = torch.get_rng_state(), lazy.actor[1].generator.get_state()
    lazy.actor[0].module[1].eval()
    flags = [part.training for part in lazy.modules()]
    assert initialise_lazy_(lazy, root) is lazy
    after = torch.get_rng_state()
    torch.set_rng_state(states[0])
    known = nn.Linear(4, 8)
    assert torch.equal(lazy.common.module[0].layers[0].weight, known.weight)
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(lazy.actor[1].generator.get_state(), states[1])
    assert [part.training for part in lazy.modules()] == flags
    assert list(root.keys()) == ["observation"] and not lazy.common.module[2].num_batches_tracked


def test_afterwards_copies_losses_and_other_weights_find_sizes():
    operator = initialise_lazy_(make_operator(), make_root())
    orthogonal_init_(operator.common, last_gain=1.0)
    other = make_operator(4)
    other.load_state_dict(operator.state_dict())
    root = make_root()
    other.eval(), operator.eval()
    torch.testing.assert_close(other.critic(root.copy())["state_value"], operator.critic(root.copy())["state_value"])


def test_a_root_can_come_from_a_spec():
    spec = Composite({"pixels": Unbounded(shape=(2, 3, 40, 40)), "observation": Unbounded(shape=(2, 5))}, shape=(2,))
    actor = Sequence(
        Operator(ConvNet(), in_keys=["pixels"], out_keys=["hidden"]),
        Actor(MLP(None, 2), in_keys=["hidden", "observation"]),
    )
    initialise_lazy_(actor, spec.zero())
    assert actor[0].module.layers[0].in_channels == 3
    assert actor[1].module.layers[0].in_features == actor[0].module.num_features(40, 40) + 5


def test_modules_of_known_sizes_are_not_called():
    policy = RandomPolicy(CategoricalSpec(3, shape=(2,)))
    actor = Actor(MLP(3, 2))  # a call would fail: the root has four features
    before = torch.get_rng_state()
    assert initialise_lazy_(policy, make_root()) is policy and initialise_lazy_(actor, make_root()) is actor
    assert torch.equal(torch.get_rng_state(), before)


def test_flags_are_put_back_after_a_failure():
    actor = Actor(MLP(None, 2), in_keys=["state"])
    with pytest.raises(KeyMissing, match="state"):
        initialise_lazy_(actor, make_root())
    assert actor.training and actor.module.training


def test_layers_out_of_reach_and_other_roots_are_refused():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = MLP(None, 2), MLP(None, 2)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ConfigError, match=r"lazy \['module.unused.layers.0.weight', 'module.unused.layers.0.bias'\]"):
        initialise_lazy_(Actor(Half()), make_root())
    with pytest.raises(ConfigError, match="expected a TensorDict of observations, got Tensor"):
        initialise_lazy_(Actor(MLP(None, 2)), torch.zeros(2, 4))
