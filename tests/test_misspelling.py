"""Methods that nobody would ever call are refused where the class is made; helpers are left alone."""

import pytest

from torchrl.agents import Hook
from torchrl.data.replay import UniformSampler
from torchrl.data.replay.samplers import Sampler
from torchrl.data.replay.storages import Storage
from torchrl.data.replay.writers import Writer
from torchrl.envs import Env, SerialEnv, TorchEnv
from torchrl.envs.simulators import Simulator
from torchrl.envs.simulators.base import SimulatorWrapper
from torchrl.envs.transforms import ActionTransform, ObservationTransform, RewardTransform, StepCounter, Transform
from torchrl.errors import ConfigError
from torchrl.misspelling import refuse_misspelt
from torchrl.modules import AnnealedExploration, EGreedy, ProbabilisticActor, RandomPolicy, ValueOperator
from torchrl.modules.distributions import Distribution
from torchrl.objectives import Loss, PPOLoss, ReturnEstimator
from torchrl.record import Logger


def nothing(self, *arguments):
    return None


MISSPELT = [
    (Transform, "rest", "reset"),
    (Transform, "setp", "step"),
    (Transform, "reset_", "reset"),
    (Transform, "_step", "step"),
    (Transform, "inverze", "inverse"),
    (Transform, "observation_specs", "observation_spec"),
    (Transform, "_apply_transform", "step"),
    (Transform, "observation", "step"),
    (Transform, "end_episodes", "ends_episodes"),
    (StepCounter, "advence", "advance"),
    (RewardTransform, "foward", "forward"),
    (ObservationTransform, "transform_specs", "transform_spec"),
    (ActionTransform, "forwards", "forward"),
    (Env, "step_row", "step_rows"),
    (Env, "_step", "step_rows"),
    (Env, "_set_seed", "reset_rows, which is given the seeds"),
    (SerialEnv, "rendr", "render"),
    (TorchEnv, "dynamic", "dynamics"),
    (Simulator, "get_sate", "get_state"),
    (Simulator, "seed", "reset, which is given the seed"),
    (SimulatorWrapper, "_own_sate", "_own_state"),
    (Hook, "n_batch", "on_batch"),
    (Loss, "term", "terms"),
    (PPOLoss, "terms_", "terms"),
    (ReturnEstimator, "estimates", "estimate"),
    (Logger, "log_scalar", "log_scalars"),
    (Sampler, "drawn", "draw"),
    (UniformSampler, "update_priorty", "update_priority"),
    (Writer, "on_priorty", "on_priority"),
    (Storage, "prepaer", "prepare"),
    (Distribution, "log_pro", "log_prob"),
    (Distribution, "entropi", "entropy"),
    (ProbabilisticActor, "foward", "forward"),
    (ValueOperator, "forwrad", "forward"),
    (AnnealedExploration, "explores", "explore"),
    (EGreedy, "setp", "step"),
    (RandomPolicy, "foward", "forward"),
]


@pytest.mark.parametrize(("base", "name", "meant"), MISSPELT)
@pytest.mark.parametrize("kind", [lambda function: function, property, staticmethod, lambda function: True])
def test_a_name_that_is_one_letter_off_is_refused_with_the_one_that_was_meant(base, name, meant, kind):
    with pytest.raises(ConfigError, match=f"Mine: .* got '{name}', which nobody would call. Did you mean '{meant}'"):
        type("Mine", (base,), {name: kind(nothing)})


@pytest.mark.parametrize("base", sorted({base for base, _, _ in MISSPELT}, key=lambda base: base.__name__))
def test_other_names_are_the_users_own(base):
    type("Mine", (base,), {"restart_count": nothing, "_helper": nothing, "scale": 2.0, "__call__": nothing})


def test_a_helper_that_the_class_calls_is_left_alone():
    class Mine(Transform):
        def step(self, next_, root):
            return [self.rest(key) for key in root.keys()]

        def rest(self, key):
            return key

    class Counted(Transform):
        @property
        def _reset(self):
            return 3

        @classmethod
        def build(cls):
            return cls()._reset

    assert Mine().step({}, {"a": 1}) == ["a"] and Counted.build() == 3


def test_a_forward_that_nobody_calls_is_refused():
    with pytest.raises(ConfigError, match="Mine: .* got a forward, which nobody would call. Write step and reset"):
        type("Mine", (Transform,), {"forward": nothing})
    with pytest.raises(ConfigError, match="a forward, which nobody would call"):
        type("Mine", (StepCounter,), {"forward": nothing})
    for base in (RewardTransform, ObservationTransform, ActionTransform):
        type("Deeper", (type("Mine", (base,), {"forward": nothing}),), {"forward": nothing})

    class Own(Transform):
        def step(self, next_, root):
            self.forward(next_)

        def forward(self, x):
            return x

    type("Deeper", (Own,), {"forward": nothing})


@pytest.mark.parametrize(
    ("name", "is_near"),
    [("reset", False), ("rset", True), ("ersets", False), ("resetx", True), ("xreset", True), ("rseet", True)]
    + [("resut", True), ("rest", True), ("restart", False), ("reseted", False), ("preset_", False), ("ereset", True)],
)
def test_what_counts_as_one_letter(name, is_near):
    class Base:
        __module__ = "torchrl.x"
        reset = nothing

    own = type("Mine", (Base,), {name: nothing})
    if is_near:
        with pytest.raises(ConfigError, match="Did you mean 'reset'"):
            refuse_misspelt(own)
    else:
        refuse_misspelt(own)
