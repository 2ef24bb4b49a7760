"""Attention over history: values by hand, the sequence at once against the step loop, windows, endings, compile."""

from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.envs import GymEnv, TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.errors import ConfigError
from torchrl.modules import Categorical, ProbabilisticActor, Sequence, Transformer

KINDS = {
    "1 layer": partial(Transformer, window=4, num_heads=2),
    "2 layers": partial(Transformer, window=3, num_layers=2),
    "window 1": partial(Transformer, window=1, num_layers=2),
    "long window": partial(Transformer, window=40, num_heads=1),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(params=KINDS)
def make(request):
    return KINDS[request.param]


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


def inputs(module, num_rows, num_steps, *, probability=0.2, dtype=torch.float32, seed=0):
    """Steps, windows of which each has another number of valid places, and where episodes begin."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, num_steps, module.embed.in_features, generator=draw, dtype=dtype)
    state = torch.randn(num_rows, *module.state_shape, generator=draw, dtype=dtype)
    num_places = len(state[0])
    is_valid = torch.arange(num_places) >= torch.randint(num_places + 1, (num_rows, 1), generator=draw)
    state[..., -1] = is_valid.to(dtype)
    return x, state, torch.rand(num_rows, num_steps, generator=draw) < probability


def results(module, unroll, x, state, is_init, weight):
    """Features, and the gradients of a weighted sum of them: of inputs, of the state, of every parameter."""
    x, state = x.clone().requires_grad_(), state.clone().requires_grad_()
    features = unroll(x, state, is_init)
    wanted = [x, state, *module.parameters()]
    return [features.detach(), *torch.autograd.grad((features * weight).sum(), wanted)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_the_sequence_at_once_is_the_step_loop(make, probability, dtype):
    module = make(3, 8).to(dtype)
    for num_rows, num_steps in ((4, 9), (1, 1), (3, 2), (2, 67)):  # 67: several pieces, and steps left over
        given = inputs(module, num_rows, num_steps, probability=probability, dtype=dtype)
        weight = torch.randn(num_rows, num_steps, 8, dtype=dtype)
        at_once = results(module, module.unroll, *given, weight)
        looped = results(module, module.unroll_stepwise, *given, weight)
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(at_once[:3], looped[:3], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(at_once[3:], looped[3:], rtol=10 * tolerance, atol=10 * tolerance)  # sums over steps


class TestByHand:
    """One head that attends to all alike, and hands the mean of what it reads to a norm that does nothing."""

    @staticmethod
    def averaging(window):
        module = Transformer(2, 2, num_heads=1, window=window)
        (layer,) = module.layers
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
            module.embed.weight.copy_(torch.eye(2)), layer.out.weight.copy_(torch.eye(2))
        layer.norm, module.norm = nn.Identity(), nn.Identity()
        return module

    def test_a_step_sees_the_mean_of_its_window_and_itself(self):
        module = self.averaging(window=3)
        state = torch.tensor([[[5.0, 1.0, 1.0], [7.0, 3.0, 1.0]], [[9.0, 9.0, 0.0], [7.0, 3.0, 1.0]]])
        features, after = module.step(torch.tensor([[3.0, 2.0], [3.0, 2.0]]), state)
        assert features.tolist() == [[3.0 + 5.0, 2.0 + 2.0], [3.0 + 5.0, 2.0 + 2.5]]  # x, and the mean of 3 and of 2
        assert after.tolist() == [[[7.0, 3.0, 1.0], [3.0, 2.0, 1.0]]] * 2

    def test_an_empty_window_leaves_the_step_alone(self):
        module = self.averaging(window=3)
        features, after = module.step(torch.tensor([[3.0, 2.0]]), torch.zeros(1, 2, 3))
        assert features.tolist() == [[6.0, 4.0]]
        assert after.tolist() == [[[0.0, 0.0, 0.0], [3.0, 2.0, 1.0]]]
        alone = module.unroll(torch.tensor([[[3.0, 2.0]]]), torch.zeros(1, 2, 3), torch.zeros(1, 1, dtype=torch.bool))
        assert alone.tolist() == [[[6.0, 4.0]]]

    def test_a_sequence_by_hand(self):
        module = self.averaging(window=3)
        x = torch.tensor([[1.0, 2.0, 6.0, 4.0, 8.0]]).unsqueeze(-1).expand(1, 5, 2)
        begins = torch.tensor([[False, False, False, True, False]])
        state = torch.tensor([[[9.0, 9.0, 0.0], [3.0, 3.0, 1.0]]])
        means = [(3 + 1) / 2, (3 + 1 + 2) / 3, (1 + 2 + 6) / 3, 4, (4 + 8) / 2]
        expected = x[..., 0] + torch.tensor([means])
        torch.testing.assert_close(module.unroll(x, state, begins)[..., 0], expected)

    def test_distances_count_by_the_bias_of_the_head(self):
        module = self.averaging(window=3)
        with torch.no_grad():
            module.layers[0].bias.copy_(torch.tensor([[3.0, 2.0, 1.0]]).log())  # the oldest first
        x = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]]])
        features = module.unroll(x, torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.bool))[0, :, 0]
        torch.testing.assert_close(features, torch.tensor([2.0, 2.0 + (2 * 1 + 2) / 3, 6.0 + (3 * 1 + 2 * 2 + 6) / 6]))


def test_distances_start_as_straight_lines_of_falling_slopes():
    bias = Transformer(3, 8, num_heads=2, window=3).layers[0].bias
    assert bias.tolist() == [[-2 * 2**-4, -(2**-4), 0.0], [-2 * 2**-8, -(2**-8), 0.0]]


@pytest.mark.parametrize(("num_layers", "reach"), [(1, 2), (2, 4)])
def test_a_step_depends_on_the_steps_that_the_windows_of_all_layers_reach(num_layers, reach):
    module = Transformer(3, 8, num_layers=num_layers, window=3)
    x, state, none = inputs(module, 1, 9, probability=0.0)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(module.unroll(x, state, none)[0, 6, 0], x)
    assert (grad[0] != 0).any(-1).tolist() == [6 - reach <= step <= 6 for step in range(9)]


def test_nothing_passes_an_ending_neither_value_nor_gradient(make):
    module = make(3, 8)
    x, state, is_init = inputs(module, 2, 8, probability=0.0)
    is_init[:, 4] = True
    x.requires_grad_(), state.requires_grad_()
    features = module.unroll(x, state, is_init)
    from_zero = module.unroll(x[:, 4:], torch.zeros_like(state), is_init[:, 4:] & False)
    torch.testing.assert_close(features[:, 4:], from_zero, rtol=0, atol=1e-6)
    of_x, of_state = torch.autograd.grad(features[:, 4:, 0].sum(), (x, state))
    assert (of_x[:, :4] == 0).all() and (of_state == 0).all() and (of_x[:, 4:] != 0).any()


def test_what_lies_in_an_empty_place_is_not_seen(make):
    module = make(3, 8)
    x, state, is_init = inputs(module, 5, 4)
    other = torch.where(state[..., -1:] > 0, state, torch.full_like(state, 77.0))
    other[..., -1] = state[..., -1]
    assert torch.equal(module.unroll(x, state, is_init), module.unroll(x, other, is_init))
    one, another = module.step(x[:, 0], state), module.step(x[:, 0], other)
    assert torch.equal(one[0], another[0])


def test_a_step_that_begins_is_not_that_of_its_stored_window(make):
    module = make(3, 8)
    x, state, _ = inputs(module, 3, 1)
    begins = torch.ones(3, 1, dtype=torch.bool)
    lost = torch.full_like(state, torch.nan)
    assert torch.equal(module.unroll(x, lost, begins), module.unroll(x, torch.zeros_like(state), begins))


def test_episodes_end_to_end_and_padded_ones_have_the_same_features(make):
    module = make(3, 8)
    x, state, _ = inputs(module, 1, 12)
    bounds = [0, 5, 7, 12]
    packed = torch.zeros(1, 12, dtype=torch.bool)
    packed[0, bounds[1:-1]] = True
    features = module.unroll(x, torch.zeros_like(state), packed)
    episodes = [x[0, start:stop] for start, stop in zip(bounds, bounds[1:], strict=False)]
    padded = nn.utils.rnn.pad_sequence(episodes, batch_first=True, padding_value=9.0)
    starts = torch.zeros(3, *module.state_shape)
    apart = module.unroll(padded, starts, torch.zeros(padded.shape[:2], dtype=torch.bool))
    joined = torch.cat([row[: len(episode)] for row, episode in zip(apart, episodes, strict=True)])
    torch.testing.assert_close(features[0], joined, rtol=0, atol=1e-6)


def test_windows_are_reset_by_row_and_rows_have_parameters_of_their_own():
    memory = Transformer(4 + 2, 8, window=3, in_keys=["observation", "speed"])
    env = TransformedEnv(GymEnv("CartPole-v1", num_envs=3), TensorDictPrimer(memory.initial_state()))
    speed = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    env.set_info_(agent_info=TensorDict({"speed": speed}, [3]))
    head = ProbabilisticActor(nn.Linear(8, 2), Categorical, in_keys=["hidden"])
    batch = env.rollout(40, Sequence(memory, head))
    begins, places = batch["is_init"].squeeze(-1), batch["memory"][..., -1].sum(-1)
    assert begins[:, 1:].any() and not begins.all(0)[1:].any()
    steps_since = batch["episode_length"].squeeze(-1)
    assert torch.equal(places, steps_since.clamp(max=2).float())
    batch["memory"][:, 1:] = torch.nan  # not read
    torch.testing.assert_close(memory(batch.clone())["hidden"], batch["hidden"], rtol=0, atol=1e-5)
    batch["speed"] = batch["speed"] + 1
    assert (memory(batch.clone())["hidden"] - batch["hidden"]).abs().amax(-1).min() > 1e-3


def test_a_window_of_one_goes_through_an_environment():
    memory = Transformer(4, 8, window=1)
    assert memory.initial_state()["memory"].shape == (0, 9)
    env = TransformedEnv(GymEnv("CartPole-v1", num_envs=2), TensorDictPrimer(memory.initial_state()))
    head = ProbabilisticActor(nn.Linear(8, 2), Categorical, in_keys=["hidden"])
    assert env.rollout(3, Sequence(memory, head))["next", "memory"].shape == (2, 3, 0, 9)


@pytest.mark.parametrize("form", ["step", "sequence"])
@pytest.mark.parametrize("kind", ["2 layers", "window 1"])
def test_each_form_is_one_graph(kind, form):
    module = KINDS[kind](3, 8)
    head = ProbabilisticActor(nn.Linear(8, 2), Categorical, in_keys=["hidden"], log_prob_key=None)
    policy = Sequence(module, head)
    x, state, is_init = inputs(module, 2, 35)
    data = TensorDict({"observation": x, "memory": state.unsqueeze(1).expand(2, 35, *module.state_shape)}, [2, 35])
    data["is_init"] = is_init.unsqueeze(-1)
    data = data[:, 0] if form == "step" else data
    torch._dynamo.reset()
    compiled = torch.compile(policy, fullgraph=True, backend="aot_eager")
    came, expected = compiled(data.clone()), policy(data.clone())
    torch.testing.assert_close(came["logits"], expected["logits"])
    weights = list(module.parameters())
    grads = [torch.autograd.grad(x["logits"].square().sum(), weights) for x in (came, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_it_computes_the_same(make, tmp_path):
    one, other = make(3, 8), make(3, 8)
    torch.save(one.state_dict(), tmp_path / "memory.pt")
    other.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    given = inputs(one, 2, 5)
    assert torch.equal(one.unroll(*given), other.unroll(*given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, r"Transformer\(window=...\): expected at least 1, a whole number, got 0"),
        ({"num_layers": 0}, r"Transformer\(num_layers=...\)"),
        ({"num_heads": 3}, r"Transformer: expected num_heads that divide num_cells, got 3 heads, 8 cells"),
        ({"learn_initial_state": True}, r"Transformer: expected a fixed initial state.*empty window"),
        ({"out_key": "memory"}, r"Transformer: expected a state_key other than"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Transformer(4, 8, **options)
