"""Natural mistakes where parts meet: each is refused by the part that sees it first, with what to write."""

import re

import gymnasium
import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.agents import Agent, Evaluator, Figures, MinibatchEpochs, ReplayUpdates
from torchrl.collectors import Collector, rollout
from torchrl.data import MultiStep, Reward2Go
from torchrl.data.replay import ReplayBuffer, TensorStorage
from torchrl.envs import GymEnv
from torchrl.errors import TorchRLError
from torchrl.modules import (
    MLP,
    Actor,
    ActorCriticWrapper,
    ActorValueOperator,
    AdditiveGaussian,
    Categorical,
    EGreedy,
    ObservationNormalizer,
    Operator,
    ProbabilisticActor,
    QValueActor,
    RandomPolicy,
    Sequence,
    ValueEnsemble,
    ValueOperator,
)
from torchrl.objectives import GAE, ClipPPOLoss, DDPGLoss, DQNLoss


def make_env():
    return GymEnv("CartPole-v1", num_envs=2)


def collected(policy):
    return Collector(make_env(), policy, frames_per_batch=8, seed=0).collect()


def actor(network=None, **options):
    return ProbabilisticActor(MLP(4, 2) if network is None else network, Categorical, **options)


def critic(in_features=4, **options):
    return ValueOperator(MLP(in_features, 1), **options)


def batch():
    return collected(actor())


def loss():
    return ClipPPOLoss(actor(), critic())


def epochs(one=None, optimizer=None):
    one = loss() if one is None else one
    optimizer = torch.optim.Adam(one.trainable_parameters()) if optimizer is None else optimizer
    return MinibatchEpochs(one, optimizer, num_epochs=1, minibatch_size=4)


def collector():
    return Collector(make_env(), actor(), frames_per_batch=8, total_frames=8)


def updates(first, buffer):
    return ReplayUpdates(first, torch.optim.Adam(nn.Linear(1, 1).parameters()), buffer, batch_size=4)


def buffer():
    return ReplayBuffer(TensorStorage(100))


def without(key):
    return batch().exclude(key)


NETWORK = r"policy: expected a policy that takes a TensorDict.*What fits: ProbabilisticActor\(network, Categorical\)"
WRAP = r"expected a module with in_keys and out_keys, got MLP\. Write "
MISTAKES = {
    "a network collects": (lambda: collected(nn.Sequential(nn.Linear(4, 2))), NETWORK),
    "an MLP collects": (lambda: collected(MLP(4, 2)), NETWORK),
    "a network in rollout": (lambda: next(rollout(make_env(), MLP(4, 2), n_steps=2)), NETWORK),
    "a network in env.rollout": (lambda: make_env().rollout(2, MLP(4, 2)), NETWORK),
    "a network is evaluated": (lambda: Evaluator(make_env(), num_episodes=1)(MLP(4, 2)), NETWORK),
    "a function of tensors": (
        lambda: collected(lambda root: root["observation"].sum(-1)),
        "expected a TensorDict, got Tensor from a function",
    ),
    "a class collects": (lambda: collected(MLP), r"got <class .*Make one: MLP\(\.\.\.\)"),
    "nothing is evaluated": (lambda: Evaluator(make_env())(None), "Evaluator: expected a policy, got None"),
    "an env is evaluated": (lambda: Evaluator(make_env())(make_env()), "expected a policy that can be called"),
    "size of an actor": (
        lambda: collected(actor(MLP(3, 2))),
        r"ProbabilisticActor of 'logits': expected 3 features for the first layer of its MLP, got 4 from "
        r"\{'observation': \[2, 4\]\}\. Build the network with in_features=4",
    ),
    "size behind a normalizer": (
        lambda: collected(actor(nn.Sequential(ObservationNormalizer(4), MLP(3, 2)))),
        "expected 3 features for the first layer of its Sequential, got 4",
    ),
    "size of a critic": (lambda: GAE(critic(3))(batch()), "ValueOperator of 'state_value': expected 3 features.*got 4"),
    "size of an ensemble": (
        lambda: ValueEnsemble(lambda: MLP(5, 2), 2, in_keys=["observation"])(batch()),
        "ValueEnsemble of 'action_value': expected 5 features .* got 4",
    ),
    "a discrete action beside features": (
        lambda: ValueEnsemble(lambda: MLP(5, 1), 2)(batch()),
        "ValueEnsemble of 'state_action_value'.*a discrete action has in its one-hot form only",
    ),
    "pictures with the channels last": (
        lambda: actor(nn.Conv2d(3, 2, 3))(TensorDict({"observation": torch.zeros(2, 8, 8, 3)}, [2])),
        r"expected pictures \[\*B, 3, H, W\] for the first layer of its Conv2d, got .*Permute\(\(2, 0, 1\)",
    ),
    "pictures with other channels": (
        lambda: actor(nn.Conv2d(4, 2, 3))(TensorDict({"observation": torch.zeros(2, 3, 8, 8)}, [2])),
        r"expected pictures \[\*B, 4, H, W\].*got \{'observation': \[2, 3, 8, 8\]\}\.$",
    ),
    "what is not flattened": (
        lambda: actor(MLP(12, 2))(TensorDict({"observation": torch.zeros(2, 4, 3)}, [2])),
        r"expected 12 features .*got 3 .*Flatten\(in_keys=\[\.\.\.\]\) of the environment",
    ),
    "an environment as EGreedy's spec": (
        lambda: EGreedy(QValueActor(MLP(4, 2)), make_env(), num_frames=3),
        r"EGreedy, action_spec: expected a TensorSpec, got GymEnv\(.*Write env.action_spec",
    ),
    "a space as RandomPolicy's spec": (
        lambda: RandomPolicy(gymnasium.spaces.Discrete(2)),
        r"RandomPolicy, action_spec: expected a TensorSpec, got Discrete\(2\).*spec_from_space",
    ),
    "in_keys of an actor": (
        lambda: collected(actor(in_keys=["obs"])),
        r"expected the key 'obs', got keys \[.*\]\. Did you mean 'observation'\?",
    ),
    "in_keys of a critic": (lambda: GAE(critic(in_keys=["obs"]))(batch()), r"Did you mean 'observation'\?"),
    "a dict to GAE": (
        lambda: GAE(critic())({"observation": torch.zeros(2, 4)}),
        r"GAE: expected a TensorDict, got dict. Write TensorDict\(entries, batch_size=\[...\]\)",
    ),
    "a dict to a loss": (lambda: loss()({}), "ClipPPOLoss: expected a TensorDict, got dict. Write TensorDict"),
    "a list to a loss": (lambda: loss()([batch()]), r"ClipPPOLoss: expected a TensorDict, got list\.$"),
    "nothing to MultiStep": (lambda: MultiStep(3, 0.9)(None), "MultiStep: expected a TensorDict, got NoneType"),
    "a tensor to Reward2Go": (lambda: Reward2Go(0.9)(torch.zeros(3)), "expected a TensorDict, got Tensor"),
    "a batch with its reward outside": (
        lambda: GAE(critic())(without(("next", "reward")).set("reward", torch.zeros(2, 4, 1))),
        r"GAE: expected the key \('next', 'reward'\).* Did you mean 'reward'\?",
    ),
    "a batch without successors": (lambda: GAE(critic())(without("next")), r"got .*\. The environment writes it"),
    "a network as PPO's critic": (lambda: ClipPPOLoss(actor(), MLP(4, 1)), f"ClipPPOLoss, critic: {WRAP}ValueOperator"),
    "a network as GAE's critic": (lambda: GAE(MLP(4, 1)), f"GAE, critic: {WRAP}ValueOperator"),
    "actor and critic swapped": (lambda: ClipPPOLoss(critic(), actor()), "expected an actor with a distribution"),
    "DDPG's swapped": (
        lambda: DDPGLoss(ValueOperator(MLP(5, 1), in_keys=["observation", "action"]), Actor(MLP(4, 1))),
        "DDPGLoss: expected an actor with an action_key, got ValueOperator. The actor comes first",
    ),
    "a network as DDPG's actor": (lambda: DDPGLoss(MLP(4, 1), critic()), f"DDPGLoss, actor: {WRAP}"),
    "a network in a Sequence": (lambda: Sequence(MLP(4, 2), actor()), f"Sequence, module 0: {WRAP}"),
    "a network that explores": (
        lambda: EGreedy(MLP(4, 2), make_env().action_spec, num_frames=3),
        f"EGreedy, policy: {WRAP}",
    ),
    "a network with a critic": (lambda: ActorCriticWrapper(MLP(4, 2), critic()), f"ActorCriticWrapper, actor: {WRAP}"),
    "a network as a trunk": (lambda: ActorValueOperator(MLP(4, 2), actor(), critic()), f"Operator, common: {WRAP}"),
    "a dict acts": (
        lambda: actor()({"observation": torch.zeros(2, 4)}),
        r"expected a TensorDict or tensors, got \['dict'\]\. Write TensorDict",
    ),
    "an array acts": (lambda: actor()(torch.zeros(2, 4).numpy()), r"got \['ndarray'\]\. .*torch\.as_tensor"),
    "store=buffer": (lambda: Agent(collector(), epochs(), store=buffer()), "Agent, store: .* Give its method extend"),
    "advantage=class": (lambda: Agent(collector(), epochs(), advantage=GAE), r"Agent, advantage: .*Make one: GAE\("),
    "optimise=loss": (
        lambda: Agent(collector(), loss()),
        "Agent, optimise: expected .* got ClipPPOLoss, which lacks loss, optimizer. Write Mini",
    ),
    "a list of batches": (lambda: Agent([], epochs()), r"got \[\], which lacks policy, policy_version, frames\. Write"),
    "an agent's swapped": (lambda: Agent(epochs(), collector()), "Agent, collector: expected a collector, got <.*Mini"),
    "evaluator=env": (lambda: Agent(collector(), epochs(), evaluator=make_env()), r"Write Evaluator\(env\)"),
    "logger=text": (lambda: Agent(collector(), epochs(), logger="runs"), "Agent, logger: expected a Logger.*'runs'"),
    "loss and optimizer swapped": (
        lambda: MinibatchEpochs(torch.optim.Adam(loss().parameters()), loss(), num_epochs=1, minibatch_size=4),
        "MinibatchEpochs, loss: expected a Loss, got Adam. The loss comes first",
    ),
    "no optimizer": (lambda: epochs(loss(), 1e-3), r"optimizer: .*got float\. Write torch\.optim\.Adam\("),
    "buffer first": (lambda: updates(buffer(), loss()), "ReplayUpdates, loss: expected a Loss, got ReplayBuffer"),
    "a storage as buffer": (
        lambda: updates(DQNLoss(QValueActor(MLP(4, 2))), TensorStorage(10)),
        "ReplayUpdates, buffer: expected a ReplayBuffer, got TensorStorage",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake):
    make, message = MISTAKES[mistake]
    with pytest.raises(TorchRLError) as error:
        make()
    assert re.search(message, str(error.value), flags=re.DOTALL), str(error.value)


def test_what_is_no_mistake_of_size_keeps_its_error_and_says_where_it_was():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("a shape of things to come")

    policy = actor(nn.Sequential(nn.Linear(4, 2), Broken()))
    with pytest.raises(RuntimeError, match="things to come") as error:
        collected(policy)
    assert error.value.__notes__ == [
        "In the Sequential of the ProbabilisticActor of 'logits', called with {'observation': [2, 4]}."
    ]


def test_a_type_error_inside_a_policy_with_keys_stays_its_own():
    class Broken(nn.Module):
        def forward(self, x):
            raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        collected(Sequence(Operator(Broken(), in_keys=["observation"], out_keys=["action"])))


@pytest.mark.parametrize("make", [lambda spec: spec, lambda spec: spec[0]], ids=["all rows", "one row"])
def test_explorers_take_the_spec_of_a_row_or_of_all(make):
    spec = make(make_env().action_spec)
    for seed in (0, 1):
        generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
        explorer = EGreedy(QValueActor(MLP(4, 2)), spec, start=1.0, num_frames=10**9, generator=generators[0])
        came = collected(explorer)["action"], collected(RandomPolicy(spec, generator=generators[1]))["action"]
        assert all(actions.shape == (2, 4) and actions.dtype == torch.int64 for actions in came)
    pendulum = GymEnv("Pendulum-v1", num_envs=2)
    noisy = AdditiveGaussian(Actor(MLP(3, 1)), make(pendulum.action_spec), start=5.0)
    action = Collector(pendulum, noisy, frames_per_batch=8, seed=0).collect()["action"]
    assert action.abs().max() == 2.0 and noisy.low.tolist() == [-2.0]


def test_both_specs_draw_the_same_actions():
    def actions(explorer, spec):
        generator = torch.Generator().manual_seed(0)
        return collected(explorer(spec, generator))["action"]

    def greedy(spec, generator):
        torch.manual_seed(0)
        return EGreedy(QValueActor(MLP(4, 2)), spec, start=0.5, num_frames=10**9, generator=generator)

    spec = make_env().action_spec
    for explorer in (greedy, lambda spec, generator: RandomPolicy(spec, generator=generator)):
        assert torch.equal(actions(explorer, spec), actions(explorer, spec[0]))


class Passing:
    """A collector of the user's own, which inherits nothing and passes on what it does not know."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __iter__(self):
        yield from self.inner


class PlainSteps:
    """Gradient steps of the user's own; nothing of them is saved."""

    def __init__(self, loss):
        self.loss, self.optimizer = loss, torch.optim.SGD(loss.trainable_parameters(), lr=0.1)

    def __call__(self, batch):
        self.loss(batch.flatten())
        return Figures({"loss/mine": float(len(batch))})


class Lines:
    """A logger of the user's own."""

    def __init__(self):
        self.lines = []

    def log_scalars(self, metrics, step):
        self.lines.append((step, metrics["loss/mine"]))


def test_parts_of_the_users_own_inherit_nothing(tmp_path):
    stored, lines, inner = [], Lines(), collector()
    steps = PlainSteps(DQNLoss(QValueActor(MLP(4, 2))))
    agent = Agent(Passing(inner), steps, store=stored.append, logger=lines, folder=tmp_path)
    agent.train()
    assert lines.lines == [(8, 2.0)] and len(stored) == 1 and inner.policy_version == 1
    agent.load(tmp_path / "last.pt")
    assert agent.frames == 8
