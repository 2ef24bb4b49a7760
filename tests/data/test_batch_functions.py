"""What is taken for a function of batches, and what is refused where it would be applied to one."""

from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

import torchrl.envs.transforms as transforms
from fakes import CountingEnv
from torchrl.agents import Agent, MinibatchEpochs
from torchrl.collectors import Collector, EpisodeCollector, MultiAsyncCollector, MultiSyncCollector
from torchrl.data import MultiStep
from torchrl.data.replay import ReplayBuffer, TensorStorage
from torchrl.envs import CartPole, SerialEnv
from torchrl.envs.transforms import Compose, RewardClipping, StepCounter, Transform
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import Categorical, ObservationNormalizer, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss


def make_env():
    return SerialEnv(CountingEnv, 2)


def replay(function):
    return ReplayBuffer(TensorStorage(8), transform=function)


def collected(function):
    return Collector(make_env(), frames_per_batch=4, postproc=function)


def whole_episodes(function):
    return EpisodeCollector(make_env(), num_episodes=1, postproc=function)


def collected_together(function):
    return MultiSyncCollector(make_env, frames_per_batch=4, num_workers=1, postproc=function)


def collected_apart(function):
    return MultiAsyncCollector(make_env, frames_per_batch=4, num_workers=1, postproc=function)


def stored(function):
    return Agent(None, None, store=function)


def estimated(function):
    return Agent(None, None, advantage=function)


PLACES = [replay, collected, whole_episodes, collected_together, collected_apart, stored, estimated]


def clipping():
    return RewardClipping(-1.0, 1.0)


MISTAKES = {
    "a transform": clipping,
    "a chain of transforms": lambda: Compose(clipping(), StepCounter()),
    "a transform without forward": StepCounter,
    "torch's chain": lambda: nn.Sequential(nn.Identity(), nn.Sequential(clipping())),
    "a class": lambda: RewardClipping,
    "a method": lambda: clipping().forward,
    "a partial function": lambda: partial(clipping(), torch.zeros(1)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_transform_of_environments_is_refused_where_parts_meet(place, make):
    name = "StepCounter" if make is StepCounter else r"(Compose|RewardClipping)"
    expected = rf"expected a function of a batch, got {name}.*TransformedEnv\(env, {name}\(\.\.\.\)\).*lambda batch"
    with pytest.raises(ConfigError, match=expected):
        place(make())


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_called_is_refused(place):
    with pytest.raises(ConfigError, match=r"a function of a batch, got \[.*second\(first\(batch\)\)"):
        place([MultiStep(3, 0.99), MultiStep(3, 0.99)])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "make", [nn.Tanh, lambda: nn.Linear(4, 2), lambda: nn.ModuleList([nn.Tanh()]), lambda: ObservationNormalizer(4)]
)
def test_a_layer_of_a_network_is_refused(place, make):
    with pytest.raises(ConfigError, match=r"got \w+, a function of tensors.*batch.set\(key, function\("):
        place(make())


def test_a_layer_that_reads_batches_by_key_is_taken():
    critic = ValueOperator(nn.LazyLinear(1))
    identity = nn.Identity()
    assert replay(critic).transform is critic and replay(identity).transform is identity


@pytest.mark.parametrize("function", [torch.tanh, lambda batch: batch.clamp(-1, 1)])
def test_a_function_that_makes_numbers_of_flags_is_refused(function):
    with pytest.raises(SpecError, match=r"postproc: expected flags that stay bool, got \('next', 'done'\) of torch"):
        collected(function).collect()


def test_an_advantage_that_returns_nothing_is_named():
    actor, critic = ProbabilisticActor(nn.Linear(1, 2), Categorical), ValueOperator(nn.Linear(1, 1))
    loss = ClipPPOLoss(actor, critic)
    optimise = MinibatchEpochs(loss, torch.optim.SGD(loss.trainable_parameters(), 0.1), num_epochs=1, minibatch_size=4)
    collector = Collector(CartPole(2), frames_per_batch=4)
    with pytest.raises(SpecError, match="Agent, advantage: expected a TensorDict, got NoneType.*Return the batch"):
        Agent(collector, optimise, advantage=lambda batch: None).train()


def test_a_buffer_in_the_place_of_its_method_is_named():
    with pytest.raises(ConfigError, match="Agent, store: expected a function of a batch, got ReplayBuffer.*extend"):
        stored(ReplayBuffer(TensorStorage(8)))


def public_transforms():
    everything = [getattr(transforms, name) for name in transforms.__all__]
    return [x for x in everything if isinstance(x, type) and issubclass(x, Transform)]


@pytest.mark.parametrize("kind", public_transforms())
def test_every_transform_refuses_a_batch_itself(kind):
    transform = kind.__new__(kind)
    nn.Module.__init__(transform)
    batch = TensorDict({"next": {"reward": torch.full((3, 1), 7.0)}}, [3])
    with pytest.raises(SpecError, match=rf"{kind.__name__}: expected a tensor, got a batch.*TransformedEnv"):
        transform(batch)


def test_a_transform_inside_a_function_is_refused_at_the_first_batch():
    transform = clipping()
    collector = collected(lambda batch: transform(batch))
    with pytest.raises(SpecError, match="RewardClipping: expected a tensor, got a batch"):
        collector.collect()


def test_tensors_go_through_as_before():
    rewards = torch.tensor([[-3.0], [0.5]])
    assert clipping()(rewards).tolist() == [[-1.0], [0.5]]
    assert nn.Sequential(nn.Identity(), clipping())(rewards).tolist() == [[-1.0], [0.5]]


def test_the_line_that_the_message_shows_clips_rewards_and_nothing_else():
    clip = lambda batch: batch.set(("next", "reward"), batch["next", "reward"].clamp(-1, 1))  # noqa: E731
    buffer = replay(clip)
    rows = {"observation": torch.full((4, 1), 9.0), "next": {"reward": torch.full((4, 1), 7.0)}}
    buffer.extend(TensorDict(rows, [4]))
    sample = buffer.sample(3)
    assert sample["next", "reward"].unique().tolist() == [1.0] and sample["observation"].unique().tolist() == [9.0]
    assert sample["replay", "index"].max() < 4 and buffer[:]["next", "reward"].unique().tolist() == [7.0]


@pytest.mark.parametrize("where", ["buffer", "collector"])
def test_a_function_that_returns_nothing_is_named(where):
    batch = TensorDict({"reward": torch.ones(4, 1)}, [4])
    with pytest.raises(SpecError, match="expected a TensorDict, got NoneType.*Return the batch"):
        if where == "buffer":
            buffer = replay(lambda sample: None)
            buffer.extend(batch)
            buffer.sample(2)
        else:
            collected(lambda batch: None).collect()
