"""Gradient steps on samples: how many, in what order, what they report, and what happens when one fails."""

import copy
import errno
import math
import os
import signal

import pytest
import torch
from recorder import Recorder
from tensordict import TensorDict
from torch import nn

from cases.losses import VALUE_LOSSES, make_transitions, network
from torchrl.agents import (
    Agent,
    FusedAdam,
    Hook,
    ReplayUpdates,
    RewardScale,
    SaveBuffer,
    StepExploration,
    load_checkpoint,
)
from torchrl.agents.replay_updates import priority_of
from torchrl.collectors import Collector, MultiAsyncCollector
from torchrl.data import MultiStepStream
from torchrl.data.replay import (
    MemmapStorage,
    MixedReplay,
    PrioritizedSampler,
    PrioritizedSliceSampler,
    ReplayBuffer,
    SliceSampler,
    TensorStorage,
    UniformSampler,
)
from torchrl.envs import GymEnv
from torchrl.errors import ConfigError, NonFiniteError, ProcessError, StorageError
from torchrl.modules import MLP, Actor, EGreedy, QValueActor
from torchrl.objectives import BehaviourCloningLoss, DQNLoss, HardUpdate, SoftUpdate


def make_updates(name="DQNLoss of choice", *, loss=None, buffer=None, num=32, lr=1e-2, sampler=None, **options):
    """Build updates of a loss, that of a case if None is given, over a buffer that holds ``num`` transitions."""
    torch.manual_seed(0)
    case = VALUE_LOSSES[name]
    loss = case.build() if loss is None else loss
    if buffer is None:
        buffer = ReplayBuffer(TensorStorage(64), sampler=sampler, seed=0)
        if num:
            buffer.extend(make_transitions(case.action, num))
    optimizer = torch.optim.SGD(loss.trainable_parameters(), lr=lr)
    return ReplayUpdates(loss, optimizer, buffer, **{"batch_size": 8} | options)


def frames(num, mask=None):
    batch = make_transitions("choice", 1, num)
    batch["is_init"] = torch.zeros(1, num, 1, dtype=torch.bool)
    if mask is not None:
        batch["collector", "mask"] = mask
    return batch


def parameters_of(updates):
    return [parameter.detach().clone() for parameter in updates.loss.parameters()]


class TestRatio:
    @pytest.mark.parametrize(
        ("ratio", "sizes"), [(1.0, [1, 1, 5]), (0.5, [3, 3, 3, 1]), (0.3, [7] * 10), (2.5, [1, 2, 3])]
    )
    def test_so_many_steps_for_each_frame_whatever_the_batches(self, ratio, sizes):
        updates = make_updates(updates_per_frame=ratio)
        for size in sizes:
            updates(frames(size))
            assert updates.num_updates == math.floor(updates.num_frames * ratio + 1e-9)
        assert updates.num_frames == sum(sizes)

    def test_frames_before_the_start_owe_nothing(self):
        updates = make_updates(start_frames=10, updates_per_frame=2.0)
        metrics = [updates(frames(4)) for _ in range(4)]
        assert updates.num_updates == 16 and updates.loss.training is not None
        assert "loss_value" not in metrics[1] and "replay/updates_per_frame" not in metrics[1]
        assert metrics[2]["replay/updates_per_frame"] == metrics[3]["replay/updates_per_frame"] == 2.0

    def test_masked_frames_do_not_count(self):
        updates = make_updates()
        updates(frames(4, torch.tensor([[True, False, True, False]])))
        assert (updates.num_frames, updates.num_updates) == (2, 2)

    def test_an_empty_buffer_waits(self):
        updates = make_updates(num=0)
        updates(frames(3))
        assert updates.num_updates == 0 and not updates.is_learning

    def test_one_step_more(self):
        updates = make_updates()
        updates.once()
        assert updates.num_updates == 1 and updates.num_frames == 0


class TestStep:
    def test_a_step_by_hand(self):
        updates = make_updates(batch_size=4, lr=0.1)
        twin = copy.deepcopy(updates.loss)
        sample, plain = [], updates.buffer.sample
        updates.buffer.sample = lambda num: sample.append(plain(num)) or sample[0]
        metrics = updates(frames(1))
        terms = twin(sample[0])
        terms["loss_value"].backward()
        expected = [p.detach() - 0.1 * p.grad for p in twin.trainable_parameters()]
        torch.testing.assert_close([p.detach() for p in updates.loss.trainable_parameters()], expected)
        assert metrics["loss_value"] == pytest.approx(terms["loss_value"].item())
        assert metrics["td_error"] == pytest.approx(terms["td_error"].mean().item())
        norm = torch.cat([p.grad.flatten() for p in twin.trainable_parameters()]).norm()
        assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
        assert metrics["replay/fill"] == 0.5 and metrics["replay/updates"] == 1 and metrics["time/updates_per_s"] > 0

    def test_losses_count_by_the_rows_of_each_sample_and_norms_by_steps(self):
        updates = make_updates()
        wholes = [make_transitions("choice", num, seed=num) for num in (2, 6)]
        masked = make_transitions("choice", 4)
        masked["collector", "mask"] = torch.tensor([True, False, False, False])
        seen = [*wholes, masked]
        terms = []
        updates.buffer.sample = lambda num: seen[updates.num_updates]
        plain = updates.loss.forward
        updates.loss.forward = lambda rows: terms.append(plain(rows)) or terms[-1]
        metrics = updates(frames(3))
        losses = [losses["loss_value"].item() for losses in terms]
        expected = (2 * losses[0] + 6 * losses[1] + losses[2]) / 9
        assert metrics["loss_value"] == pytest.approx(expected) and metrics.weights["loss_value"] == 9
        errors = torch.cat([losses["td_error"] for losses in terms])
        assert metrics["td_error"] == pytest.approx(errors.mean().item())
        assert metrics.weights["grad_norm"] == 3

    def test_gradients_are_scaled_down_to_the_norm(self):
        plain, clipped = make_updates(), make_updates(max_grad_norm=0.05)
        before = parameters_of(plain)
        moves = []
        for updates in (plain, clipped):
            updates(frames(1))
            moves.append(torch.cat([(a - b).flatten() for a, b in zip(parameters_of(updates), before, strict=True)]))
        norm = moves[0].norm() / 1e-2
        assert norm > 0.1
        torch.testing.assert_close(moves[1], moves[0] * 0.05 / norm, rtol=1e-2, atol=1e-7)

    def test_each_entry_of_the_gradients_is_clipped(self):
        plain, clipped = make_updates(), make_updates(max_grad_value=0.01)
        before = parameters_of(plain)
        for updates in (plain, clipped):
            updates(frames(1))
        for start, free, limited in zip(before, parameters_of(plain), parameters_of(clipped), strict=True):
            torch.testing.assert_close(limited - start, (free - start).clamp(-1e-4, 1e-4), rtol=1e-3, atol=1e-7)
        assert max((a - b).abs().max() for a, b in zip(parameters_of(plain), before, strict=True)) > 1e-4

    def test_the_actor_is_trained_at_its_interval(self):
        updates = make_updates("SACLoss", actor_interval=3)
        moved = []
        for _ in range(7):
            before = [p.detach().clone() for p in updates.loss.actor.parameters()]
            metrics = updates(frames(1))
            moved.append(not all(map(torch.equal, before, updates.loss.actor.parameters())))
            assert ("loss_actor" in metrics) == moved[-1]
        assert moved == [True, False, False, True, False, False, True]

    @pytest.mark.parametrize(
        "make", [lambda loss: SoftUpdate(loss, tau=0.5), lambda loss: HardUpdate(loss, interval=1)]
    )
    def test_targets_follow_after_each_step(self, make):
        updates = make_updates()
        updates.target_update = make(updates.loss)
        before = [p.clone() for p in updates.loss.target_actor.parameters()]
        updates(frames(1))
        share = 0.5 if isinstance(updates.target_update, SoftUpdate) else 1.0
        ours, theirs = updates.loss.target_actor.parameters(), updates.loss.actor.parameters()
        for old, target, present in zip(before, ours, theirs, strict=True):
            torch.testing.assert_close(target, torch.lerp(old, present, share))

    def test_a_loss_without_td_errors_is_minimised_too(self):
        loss = BehaviourCloningLoss(Actor(network(4, 2)))
        metrics = make_updates("DDPGLoss", loss=loss, sampler=PrioritizedSampler(), lr=0.1)(frames(2))
        assert metrics["loss_objective"] > 0 and "td_error" not in metrics

    def test_compiled_steps_are_those_of_eager_ones(self, traced):
        eager, compiled = make_updates(), make_updates(compile=True)
        for _ in range(3):
            torch.testing.assert_close(eager(frames(1))["loss_value"], compiled(frames(1))["loss_value"])
        torch.testing.assert_close(parameters_of(eager), parameters_of(compiled))


def spied(buffer):
    """Return the list of what the buffer will be told of priorities."""
    seen, plain = [], buffer.update_priority

    def update_priority(sample, priority):
        seen.append((sample, priority))
        plain(sample, priority)

    buffer.update_priority = update_priority
    return seen


class TestPriorities:
    def test_each_item_gets_its_error(self):
        updates = make_updates(sampler=PrioritizedSampler(alpha=1.0, eps=0.0), num=16)
        seen = spied(updates.buffer)
        before = copy.deepcopy(updates.loss)
        updates.once()
        ((sample, priority),) = seen
        torch.testing.assert_close(priority, before(sample)["td_error"])
        assert ("replay", "weight") in sample.keys(True)

    def test_slices_get_a_mixture_of_largest_and_mean_over_their_valid_steps(self):
        buffer = ReplayBuffer(TensorStorage(64), sampler=PrioritizedSliceSampler(4, min_len=1), seed=0)
        batch = make_transitions("choice", 1, 32)
        done = torch.arange(32).reshape(1, 32, 1) % 7 == 6
        batch["next", "terminated"], batch["next", "truncated"] = done, torch.zeros_like(done)
        batch["next", "done"], batch["is_init"] = done, done.roll(1, 1)
        buffer.extend(batch)
        updates = make_updates(buffer=buffer, lr=0.1, batch_size=16)
        seen = spied(buffer)
        before = copy.deepcopy(updates.loss)
        for _ in range(20):
            updates.once()
        sample, priority = seen[0]
        mask = sample["collector", "mask"]
        assert mask.shape == (4, 4) and any(not s["collector", "mask"].all() for s, _ in seen)
        errors = torch.zeros(4, 4)
        errors[mask] = before(sample)["td_error"]
        torch.testing.assert_close(priority, 0.9 * errors.amax(-1) + 0.1 * errors.sum(-1) / mask.sum(-1))

    def test_slices_behind_a_burn_in(self):
        """Two steps of each slice of four are no rows; the third of the first slice and all of the last are masked."""
        slices = TensorDict({}, [3, 4])
        errors = torch.tensor([2.0, 1.0, 3.0])
        mask = torch.tensor([[True, True, False, True], [True] * 4, [True, True, False, False]])
        slices["collector", "mask"] = mask
        priority = priority_of(slices, errors, burn_in=2, largest_share=0.75)
        torch.testing.assert_close(priority, torch.tensor([2.0, 0.75 * 3 + 0.25 * 2, 0.0]))
        priority = priority_of(slices.exclude(("collector", "mask")), torch.arange(6.0), burn_in=2, largest_share=0.0)
        torch.testing.assert_close(priority, torch.tensor([0.5, 2.5, 4.5]))

    def test_a_share_out_of_range_is_refused(self):
        with pytest.raises(ConfigError, match="ReplayUpdates: expected largest_share from 0 to 1, got 1.5"):
            make_updates(largest_share=1.5)

    def test_a_sampler_of_ones_own_is_told(self):
        class Errors(UniformSampler):
            def update_priority(self, places, priority):
                self.seen = places, priority

        updates = make_updates(sampler=Errors(), num=16)
        updates.once()
        places, priority = updates.buffer.sampler.seen
        assert len(places) == len(priority) > 0

    def test_plain_samplers_are_not_told(self):
        updates = make_updates()
        updates.buffer.update_priority = None
        updates.once()

    def test_of_a_mixture(self):
        buffers = [
            ReplayBuffer(TensorStorage(32), sampler=PrioritizedSampler(), seed=0),
            ReplayBuffer(TensorStorage(32), seed=0),
        ]
        for buffer in buffers:
            buffer.extend(make_transitions("choice", 16))
        updates = make_updates(buffer=MixedReplay(buffers, [1, 1]))
        assert updates(frames(2))["replay/fill"] == 0.5 and updates.num_updates == 2


def test_sub_trajectories():
    buffer = ReplayBuffer(TensorStorage(64), sampler=SliceSampler(4), seed=0)
    batch = frames(32)
    for name in ("terminated", "truncated", "done"):
        batch["next", name] = torch.zeros(1, 32, 1, dtype=torch.bool)
    buffer.extend(batch)
    updates = make_updates(buffer=buffer, batch_size=16)
    seen = []
    updates.loss.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].batch_size))
    updates.once()
    assert seen == [torch.Size([4, 4])]


class TestFailures:
    @pytest.mark.parametrize("name", ["DQNLoss of choice", "SACLoss"])
    def test_a_nan_is_refused_and_changes_nothing(self, name):
        updates = make_updates(name)
        updates.target_update = SoftUpdate(updates.loss)
        updates.once()
        batch = make_transitions(VALUE_LOSSES[name].action, 32)
        batch["next", "reward"][:] = float("nan")
        updates.buffer.extend(batch)
        updates.buffer.extend(batch)
        before, state = parameters_of(updates), copy.deepcopy(updates.optimizer.state_dict())
        with pytest.raises(
            NonFiniteError, match=r"finite numbers, got \[nan.*update 2.*holds such values under 'next/reward'"
        ):
            updates.once()
        assert all(map(torch.equal, before, parameters_of(updates))) and updates.num_updates == 1
        assert updates.optimizer.state_dict() == state

    def test_a_refused_step_leaves_no_trace_in_what_layers_learn(self):
        torch.manual_seed(0)
        loss = DQNLoss(QValueActor(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))))
        updates = make_updates(loss=loss, lr=0.1)
        updates.once()
        before = {name: value.clone() for name, value in loss.state_dict().items()}
        assert before["actor.module.1.num_batches_tracked"] > 0
        updates.buffer = ReplayBuffer(TensorStorage(64), seed=0)
        rows = make_transitions("choice", 32)
        updates.buffer.extend(rows.set("observation", torch.full_like(rows["observation"], float("nan"))))
        with pytest.raises(NonFiniteError, match="update 2.*holds such values under 'observation'"):
            updates.once()
        torch.testing.assert_close(dict(loss.state_dict()), before, rtol=0, atol=0)

    def test_a_gradient_without_a_number_is_refused(self):
        updates = make_updates()
        updates.loss.actor.module[0].weight.register_hook(lambda grad: grad * float("inf"))
        before = parameters_of(updates)
        with pytest.raises(NonFiniteError, match="grad_norm: expected finite numbers.*smaller learning rate"):
            updates.once()
        assert all(map(torch.equal, before, parameters_of(updates)))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size of at least 1"),
            ({"start_frames": -1}, "start_frames of at least 0"),
            ({"updates_per_frame": -0.5}, "updates_per_frame of at least 0"),
            ({"updates_per_frame": float("inf")}, "updates_per_frame of at least 0"),
            ({"max_grad_norm": 0.0}, "max_grad_norm"),
            ({"max_grad_value": 0.0}, "max_grad_value"),
            ({"max_grad_norm": 1.0, "max_grad_value": 1.0}, "max_grad_norm or max_grad_value, got both"),
            ({"actor_interval": 2}, "actor_interval of 1 for a loss without an actor"),
            ({"actor_interval": 0}, "actor_interval of at least 1"),
        ],
    )
    def test_wrong_numbers_are_refused(self, options, message):
        with pytest.raises(ConfigError, match=message):
            make_updates(**options)

    def test_an_optimizer_that_lacks_a_parameter_is_refused(self):
        loss = VALUE_LOSSES["SACLoss"].build()
        with pytest.raises(ConfigError, match="ReplayUpdates: expected an optimizer over.*lacks"):
            optimizer = torch.optim.SGD(loss.actor.parameters(), lr=0.1)
            ReplayUpdates(loss, optimizer, ReplayBuffer(TensorStorage(8)), batch_size=4)


class TestState:
    def test_counters_go_on(self):
        updates = make_updates(updates_per_frame=0.3, target_update=None)
        updates.target_update = HardUpdate(updates.loss, interval=5)
        updates(frames(8))
        other = make_updates(updates_per_frame=0.3)
        other.target_update = HardUpdate(other.loss, interval=5)
        other.load_state_dict(updates.state_dict())
        assert other.num_updates == 2 and other.target_update.num_steps == 2
        for _ in range(5):
            updates(frames(3)), other(frames(3))
            assert other.num_updates == updates.num_updates

    def test_without_its_buffer_a_run_collects_first(self):
        updates = make_updates(start_frames=4)
        updates(frames(6))
        other = make_updates(start_frames=4, num=0)
        other.load_state_dict(updates.state_dict())
        other.buffer.extend(make_transitions("choice", 32))
        assert "replay/updates_per_frame" not in other(frames(3)) and other.num_updates == 6
        assert other(frames(1))["replay/updates_per_frame"] == 1.0 and other.num_updates == 7


class TestRewardScale:
    def batch(self, rewards, starts=None):
        rewards = torch.tensor(rewards)
        starts = torch.zeros_like(rewards, dtype=torch.bool) if starts is None else torch.tensor(starts)
        rows = {"is_init": starts.unsqueeze(-1), "next": {"reward": rewards.unsqueeze(-1)}}
        return TensorDict(rows, batch_size=rewards.shape)

    def test_by_hand(self):
        scale = RewardScale(0.5, clip=None)
        scale.update(self.batch([[1.0, 2.0, 4.0]], [[True, False, True]]))  # returns 1, 2.5, 4
        assert scale.std == pytest.approx(torch.tensor([1.0, 2.5, 4.0]).std(unbiased=False).item())
        sample = self.batch([3.0])
        scaled = scale(sample)
        assert scaled["next", "reward"].item() == pytest.approx(3.0 / scale.std)
        assert sample["next", "reward"].item() == 3.0 and scaled["is_init"] is sample["is_init"]

    @pytest.mark.parametrize("cuts", [[4], [2, 2], [1, 1, 1, 1]])
    def test_the_past_fades_by_frames(self, cuts):
        scale = RewardScale(0.0, decay=0.5, clip=None)
        for part in self.batch([[0.0, 4.0, 0.0, 0.0]]).split(cuts, 1):  # weights ⅛, ¼, ½, 1
            scale.update(part)
        mean = 4 * 0.25 / 1.875
        assert scale.std == pytest.approx(math.sqrt(16 * 0.25 / 1.875 - mean**2))

    def test_rows_of_one_step_fade_alike(self):
        scale = RewardScale(0.0, decay=0.5, clip=None)
        scale.update(self.batch([[4.0, 0.0], [0.0, 2.0]]))  # weights ¼, ¼ and 1, 1
        assert scale.std == pytest.approx(math.sqrt((16 * 0.25 + 4) / 2.5 - (3 / 2.5) ** 2))

    @pytest.mark.parametrize("cuts", [[5], [2, 3], [1, 1, 1, 1, 1]])
    def test_a_return_goes_on_from_batch_to_batch(self, cuts):
        scale = RewardScale(0.5, decay=1.0, clip=None)
        starts = [[True, False, False, True, False]]
        for part in self.batch([[1.0, 2.0, 4.0, 8.0, 2.0]], starts).split(cuts, 1):
            scale.update(part)
        returns = torch.tensor([1.0, 2.5, 5.25, 8.0, 6.0])
        assert scale.std == pytest.approx(returns.std(unbiased=False).item())

    def test_batches_of_several_workers_are_told_apart(self):
        scale = RewardScale(0.5, decay=1.0, clip=None)
        for ids, reward in (([3, 5], 1.0), ([4, 8], 10.0), ([4, 8], 0.0), ([3, 6], 0.0)):
            part = self.batch([[reward], [reward]], [[False], [ids[1] == 6]])
            part["collector", "traj_ids"] = torch.tensor(ids).unsqueeze(-1)
            scale.update(part)
        returns = torch.tensor([1.0, 1.0, 10.0, 10.0, 5.0, 5.0, 0.5, 0.0])
        assert scale.std == pytest.approx(returns.std(unbiased=False).item())

    def test_what_ended_is_forgotten(self):
        scale = RewardScale(0.5)
        for ids, done in (([3, 5], False), ([3, 5], True)):
            part = self.batch([[1.0], [1.0]])
            part["collector", "traj_ids"] = torch.tensor(ids).unsqueeze(-1)
            part["next", "done"] = torch.full((2, 1, 1), done)
            scale.update(part)
            assert scale.state_dict()["ids"] == ([] if done else ids)
        scale.load_state_dict(scale.state_dict())
        scale.update(part)

    def test_masked_rows_do_not_count(self):
        batch = self.batch([[1.0, float("nan")]])
        batch["collector", "mask"] = torch.tensor([[True, False]])
        scale = RewardScale(0.5)
        scale.update(batch)
        assert scale.std == 1.0  # a single number has no spread

    def test_large_rewards_are_clipped(self):
        scale = RewardScale(0.0, clip=2.0)
        scale.update(self.batch([[0.0, 2.0]]))
        assert scale(self.batch([[100.0, -100.0]]))["next", "reward"].flatten().tolist() == [2.0, -2.0]

    def test_its_statistics_are_saved(self):
        scale, other = RewardScale(0.9), RewardScale(0.9)
        scale.update(self.batch([[0.0, 2.0, 5.0]]))
        other.load_state_dict(scale.state_dict())
        assert other.std == scale.std != 1.0
        for each in (scale, other):
            each.update(self.batch([[1.0]]))
        assert other.state_dict() == scale.state_dict() and other.state_dict()["returns"] == [[1 + 0.9 * (5 + 0.9 * 2)]]

    @pytest.mark.parametrize("options", [{"gamma": 1.5}, {"gamma": 0.9, "decay": 0.0}, {"gamma": 0.9, "clip": 0.0}])
    def test_wrong_numbers_are_refused(self, options):
        with pytest.raises(ConfigError, match="RewardScale"):
            RewardScale(**options)

    def test_updates_scale_what_they_sample(self):
        plain, scaled = make_updates(), make_updates(reward_scale=RewardScale(0.9))
        first, second = plain(frames(8)), scaled(frames(8))
        assert scaled.reward_scale.std != 1.0 and first["target_value"] != second["target_value"]
        assert (scaled.buffer[:]["next", "reward"] == plain.buffer[:]["next", "reward"]).all()


class StoreSums(MultiStepStream):
    """Store sums of three rewards; an agent saves the rows that wait for theirs."""

    def __init__(self, buffer):
        super().__init__(3, 0.9)
        self.buffer = buffer

    def __call__(self, batch):
        self.buffer.extend(super().__call__(batch))


@pytest.fixture
def make_dqn_agent(keep):
    """Build an agent that learns CartPole by DQN."""

    def make(
        *,
        num_workers=0,
        total_frames=96,
        hooks=(),
        frames_per_batch=16,
        capacity=1000,
        storage=None,
        on_worker_failure="raise",
        has_memory=False,
        **options,
    ):
        torch.manual_seed(0)
        actor = QValueActor(MLP(4, 2, num_cells=(16,)))
        loss = DQNLoss(actor)
        env = GymEnv("CartPole-v1", num_envs=2)
        policy = EGreedy(actor, env.action_spec[0], num_frames=64, generator=torch.Generator().manual_seed(0))
        common = {"frames_per_batch": frames_per_batch, "total_frames": total_frames, "seed": 0}
        if num_workers:
            env.close()
            make_env = lambda: GymEnv("CartPole-v1", num_envs=2)  # noqa: E731
            common |= {"num_workers": num_workers, "on_worker_failure": on_worker_failure}
            collector = MultiAsyncCollector(make_env, policy, **common)
        else:
            collector = Collector(env, policy, **common)
        buffer = ReplayBuffer(TensorStorage(capacity) if storage is None else storage, seed=0)
        optimizer = FusedAdam(loss.trainable_parameters(), lr=1e-3)
        updates = ReplayUpdates(
            loss,
            optimizer,
            buffer,
            batch_size=8,
            start_frames=32,
            target_update=SoftUpdate(loss),
            updates_per_frame=0.5,
            reward_scale=RewardScale(0.9) if has_memory else None,
        )
        store = StoreSums(buffer) if has_memory else buffer.extend
        return keep(Agent(collector, updates, store=store, hooks=[StepExploration(), *hooks], **options))

    return make


class TestAgent:
    def test_it_reports_what_an_off_policy_run_is_asked_about(self, make_dqn_agent):
        recorder = Recorder()
        agent = make_dqn_agent(logger=recorder)
        agent.train()
        assert [step for step, _ in recorder.rows] == [16, 32, 48, 64, 80, 96]
        last = recorder.rows[-1][1]
        losses = {f"loss/{name}" for name in ("loss_value", "q_value", "target_value", "td_error", "grad_norm")}
        others = {"replay/fill", "replay/updates", "replay/updates_per_frame", "time/updates_per_s"}
        assert losses | others | {"exploration/EGreedy", "collect/policy_lag"} <= set(last)
        assert last["replay/updates_per_frame"] == 0.5 and last["replay/fill"] == pytest.approx(0.096)
        strengths = [row["exploration/EGreedy"] for _, row in recorder.rows]
        assert strengths == pytest.approx([1 - 0.95 * min(k / 4, 1) for k in range(1, 7)], abs=1e-6)

    def test_a_line_of_the_log_holds_means_over_its_batches(self, make_dqn_agent):
        every, third = Recorder(), Recorder()
        make_dqn_agent(logger=every).train()
        make_dqn_agent(logger=third, log_interval=48).train()
        assert [step for step, _ in third.rows] == [48, 96]
        fine, coarse = ([row for _, row in recorder.rows] for recorder in (every, third))
        values = [row["loss/loss_value"] for row in fine[3:]]
        assert coarse[1]["loss/loss_value"] == pytest.approx(sum(values) / 3)

    def test_a_line_of_the_log_counts_every_episode_once(self, make_dqn_agent):
        returns = []

        class Note(Hook):
            def on_batch(self, agent, batch):
                done = batch["next", "done"]
                returns.append(batch["next", "episode_return"][done].tolist())

        every, once = Recorder(), Recorder()
        make_dqn_agent(frames_per_batch=2, logger=every, hooks=[Note()]).train()
        make_dqn_agent(frames_per_batch=2, logger=once, log_interval=96).train()
        episodes = sum(returns, [])
        assert {len(ended) for ended in returns} == {0, 1, 2}
        rows = [row["train/episode_return"] for _, row in every.rows if "train/episode_return" in row]
        assert rows == [sum(ended) / len(ended) for ended in returns if ended]
        ((_, row),) = once.rows
        assert row["train/episode_return"] == pytest.approx(sum(episodes) / len(episodes))
        assert row["replay/updates"] == every.rows[-1][1]["replay/updates"]
        assert row["replay/fill"] == every.rows[-1][1]["replay/fill"]
        assert row["exploration/EGreedy"] == every.rows[-1][1]["exploration/EGreedy"]

    @pytest.mark.parametrize("has_memory", [False, True], ids=["plain", "with sums and scaled rewards"])
    def test_a_resumed_run_with_its_buffer_is_bit_identical(self, has_memory, make_dqn_agent, tmp_path):
        whole = make_dqn_agent(has_memory=has_memory)
        whole.train()
        half = make_dqn_agent(total_frames=48, folder=tmp_path, has_memory=has_memory)
        half.hooks = (*half.hooks, SaveBuffer(half.optimise.buffer))
        half.train()
        rest = make_dqn_agent(has_memory=has_memory)
        rest.optimise.buffer.load(tmp_path / "replay")
        rest.load(tmp_path / "last.pt")
        rest.train()
        for ours, theirs in zip(rest.loss.state_dict().values(), whole.loss.state_dict().values(), strict=True):
            assert torch.equal(ours, theirs)
        assert rest.optimise.num_updates == whole.optimise.num_updates == 40

    def test_a_nan_ends_the_training_with_all_before_it_saved(self, make_dqn_agent, tmp_path):
        class Poison(Hook):
            def on_batch(self, agent, batch):
                if agent.frames == 64:
                    batch["next", "reward"][:] = float("nan")

        agent = make_dqn_agent(folder=tmp_path, hooks=[Poison()], capacity=16)
        with pytest.raises(NonFiniteError, match="update 25") as caught:
            agent.train()
        assert "saved in" in "".join(caught.value.__notes__)
        saved = load_checkpoint(tmp_path / "last.pt")
        assert all(value.isfinite().all() for value in saved["networks"]["loss"].values())

    def test_it_keeps_learning_while_workers_collect(self, make_dqn_agent):
        agent = make_dqn_agent(num_workers=1, keep_learning=True, total_frames=2048, frames_per_batch=256)
        agent.train()
        due = (2048 - 256) * 0.5
        assert agent.optimise.num_updates > due and agent.frames == 2048

    @pytest.mark.usefixtures("leaves_nothing")
    @pytest.mark.parametrize("on_failure", ["raise", "restart"])
    def test_a_killed_worker_ends_the_run_saved_or_is_replaced(self, on_failure, make_dqn_agent, tmp_path):
        class Kill(Hook):
            def on_batch(self, agent, batch):
                if agent.frames == 256:
                    os.kill(agent.collector.pids[1], signal.SIGKILL)

        common = {"num_workers": 2, "total_frames": 2048, "frames_per_batch": 64, "folder": tmp_path}
        agent = make_dqn_agent(**common, hooks=[Kill()], on_worker_failure=on_failure)
        if on_failure == "restart":
            agent.train()
            assert agent.frames == 2048 and agent.collector.num_restarts == 1
        else:
            with pytest.raises(ProcessError, match="worker 1.*killed by SIGKILL") as caught:
                agent.train()
            assert "saved in" in "".join(caught.value.__notes__) and agent.frames >= 256
        saved = load_checkpoint(tmp_path / "last.pt")
        assert saved["counters"]["frames"] == agent.frames
        for name, value in agent.loss.state_dict().items():
            assert torch.equal(saved["networks"]["loss"][name], value)
        rest = make_dqn_agent(**(common | {"total_frames": agent.frames + 512, "folder": None}))
        rest.load(tmp_path / "last.pt")
        rest.train()
        assert rest.frames == agent.frames + 512 and rest.optimise.num_updates > agent.optimise.num_updates

    def test_a_full_disk_ends_the_run_saved(self, make_dqn_agent, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        folder = tmp_path / "items"
        agent = make_dqn_agent(folder=tmp_path / "run", storage=MemmapStorage(1000, folder))
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(StorageError, match="GB are free there") as caught:
            agent.train()
        assert "saved in" in "".join(caught.value.__notes__)
        saved = load_checkpoint(tmp_path / "run" / "last.pt")
        assert saved["counters"]["frames"] == 0
        monkeypatch.undo()
        agent.optimise.buffer.close()

    @pytest.mark.parametrize("options", [{"log_interval": 0}, {"keep_learning": True}])
    def test_what_cannot_be_is_refused(self, make_dqn_agent, options):
        with pytest.raises(ConfigError, match=next(iter(options))):
            make_dqn_agent(**options)


def test_a_network_of_its_own_may_be_anything():
    updates = make_updates(loss=DQNLoss(QValueActor(nn.Sequential(network(4, 3)))))
    assert updates(frames(1))["loss_value"] > 0
