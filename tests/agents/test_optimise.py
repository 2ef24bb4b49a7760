"""Minibatch epochs on a loss whose gradient steps can be computed by hand, and on PPO."""

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.agents import MinibatchEpochs
from torchrl.agents.optimise import clip_grad_norm_
from torchrl.agents.sequences import valid_rows
from torchrl.errors import ConfigError, KeyMissing, NonFiniteError
from torchrl.modules import MLP, Categorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss, Loss


class Mean(Loss):
    """loss_a = the mean of w · x over the rows: its gradient is the mean of x. Remembers which rows it saw."""

    def __init__(self, in_keys=("x",), weight=0.0):
        owner = nn.Module()
        owner.weight = nn.Parameter(torch.tensor(weight))
        super().__init__(in_keys=in_keys, trained=[owner])
        self.owner = owner
        self.register_buffer("calls", torch.zeros(()))
        self.seen = []

    def terms(self, rows):
        self.calls += 1
        self.seen.append(rows)
        x = rows[self.in_keys[0]]
        return {"loss_a": (self.owner.weight * x).mean(), "loss_b": 0 * self.owner.weight, "approx_kl": x.mean()}


def sgd(loss, lr=1.0, momentum=0.0):
    return torch.optim.SGD(loss.trainable_parameters(), lr=lr, momentum=momentum)


def batch_of(values, **others):
    x = torch.tensor(values)
    return TensorDict({"x": x, "unread": x, **others}, batch_size=x.shape[:2])


def ppo(**options):
    torch.manual_seed(0)
    actor = ProbabilisticActor(MLP(3, 2, num_cells=(8,)), Categorical)
    loss = ClipPPOLoss(actor, ValueOperator(MLP(3, 1, num_cells=(8,))), entropy_coef=0.01)
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=1e-2, fused=True)
    generator = torch.Generator().manual_seed(3)
    return MinibatchEpochs(loss, optimizer, num_epochs=2, minibatch_size=8, generator=generator, **options)


def ppo_batch(num_envs=4, num_steps=8):
    generator = torch.Generator().manual_seed(5)
    shape = (num_envs, num_steps)
    return TensorDict(
        {
            "observation": torch.randn(*shape, 3, generator=generator),
            "action": torch.randint(2, shape, generator=generator),
            "action_log_prob": torch.full(shape, -0.7),
            "advantage": torch.randn(*shape, 1, generator=generator),
            "value_target": torch.randn(*shape, 1, generator=generator),
        },
        batch_size=shape,
    )


def copied(optimise):
    return copy.deepcopy((optimise.loss.state_dict(), optimise.optimizer.state_dict()))


def assert_equal(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_each_epoch_sees_every_row_once_in_a_new_order_and_only_the_keys_the_loss_reads():
    loss = Mean()
    optimise = MinibatchEpochs(
        loss, sgd(loss), num_epochs=3, minibatch_size=3, generator=torch.Generator().manual_seed(0)
    )
    metrics = optimise(batch_of([[0.0, 1, 2], [3, 4, 5]]))
    assert [rows.batch_size for rows in loss.seen] == [(3,)] * 6
    assert {key for rows in loss.seen for key in rows.keys()} == {"x"}
    orders = [torch.cat([loss.seen[2 * epoch]["x"], loss.seen[2 * epoch + 1]["x"]]).tolist() for epoch in range(3)]
    assert [sorted(order) for order in orders] == [[0, 1, 2, 3, 4, 5]] * 3
    assert len({tuple(order) for order in orders}) == 3
    assert loss.owner.weight.item() == pytest.approx(-6 * 2.5)  # 6 steps whose gradients average 2.5
    assert metrics["approx_kl"] == pytest.approx(2.5) and metrics["loss_b"] == 0.0


def test_the_order_comes_from_its_own_generator():
    def order(seed):
        loss = Mean()
        generator = torch.Generator().manual_seed(seed)
        MinibatchEpochs(loss, sgd(loss), num_epochs=1, minibatch_size=6, generator=generator)(
            batch_of([[0.0, 1, 2, 3, 4, 5]])
        )
        return loss.seen[0]["x"].tolist()

    before = torch.get_rng_state()
    assert order(1) == order(1) != order(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_masked_rows_reach_nothing():
    nan = torch.nan
    values, mask = [[1.0, nan, 3.0], [nan, 5.0, 7.0]], [[True, False, True], [False, True, True]]
    loss = Mean()
    batch = batch_of(values)
    batch["collector", "mask"] = torch.tensor(mask)
    metrics = MinibatchEpochs(loss, sgd(loss), num_epochs=1, minibatch_size=4)(batch)
    assert metrics["approx_kl"] == 4.0 and loss.owner.weight.item() == -4.0
    batch["collector", "mask"].fill_(False)
    assert MinibatchEpochs(loss, sgd(loss), num_epochs=1, minibatch_size=4)(batch) == {}
    assert loss.owner.weight.item() == -4.0


def test_what_remains_of_an_epoch_is_left_out_and_a_small_batch_is_taken_whole():
    loss = Mean()
    MinibatchEpochs(loss, sgd(loss), num_epochs=2, minibatch_size=4)(batch_of([[0.0, 1, 2, 3, 4]]))
    assert [rows.numel() for rows in loss.seen] == [4, 4]
    loss = Mean()
    MinibatchEpochs(loss, sgd(loss), num_epochs=2, minibatch_size=100)(batch_of([[0.0, 1, 2, 3, 4]]))
    assert [rows.numel() for rows in loss.seen] == [5, 5]


def test_nested_keys_are_read():
    loss = Mean(in_keys=[("sensors", "x")])
    batch = TensorDict({("sensors", "x"): torch.ones(1, 4)}, batch_size=[1, 4])
    assert MinibatchEpochs(loss, sgd(loss), num_epochs=1, minibatch_size=2)(batch)["approx_kl"] == 1.0


def test_the_batch_is_left_as_it_was():
    batch = ppo_batch()
    before = batch.clone()
    ppo()(batch)
    assert batch.keys() == before.keys() and (batch == before).all()


@pytest.mark.parametrize(
    ("clipping", "step"), [({"max_grad_norm": 0.5}, 0.5), ({"max_grad_value": 0.25}, 0.25), ({}, 4)]
)
def test_gradients_are_clipped(clipping, step):
    loss = Mean()
    metrics = MinibatchEpochs(loss, sgd(loss), num_epochs=1, minibatch_size=2, **clipping)(batch_of([[4.0, 4.0]]))
    assert loss.owner.weight.item() == pytest.approx(-step)
    assert metrics.get("grad_norm") == (4.0 if "max_grad_norm" in clipping else None)


@pytest.mark.parametrize("max_norm", [0.1, 1e3])
def test_clip_grad_norm_equals_torchs(max_norm):
    parameters = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.zeros(2))]
    for parameter in parameters[:2]:
        parameter.grad = torch.randn_like(parameter)
    theirs = [copy.deepcopy(parameter) for parameter in parameters]
    for parameter, other in zip(parameters[:2], theirs, strict=False):
        other.grad = parameter.grad.clone()
    assert torch.equal(clip_grad_norm_(parameters, max_norm), nn.utils.clip_grad_norm_(theirs, max_norm))
    for parameter, other in zip(parameters[:2], theirs, strict=False):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-5, atol=0)  # torch adds 1e-6 to the norm


def test_a_call_equals_the_loop_one_would_write():
    ours, theirs = ppo(max_grad_norm=0.5), ppo()
    batch = ppo_batch()
    metrics = ours(batch)
    rows, generator, values = batch.reshape(-1), torch.Generator().manual_seed(3), []
    for _ in range(2):
        for chosen in torch.randperm(32, generator=generator).split(8):
            losses = theirs.loss(rows[chosen])
            theirs.optimizer.zero_grad()
            (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
            norm = clip_grad_norm_(theirs.loss.trainable_parameters(), 0.5)
            theirs.optimizer.step()
            values.append({name: value.item() for name, value in losses.items()} | {"grad_norm": norm.item()})
    assert_equal(ours.loss.state_dict(), theirs.loss.state_dict())
    assert metrics == pytest.approx({name: sum(row[name] for row in values) / 8 for name in values[0]}, rel=1e-5)


def test_an_epoch_with_too_much_kl_is_the_last():
    loss = Mean()
    optimise = MinibatchEpochs(loss, sgd(loss), num_epochs=5, minibatch_size=2, target_kl=0.5)
    optimise(batch_of([[0.4, 0.6, 0.5, 0.5]]))
    assert len(loss.seen) == 10  # a mean of 0.5 does not exceed 0.5
    optimise(batch_of([[0.4, 0.6, 0.5, 0.7]]))
    assert len(loss.seen) == 12


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_nan_names_the_term_and_undoes_the_call(momentum):
    loss = Mean(weight=1.0)
    optimise = MinibatchEpochs(loss, sgd(loss, momentum=momentum), num_epochs=2, minibatch_size=1)
    optimise(batch_of([[1.0, 2.0]]))
    before = copied(optimise)
    with pytest.raises(NonFiniteError, match=r"loss_a: .*nan.*under 'x'\. Parameters and optimizer are as they were"):
        optimise(batch_of([[1.0, torch.nan, 3.0]]))
    assert_equal(copied(optimise), before)  # parameters, momentum and the buffer that counts calls
    assert optimise(batch_of([[1.0, 2.0]]))["loss_b"] == 0.0


def test_a_gradient_that_overflows_in_the_last_step_is_seen():
    loss = Mean(weight=1.0)
    optimise = MinibatchEpochs(loss, sgd(loss, lr=1e30), num_epochs=1, minibatch_size=1)
    with pytest.raises(NonFiniteError, match="gradient"):
        optimise(batch_of([[1e30]]))
    assert loss.owner.weight.item() == 1.0


def test_a_first_call_that_fails_leaves_an_optimizer_without_state():
    optimise, batch = ppo(), ppo_batch()
    before = copied(optimise)
    batch["value_target"][0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match="loss_critic"):
        optimise(batch)
    assert_equal(copied(optimise)[0], before[0])
    assert optimise.optimizer.state_dict()["state"] == {}


def test_an_interrupt_in_the_middle_undoes_the_call():
    loss = Mean(weight=1.0)
    optimise = MinibatchEpochs(loss, sgd(loss), num_epochs=1, minibatch_size=1)
    steps = []

    def interrupt(*_):
        steps.append(loss.owner.weight.item())
        if len(steps) == 3:
            raise KeyboardInterrupt

    handle = optimise.optimizer.register_step_post_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        optimise(batch_of([[1.0, 1.0, 1.0, 1.0]]))
    handle.remove()
    assert steps == [0.0, -1.0, -2.0] and loss.owner.weight.item() == 1.0


def test_a_missing_key_is_named():
    with pytest.raises(KeyMissing, match="advantage.*GAE"):
        ppo()(ppo_batch().exclude("advantage"))


def test_valid_rows_come_in_the_order_of_the_batch():
    batch = batch_of([[1.0, 2.0], [3.0, 4.0]])
    batch["collector", "mask"] = torch.tensor([[True, False], [True, True]])
    assert valid_rows(batch, ["x"])["x"].tolist() == [1.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "options",
    [
        {"num_epochs": 0},
        {"minibatch_size": 0},
        {"max_grad_norm": 0.0},
        {"max_grad_value": -1.0},
        {"target_kl": 0.0},
        {"max_grad_norm": 1.0, "max_grad_value": 1.0},
    ],
)
def test_bad_options_are_refused(options):
    loss = Mean()
    with pytest.raises(ConfigError, match=next(iter(options))):
        MinibatchEpochs(loss, sgd(loss), **{"num_epochs": 1, "minibatch_size": 1, **options})


def test_a_target_kl_needs_a_loss_that_reports_it():
    class Silent(Mean):
        def terms(self, rows):
            return {"loss_a": self.owner.weight * rows["x"].mean()}

    loss = Silent()
    with pytest.raises(ConfigError, match="approx_kl"):
        MinibatchEpochs(loss, sgd(loss), num_epochs=1, minibatch_size=1, target_kl=0.1)(batch_of([[1.0]]))


def test_an_optimizer_of_other_parameters_is_refused():
    loss = Mean()
    with pytest.raises(ConfigError, match="trainable_parameters"):
        MinibatchEpochs(loss, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), num_epochs=1, minibatch_size=1)


def test_a_wrapper_that_is_no_optimizer_of_torch_but_passes_all_on_to_one_is_taken():
    class Wrapper:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

    loss = Mean()
    MinibatchEpochs(loss, Wrapper(sgd(loss)), num_epochs=1, minibatch_size=2)(batch_of([[4.0, 4.0]]))
    assert loss.owner.weight.item() == -4.0  # the mean of 4 and 4, by a rate of 1
    with pytest.raises(ConfigError, match="an optimizer of torch, got Mean"):
        MinibatchEpochs(loss, loss, num_epochs=1, minibatch_size=2)


def test_compiled_steps_are_one_graph_whatever_is_annealed_and_agree_with_eager_ones(traced):
    eager, compiled, batch = ppo(), ppo(compile=True), ppo_batch()
    for epsilon in (0.2, 0.1):
        eager.loss.clip_epsilon = compiled.loss.clip_epsilon = epsilon
        assert compiled(batch) == pytest.approx(eager(batch), rel=1e-4, abs=1e-6)
    torch.testing.assert_close(compiled.loss.state_dict(), eager.loss.state_dict())
    assert len(traced) == 1
