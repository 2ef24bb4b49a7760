"""The law of cuts: into how many batches a stream is cut changes nothing, for everything that takes batches."""

import importlib
import inspect
import pkgutil
from functools import lru_cache, partial
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict

import torchrl.data
import torchrl.data.replay
from cases.losses import network
from fakes import CountingSimulator
from torchrl import agents
from torchrl.agents import (
    AdaptPenalty,
    Agent,
    Anneal,
    Figures,
    Hook,
    MinibatchEpochs,
    ProgressBar,
    ReplayUpdates,
    RewardScale,
    StepExploration,
    SuccessShare,
    UpdateNormalizer,
    episode_statistics,
)
from torchrl.agents.parts import GradientSteps
from torchrl.agents.sequences import valid_rows, valid_sequences
from torchrl.agents.statistics import MeanMetrics, num_valid_frames, policy_lag, value_statistics
from torchrl.collectors import Collector
from torchrl.data import (
    EpisodeStream,
    HindsightRelabel,
    MultiStep,
    MultiStepStream,
    Reward2Go,
    specs,
    stitch,
    write_dataset,
)
from torchrl.data.replay import MixedReplay, ReplayBuffer, TensorStorage, Writer
from torchrl.data.replay.samplers import Sampler
from torchrl.envs import SerialEnv
from torchrl.modules import EGreedy, ObservationNormalizer, QValueActor
from torchrl.objectives import DQNLoss

MASK, TRAJ_IDS = ("collector", "mask"), ("collector", "traj_ids")
NUM_STEPS = 24
CUTS = {"one batch": [24], "steps": [1] * 24, "uneven": [2, 7, 1, 5, 9], "halves": [12, 12]}


@lru_cache
def _stream(is_masked):
    """Three rows with episodes of their own lengths, every second one truncated; if masked, some rows are junk."""
    endings = ["terminated", "truncated"]
    env = SerialEnv([partial(CountingSimulator, [3 + row, 1, 7], ending=endings) for row in range(3)])
    batch = Collector(env, frames_per_batch=3 * NUM_STEPS, seed=0).collect()
    env.close()
    generator = torch.Generator().manual_seed(0)
    normal = lambda *tail: torch.randn(3, NUM_STEPS, *tail, generator=generator)  # noqa: E731
    batch["next", "reward"], goal, achieved = normal(1), normal(2), normal(2)
    batch.update({"desired_goal": goal, "next": {"desired_goal": goal.clone(), "achieved_goal": achieved}})
    batch["collector", "policy_version"] = torch.arange(NUM_STEPS).expand(3, NUM_STEPS).clone()
    if is_masked:
        mask = torch.rand(3, NUM_STEPS, generator=generator) < 0.85
        for value in batch.values(True, True):
            if value.is_floating_point():
                value[~mask] = float("nan")
        batch[MASK] = mask
    return batch


def make_stream(is_masked):
    return _stream(is_masked).clone()


def rows_of(results):
    """Return the valid rows of padded results, one behind the other, as a dict without the mask."""
    rows = []
    for result in results:
        mask = result.get(MASK, torch.ones(result.batch_size, dtype=torch.bool))
        rows.append(result.exclude(MASK)[mask])
    joined = torch.cat(rows)
    return {key: joined[key] for key in joined.keys(True, True)}


def by_step(rows):
    """Sort rows by trajectory and step."""
    order = (rows[TRAJ_IDS] * 100 + rows["episode_length"].flatten()).argsort()
    return {key: value[order] for key, value in rows.items()}


def scale_rewards(batches):
    scale = RewardScale(0.9, decay=0.99)
    for batch in batches:
        scale.update(batch)
    return scale.state_dict()


def sum_steps(batches):
    stream = MultiStepStream(3, 0.9)
    return by_step(rows_of([stream(batch) for batch in batches]))


def whole_episodes(function=None):
    def run(batches):
        stream = EpisodeStream(None if function is None else function())
        return rows_of([stream(batch) for batch in batches])

    return run


def relabel(strategy):
    def make():
        reward_fn = lambda achieved, goal, rows: (achieved - goal).norm(dim=-1, keepdim=True)  # noqa: E731
        return HindsightRelabel(reward_fn, strategy=strategy, generator=torch.Generator().manual_seed(3))

    return make


def joined(batches):
    trajectories, is_complete = stitch(batches)
    return rows_of([trajectories]) | {"is_complete": is_complete}


def remember(batches):
    """Return what a buffer holds, and what it noted to lie before each item."""
    buffer = ReplayBuffer(TensorStorage(1000, frames=()), sampler=torchrl.data.replay.SliceSampler(2), seed=0)
    for batch in batches:
        buffer.extend(batch)
    items = buffer[:]
    gap = torch.from_numpy(buffer.storage.ledger.state()["gap"][: len(items)].copy()).long()
    place = items[TRAJ_IDS] * 100 + items["episode_length"].flatten()
    before = torch.where(gap > 0, place[torch.arange(len(items)) - gap], -1)
    items["before"] = before
    return by_step({key: items[key] for key in items.keys(True, True)})


def update_normalizer(batches):
    normalizer = ObservationNormalizer(1)
    for batch in batches:
        UpdateNormalizer(normalizer).on_optimised(None, batch, {})
    return dict(normalizer.state_dict())


def mean_of(figures):
    def run(batches):
        means = MeanMetrics()
        for batch in batches:
            means.add(figures(batch), num_valid_frames(batch))
        metrics, num_frames = means.take()
        return dict(metrics), metrics.weights, num_frames

    return run


def step_exploration(batches):
    policy, metrics = EGreedy(QValueActor(network(1, 2)), specs.Categorical(2), num_frames=1000), Figures()
    for batch in batches:
        StepExploration().on_optimised(SimpleNamespace(policy=policy), batch, metrics)
    return dict(metrics), policy.frames.item()


def count_updates(batches):
    loss = DQNLoss(QValueActor(network(1, 2)))
    optimizer = torch.optim.SGD(loss.trainable_parameters(), lr=0.1)
    buffer = ReplayBuffer(TensorStorage(8), seed=0)
    buffer.extend(make_stream(False)[0, :4])
    updates = ReplayUpdates(loss, optimizer, buffer, batch_size=2, updates_per_frame=0.1)
    for batch in batches:
        updates(batch)
    return updates.num_frames, updates.num_updates


CASES = {
    "RewardScale": scale_rewards,
    "MultiStepStream": sum_steps,
    "EpisodeStream": whole_episodes(),
    "Reward2Go": whole_episodes(lambda: Reward2Go(0.9)),
    "MultiStep": whole_episodes(lambda: MultiStep(3, 0.9)),
    "HindsightRelabel": whole_episodes(relabel("future")),
    "HindsightRelabel, final": whole_episodes(relabel("final")),
    "HindsightRelabel, episode": whole_episodes(relabel("episode")),
    "stitch": joined,
    "ReplayBuffer": remember,
    "UpdateNormalizer": update_normalizer,
    "episode_statistics": mean_of(episode_statistics),
    "policy_lag": mean_of(lambda batch: policy_lag(batch, 50)),
    "num_valid_frames": lambda batches: sum(map(num_valid_frames, batches)),
    "StepExploration": step_exploration,
    "ReplayUpdates": count_updates,
}

ONE_BATCH = "it is about the one batch that it is given, and says so"
ASKS_THE_AGENT = "it asks only the agent"
OF_ONE_BATCH = {
    **dict.fromkeys((GradientSteps, MinibatchEpochs), "gradient steps are those of a batch"),
    AdaptPenalty: "it measures an update, and there is one for each batch",
    value_statistics: "the variance within a batch",
    Agent: "it hands batches on to parts, which are cases",
    SuccessShare: "the share within a batch, weighed by its episodes",
    **dict.fromkeys((valid_rows, valid_sequences), ONE_BATCH),
    MixedReplay: "each of its buffers is a case",
    Sampler: ONE_BATCH,
    Writer: ONE_BATCH,
    **dict.fromkeys((Hook, Anneal, ProgressBar), ASKS_THE_AGENT),
    **{getattr(torchrl.data, name): ONE_BATCH for name in ("alive_at", "at_step", "last_step", "lengths_of", "pack")},
    **{getattr(torchrl.data, name): ONE_BATCH for name in ("shorten", "split_trajectories", "time_slice", "unpad")},
    torchrl.data.concatenate: ONE_BATCH,
    torchrl.data.IntrinsicReward: "its module counts each batch before it pays, so that the statistics are a batch's",
    write_dataset: "test_offline.py cuts",
}


def takes_batches(x):
    methods = [x] if inspect.isfunction(x) else [m for m in vars(x).values() if inspect.isfunction(m)]
    public = [method for method in methods if not method.__name__.startswith("_") or method.__name__ == "__call__"]
    return any({"batch", "batches", "fragments"} & set(inspect.signature(method).parameters) for method in public)


def test_whatever_takes_batches_is_among_the_cases():
    modules = [importlib.import_module(f"torchrl.agents.{info.name}") for info in pkgutil.iter_modules(agents.__path__)]
    own = {x for m in modules for n, x in vars(m).items() if getattr(x, "__module__", "") == m.__name__ and n[0] != "_"}
    own |= {getattr(part, name) for part in (torchrl.data, torchrl.data.replay) for name in part.__all__}
    taking = {x for x in own if (inspect.isfunction(x) or inspect.isclass(x)) and takes_batches(x)}
    assert {x.__name__ for x in taking - OF_ONE_BATCH.keys()} <= {name.split(",")[0] for name in CASES}


@pytest.mark.parametrize("is_masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("cut", list(CUTS.values())[1:], ids=list(CUTS)[1:])
@pytest.mark.parametrize("name", CASES)
def test_any_cut_gives_the_same(name, cut, is_masked):
    stream = make_stream(is_masked)
    whole = CASES[name]([stream.clone()])
    parts = CASES[name]([part.clone() for part in stream.split(cut, 1)])
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", [name for name in CASES if "Hindsight" not in name and name != "stitch"])
def test_workers_may_take_turns(name):
    """Rows of two workers, in batches of different sizes and lengths, give what they give side by side."""
    stream = make_stream(False)
    ours = [part.clone() for part in stream[:2].split([2, 7, 1, 5, 9], 1)]
    theirs = [part.clone() for part in stream[2:].split([6, 6, 2, 4, 6], 1)]
    turns = [part for pair in zip(ours, theirs, strict=True) for part in pair]
    results = [CASES[name](batches) for batches in (turns, [stream])]
    if name == "RewardScale":  # what fades does so in the order in which it came
        results = [{key: result[key] for key in ("ids", "returns")} for result in results]
    elif isinstance(results[0], dict) and TRAJ_IDS in results[0]:
        results = [by_step(result) for result in results]
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-9)


def test_the_cases_tell_something():
    """Every episode of the stream that ends is handed out whole, and there are many."""
    stream = make_stream(False)
    rows = whole_episodes(lambda: Reward2Go(1.0))([stream])
    ended = stream["next", "done"]
    first = rows["is_init"].flatten()
    assert int(first.sum()) == int(ended.sum()) > 10
    assert (rows["reward_to_go"][rows["next", "done"]] == rows["next", "reward"][rows["next", "done"]]).all()
    ids = rows[TRAJ_IDS][first]
    sums = torch.stack([rows["next", "reward"][rows[TRAJ_IDS] == one].sum() for one in ids])
    torch.testing.assert_close(rows["reward_to_go"][first].flatten(), sums)


def test_batches_are_left_alone():
    for case in CASES.values():
        stream = make_stream(True)
        kept = stream.clone()
        case([stream])
        assert isinstance(stream, TensorDict)
        torch.testing.assert_close(
            dict(stream.flatten_keys().items()), dict(kept.flatten_keys().items()), equal_nan=True, rtol=0, atol=0
        )
