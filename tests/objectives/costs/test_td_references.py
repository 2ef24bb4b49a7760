"""Every loss of values against a plain float64 loop over its rows: the value, and the gradient of the loop."""

import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.losses import BOUNDS, HIGH, LOW, critics, deterministic, gaussian, make_transitions, network
from torchrl.data.specs import Categorical as CategoricalSpec
from torchrl.modules import (
    MLP,
    Actor,
    Categorical,
    DistributionalQValueActor,
    ProbabilisticActor,
    QuantileQValueActor,
    QValueActor,
    ValueEnsemble,
    ValueOperator,
)
from torchrl.objectives import (
    DDPGLoss,
    DiscreteSACLoss,
    DistributionalDQNLoss,
    DQNLoss,
    QuantileDQNLoss,
    REDQLoss,
    SACLoss,
    TD3Loss,
    total_loss,
)

NUM, GAMMA = 9, 0.9


def float64(batch):
    return batch.apply(lambda x: x.double() if x.is_floating_point() else x)


def batch_of(action, *, n_step=False):
    batch = float64(make_transitions(action, NUM))
    if n_step:
        batch["next", "gamma"] = GAMMA ** torch.randint(1, 4, (NUM, 1)).double()
        batch["replay", "weight"] = torch.rand(NUM).double()
    return batch


def rows_of(batch):
    """Yield what each row says: s, a, r, γ (0 at the end of the task), s', w."""
    for row in batch:
        gamma = row.get(("next", "gamma"), torch.tensor([GAMMA], dtype=torch.float64)).item()
        gamma *= 1 - row["next", "terminated"].double().item()
        weight = row.get(("replay", "weight"), torch.ones(())).item()
        yield row["observation"], row["action"], row["next", "reward"].item(), gamma, row["next", "observation"], weight


def agrees(loss, batch, expected):
    """Hold value and gradients against the loop's."""
    torch.manual_seed(7)
    terms = loss(batch)
    for key, value in expected.items():
        torch.testing.assert_close(terms[key], torch.as_tensor(value, dtype=torch.float64), msg=key)
    loss.zero_grad()
    total_loss(terms).backward()
    parameters = loss.trainable_parameters()
    got = [parameter.grad.clone() for parameter in parameters]
    summed = sum(value for key, value in expected.items() if key.startswith("loss_"))
    torch.testing.assert_close(got, list(torch.autograd.grad(summed, parameters)))


def moved(loss):
    """Let the targets differ from the networks."""
    loss = loss.double()
    with torch.no_grad():
        for _, target in loss.targets():
            for parameter in target.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return loss


def huber(x):
    return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5


@pytest.mark.parametrize("n_step", [False, True])
@pytest.mark.parametrize("double", [False, True])
class TestDQN:
    def test_plain(self, double, n_step):
        loss, batch = (
            moved(DQNLoss(QValueActor(network(4, 3)), gamma=GAMMA, double=double)),
            batch_of("choice", n_step=n_step),
        )
        q, target_q = loss.actor.module, loss.target_actor.module
        total, errors = 0, []
        for s, a, r, gamma, after, w in rows_of(batch):
            best = int((q if double else target_q)(after).argmax())
            error = q(s)[a] - (r + gamma * target_q(after)[best]).detach()
            total = total + w * huber(error) / NUM
            errors.append(abs(error.item()))
        agrees(loss, batch, {"loss_value": total, "td_error": errors})

    def test_distribution(self, double, n_step):
        """Atoms -3, -2.4 … 3 of spacing 0.6."""
        actor = DistributionalQValueActor(network(4, 3, 11), low=-3.0, high=3.0)
        loss, batch = moved(DistributionalDQNLoss(actor, gamma=GAMMA, double=double)), batch_of("choice", n_step=n_step)
        net, target_net = loss.actor.module, loss.target_actor.module
        atoms = torch.linspace(-3, 3, 11, dtype=torch.float64)
        total, errors = 0, []
        for s, a, r, gamma, after, w in rows_of(batch):
            best = int(((net if double else target_net)(after).softmax(-1) @ atoms).argmax())
            mass, projected = target_net(after)[best].softmax(-1), [0.0] * 11
            for k in range(11):
                place = (min(max(r + gamma * atoms[k].item(), -3), 3) + 3) / 0.6
                for i in range(11):
                    projected[i] += mass[k].item() * max(0.0, 1 - abs(place - i))
            row = -sum(p * log_p for p, log_p in zip(projected, net(s)[a].log_softmax(-1), strict=True))
            total = total + w * row / NUM
            errors.append(row.item() + sum(p * math.log(p) for p in projected if p > 0))
        agrees(loss, batch, {"loss_value": total, "td_error": errors})

    def test_quantiles(self, double, n_step):
        actor = QuantileQValueActor(network(4, 3, 5))
        loss, batch = moved(QuantileDQNLoss(actor, gamma=GAMMA, double=double)), batch_of("choice", n_step=n_step)
        net, target_net = loss.actor.module, loss.target_actor.module
        total, errors = 0, []
        for s, a, r, gamma, after, w in rows_of(batch):
            best = int((net if double else target_net)(after).mean(-1).argmax())
            targets = (r + gamma * target_net(after)[best]).detach()
            for i, theta in enumerate(net(s)[a]):
                for y in targets:
                    u = y - theta
                    total = total + w * abs((2 * i + 1) / 10 - float(u < 0)) * huber(u) / 5 / NUM
            errors.append(abs((net(s)[a].mean() - targets.mean()).item()))
        agrees(loss, batch, {"loss_value": total, "td_error": errors})


def test_masked_actions_of_the_successor_are_not_chosen():
    loss = moved(DQNLoss(QValueActor(network(4, 3), mask_key="action_mask"), gamma=GAMMA))
    batch = batch_of("masked")
    over = batch["next", "terminated"].squeeze(-1)
    batch["next", "action_mask"][over] = False  # nothing is legal once the task is over
    q, target_q = loss.actor.module, loss.target_actor.module
    total = 0
    for (s, a, r, gamma, after, _), mask in zip(rows_of(batch), batch["next", "action_mask"], strict=True):
        legal = [i for i in range(3) if mask[i]] or [0]
        best = max(legal, key=lambda i: q(after)[i].item())
        total = total + huber(q(s)[a] - (r + gamma * target_q(after)[best]).detach()) / NUM
    agrees(loss, batch, {"loss_value": total})


def member_values(ensemble, s, a):
    return [value[0] for value in ensemble.module(torch.cat([s, a]))]


class TestDDPG:
    def test_plain(self):
        critic = ValueOperator(MLP(6, 1, num_cells=(7,)), in_keys=["observation", "action"])
        loss, batch = moved(DDPGLoss(deterministic(), critic, gamma=GAMMA)), batch_of("vector", n_step=True)
        q, target_q = loss.critic.module, loss.target_critic.module
        mu, target_mu = loss.actor.module, loss.target_actor.module
        frozen = {name: p.detach() for name, p in q.named_parameters()}
        value, actor, errors = 0, 0, []
        for s, a, r, gamma, after, w in rows_of(batch):
            y = (r + gamma * target_q(torch.cat([after, target_mu(after)]))).item()
            error = q(torch.cat([s, a]))[0] - y
            value = value + w * error**2 / NUM
            actor = actor - torch.func.functional_call(q, frozen, (torch.cat([s, mu(s)]),))[0] / NUM
            errors.append(abs(error.item()))
        agrees(loss, batch, {"loss_critic": value, "loss_actor": actor, "td_error": errors})

    def test_td3(self):
        loss = moved(TD3Loss(deterministic(), critics(2), action_spec=BOUNDS, gamma=GAMMA, target_noise=0.6))
        batch = batch_of("vector")
        target_mu, mu = loss.target_actor.module, loss.actor.module
        torch.manual_seed(7)
        noise = 0.6 * torch.randn(NUM, 2, dtype=torch.float64)
        half = (HIGH - LOW).double() / 2
        frozen = {name: p.detach() for name, p in loss.critic.module.named_parameters()}
        value, actor = 0, 0
        for i, (s, a, r, gamma, after, _) in enumerate(rows_of(batch)):
            move = torch.tensor([min(max(x, -0.5), 0.5) for x in noise[i].tolist()]).double() * half
            action = torch.minimum(torch.maximum(target_mu(after) + move, LOW.double()), HIGH.double())
            y = r + gamma * min(v.item() for v in member_values(loss.target_critic, after, action))
            value = value + sum((v - y) ** 2 for v in member_values(loss.critic, s, a)) / NUM
            joined = torch.func.functional_call(loss.critic.module, frozen, (torch.cat([s, mu(s)]),))
            actor = actor - joined[0, 0] / NUM
        agrees(loss, batch, {"loss_critic": value, "loss_actor": actor})


def squashed(actor, s, noise):
    """Return the action and its log-density for given noise, by the change of variables."""
    loc, scale = actor.module(s)
    u = loc + scale * noise
    half, middle = (HIGH - LOW).double() / 2, (HIGH + LOW).double() / 2
    log_normal = -0.5 * noise**2 - scale.log() - 0.5 * math.log(2 * math.pi)
    log_slope = (half * (1 - torch.tanh(u) ** 2)).log()
    return middle + half * torch.tanh(u), (log_normal - log_slope).sum()


class TestSAC:
    @pytest.mark.parametrize("redq", [False, True])
    def test_without_a_state_value(self, redq):
        options = {"action_spec": BOUNDS, "gamma": GAMMA, "temperature": 0.3}
        make = (
            (lambda: REDQLoss(gaussian(), critics(4), num_sampled=2, **options))
            if redq
            else (lambda: SACLoss(gaussian(), critics(2), **options))
        )
        loss, batch = moved(make()), batch_of("vector", n_step=True)
        torch.manual_seed(7)
        first = torch.randn(NUM, 2, dtype=torch.float64)
        chosen = torch.randperm(4)[:2].tolist() if redq else [0, 1]
        second = torch.randn(NUM, 2, dtype=torch.float64)
        frozen = {name: p.detach() for name, p in loss.critic.module.named_parameters()}
        log_alpha = loss.temperature.log_value
        aim = math.log(2.0) + math.log(0.5) - 2
        assert loss.target_entropy == pytest.approx(aim)
        critic, actor, heat = 0, 0, 0
        for i, (s, a, r, gamma, after, w) in enumerate(rows_of(batch)):
            action, log_prob = squashed(loss.actor, after, first[i])
            judged = member_values(loss.target_critic, after, action)
            y = (r + gamma * (min(judged[k] for k in chosen) - 0.3 * log_prob)).item()
            critic = critic + w * sum((v - y) ** 2 for v in member_values(loss.critic, s, a)) / NUM
            action, log_prob = squashed(loss.actor, s, second[i])
            judged = torch.func.functional_call(loss.critic.module, frozen, (torch.cat([s, action]),))[:, 0]
            actor = actor + (0.3 * log_prob - (judged.mean() if redq else judged.min())) / NUM
            heat = heat - log_alpha * (log_prob.item() + aim) / NUM
        agrees(loss, batch, {"loss_critic": critic, "loss_actor": actor, "loss_temperature": heat})

    def test_with_a_state_value(self):
        value = ValueOperator(network(4, 1))
        options = {"action_spec": BOUNDS, "gamma": GAMMA, "temperature": 0.3, "learn_temperature": False}
        loss, batch = moved(SACLoss(gaussian(), critics(2), value=value, **options)), batch_of("vector")
        torch.manual_seed(7)
        noise = torch.randn(NUM, 2, dtype=torch.float64)
        frozen = {name: p.detach() for name, p in loss.critic.module.named_parameters()}
        critic, actor, state = 0, 0, 0
        for i, (s, a, r, gamma, after, _) in enumerate(rows_of(batch)):
            y = (r + gamma * loss.target_value.module(after)).item()
            critic = critic + sum((v - y) ** 2 for v in member_values(loss.critic, s, a)) / NUM
            action, log_prob = squashed(loss.actor, s, noise[i])
            judged = torch.func.functional_call(loss.critic.module, frozen, (torch.cat([s, action]),))[:, 0].min()
            actor = actor + (0.3 * log_prob - judged) / NUM
            state = state + (loss.value.module(s)[0] - (judged - 0.3 * log_prob).item()) ** 2 / NUM
        agrees(loss, batch, {"loss_critic": critic, "loss_actor": actor, "loss_state_value": state})
        assert "loss_temperature" not in loss(batch)

    def test_of_choices(self):
        actor = ProbabilisticActor(network(4, 3), Categorical, log_prob_key=None)
        ensemble = ValueEnsemble(lambda: MLP(4, 3, num_cells=(7,)), 2, in_keys=["observation"])
        options = {"action_spec": CategoricalSpec(3), "gamma": GAMMA, "temperature": 0.3}
        loss, batch = moved(DiscreteSACLoss(actor, ensemble, **options)), batch_of("choice", n_step=True)
        log_alpha = loss.temperature.log_value
        critic, policy, heat = 0, 0, 0
        for s, a, r, gamma, after, w in rows_of(batch):
            p, q = actor.module(after).softmax(-1), loss.target_critic.module(after).min(0).values
            y = (r + gamma * (p * (q - 0.3 * p.log())).sum()).item()
            critic = critic + w * sum((v[a] - y) ** 2 for v in loss.critic.module(s)) / NUM
            p, q = actor.module(s).softmax(-1), loss.critic.module(s).min(0).values.detach()
            policy = policy - (p * (q - 0.3 * p.log())).sum() / NUM
            entropy = -(p * p.log()).sum().item()
            heat = heat - log_alpha * (0.98 * math.log(3) - entropy) / NUM
        agrees(loss, batch, {"loss_critic": critic, "loss_actor": policy, "loss_temperature": heat})


def test_an_action_below_another_level_stays_in_the_rows_as_it_was_recorded():
    key = ("agents", "action")
    actor = Actor(nn.Linear(3, 2), out_keys=[key])
    loss = DDPGLoss(actor, ValueEnsemble(lambda: MLP(5, 1), 1, in_keys=["observation", key]))
    batch = TensorDict({"observation": torch.randn(4, 3), key: torch.randn(4, 2)}, [4])
    batch["next"] = {"observation": torch.randn(4, 3), "reward": torch.ones(4, 1)}
    batch["next", "terminated"] = torch.zeros(4, 1, dtype=torch.bool)
    rows = loss._valid_rows(batch)
    recorded, before = rows[key].clone(), loss.critic_terms(rows)["q_value"]
    loss.actor_terms(rows)
    assert torch.equal(rows[key], recorded) and torch.equal(loss.critic_terms(rows)["q_value"], before)
