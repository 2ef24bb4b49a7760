"""Which actions are legal, by hand."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from cases.devices import DEVICES
from cases.transform_steps import Scripted, counting, specs
from torchrl.data.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, OneHot
from torchrl.envs import SerialEnv
from torchrl.envs.transforms import (
    ActionMask,
    CatTensors,
    Compose,
    DiscreteActionProjection,
    Exclude,
    Flatten,
    OneHotAction,
    Rename,
    Select,
    TransformedEnv,
)
from torchrl.errors import ConfigError, KeyMissing, SpecError

BITS = spaces.Box(0, 1, (3,), np.bool_)


class Menu(Scripted):
    """Step t: only the actions of row t of the table are legal, and the last one taken is shown."""

    action_space = spaces.Discrete(3)
    TABLE = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]], np.bool_)

    def __init__(self, length=3, mask=BITS):
        super().__init__(spaces.Dict(last=spaces.Box(-1.0, 2.0, (1,)), menu=mask), self.show, length)
        self.last = -1

    def step(self, action):
        self.last = action
        return super().step(action)

    def show(self, t):
        return {"last": np.array([self.last if t else -1], np.float32), "menu": self.TABLE[t]}


def menus(*transforms, num_envs=2, length=3):
    transforms = transforms or (ActionMask("menu"),)
    return TransformedEnv(SerialEnv(lambda: Menu(length), num_envs), Compose(*transforms))


def send(env, root, *actions):
    transition, root = env.step_and_reset(root.set("action", torch.tensor(actions)))
    return transition["next", "last"].squeeze(-1).tolist(), root


def masked(action_spec, mask_spec, *batch_size, named=None):
    return specs(*batch_size, action=action_spec, mask_key=named, mask=mask_spec)


def asked(action_spec, mask, action, *batch_size):
    """Hold one action against one mask; return nothing, or the message."""
    mask, action = torch.tensor(mask, dtype=torch.bool), torch.tensor(action)
    transform = ActionMask("mask")
    transform.read_specs(masked(action_spec, Binary(mask.shape, torch.bool), *batch_size))
    transform.reset(TensorDict({"mask": mask}, batch_size), None)
    try:
        transform.inverse(TensorDict({"action": action}, batch_size))
    except SpecError as error:
        return str(error)
    return None


def test_the_env_names_its_mask_and_shows_it_still():
    env = menus()
    assert env.action_mask_key == "menu"
    assert env.reset()["menu"].int().tolist() == [[1, 1, 0]] * 2
    assert SerialEnv(Menu).action_mask_key is None


def test_legal_actions_pass_and_the_mask_is_that_of_the_root():
    env = menus()
    for actions in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert send(env, env.reset(), *actions)[0] == list(actions)
    root = env.reset()
    for actions in ((0, 1), (1, 1), (2, 0), (1, 0)):  # a new episode after the third
        seen, root = send(env, root, *actions)
        assert seen == list(actions)


def test_an_illegal_action_is_refused_with_its_row():
    env = menus()
    with pytest.raises(SpecError) as info:
        send(env, env.reset(), 1, 2)
    assert str(info.value) == (
        "ActionMask: expected a legal action in row [1], got 2 under the mask [1, 1, 0]. "
        "Give the policy the mask: mask_key='menu'."
    )
    _, root = send(env, env.reset(), 0, 0)
    with pytest.raises(SpecError, match=r"in row \[0\], got 0 under the mask \[0, 1, 0\]"):
        send(env, root, 0, 1)


def test_one_world_has_no_row_to_name():
    env = menus(num_envs=None)
    with pytest.raises(SpecError, match="a legal action, got 2 under"):
        env.step(env.reset().set("action", torch.tensor(2)))


def test_a_one_hot_row_with_two_choices_does_not_make_up_for_one_with_none():
    spec, mask = OneHot(3, (2, 3)), [[1, 1, 0], [1, 1, 1]]
    assert asked(spec, mask, [[0, 1, 0], [0, 0, 1]], 2) is None
    assert "a legal action in row [0], got [1, 1, 0]" in asked(spec, mask, [[1, 1, 0], [0, 0, 0]], 2)
    groups = MultiOneHot([2, 2], (1, 4))
    assert asked(groups, [[1, 1, 1, 1]], [[1, 0, 0, 1]], 1) is None
    assert "got [1, 1, 0, 0]" in asked(groups, [[1, 1, 1, 1]], [[1, 1, 0, 0]], 1)


def test_an_action_of_another_form_is_not_called_illegal():
    spec, mask = Categorical(3, (2,)), [[1, 1, 0], [1, 1, 1]]
    assert "action: expected shape [2], got shape [2, 1]" in asked(spec, mask, [[0], [0]], 2)


def test_a_row_of_several_batch_dimensions_is_named():
    mask = [[[1, 1], [1, 0]], [[1, 1], [0, 1]]]
    spec = Categorical(2, (2, 2))
    assert asked(spec, mask, [[1, 0], [0, 1]], 2, 2) is None
    assert "a legal action in row [1, 1], got 0 under the mask [0, 1]" in asked(spec, mask, [[1, 0], [0, 0]], 2, 2)


def test_rows_that_restarted_are_held_against_their_new_mask():
    env = menus()
    _, root = send(env, env.reset(), 0, 0)  # row t = 1 of the table is [0, 1, 0]
    root = env.reset(torch.tensor([False, True]))
    seen, _ = send(env, root, 1, 0)
    assert seen == [1, 0]


def test_a_row_that_allows_nothing_is_an_error_when_it_is_acted_on():
    env = menus(length=4)
    root = env.reset()
    for action in (0, 1, 2):
        _, root = send(env, root, action, action)
    with pytest.raises(SpecError) as info:
        send(env, root, 0, 0)
    assert str(info.value) == (
        "ActionMask: expected some legal action in row [0], got the mask [0, 0, 0]. "
        "Where nothing is legal, the episode should have ended."
    )


def test_at_an_ending_nothing_need_be_legal():
    env = menus(length=3)  # the last observation of an episode is row 3 of the table, [0, 0, 0]
    root = env.reset()
    for action in (0, 1, 2):
        _, root = send(env, root, action, action)
    assert send(env, root, 1, 1)[0] == [1, 1]


@pytest.mark.parametrize("action", [3, -1, 99])
def test_an_action_that_is_not_there_at_all_is_illegal(action):
    assert f"got {action} under the mask [1, 1, 1]" in asked(Categorical(3, (2,)), [[1, 1, 1]] * 2, [0, action], 2)


def test_several_choices_at_once():
    spec, mask = MultiCategorical([3, 2], (2, 2)), [[1, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert asked(spec, mask, [[2, 0], [2, 1]], 2) is None
    assert "in row [0], got [1, 0] under the mask [1, 0, 1, 1, 0]" in asked(spec, mask, [[1, 0], [2, 1]], 2)
    assert "in row [1], got [2, 2]" in asked(spec, mask, [[0, 0], [2, 2]], 2)
    assert "some legal action in row [1], got" in asked(spec, [[1] * 5, [1, 1, 1, 0, 0]], [[2, 0], [2, 1]], 2)
    square = MultiCategorical([[2, 1], [1, 2]])
    assert asked(square, [0, 1, 1, 1, 1, 0], [[1, 0], [0, 0]]) is None
    assert "a legal action, got [[1, 0], [0, 1]]" in asked(square, [0, 1, 1, 1, 1, 0], [[1, 0], [0, 1]])


def test_one_hot_actions():
    assert asked(OneHot(3, (2, 3)), [[1, 1, 0], [0, 1, 1]], [[0, 1, 0], [0, 0, 1]], 2) is None
    assert "in row [1], got [1, 0, 0]" in asked(OneHot(3, (2, 3)), [[1, 1, 0], [0, 1, 1]], [[0, 1, 0], [1, 0, 0]], 2)
    spec = MultiOneHot([2, 2], (1, 4))
    assert asked(spec, [[1, 0, 1, 1]], [[1, 0, 0, 1]], 1) is None
    assert "in row [0]" in asked(spec, [[1, 0, 1, 1]], [[0, 1, 0, 1]], 1)


def test_it_may_stand_on_either_side_of_one_hot_actions():
    for chain in ((ActionMask("menu"), OneHotAction()), (OneHotAction(), ActionMask("menu"))):
        env = menus(*chain)
        assert env.action_mask_key == "menu" and env.action_spec == OneHot(3, (2, 3))
        env.rollout(20)
        assert send(env, env.reset(), [1, 0, 0], [0, 1, 0])[0] == [0, 1]
        with pytest.raises(SpecError, match=r"ActionMask: expected a legal action in row \[1\]"):
            send(env, env.reset(), [1, 0, 0], [0, 0, 1])


def test_the_mask_is_found_behind_the_keys_above_it():
    env = menus(ActionMask("menu"), Rename({"menu": ("info", "legal")}))
    assert env.action_mask_key == ("info", "legal")
    env.rollout(20)
    with pytest.raises(SpecError, match="ActionMask"):
        send(env, env.reset(), 2, 2)
    assert menus(ActionMask("menu"), Rename({"last": "menu2"})).action_mask_key == "menu"
    assert menus(ActionMask("menu"), Exclude(["last"])).action_mask_key == "menu"
    assert menus(Rename({"menu": "mask"}), ActionMask("mask")).action_mask_key == "mask"


def test_a_mask_that_goes_is_named_no_more_but_holds():
    for goes in (Exclude(["menu"]), Select(["last"]), Rename({"menu": "x"})):
        chain = (ActionMask("menu"), goes, *((Exclude(["x"]),) if isinstance(goes, Rename) else ()))
        env = menus(*chain)
        assert env.action_mask_key is None
        with pytest.raises(SpecError, match="ActionMask"):
            send(env, env.reset(), 2, 2)
    cat = CatTensors(["menu"], "all")
    assert menus(ActionMask("menu"), cat).action_mask_key is None
    assert menus(ActionMask("menu"), CatTensors(["menu"], "all", delete=False)).action_mask_key == "menu"


def test_the_mask_keeps_its_shape():
    with pytest.raises(SpecError, match="Flatten: expected the mask of legal actions to stay as it is, got menu"):
        menus(ActionMask("menu"), Flatten(in_keys=["menu"]))


def test_a_mask_of_another_form_is_refused():
    for mask in (Binary((2, 4), torch.bool), Binary((2,), torch.int8), Bounded(0.0, 1.0, (2, 1))):
        with pytest.raises(SpecError, match=r"ActionMask: expected a bool mask of shape \[2, 3\] in 'mask', got"):
            ActionMask("mask").read_specs(masked(Categorical(3, (2,)), mask, 2))
    with pytest.raises(SpecError, match="before transforms that change the number of actions"):
        menus(DiscreteActionProjection(5), ActionMask("menu"))
    with pytest.raises(KeyMissing, match="ActionMask.*'action_mask'.*'menu'"):
        menus(ActionMask())
    with pytest.raises(SpecError, match="ActionMask: expected actions below that are choices"):
        ActionMask("mask").read_specs(masked(Bounded(0.0, 1.0, (2,)), Binary((2, 2), torch.bool), 2))


def test_an_env_that_names_its_own_mask_may_be_checked_but_not_contradicted():
    env = masked(Categorical(3, (2,)), Binary((2, 3), torch.bool), 2, named="mask")
    ActionMask("mask").read_specs(env)
    env = masked(Categorical(3, (2,)), Binary((2, 3), torch.bool), 2, named="other")
    with pytest.raises(ConfigError, match="the mask that the environment names, 'other', got 'mask'"):
        ActionMask("mask").read_specs(env)


def projected(max_n=5, num_envs=2):
    return TransformedEnv(
        counting(num_envs, 4, action_space=spaces.Discrete(3)),
        DiscreteActionProjection(max_n),
    )


def replaced(transform, *actions):
    return transform(torch.tensor(actions)).tolist()


def test_actions_that_the_env_has_go_on_as_they_are():
    env = projected()
    assert env.action_spec == Categorical(5, (2,))
    state = env.transform.get_extra_state()
    for actions in ([0, 1], [2, 2]):
        assert replaced(env.transform, *actions) == actions
    assert torch.equal(env.transform.get_extra_state(), state)


def test_the_others_become_each_action_with_equal_chance():
    env = projected(num_envs=3000)
    env.transform.set_seed(0)
    below = env.transform(torch.tensor([4, 3, 1]).repeat(1000)).reshape(1000, 3)
    assert bool((below[:, 2] == 1).all())
    assert torch.bincount(below[:, :2].flatten()).tolist() == [pytest.approx(2000 / 3, abs=80)] * 3


def test_a_mask_leaves_only_legal_ones():
    env = menus(ActionMask("menu"), DiscreteActionProjection(4), num_envs=600)
    root = env.reset()
    assert root["menu"].int()[0].tolist() == [1, 1, 0, 0] and env.action_mask_key == "menu"
    env.transform.set_seed(0)
    for legal in ([0, 1], [1], [0, 2]):
        transition, root = env.step_and_reset(root.set("action", torch.full((600,), 3)))
        taken = transition["next", "last"].flatten().long()
        assert sorted(set(taken.tolist())) == legal
        assert torch.bincount(taken)[legal].min() > 250
        assert bool((transition["action"] == 3).all())


def test_the_mask_is_widened_in_root_next_and_spec():
    env = menus(ActionMask("menu"), DiscreteActionProjection(5))
    assert env.observation_spec["menu"] == Binary((2, 5), torch.bool)
    transition, root = env.step_and_reset(env.reset().set("action", torch.tensor([0, 1])))
    for part in (transition["next"], root):
        assert part["menu"].int().tolist() == [[0, 1, 0, 0, 0]] * 2
    assert transition["menu"].int().tolist() == [[1, 1, 0, 0, 0]] * 2
    assert bool((env.rollout(30)["action"] < 3).all())  # random acting sees it too


def test_an_illegal_action_that_the_env_has_is_not_repaired():
    env = menus(ActionMask("menu"), DiscreteActionProjection(5))
    with pytest.raises(SpecError, match="ActionMask"):
        send(env, env.reset(), 2, 4)


def test_nothing_legal_is_an_error_here_too():
    env = menus(ActionMask("menu"), DiscreteActionProjection(5), length=4)
    root = env.reset()
    for action in (0, 1, 2):
        _, root = send(env, root, action, action)
    with pytest.raises(SpecError, match=r"a mask that allows something in every row, got none in row \[0\]"):
        send(env, root, 4, 4)


@pytest.mark.parametrize(
    ("action", "match"),
    [
        ([0, 5], "an index from 0 to 4, got 5 at [1]"),
        ([-1, 0], "an index from 0 to 4, got -1 at [0]"),
        ([[0], [1]], "expected shape [2], got shape [2, 1]"),
        ([0.0, 1.0], "expected dtype int64"),
    ],
)
def test_what_is_no_action_of_the_policy_is_refused(action, match):
    with pytest.raises(SpecError) as info:
        projected().transform(torch.tensor(action))
    assert str(info.value).startswith("action: expected") and match in str(info.value)


def test_an_env_that_cannot_be_projected_is_refused():
    with pytest.raises(SpecError, match="an index, of at most 2 choices, got Categorical"):
        projected(2)
    for spec in (Bounded(0.0, 1.0, (2,)), MultiCategorical([2, 2], (2, 2)), Categorical(2, (2,), torch.bool)):
        with pytest.raises(SpecError, match="DiscreteActionProjection: expected actions below that are an index"):
            DiscreteActionProjection(5).read_specs(masked(spec, Binary((2, 2)), 2))


@pytest.mark.parametrize("device", DEVICES)
def test_everything_lives_where_the_env_does(device):
    spec, leaf = Categorical(3, (2,), device=device), Binary((2, 3), torch.bool, device)
    mask = torch.tensor([[0, 1, 0], [0, 1, 1]], dtype=torch.bool, device=device)
    check, project = ActionMask("mask"), DiscreteActionProjection(4)
    check.read_specs(masked(spec, leaf, 2))
    project.read_specs(masked(spec, leaf, 2, named="mask"))
    root = TensorDict({"mask": mask}, [2])
    check.reset(root, None)
    project.reset(root, None)
    assert project.observation_spec(Composite({"mask": leaf}, [2])).contains(root)
    out = project(torch.tensor([3, 1], device=device))
    assert out.tolist() == [1, 1] and out.device.type == device
    check.inverse(TensorDict({"action": out}, [2]))
    with pytest.raises(SpecError, match=r"row \[0\]"):
        check.inverse(TensorDict({"action": torch.tensor([0, 1], device=device)}, [2]))


class Numbered(Menu):
    """Shows the mask as numbers, as Taxi and PettingZoo do."""

    def __init__(self, space, low=0, high=1):
        super().__init__(mask=space)
        self.numbers = np.array([low, high], space.dtype)

    def show(self, t):
        return super().show(t) | {"menu": self.numbers[self.TABLE[t].astype(int)]}


FORMS = [spaces.MultiBinary(3)] + [spaces.Box(0, 9, (3,), dtype) for dtype in (np.int8, np.uint8, np.int64, np.float32)]


@pytest.mark.parametrize("space", FORMS, ids=str)
def test_a_mask_of_zeros_and_ones_becomes_one_of_bools(space):
    env = TransformedEnv(SerialEnv(lambda: Numbered(space), 2), ActionMask("menu"))
    assert env.observation_spec["menu"] == Binary((2, 3), torch.bool)
    root = env.reset()
    assert root["menu"].tolist() == [[True, True, False]] * 2
    transition, root = env.step_and_reset(root.set("action", torch.tensor([0, 1])))
    assert transition["next", "menu"].tolist() == root["menu"].tolist() == [[False, True, False]] * 2
    with pytest.raises(SpecError, match=r"expected a legal action in row \[1\], got 2 under the mask \[0, 1, 0\]"):
        env.step_and_reset(root.set("action", torch.tensor([1, 2])))
    env.reset()
    assert env.rollout(20)["menu"].dtype == torch.bool  # at random, and never an illegal one


@pytest.mark.parametrize(("low", "high", "got"), [(0, 2, "2.*at \\[0, 0\\]"), (-1, 1, "-1.*at \\[0, 2\\]")])
def test_a_mask_of_other_numbers_is_refused(low, high, got):
    space = spaces.Box(-5, 5, (3,), np.int8)
    env = TransformedEnv(SerialEnv(lambda: Numbered(space, low, high), 2), ActionMask("menu"))
    with pytest.raises(SpecError, match=f"^ActionMask, 'menu': expected a mask of bools, or of 0 and 1.*, got {got}"):
        env.reset()


def test_a_mask_of_numbers_is_widened_as_one_of_bools():
    chain = ActionMask("menu"), DiscreteActionProjection(5)
    env = TransformedEnv(SerialEnv(lambda: Numbered(spaces.MultiBinary(3)), 2), Compose(*chain))
    assert env.reset()["menu"].tolist() == [[True, True, False, False, False]] * 2
