"""Laws of all action distributions: shapes, chance, references, gradients, mistakes, and compiling."""

import copy
import math
import pickle

import pytest
import torch
from tensordict import TensorDict
from torch import distributions as theirs, nn

from cases.devices import DEVICES
from cases.distributions import ALL, CASES, family_of, leaves, on_leaves
from torchrl import modules
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import Distribution, Normal, ProbabilisticActor

named = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
SHAPES = pytest.mark.parametrize("shape", [(), (5,), (2, 3)])


def cases(test):
    """Choose the cases that a test is about."""
    chosen = {name: case for name, case in CASES.items() if test(case)}
    assert chosen
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen)


def seeded(device="cpu"):
    return torch.Generator(device).manual_seed(3)


def test_every_public_family_is_held_against_the_laws():
    public = {getattr(modules, name) for name in modules.__all__}
    families = {thing for thing in public if isinstance(thing, type) and issubclass(thing, Distribution)}
    assert {family_of(case) for case in CASES.values()} == families - {Distribution}
    subpackage = {getattr(modules.distributions, name) for name in modules.distributions.__all__}
    assert subpackage - {modules.distributions.draw} <= families


@named
@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", DEVICES)
def test_shapes_dtypes_and_devices(case, shape, dtype, device):
    distribution = case.build(*case.parameters(*shape, dtype=dtype, device=device))
    action, log_prob = distribution.sample_and_log_prob()
    per_row = [log_prob, *(getattr(distribution, name)() for name in ("entropy",) if name in case.offers)]
    for value in per_row:
        assert (value.shape, value.dtype, value.device.type) == (shape, dtype, device)
    for name in case.offers & {"mode", "mean", "median"}:
        for other, leaf in zip(leaves(getattr(distribution, name)), leaves(action), strict=True):
            assert (other.shape, other.dtype, other.device) == (leaf.shape, leaf.dtype, leaf.device)
    for leaf in leaves(action):
        assert leaf.shape[: len(shape)] == shape and leaf.device.type == device
        assert not leaf.is_floating_point() or leaf.dtype == dtype


@named
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_log_prob_handed_out_is_that_of_the_action_bit_for_bit(case, dtype):
    distribution = case.build(*case.parameters(1000, dtype=dtype))
    action, log_prob = distribution.sample_and_log_prob(seeded())
    assert torch.equal(distribution.log_prob(action), log_prob)
    rebuilt = case.build(*case.parameters(1000, dtype=dtype))  # by a learner
    assert torch.equal(rebuilt.log_prob(action.clone()), log_prob)


@named
def test_chance_comes_from_the_generator_or_else_from_the_global_one(case):
    distribution, before = case.build(*case.parameters(50)), torch.get_rng_state()
    first, second = (leaves(distribution.sample(seeded())) for _ in range(2))
    both = leaves(distribution.sample_and_log_prob(seeded())[0])
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert all(torch.equal(*pair) for pair in zip(first, both, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    third, fourth = (leaves(distribution.sample()) for _ in range(2))
    assert any(not torch.equal(*pair) for pair in zip(third, fourth, strict=True)) == case.draws
    assert torch.equal(torch.get_rng_state(), before) != case.draws


@named
def test_samples_have_no_gradient_and_densities_do(case):
    parameters = [parameter.requires_grad_() for parameter in case.parameters(4)]
    distribution = case.build(*parameters)
    action = distribution.sample()
    assert not any(leaf.requires_grad for leaf in leaves(action))
    if family_of(case) not in (modules.Delta, modules.TanhDelta):
        assert distribution.log_prob(action).requires_grad


@named
def test_what_a_family_lacks_is_an_error_that_names_a_family(case):
    distribution = case.build(*case.parameters(4))
    for name in ALL - case.offers:
        with pytest.raises(ConfigError, match="expected a family with"):
            value = getattr(distribution, name)
            value(distribution) if name == "kl" else value()
    for name in case.offers - {"kl"}:
        value = getattr(distribution, name)
        assert leaves(value() if callable(value) else value)


def quantities(distribution, other, action):
    return {"log_prob": distribution.log_prob(action), "entropy": distribution.entropy(), "kl": distribution.kl(other)}


def reference_quantities(parts, other_parts, action):
    pairs = zip(parts, other_parts, strict=True)
    return {
        "log_prob": sum(part.log_prob(read(action)) for part, read in parts),
        "entropy": sum(part.entropy() for part, _ in parts),
        "kl": sum(theirs.kl_divergence(part, other) for (part, _), (other, _) in pairs),
    }


@cases(lambda case: case.reference is not None)
@SHAPES
@pytest.mark.parametrize("quantity", ["log_prob", "entropy", "kl"])
def test_values_and_gradients_are_those_of_torch_distributions(case, shape, quantity):
    masks = () if case.mask is None else (case.mask(shape),)
    others = case.parameters(*shape, seed=1)
    action = case.build(*case.parameters(*shape)).sample(seeded())
    results = []
    for make, evaluate in (
        (case.build, quantities),
        (lambda *parameters: case.reference(*parameters, *masks), reference_quantities),
    ):
        parameters = [parameter.requires_grad_() for parameter in case.parameters(*shape)]
        value = evaluate(make(*parameters), make(*others), action)[quantity]
        gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True, materialize_grads=True)
        results.append((value.detach(), *gradients))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@cases(lambda case: "entropy" in case.offers and case.draws)
def test_entropy_is_the_mean_negative_log_prob(case):
    num = 100_000
    parameters = [parameter.expand(num, -1) for parameter in case.parameters(1)]
    distribution = case.build(*parameters)
    _, log_prob = distribution.sample_and_log_prob(seeded())
    error = 4 * log_prob.std() / math.sqrt(num)
    assert (log_prob.mean() + distribution.entropy()[0]).abs() < error + 1e-3  # TanhNormal's is by quadrature


@cases(lambda case: "kl" in case.offers and case.draws)
def test_divergence_is_the_mean_difference_of_log_probs(case):
    num = 100_000
    one, other = (
        case.build(*(parameter.expand(num, -1) for parameter in case.parameters(1, seed=seed))) for seed in (0, 1)
    )
    action, log_prob = one.sample_and_log_prob(seeded())
    difference = log_prob - other.log_prob(action)
    assert (difference.mean() - one.kl(other)[0]).abs() < 4 * difference.std() / math.sqrt(num)
    assert one.kl(other)[0] > 0.01
    torch.testing.assert_close(one.kl(one), torch.zeros(num, dtype=torch.float64), rtol=0, atol=1e-12)


@cases(lambda case: case.has_finitely_many_actions)
def test_actions_are_drawn_as_often_as_their_log_prob_says_and_these_add_up_to_one(case):
    num = 200_000
    distribution = case.build(*(parameter.expand(num, -1) for parameter in case.parameters(1)))
    action = distribution.sample(seeded())
    columns = torch.cat([leaf.reshape(num, -1).long() for leaf in leaves(action)], -1)
    outcomes, outcome, counts = columns.unique(dim=0, return_inverse=True, return_counts=True)
    probabilities = torch.zeros(len(outcomes)).double().scatter_(0, outcome, distribution.log_prob(action).exp())
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-3) and len(outcomes) > 1
    often = num * probabilities > 5
    chi_square = ((counts - num * probabilities).square() / (num * probabilities))[often].sum().item()
    freedom = int(often.sum())
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


@cases(lambda case: case.draws and "TanhNormal" not in family_of(case).__name__)
def test_no_sample_is_more_probable_than_the_mode(case):
    distribution = case.build(*(parameter.expand(2000, -1) for parameter in case.parameters(1)))
    _, log_prob = distribution.sample_and_log_prob(seeded())
    assert (log_prob <= distribution.log_prob(distribution.mode) + 1e-12).all()


@named
def test_actions_of_another_shape_are_refused(case):
    distribution = case.build(*case.parameters(3))
    action = distribution.sample()
    for change in (lambda x: x.unsqueeze(-1), lambda x: x[:1], lambda x: x.unsqueeze(0), lambda x: x[..., :1, None]):
        with pytest.raises(SpecError, match="expected .*shape"):
            distribution.log_prob(on_leaves(change, action))


@cases(lambda case: "kl" in case.offers)
def test_divergence_from_another_family_is_refused(case):
    class Other(Normal):
        __slots__ = ()

    distribution = case.build(*case.parameters(3))
    with pytest.raises(ConfigError, match=f"expected another {family_of(case).__name__}, got Other"):
        distribution.kl(Other(torch.zeros(3, 1), torch.ones(3, 1)))


@named
def test_families_survive_copies_and_pickles(case):
    parameters = case.parameters(6)
    expected = leaves(case.build(*parameters).sample(seeded()))
    for family in (copy.deepcopy(case.family), pickle.loads(pickle.dumps(case.family))):
        twin = type(case)(family, case.sizes, mask=case.mask).build(*parameters)
        assert all(torch.equal(*pair) for pair in zip(leaves(twin.sample(seeded())), expected, strict=True))


class Parameters(nn.Module):
    """A layer for each parameter of a case."""

    def __init__(self, case):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, size) for size in case.sizes)
        self.positive = case.positive

    def forward(self, x):
        values = [layer(x) for layer in self.layers]
        return tuple(value.exp() if index in self.positive else value for index, value in enumerate(values))


def actor_and_roots(case, *shape, device="cpu"):
    torch.manual_seed(0)
    roots = TensorDict({"observation": torch.randn(*shape, 3)}, shape)
    if case.mask is not None:
        roots["legal"] = case.mask(shape)
    mask_key = None if case.mask is None else "legal"
    return ProbabilisticActor(Parameters(case), case.family, mask_key=mask_key).to(device), roots.to(device)


@named
@pytest.mark.parametrize("device", DEVICES)
def test_an_actor_writes_what_it_says_and_rebuilds_its_log_prob(case, device):
    actor, roots = actor_and_roots(case, 4, 5, device=device)
    batch = actor(roots.clone())
    log_prob = actor.build(batch).log_prob(batch["action"])
    assert torch.equal(log_prob, batch["action_log_prob"]) and log_prob.shape == (4, 5)
    assert actor.in_keys == (["observation"] if case.mask is None else ["observation", "legal"])
    written = [key for key in actor.out_keys if key not in ("action", "action_log_prob")]
    assert [batch[key].shape for key in written] == [(4, 5, size) for size in case.sizes]
    old = actor.distribution(*(batch[key] for key in written), **({"mask": batch["legal"]} if case.mask else {}))
    assert torch.equal(old.log_prob(batch["action"]), log_prob)  # from what it wrote, as a penalty on divergence does


@named
def test_acting_and_learning_compile_without_a_break(case):
    torch._dynamo.reset()  # all actors share one forward, and the number of graphs of a function is limited
    actor, roots = actor_and_roots(case, 6)
    with torch.no_grad():
        acted = torch.compile(actor, fullgraph=True, backend="eager")(roots.clone())
    torch.testing.assert_close(acted["action_log_prob"], actor.build(acted).log_prob(acted["action"]).detach())

    def learn(batch):
        distribution = actor.build(batch)
        values = [distribution.log_prob(batch["action"])]
        values += [distribution.entropy()] if "entropy" in case.offers else []
        return values + [leaf for leaf in leaves(distribution.mode) if leaf.is_floating_point()]

    compiled, plain = torch.compile(learn, fullgraph=True, backend="eager")(acted), learn(acted)
    torch.testing.assert_close(compiled, plain)
    gradients = []
    for values in (compiled, plain):
        total = sum(value.sum() for value in values if value.requires_grad)
        gradients.append(torch.autograd.grad(total, list(actor.parameters()), allow_unused=True))
    torch.testing.assert_close(*gradients)
