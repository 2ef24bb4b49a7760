"""Parameters of each row, all the way: from the caller to worlds and policies in other processes, and back."""

from functools import partial

import pytest
import torch
from torch import nn

from cases.collecting import info
from fakes import FallingSimulator
from torchrl.collectors import (
    Collector,
    EpisodeCollector,
    FragmentSource,
    MultiAsyncCollector,
    MultiSyncCollector,
)
from torchrl.envs import ParallelEnv, SerialEnv
from torchrl.errors import ConfigError

pytestmark = pytest.mark.usefixtures("leaves_nothing")


class Skilled(nn.Module):
    """Acts by the skill of the row, as a policy that was trained for several."""

    def forward(self, root):
        return root.set("action", root["skill"] % 2)


def act(root):
    return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


def worlds(num_envs, length=3):
    return SerialEnv(partial(FallingSimulator, length), num_envs)


def in_this_process(num_envs, length, **options):
    return Collector(worlds(num_envs, length), act, **options)


def in_parallel_worlds(num_envs, length, **options):
    return Collector(ParallelEnv(partial(FallingSimulator, length), num_envs, num_workers=2), act, **options)


def in_two_workers(num_envs, length, **options):
    return MultiSyncCollector(partial(worlds, num_envs // 2, length), act, num_workers=2, **options)


WAYS = pytest.mark.parametrize("make", [in_this_process, in_parallel_worlds, in_two_workers])


def heights(batch):
    return batch["next", "observation"][..., 0].tolist()


@WAYS
def test_every_row_has_its_own_physics_which_change_at_the_next_resets_and_are_recorded(make):
    collector = make(4, 3, frames_per_batch=16, seed=0)  # episodes of 3 in batches of 4 steps
    try:
        collector.set_info(env_info=info(gravity=[0.0, 1.0, 2.0, 10.0]))
        batch = collector.collect()
        assert heights(batch) == [[0, 0, 0, 0], [-1, -3, -6, -1], [-2, -6, -12, -2], [-10, -30, -60, -10]]
        assert batch["env_info", "gravity"].tolist() == [[0] * 4, [1] * 4, [2] * 4, [10] * 4]
        collector.set_info(env_info=info(gravity=[3.0, 4.0, 5.0, 6.0]))  # one step into the second episodes
        batch = collector.collect()
        assert heights(batch) == [[0, 0, -3, -9], [-3, -6, -4, -12], [-6, -12, -5, -15], [-30, -60, -6, -18]]
        expected = [[0, 0, 3, 3], [1, 1, 4, 4], [2, 2, 5, 5], [10, 10, 6, 6]]
        assert batch["env_info", "gravity"].tolist() == expected
        assert batch["next", "env_info", "gravity"].tolist() == expected  # the last one too: no reset in between
        assert torch.equal(batch["next", "reward"].squeeze(-1), batch["next", "observation"][..., 0])
    finally:
        collector.shutdown()


@WAYS
def test_arrays_are_parameters_too(make):
    collector = make(2, 3, frames_per_batch=2, seed=0)
    try:
        collector.set_info(env_info=info(gravity=[0.0, 0.0], push=[[1.0, 2.0], [10.0, 20.0]]))
        batch = collector.collect()
        assert heights(batch) == [[3], [30]]
        assert batch["env_info", "push"].tolist() == [[[1, 2]], [[10, 20]]]
    finally:
        collector.shutdown()


@pytest.mark.parametrize(
    "make",
    [
        lambda: in_this_process(2, 3, frames_per_batch=4),
        lambda: in_two_workers(2, 3, frames_per_batch=4),
        lambda: EpisodeCollector(worlds(2), act, num_episodes=2),
        lambda: FragmentSource(worlds(2), act, n_steps=2),
    ],
    ids=["Collector", "MultiSyncCollector", "EpisodeCollector", "FragmentSource"],
)
def test_what_batches_did_not_hold_from_the_first_on_is_refused_and_changes_nothing(make):
    collector = make()
    try:
        collector.collect()
        for refused in ({"agent_info": info(skill=[1, 2])}, {"env_info": info(gravity=[0.0, 1.0])}):
            with pytest.raises(ConfigError, match=r"set_info: .*parameters that batches hold from the first on"):
                collector.set_info(**refused)
        batch = collector.collect()
        assert not {"skill", "env_info"} & set(batch.get("batch", batch).keys())
    finally:
        collector.close() if isinstance(collector, FragmentSource) else collector.shutdown()


def test_skills_change_between_batches_and_the_policies_of_all_workers_act_by_them():
    collector = MultiSyncCollector(partial(worlds, 2), Skilled(), num_workers=2, frames_per_batch=8)
    try:
        for skills in ([0, 1, 2, 3], [3, 2, 1, 0]):
            collector.set_info(agent_info=info(skill=skills), env_info=info(gravity=[1.0, 2.0, 3.0, 4.0]))
            batch = collector.collect()
            assert batch["skill"].tolist() == [[skill] * 2 for skill in skills] == batch["next", "skill"].tolist()
            assert batch["action"].tolist() == [[skill % 2] * 2 for skill in skills]
    finally:
        collector.shutdown()


def test_a_worker_in_the_place_of_another_has_the_parameters_of_its_rows():
    options = {"num_workers": 2, "frames_per_batch": 8, "on_worker_failure": "restart"}
    collector = MultiSyncCollector(partial(worlds, 2), act, **options)
    try:
        collector.set_info(env_info=info(gravity=[1.0, 2.0, 3.0, 4.0]))
        collector.collect()
        collector.set_info(env_info=info(gravity=[5.0, 6.0, 7.0, 8.0]))
        collector._pool.kill(1)
        batch = collector.collect()
        assert collector.num_restarts == 1
        assert batch["env_info", "gravity"].tolist() == [[1, 5], [2, 6], [7, 7], [8, 8]]
        assert heights(batch) == [[-6, -5], [-12, -6], [-7, -21], [-8, -24]]
    finally:
        collector.shutdown()


def test_an_asynchronous_worker_gets_the_parameters_of_its_own_rows():
    collector = MultiAsyncCollector(partial(worlds, 1), act, num_workers=2, frames_per_batch=3)
    try:
        collector.set_info(env_info=info(gravity=[1.0, 2.0]))
        seen = set()
        while len(seen) < 2:  # one worker may be far ahead of the other
            seen.add(tuple(collector.collect()["env_info", "gravity"].flatten().tolist()))
        assert seen == {(1, 1, 1), (2, 2, 2)}
    finally:
        collector.shutdown()
