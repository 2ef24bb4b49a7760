"""Batches in whatever form a user has them: locked, lazily stacked, in files, shared, named, out of order in memory."""

import copy

import pytest
import torch
from tensordict import TensorDict, lazy_stack
from torch import nn

from torchrl.agents import MinibatchEpochs, RewardScale
from torchrl.collectors import Collector, EpisodeCollector
from torchrl.data import (
    MultiStep,
    MultiStepStream,
    Reward2Go,
    alive_at,
    last_step,
    lengths_of,
    pack,
    split_trajectories,
    time_slice,
)
from torchrl.data.replay import (
    KeepBest,
    ListStorage,
    MemmapStorage,
    PrioritizedSampler,
    ReplayBuffer,
    SliceSampler,
    StackedFrames,
    TensorStorage,
)
from torchrl.envs import GymEnv
from torchrl.errors import SpecError, StorageError
from torchrl.modules import (
    MLP,
    ActorCriticWrapper,
    Categorical,
    EGreedy,
    ProbabilisticActor,
    QValueActor,
    RandomPolicy,
    Sequence,
    ValueOperator,
)
from torchrl.objectives import (
    GAE,
    TD0,
    A2CLoss,
    BehaviourCloningLoss,
    ClipPPOLoss,
    DiscountedReturn,
    DQNLoss,
    KLPenaltyPPOLoss,
    NStepReturn,
    ReinforceLoss,
    TDLambda,
    VTrace,
)

FORMS = {
    "lazy over rows": lambda batch, _: lazy_stack([row.clone() for row in batch.unbind(0)], 0),
    "lazy over time": lambda batch, _: lazy_stack([step.clone() for step in batch.unbind(-1)], -1),
    "named": lambda batch, _: TensorDict(batch.to_dict(), batch.batch_size, names=["rows", "time"]),
    "time first": lambda batch, _: batch.transpose(0, 1).contiguous().transpose(0, 1),
    "a view": lambda batch, _: torch.cat([batch, batch], -1)[..., : batch.shape[-1]],
    "locked": lambda batch, _: batch.clone().lock_(),
    "in files": lambda batch, folder: batch.memmap(str(folder / "batch")),
    "shared": lambda batch, _: batch.clone().share_memory_(),
}
LOCKED = {"locked", "in files", "shared"}
ACTOR, CRITIC, Q = (
    ProbabilisticActor(MLP(4, 2), Categorical),
    ValueOperator(MLP(4, 1)),
    QValueActor(MLP(4, 2)),
)
SPEC = GymEnv("CartPole-v1").action_spec


def make_env():
    return GymEnv("CartPole-v1", num_envs=2)


@pytest.fixture(scope="module")
def steps():
    return Collector(make_env(), ACTOR, frames_per_batch=48, seed=0).collect()


@pytest.fixture(scope="module")
def episodes():
    return EpisodeCollector(make_env(), ACTOR, num_episodes=3, seed=0).collect()


def assert_same(came, due):
    if isinstance(due, tuple):
        for one, other in zip(came, due, strict=True):
            assert_same(one, other)
        return
    if isinstance(due, torch.Tensor):
        assert torch.equal(came, due)
        return
    for key, value in due.items(include_nested=True, leaves_only=True):
        torch.testing.assert_close(came.get(key), value, equal_nan=True, msg=str(key))


ESTIMATORS = {
    "GAE": lambda: GAE(CRITIC),
    "TD0": lambda: TD0(CRITIC),
    "TDLambda": lambda: TDLambda(CRITIC),
    "NStepReturn": lambda: NStepReturn(CRITIC, n=2),
    "DiscountedReturn": lambda: DiscountedReturn(CRITIC),
    "DiscountedReturn alone": lambda: DiscountedReturn(None),
    "VTrace": lambda: VTrace(ACTOR, CRITIC),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimators_write_into_every_form_or_refuse_before_anything_is_written(estimator, form, episodes, tmp_path):
    batch, estimate = FORMS[form](episodes, tmp_path), ESTIMATORS[estimator]()
    due = estimate(episodes.clone())
    if form not in LOCKED:
        assert_same(estimate(batch), due)
        return
    before = batch.clone()
    with pytest.raises(SpecError, match=r"got a locked one\. Give it batch\.copy\(\)"):
        estimate(batch)
    assert set(batch.keys(True, True)) == set(before.keys(True, True))
    assert_same(estimate(batch.copy()), due)


FUNCTIONS = {
    "MultiStep": lambda: MultiStep(3, 0.9),
    "Reward2Go": lambda: Reward2Go(gamma=0.9),
    "alive_at": lambda: lambda batch: alive_at(batch, 2),
    "last_step": lambda: last_step,
    "lengths_of": lambda: lengths_of,
    "pack": lambda: lambda batch: pack(batch)[0],
    "time_slice": lambda: lambda batch: time_slice(batch, 1, 4),
}
STREAMS = {
    "MultiStepStream": lambda: MultiStepStream(3, 0.9),
    "split_trajectories": lambda: split_trajectories,
}


@pytest.mark.parametrize("form", FORMS)
def test_functions_of_batches_take_every_form(form, episodes, steps, tmp_path):
    for names, whole in ((FUNCTIONS, episodes), (STREAMS, steps)):
        batch = FORMS[form](whole, tmp_path / ("steps" if whole is steps else "episodes"))
        for make in names.values():
            assert_same(make()(batch), make()(whole.clone()))


LOSSES = {
    "ClipPPOLoss": lambda: ClipPPOLoss(ACTOR, CRITIC),
    "KLPenaltyPPOLoss": lambda: KLPenaltyPPOLoss(ACTOR, CRITIC),
    "A2CLoss": lambda: A2CLoss(ACTOR, CRITIC),
    "ReinforceLoss": lambda: ReinforceLoss(ACTOR, CRITIC),
    "BehaviourCloningLoss": lambda: BehaviourCloningLoss(ACTOR),
    "DQNLoss": lambda: DQNLoss(Q),
}


@pytest.mark.parametrize("form", FORMS)
def test_losses_and_what_trains_take_every_form(form, steps, tmp_path):
    whole = GAE(CRITIC)(steps.clone())
    batch = FORMS[form](whole, tmp_path)
    for make in LOSSES.values():
        assert_same(make()(batch), make()(whole))
    loss = ClipPPOLoss(ACTOR, CRITIC)
    still = torch.optim.SGD(loss.trainable_parameters(), lr=0.0)
    MinibatchEpochs(loss, still, num_epochs=1, minibatch_size=16)(batch)
    RewardScale(gamma=0.9).update(batch)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("storage", ["list", "tensor", "files"])
def test_storages_take_every_form(storage, form, steps, tmp_path):
    make = {"list": ListStorage, "tensor": TensorStorage, "files": lambda num: MemmapStorage(num, tmp_path / "items")}
    buffer = ReplayBuffer(make[storage](100), seed=0)
    buffer.extend(FORMS[form](steps, tmp_path))
    plain = ReplayBuffer(TensorStorage(100), seed=0)
    plain.extend(steps.clone())
    assert_same(buffer.sample(8).exclude("replay"), plain.sample(8).exclude("replay"))
    buffer.close()


MODULES = {
    "actor": lambda: ACTOR,
    "critic": lambda: CRITIC,
    "values": lambda: Q,
    "sequence": lambda: Sequence(ACTOR, CRITIC),
    "both": lambda: ActorCriticWrapper(ACTOR, CRITIC),
    "explorer": lambda: EGreedy(Q, SPEC, num_frames=3),
    "random": lambda: RandomPolicy(SPEC),
}


@pytest.mark.parametrize("form", FORMS)
def test_modules_write_into_every_form_or_say_what_to_give(form, steps, tmp_path):
    for make in MODULES.values():
        batch = FORMS[form](steps, tmp_path)
        if form in LOCKED:
            with pytest.raises(SpecError, match=r"can be written to, got a locked one\. Call the module on tensordict"):
                make()(batch)
            batch = batch.copy()
        make()(batch)


def buffers():
    frames = StackedFrames("observation", num_frames=2, dim=-1)
    yield ReplayBuffer(ListStorage(50), seed=0)
    yield ReplayBuffer(TensorStorage(50), seed=0)
    yield ReplayBuffer(TensorStorage(50), sampler=PrioritizedSampler(alpha=0.6, beta=0.4), seed=0)
    yield ReplayBuffer(TensorStorage(50), sampler=SliceSampler(slice_len=2), seed=0, batch_size=4)
    yield ReplayBuffer(TensorStorage(50), seed=0, prefetch=2, transform=lambda sample: sample.exclude("logits"))
    yield ReplayBuffer(TensorStorage(50, frames=[frames]), seed=0)


def stacked(steps):
    """Give each step an observation of two frames, the second of which is the next step's first."""
    batch = steps.select(
        "is_init", "collector", ("next", "done"), ("next", "terminated"), ("next", "truncated")
    ).clone()
    number = torch.arange(24.0).expand(2, 24)
    begins = batch["is_init"].squeeze(-1)
    older = torch.where(begins, number, number - 1)
    batch["observation"] = torch.stack([older, number], -1)
    batch["next", "observation"] = torch.stack([number, number + 1], -1)
    return batch


def test_a_copy_of_a_buffer_goes_on_alike_and_on_its_own(steps):
    for buffer in buffers():
        batch = stacked(steps) if getattr(buffer.storage, "frames", None) else steps
        buffer.extend(batch)
        buffer.sample(4)
        twin = copy.deepcopy(buffer)
        assert len(twin) == len(buffer) == 48 and repr(twin) == repr(buffer)
        for _ in range(3):
            assert_same(twin.sample(4), buffer.sample(4))
        before = buffer.sample(4) if buffer.prefetch == 0 else None
        twin.empty()
        assert len(buffer) == 48 and len(twin) == 0
        assert before is None or buffer.sample(4).batch_size == before.batch_size
        buffer.close(), twin.close()


def test_a_copy_of_an_empty_buffer_is_empty_and_one_over_files_is_refused(tmp_path, steps):
    twin = copy.deepcopy(ReplayBuffer(TensorStorage(10), writer=KeepBest("value"), seed=0))
    assert len(twin) == 0 and isinstance(twin.writer, KeepBest) and twin.writer is not None
    buffer = ReplayBuffer(MemmapStorage(100, tmp_path / "items"))
    buffer.extend(steps)
    with pytest.raises(StorageError, match=r"expected a storage in memory, which.* buffer\.save\(folder\)"):
        copy.deepcopy(buffer)
    assert len(buffer) == 48
    buffer.close()


def test_a_networks_copy_beside_a_buffers_is_apart():
    part = {"buffer": ReplayBuffer(TensorStorage(10), seed=0), "network": nn.Linear(2, 2)}
    twin = copy.deepcopy(part)
    assert twin["buffer"] is not part["buffer"] and torch.equal(twin["network"].weight, part["network"].weight)
