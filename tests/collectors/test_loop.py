"""What is written differently in mid-batch: another key, dtype or shape, at any step, whoever collects."""

import pytest
import torch
from tensordict import TensorDict

from fakes import CountingSimulator
from torchrl.collectors import Collector, EpisodeCollector, rollout
from torchrl.collectors.loop import allocate, contiguous_copy
from torchrl.envs import SerialEnv, TransformedEnv
from torchrl.envs.transforms import Transform
from torchrl.errors import SpecError

CHANGES = {
    "new": (("late", torch.zeros(2)), "'late' is new"),
    "new below": (("facts", TensorDict({"a": torch.zeros(2), "b": torch.zeros(2)}, [2])), "'facts/b' is new"),
    "missing": (("value", None), "'value' is missing"),
    "dtype": (("value", torch.zeros(2, 1, dtype=torch.float64)), r"'value' is \[2, 1\] torch.float64"),
    "same size": (("value", torch.zeros(2, 1, dtype=torch.int32)), r"'value' is \[2, 1\] torch.int32"),
    "broadcast": (("wide", torch.zeros(2, 1)), r"'wide' is \[2, 1\] torch.float32"),
    "a leaf for a level": (("facts", torch.zeros(2)), "'facts' is new; 'facts/a' is missing"),
    "a level for a leaf": (("value", TensorDict({"a": torch.zeros(2)}, [2])), "'value' is missing; 'value/a' is new"),
    "observation": (("observation", torch.zeros(2, 1, dtype=torch.float64)), "'observation' is"),
}


class Fickle:
    """Writes two vectors and a level beside its action; one entry differently at one step."""

    def __init__(self, step, entry):
        self.step, self.entry, self.calls = step, entry, 0

    def __call__(self, root):
        root.set("action", torch.zeros(2, dtype=torch.int64))
        root.set("value", torch.zeros(2, 1)).set("wide", torch.zeros(2, 3))
        root.set("facts", TensorDict({"a": torch.zeros(2)}, [2]))
        if self.calls == self.step:
            key, value = self.entry
            root = root.exclude(key) if value is None else root.set(key, value)
        self.calls += 1
        return root


def counting(num_envs=2):
    return SerialEnv([lambda: CountingSimulator(length=8)] * num_envs)


KINDS = {
    "Collector": lambda policy: Collector(counting(), policy, frames_per_batch=16).collect(),
    "EpisodeCollector": lambda policy: EpisodeCollector(counting(), policy, num_episodes=2).collect(),
    "rollout": lambda policy: next(rollout(counting(), policy, n_steps=8)),
    "sticky": lambda policy: next(rollout(counting(), policy, n_steps=8, sticky=True)),
    "env.rollout": lambda policy: counting().rollout(8, policy),
}


@pytest.mark.parametrize("change", [change for change in CHANGES if change != "observation"])
@pytest.mark.parametrize("step", [1, 3, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_that_writes_something_else_at_any_step_is_refused(kind, step, change):
    entry, message = CHANGES[change]
    with pytest.raises(SpecError, match=message):
        KINDS[kind](Fickle(step, entry))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "env.rollout"])
def test_what_a_policy_was_shown_is_compared_too(kind):
    entry, message = CHANGES["observation"]
    with pytest.raises(SpecError, match=message):
        KINDS[kind](Fickle(5, entry))


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_that_writes_the_same_is_let_through(kind):
    KINDS[kind](Fickle(-1, None))


class State:
    """Carries a count under ``next``, as another dtype at one step."""

    def __init__(self):
        self.calls = 0

    def __call__(self, root):
        root.set("action", torch.zeros(2, dtype=torch.int64))
        count = root.get("count", torch.zeros(2, 1))
        root.set("count", count).set(("next", "count"), (count + 1).double() if self.calls == 4 else count + 1)
        self.calls += 1
        return root


def test_state_of_another_dtype_is_refused_at_the_step_that_writes_it():
    with pytest.raises(SpecError, match=r"'next/count' is \[2, 1\] torch.float64") as caught:
        Collector(counting(), State(), frames_per_batch=16).collect()
    assert "'count' is" not in str(caught.value)


class Widening(Transform):
    """Makes the reward of one step a double."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def step(self, next_, root):
        self.calls += 1
        if self.calls == 5:
            next_.set("reward", next_.get("reward").double())


def test_a_transform_that_writes_something_else_is_refused_as_well():
    env = TransformedEnv(counting(), Widening())
    with pytest.raises(SpecError, match=r"'next/reward' is \[2, 1\] torch.float64"):
        Collector(env, frames_per_batch=16).collect()


def test_steps_do_not_lie_a_power_of_two_apart():
    leaves = {"wide": torch.zeros(128, 4), "flags": torch.zeros(128, 4, dtype=torch.bool), "one": torch.zeros(128)}
    batch, steps = allocate(TensorDict(leaves, [128]), 5)
    for number, step in enumerate(steps):
        assert step.update_(TensorDict({name: torch.full_like(leaf, number) for name, leaf in leaves.items()}, [128]))
    for name, leaf in leaves.items():
        view = batch[name]
        assert view.shape == (128, 5, *leaf.shape[1:]) and view[:, 0].is_contiguous()
        assert view.stride(1) * view.element_size() == leaf.numel() * leaf.element_size() + 64
        assert (view[7] == torch.arange(5).view(5, *[1] * (leaf.ndim - 1)).to(leaf.dtype)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.bool, torch.complex64])
def test_copies_are_the_bits_of_what_was_recorded_in_contiguous_memory(dtype):
    shapes = {
        "none": (0,),
        "one": (1,),
        "two": (2,),
        "three": (3,),
        "four": (4,),
        "eight": (8,),
        "flat": (),
        "deep": (2, 2),
    }
    transition = TensorDict({name: torch.zeros(3, *shape, dtype=dtype) for name, shape in shapes.items()}, [3])
    batch, steps = allocate(transition, 4)
    written = torch.stack([transition.apply(lambda leaf: (torch.randn(leaf.shape) * 3).to(dtype)) for _ in steps], 1)
    if dtype.is_floating_point:
        written["four"][1, 2, 3], written["two"][0, 0, 1] = torch.nan, -0.0
    for number, step in enumerate(steps):
        assert step.update_(written[:, number])
    copy = contiguous_copy(batch)
    for name, value in written.items():
        assert copy[name].dtype is dtype and copy[name].shape == value.shape and copy[name].is_contiguous()
        assert copy[name].numpy().tobytes() == value.contiguous().numpy().tobytes()
