"""SAC whose actor and critics have memories of their own repeats what was shown, and finds velocities by itself."""

from statistics import mean

import pytest
import torch

from cases.runs import train_seeds
from torchrl.agents import Agent, Evaluator, FusedAdam, ReplayUpdates
from torchrl.collectors import Collector
from torchrl.data.replay import ReplayBuffer, SliceSampler, TensorStorage
from torchrl.envs import TransformedEnv
from torchrl.envs.native import RepeatPrevious
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.modules import LSTM, MLP, Categorical, ProbabilisticActor, Sequence, ValueEnsemble
from torchrl.objectives import DiscreteSACLoss, SoftUpdate

pytestmark = [pytest.mark.learn, pytest.mark.timeout(1800)]
LINKS = [("next", "done"), ("collector", "traj_ids"), ("collector", "mask")]


@pytest.mark.parametrize("seed", range(3))
def test_nine_tenths_of_the_best_return_within_20000_frames(seed):
    torch.manual_seed(seed)
    head = ProbabilisticActor(MLP(32, 4, num_cells=(32,)), Categorical, in_keys=["hidden"], log_prob_key=None)
    actor = Sequence(LSTM(4, 32), head, out_keys=head.out_keys)
    critics = ValueEnsemble(lambda: MLP(32, 4, num_cells=(32,)), 2, in_keys=["hidden"])
    critics = Sequence(LSTM(4, 32, state_key="critic_memory"), critics)
    options = {"gamma": 0.5, "temperature": 0.1, "target_entropy": 0.1}
    loss = DiscreteSACLoss(actor, critics, zero_state=True, burn_in=4, **options)

    def make_env(num_envs):
        return TransformedEnv(RepeatPrevious(num_envs, delay=2), TensorDictPrimer(actor.initial_state()))

    collector = Collector(make_env(16), actor, frames_per_batch=256, total_frames=20_000, seed=seed)
    buffer = ReplayBuffer(TensorStorage(30_000), sampler=SliceSampler(24, across=True), seed=seed)
    updates = ReplayUpdates(
        loss,
        FusedAdam(loss.trainable_parameters(), lr=3e-3),
        buffer,
        batch_size=24 * 16,
        updates_per_frame=1 / 32,
        start_frames=1024,
        target_update=SoftUpdate(loss, tau=0.02),
    )

    def store(batch):
        buffer.extend(batch.select(*loss.in_keys, *LINKS, strict=False))

    Agent(collector, updates, store=store, log_interval=5000).train()
    evaluation = Evaluator(make_env(20), num_episodes=100)(actor)
    print(f"seed {seed}: return {evaluation.mean:.1f} of 30")
    assert evaluation.mean >= 0.9 * 30


def test_the_pendulum_without_velocities_is_swung_up_within_12000_frames(tmp_path):
    runs = train_seeds("sac", "pendulum_memory", 3, tmp_path, "--eval_episodes=100")
    assert all(summary["frames"] <= 12_000 for summary, _ in runs)
    assert mean(summary["best_eval_return_mean"] for summary, _ in runs) >= -250
