"""What a policy with a state collected, in whatever way, replays to the same log-probs, in order and with lengths."""

from functools import partial

import pytest
import torch

from cases.recurrent import STATE, make_env, make_env_of, make_policy, make_remembering
from torchrl.collectors import (
    Collector,
    EpisodeCollector,
    FragmentSource,
    MultiAsyncCollector,
    MultiSyncCollector,
)
from torchrl.data import split_trajectories, stitch
from torchrl.errors import SpecError
from torchrl.modules import LSTM, Transformer, replay_policy

pytestmark = pytest.mark.usefixtures("leaves_nothing")

WAYS = {
    "serial": lambda make, policy: Collector(make(4), policy, frames_per_batch=80, seed=0),
    "parallel": lambda make, policy: Collector(make(4, num_workers=2), policy, frames_per_batch=80, seed=0),
    "sync": lambda make, policy: MultiSyncCollector(
        partial(make, 2), policy, num_workers=2, frames_per_batch=80, seed=0
    ),
    "async": lambda make, policy: MultiAsyncCollector(
        partial(make, 2), policy, num_workers=2, frames_per_batch=40, seed=0
    ),
    "episodes": lambda make, policy: EpisodeCollector(make(4), policy, num_episodes=6, seed=0),
}


@pytest.mark.parametrize("kind", [None, LSTM, Transformer], ids=["own cell", "LSTM", "Transformer"])
@pytest.mark.parametrize("way", WAYS)
def test_log_probs_are_the_collected_ones_while_the_weights_are_the_same(way, kind):
    torch.manual_seed(0)
    make, policy = (partial(make_env_of, kind), make_remembering(kind)) if kind else (make_env, make_policy())
    collector = WAYS[way](make, policy)
    try:
        for _ in range(2):  # the second begins inside of episodes
            batch = collector.collect()
            mask = batch.get(("collector", "mask"), torch.ones(batch.batch_size, dtype=torch.bool))
            assert batch["is_init"].sum() > len(batch) // 2 and mask.sum() >= 40
            keys = {False: ["action_log_prob", ("next", *STATE)]}
            if kind:  # it has a form for sequences
                keys[True] = ["action_log_prob"]
            for at_once in keys:
                replayed = replay_policy(policy, batch, at_once=at_once)
                for key in keys[at_once]:
                    torch.testing.assert_close(replayed[key][mask], batch[key][mask], atol=1e-6, rtol=1e-6)
                    assert (replayed[key][~mask] == 0).all()
    finally:
        collector.shutdown()


def test_other_weights_give_other_log_probs_and_the_state_of_a_sticky_fragment_ends_with_its_episode():
    torch.manual_seed(0)
    policy = make_policy()
    source = FragmentSource(make_env(3), policy, n_steps=15, sticky=True, seed=0)
    batch = source.collect()["batch"]
    mask = batch["collector", "mask"]
    assert not mask.all()
    same = replay_policy(policy, batch)["action_log_prob"]
    torch.testing.assert_close(same[mask], batch["action_log_prob"][mask], atol=1e-6, rtol=1e-6)
    assert (same - replay_policy(make_policy(), batch)["action_log_prob"])[mask].abs().min() > 0
    source.close()


def test_trajectories_that_were_cut_out_or_joined_replay_too_and_fragments_in_the_wrong_order_do_not():
    torch.manual_seed(0)
    policy = make_policy()
    collector = Collector(make_env(2, max_episode_steps=200), policy, frames_per_batch=10, seed=0)
    fragments = [collector.collect() for _ in range(6)]
    collector.shutdown()
    whole = torch.cat(fragments, 1)
    for batch in (whole, split_trajectories(whole), stitch(fragments)[0]):
        mask = batch.get(("collector", "mask"), torch.ones(batch.batch_size, dtype=torch.bool))
        replayed = replay_policy(policy, batch)["action_log_prob"]
        torch.testing.assert_close(replayed[mask], batch["action_log_prob"][mask], atol=1e-6, rtol=1e-6)
    with pytest.raises(SpecError, match="another episode_length before step 5 of row 0"):
        replay_policy(policy, torch.cat([fragments[2], fragments[1]], 1))
    with pytest.raises(SpecError, match="steps follow each other"):
        replay_policy(policy, whole[:, torch.randperm(whole.shape[1])])
