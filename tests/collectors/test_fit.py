"""What a policy is held against when it meets its environment: every family beside every kind of action."""

import warnings
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.agents import Evaluator
from torchrl.collectors import Collector, EpisodeCollector, WarmUp, rollout
from torchrl.data.specs import (
    Binary,
    Bounded,
    Categorical as Choice,
    Composite,
    MultiCategorical as Choices,
    MultiOneHot,
    OneHot,
    Unbounded,
)
from torchrl.data.specs.fitting import fitting_line
from torchrl.envs import TorchEnv
from torchrl.errors import SpecError
from torchrl.modules import (
    MLP,
    Actor,
    ActorCriticWrapper,
    Bernoulli,
    Categorical,
    CompositeDistribution,
    Delta,
    EGreedy,
    MultiCategorical,
    NoisyLinear,
    Normal,
    NormalHead,
    OneHotCategorical,
    Operator,
    ParallelHeads,
    ProbabilisticActor,
    QValueActor,
    Sequence,
    TanhDelta,
    TanhHead,
    TanhNormal,
    TruncatedNormal,
    ValueOperator,
)

B = 4


class Still(TorchEnv):
    """A world of two numbers that nothing moves, with any kind of action."""

    def __init__(self, row):
        observation = Composite({"observation": Unbounded((B, 2))}, (B,))
        super().__init__(
            batch_size=(B,), observation_spec=observation, action_spec=row.expand(B, *row.shape), max_episode_steps=3
        )

    def start(self, random):
        return TensorDict({"observation": torch.zeros(*random.batch_size, 2)}, random.batch_size)

    def dynamics(self, state, action):
        return state, torch.zeros(B, 1), torch.zeros(B, 1, dtype=torch.bool)


def gaussian(num):
    return nn.Sequential(nn.Linear(2, num), NormalHead(num))


def of(family, network):
    return lambda: ProbabilisticActor(network(), family, log_prob_key=None)


def logits(num):
    return partial(nn.Linear, 2, num)


def numbers(num):
    return partial(gaussian, num)


BOX = Bounded(-2.0, 2.0, (3,))
PARTS = Composite({"gas": Bounded(0.0, 1.0, (1,)), "gear": Choice(2)})
ROWS = {
    "choice": Choice(3),
    "choice of many": Choice(3, (2,)),
    "choices": Choices([3, 2]),
    "one-hot": OneHot(3),
    "groups": MultiOneHot([3, 2]),
    "bits": Binary((3,)),
    "box": BOX,
    "half box": Bounded(0.0, float("inf"), (3,)),
    "numbers": Unbounded((3,)),
    "scalar": Bounded(-2.0, 2.0, ()),
    "whole numbers": Bounded(0, 9, (3,), torch.int64),
    "parts": PARTS,
}
IN_BOX = {"box", "numbers", "half box"}
ACTORS = {  # what each writes, and the rows that it fits
    "Categorical(3)": (of(Categorical, logits(3)), {"choice"}),
    "Categorical(1)": (of(Categorical, logits(1)), set()),
    "Categorical(4)": (of(Categorical, logits(4)), set()),
    "OneHotCategorical(3)": (of(OneHotCategorical, logits(3)), {"one-hot"}),
    "OneHotCategorical(2)": (of(OneHotCategorical, logits(2)), set()),
    "MultiCategorical([3, 2])": (of(MultiCategorical.of([3, 2]), logits(5)), {"choices"}),
    "MultiCategorical([2, 3])": (of(MultiCategorical.of([2, 3]), logits(5)), set()),
    "MultiCategorical([3, 3])": (of(MultiCategorical.of([3, 3]), logits(6)), {"choice of many"}),
    "Bernoulli(3)": (of(Bernoulli, logits(3)), {"bits"}),
    "Bernoulli(2)": (of(Bernoulli, logits(2)), set()),
    "Bernoulli(3, int64)": (of(partial(Bernoulli, dtype=torch.int64), logits(3)), set()),
    "Normal(3)": (of(Normal, numbers(3)), IN_BOX),
    "Normal(1)": (of(Normal, numbers(1)), set()),
    "Normal(2)": (of(Normal, numbers(2)), set()),
    "TanhNormal(3)": (of(TanhNormal.within(-2, 2), numbers(3)), {"box", "numbers"}),
    "TruncatedNormal(3)": (of(TruncatedNormal.within(-2, 2), numbers(3)), {"box", "numbers"}),
    "TanhNormal(3) too wide": (of(TanhNormal.within(-3, 3), numbers(3)), {"numbers"}),
    "Delta(3)": (of(Delta, logits(3)), IN_BOX),
    "TanhDelta(3)": (of(TanhDelta.within(-2, 2), logits(3)), {"box", "numbers"}),
    "TanhDelta(2)": (of(TanhDelta.within(-2, 2), logits(2)), set()),
    "composite": (
        of(
            CompositeDistribution.of(gas=TanhNormal.within(0, 1), gear=Categorical),
            lambda: ParallelHeads(gaussian(1), nn.Linear(2, 2)),
        ),
        {"parts"},
    ),
    "composite, three gears": (
        of(
            CompositeDistribution.of(gas=TanhNormal.within(0, 1), gear=Categorical),
            lambda: ParallelHeads(gaussian(1), nn.Linear(2, 3)),
        ),
        set(),
    ),
    "composite, no gear": (of(CompositeDistribution.of(gas=TanhNormal.within(0, 1)), numbers(1)), set()),
    "QValueActor(3)": (lambda: QValueActor(nn.Linear(2, 3)), {"choice"}),
    "QValueActor(2)": (lambda: QValueActor(nn.Linear(2, 2)), set()),
    "QValueActor(3, one-hot)": (lambda: QValueActor(nn.Linear(2, 3), one_hot=True), {"one-hot"}),
    "Actor(3)": (lambda: Actor(nn.Linear(2, 3)), IN_BOX),
    "Actor(1)": (lambda: Actor(nn.Linear(2, 1)), set()),
    "Actor(3), TanhHead": (
        lambda: Actor(nn.Sequential(nn.Linear(2, 3), TanhHead(-2, 2))),
        {"box", "numbers"},
    ),
    "Actor(3), TanhHead too wide": (lambda: Actor(nn.Sequential(nn.Linear(2, 3), TanhHead(-3, 3))), {"numbers"}),
}
WITHOUT_FAMILY = {"groups", "scalar", "whole numbers"}


@pytest.mark.parametrize("kind", ROWS)
def test_a_policy_fits_or_is_refused_with_what_does(kind):
    row = ROWS[kind]
    for name, (make, fits) in ACTORS.items():
        collector = Collector(Still(row), make(), frames_per_batch=2 * B)
        if kind in fits:
            collector.collect()
            continue
        with pytest.raises(SpecError) as error:
            collector.collect()
        assert fitting_line(row) in str(error.value), name
    assert (kind in WITHOUT_FAMILY) == ("What fits" not in fitting_line(row))


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("choice", "ProbabilisticActor(network, Categorical), whose network gives 3 logits, or QValueActor(network)"),
        ("choice of many", "MultiCategorical.of([3, 3])), whose network gives 6 logits"),
        ("choices", "MultiCategorical.of([3, 2])), whose network gives 5 logits"),
        ("one-hot", "OneHotCategorical), whose network gives 3 logits, or QValueActor(network, one_hot=True)"),
        ("bits", "partial(Bernoulli, dtype=torch.int8)), whose network gives 3 logits"),
        ("box", "TanhNormal.within(-2, 2)), whose network gives loc and scale of 3 (NormalHead(3))"),
        ("half box", "ProbabilisticActor(network, Normal), whose"),
        ("numbers", "ProbabilisticActor(network, Normal), whose"),
        ("parts", "CompositeDistribution.of({'gas': TanhNormal.within(0, 1), 'gear': Categorical})"),
    ],
)
def test_the_line_to_write(kind, line):
    assert line in fitting_line(ROWS[kind])


def test_bounds_that_differ_by_dimension_are_written_out():
    row = Bounded(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0]))
    assert "TanhNormal.within(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0]))" in fitting_line(row)
    Collector(Still(row), of(TanhNormal.within(row.low, row.high), numbers(2))(), frames_per_batch=B).collect()


def test_a_policy_that_reaches_a_part_of_the_actions_is_warned_of():
    policy = of(TanhNormal, numbers(3))()  # the default bounds are -1 and 1
    with pytest.warns(UserWarning, match=r"never takes a part of the actions.*between -2.0 and 2.0, got \[-1.0, 1.0\]"):
        Collector(Still(BOX), policy, frames_per_batch=B).collect()


ONE_LOGIT = ACTORS["Categorical(1)"][0]
MATCH = r"expected one index of 3, got a Categorical: one index of 1\. What fits: ProbabilisticActor"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda actor: Sequence(Operator(nn.Identity(), in_keys=["observation"], out_keys=["same"]), actor),
        lambda actor: Sequence(actor, out_keys=["action"]),
        lambda actor: ActorCriticWrapper(actor, ValueOperator(nn.Linear(2, 1))),
        lambda actor: EGreedy(actor, Choice(3), num_frames=10),
        lambda actor: WarmUp(actor, Still(Choice(3)).action_spec, 10),
    ],
    ids=["Sequence", "hidden", "with a critic", "EGreedy", "WarmUp"],
)
def test_a_policy_inside_of_others_is_found(wrap):
    with pytest.raises(SpecError, match=MATCH):
        Collector(Still(Choice(3)), wrap(ONE_LOGIT()), frames_per_batch=B).collect()


def test_whoever_lets_a_policy_act_asks_it():
    env, policy = Still(Choice(3)), ONE_LOGIT()
    acts = [
        lambda: EpisodeCollector(env, policy, num_episodes=2).collect(),
        lambda: next(rollout(env, policy, n_steps=2)),
        lambda: Evaluator(env, num_episodes=2)(policy),
        lambda: env.rollout(2, policy),
    ]
    for act in acts:
        with pytest.raises(SpecError, match=MATCH):
            act()


def test_an_action_that_another_module_turns_into_the_environments_own_is_that_modules():
    levels = nn.Embedding.from_pretrained(torch.tensor([[-2.0], [0.0], [2.0]]))
    discrete = ProbabilisticActor(nn.Linear(2, 3), Categorical, action_key="level")
    turned = Operator(levels, in_keys=["level"], out_keys=["action"])
    batch = Collector(Still(Bounded(-2.0, 2.0, (1,))), Sequence(discrete, turned), frames_per_batch=B).collect()
    assert batch["action"].shape == (B, 1, 1)


def test_asking_moves_no_stream_and_learns_nothing():
    def make():
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1)
        network = MLP(2, 3, linear=partial(NoisyLinear, generator=generator))
        return ProbabilisticActor(network, Categorical, generator=generator)

    env = Still(Choice(3))
    asked = Collector(env, make(), frames_per_batch=B * 3).collect()["action"]
    actor, root, actions = make(), env.reset(), []
    with torch.no_grad():
        for _ in range(3):
            actions.append(actor(root)["action"])
    assert torch.equal(asked, torch.stack(actions, -1))


def test_a_function_is_held_against_the_form_alone():
    with pytest.raises(SpecError, match=r"expected shape \[4\], got shape \[4, 1\]\. .* What fits: Prob"):
        Collector(Still(Choice(3)), lambda root: root.set("action", torch.zeros(B, 1)), frames_per_batch=B).collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy = lambda root: root.set("action", torch.ones(B, dtype=torch.int64))  # noqa: E731
        Collector(Still(Choice(3)), policy, frames_per_batch=B).collect()
