"""Moving what the policy sees. Without a GPU the moves are tested on the device ``meta``, which holds shapes only."""

import pytest
import torch
from tensordict import TensorDict

from cases.devices import FIRST_GPU, needs_cuda
from cases.transform_worlds import crane, walker
from torchrl.data.specs import Composite, Unbounded
from torchrl.envs.transforms import (
    ActionScaling,
    Compose,
    DeviceCast,
    FrameStack,
    GSDENoise,
    LastAction,
    PinMemory,
    StepCounter,
    TensorDictPrimer,
    TransformedEnv,
    VecNorm,
    device,
)
from torchrl.errors import ConfigError

META = torch.device("meta")
others = pytest.mark.parametrize("name", [FIRST_GPU])


def leaves(tensordict):
    return dict(tensordict.items(include_nested=True, leaves_only=True))


@pytest.fixture
def cast(monkeypatch):
    """A cast to ``meta``, which no user may ask for."""
    monkeypatch.setattr(device, "find_device", torch.device)
    return DeviceCast(META)


def test_specs_and_device_are_those_of_the_policy(cast):
    env = TransformedEnv(crane(2), cast)
    assert env.device == META
    for spec in (env.observation_spec, env.action_spec, env.reward_spec):
        assert spec.device == META
    assert env.env.action_spec.device == torch.device("cpu")


def test_everything_moves_and_both_containers_share_what_was_moved(cast):
    env = walker(2)
    cast.read_specs(env)
    root = env.reset(seed=0)
    cast.reset(root, None)
    assert {value.device for value in leaves(root).values()} == {META}
    next_, root, _ = env.step_rows(TensorDict({"action": env.action_spec.rand()}, [2]))
    cast.step(next_, root)
    outcome, carried = leaves(next_), leaves(root)
    assert {value.device for value in (*outcome.values(), *carried.values())} == {META}
    assert carried.keys() - outcome.keys() == {"is_init"}
    assert all(carried[key] is outcome[key] for key in carried.keys() & outcome.keys())


def test_levels_that_only_the_root_has_move_too(cast):
    cast.read_specs(walker(1))
    next_ = TensorDict({"a": {"x": torch.zeros(1)}}, [1])
    root = TensorDict({"a": {"x": torch.zeros(1), "y": torch.zeros(1)}, "b": {"z": torch.zeros(1)}}, [1])
    cast.step(next_, root)
    assert {value.device for value in leaves(root).values()} == {META}
    assert leaves(root).keys() == {("a", "x"), ("a", "y"), ("b", "z")}


@pytest.mark.parametrize("make_env", [walker, crane])
def test_actions_come_home(make_env):
    transform = DeviceCast("cpu")
    env = make_env(2)
    transform.read_specs(env)
    action = env.action_spec.rand()
    inputs = TensorDict({"action": action}, [2])
    transform.inverse(inputs)
    assert bool((inputs["action"] == action).all())


def test_nothing_moves_where_all_is_in_place_already():
    one, other = walker(2), TransformedEnv(walker(2), DeviceCast("cpu"))
    one.set_seed(0)
    other.set_seed(0)
    assert bool((one.rollout(10) == other.rollout(10)).all())


def test_a_device_that_is_not_there_is_refused():
    for name in ("meta", "cuda:77", "gpu"):
        with pytest.raises(ConfigError, match="device: expected one of cpu"):
            DeviceCast(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to pin for")
def test_pinning_is_refused_without_a_gpu():
    with pytest.raises(ConfigError, match=r"PinMemory: expected a CUDA device.*CUDA not available.*Leave it out"):
        TransformedEnv(walker(2), PinMemory())


@needs_cuda
def test_what_is_pinned_is_pinned():
    env = TransformedEnv(walker(2), PinMemory())
    transition, root = env.step_and_reset(env.act_at_random(env.reset(seed=0)))
    for value in (*leaves(transition["next"]).values(), root["position"]):
        assert value.is_pinned()
    with pytest.raises(ConfigError, match="PinMemory"):
        TransformedEnv(TransformedEnv(walker(2), DeviceCast("cuda")), PinMemory())


def full_chain(name):
    return Compose(
        VecNorm(["position"]),
        StepCounter(max_steps=4),
        DeviceCast(name),
        FrameStack(2, ["position"]),
        LastAction(),
        ActionScaling(),
        GSDENoise(2, 2),
        TensorDictPrimer({"hidden": Unbounded((3,))}, defaults={"hidden": 1.0}),
    )


@others
def test_a_chain_around_a_cast_gives_the_values_of_the_cpu(name):
    one, other = (TransformedEnv(walker(3), full_chain(place)) for place in ("cpu", name))
    for env in (one, other):
        env.set_seed(0)
    batches = [env.rollout(20) for env in (one, other)]
    assert {value.device for value in leaves(batches[1]).values()} == {torch.device(name)}
    due, came = (leaves(batch.exclude("gsde_noise", ("next", "gsde_noise"))) for batch in batches)
    for key, value in due.items():
        torch.testing.assert_close(came[key].cpu(), value)
    root = other.reset()
    after = other.reset(torch.tensor([True, False, True]), root=root)
    assert torch.equal(after["hidden"], root["hidden"]) and after.device in (None, torch.device(name))
    assert isinstance(other.observation_spec, Composite) and other.observation_spec.device == torch.device(name)


@others
def test_a_state_dict_goes_on_there_too(name):
    env = TransformedEnv(walker(3), full_chain(name))
    env.set_seed(0)
    root = env.rollout(5)[..., -1].exclude("next")
    state = env.state_dict()
    noise = env.reset()["gsde_noise"]
    env.load_state_dict(state)
    assert torch.equal(env.reset()["gsde_noise"], noise) and root.batch_size == (3,)
