"""Ids of gymnasium: an unknown one gets the right hint, and those of a script are known in worker processes."""

import sys
import textwrap
import threading
import warnings
from functools import partial
from types import ModuleType

import gymnasium
import pytest
import torch
from gymnasium.envs.registration import WrapperSpec

from fakes import Fivefold, Sized, sized_if_imported
from torchrl.agents import EvaluationProcess
from torchrl.collectors import MultiSyncCollector, rollout
from torchrl.envs import GymEnv, ParallelEnv
from torchrl.envs.simulators import gym_simulator, ids
from torchrl.envs.simulators.ids import install_hint, package_hint, with_module
from torchrl.errors import EnvError, MissingExtraError


@pytest.fixture
def register(monkeypatch):
    """Register ids for the time of a test."""
    monkeypatch.setattr("gymnasium.envs.registration.registry", registry := dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium, "registry", registry)
    return gymnasium.register


def sizes(env):
    batch = env.rollout(3)
    env.close()
    return batch["next", "reward"].flatten().tolist(), batch["next", "truncated"].sum().item()


@pytest.mark.usefixtures("leaves_nothing")
def test_ids_of_a_script_are_known_in_workers(register):
    register("Mine-v0", entry_point=Sized, kwargs={"size": 3}, max_episode_steps=2)
    env = ParallelEnv(partial(gym_simulator, "Mine-v0"), 2, num_workers=1)
    assert sizes(env) == ([3.0] * 6, 2)
    assert sizes(ParallelEnv(lambda: gymnasium.make("Mine-v0", size=4), 1, num_workers=1)) == ([4.0] * 3, 1)


@pytest.mark.usefixtures("leaves_nothing")
def test_what_entry_points_call_by_name_in_main_is_sent_along(register, monkeypatch):
    for kind in (Sized, Fivefold):
        monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)
    wrapper = WrapperSpec("Fivefold", "__main__:Fivefold", {})
    register("Named-v0", entry_point="__main__:Sized", additional_wrappers=(wrapper,))
    assert sizes(ParallelEnv(partial(gym_simulator, "Named-v0"), num_workers=1)) == ([5.0] * 3, 0)


@pytest.mark.usefixtures("leaves_nothing")
def test_ids_of_a_module_that_no_worker_imports_are_known_there(register, tmp_path, monkeypatch):
    source = """
        import gymnasium
        import numpy as np
        from gymnasium import spaces

        class World(gymnasium.Env):
            observation_space, action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)
            def reset(self, *, seed=None, options=None):
                return np.zeros(1, np.float32), {}
            def step(self, action):
                return np.zeros(1, np.float32), 7.0, False, False, {}

        gymnasium.register("of/Module-v0", entry_point="module_with_ids:World")
    """
    (tmp_path / "module_with_ids.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("module_with_ids")
    assert sizes(ParallelEnv(partial(gym_simulator, "of/Module-v0"), num_workers=1)) == ([7.0] * 3, 0)
    assert sizes(ParallelEnv(partial(gym_simulator, "module_with_ids:of/Module-v0"), num_workers=1)) == ([7.0] * 3, 0)

    def number_of_warnings():
        with warnings.catch_warnings(record=True) as caught:
            gymnasium.make("module_with_ids:of/Module-v0")
        return Sized(size=sum("Overriding" in str(one.message) for one in caught))

    assert sizes(ParallelEnv(number_of_warnings, num_workers=1)) == ([0.0] * 3, 0)
    with pytest.raises(EnvError, match=r'"module_with_ids" was imported and registers no such id'):
        GymEnv("module_with_ids:Other-v0")


class Still(torch.nn.Module):
    def forward(self, root):
        return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


@pytest.mark.usefixtures("leaves_nothing")
def test_collectors_and_evaluations_in_processes_know_them(register):
    register("Mine-v0", entry_point=Sized, kwargs={"size": 3}, max_episode_steps=2)
    collector = MultiSyncCollector(lambda: GymEnv("Mine-v0", num_envs=1), num_workers=1, frames_per_batch=2)
    assert collector.collect()["next", "reward"].flatten().tolist() == [3, 3]
    collector.shutdown()
    stream = rollout([partial(gymnasium.make, "Mine-v0")], n_steps=2, num_workers=1)
    assert next(stream).batch["next", "reward"].flatten().tolist() == [3, 3]
    stream.close()
    evaluation = EvaluationProcess(lambda: GymEnv("Mine-v0", num_envs=1), num_episodes=1)
    assert evaluation(Still()).mean == 6
    evaluation.close()


@pytest.mark.usefixtures("leaves_nothing")
def test_a_registration_that_cannot_be_sent_matters_to_who_asks_for_it(register):
    lock = threading.Lock()
    register("Locked-v0", entry_point=lambda: (lock, Sized())[1])
    register("Mine-v0", entry_point=Sized)
    with pytest.raises(EnvError, match=r"the id 'Locked-v0'.*could not be sent: TypeError: cannot pickle.*module:id"):
        ParallelEnv([partial(gym_simulator, "Mine-v0"), partial(gym_simulator, "Locked-v0")], num_workers=1)
    assert sizes(ParallelEnv(partial(gym_simulator, "Mine-v0"), num_workers=1)) == ([1.0] * 3, 0)


@pytest.mark.usefixtures("leaves_nothing")
def test_a_worker_imports_only_what_its_own_simulators_need(register, tmp_path, monkeypatch):
    (tmp_path / "module_of_another.py").write_text("from fakes import Sized\n\nclass World(Sized):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    register("Another-v0", entry_point=__import__("module_of_another").World)
    assert sizes(ParallelEnv(partial(sized_if_imported, "module_of_another"), num_workers=1)) == ([0.0] * 3, 0)
    both = [partial(gym_simulator, "Another-v0"), partial(sized_if_imported, "module_of_another")]
    assert sizes(ParallelEnv(both, num_workers=1)) == ([1.0] * 6, 0)


@pytest.mark.usefixtures("leaves_nothing")
def test_a_registration_that_cannot_be_loaded_matters_to_who_asks_for_it(register, monkeypatch):
    monkeypatch.setitem(sys.modules, "module_of_air", air := ModuleType("module_of_air"))
    air.World = type("World", (Sized,), {"__module__": "module_of_air"})
    register("Air-v0", entry_point=air.World)
    with pytest.raises(EnvError, match=r"the id 'Air-v0'.*could not be sent: ModuleNotFoundError.*module_of_air"):
        ParallelEnv(partial(gym_simulator, "Air-v0"), num_workers=1)
    assert sizes(ParallelEnv(Sized, num_workers=1)) == ([1.0] * 3, 0)


@pytest.mark.parametrize(
    ("env_id", "written"),
    [
        ("Pong-v5", 'pip install -c constraints.txt -e ".[atari]", and write "ale_py:ALE/Pong-v5"'),
        ("ALE/Breakout-v5", 'pip install -c constraints.txt -e ".[atari]", and write "ale_py:ALE/Breakout-v5"'),
        ("PongNoFrameskip-v4", 'write "ale_py:PongNoFrameskip-v4"'),
        ("highway-fast-v0", 'pip install highway-env, and write "highway_env:highway-fast-v0"'),
        ("FetchReach-v4", 'pip install gymnasium-robotics, and write "gymnasium_robotics:FetchReach-v4"'),
        ("mo-lunar-lander-v3", 'pip install mo-gymnasium, and write "mo_gymnasium:mo-lunar-lander-v3"'),
        ("minecart-v0", 'pip install mo-gymnasium, and write "mo_gymnasium:minecart-v0"'),
        ("VizdoomBasic-v0", 'pip install vizdoom, and write "vizdoom.gymnasium_wrapper:VizdoomBasic-v0"'),
        ("CartPol-v1", 'Did you mean "CartPole-v1"'),
        ("cartpole-v1", 'Did you mean "CartPole-v1"'),
        ("CartPole-v7", 'Did you mean "CartPole-v1"'),
        ("My-v0", "Import the package that registers it, or write module:id"),
        ("Pongo-v0", "Import the package that registers it, or write module:id"),
    ],
)
def test_an_unknown_id_gets_the_hint_that_helps(env_id, written, register, monkeypatch):
    monkeypatch.setattr(ids, "find_spec", lambda module: None)  # none of these packages, whatever is installed
    for known in [known for known in gymnasium.registry if "gymnasium" not in str(gymnasium.spec(known).entry_point)]:
        del gymnasium.registry[known]
    with pytest.raises(EnvError, match="expected a registered id") as caught:
        GymEnv(env_id)
    message = str(caught.value)
    assert written in message
    assert ("Did you mean" in message) == ("Did you mean" in written)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("no_such_package:Id-v0", 'the module "no_such_package", got no such module. Install the package'),
        ("no_such.package:Id-v0", 'the module "no_such.package", got no such module'),
        ("module_in_need:Id-v0", 'a module "module_in_need" that can be imported, got .*another_module'),
    ],
)
def test_a_package_that_is_not_there_is_named(env_id, message, tmp_path, monkeypatch):
    (tmp_path / "module_in_need.py").write_text("import another_module")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match=message):
        GymEnv(env_id)


@pytest.mark.parametrize("env_id", [":CartPole-v1", "CartPole-v1:", "a:b:CartPole-v1"])
def test_what_is_no_id_says_how_one_is_written(env_id):
    with pytest.raises(EnvError, match=f"expected an id, or module:id, got '{env_id}'"):
        GymEnv(env_id)


def test_an_id_of_a_package_that_is_installed_is_found_without_its_module(tmp_path, monkeypatch):
    (tmp_path / "module_of_boxes.py").write_text(
        "import gymnasium\ngymnasium.register('Boxes-v0', entry_point='gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    boxes, absent = ("module_of_boxes", "boxes", "Boxes-"), ("module_of_jars", "jars", "Jars-")
    monkeypatch.setattr(ids, "PACKAGES", (boxes, absent))
    assert with_module("Boxes-v0") == "module_of_boxes:Boxes-v0" and with_module("Jars-v0") == "Jars-v0"
    try:
        env = GymEnv("Boxes-v0", num_envs=2)
        assert env.task == "Boxes-v0" == with_module("Boxes-v0")
        with pytest.raises(EnvError, match='"module_of_boxes" was imported and registers no such id'):
            GymEnv("module_of_boxes:Boxes-v7-big")
    finally:
        gymnasium.registry.pop("Boxes-v0", None)
    with pytest.raises(EnvError, match='pip install jars, and write "module_of_jars:Jars-v0"'):
        GymEnv("Jars-v0")


def test_a_package_that_is_installed_and_cannot_be_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "module_of_crates.py").write_text("import another_module")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(ids, "PACKAGES", (("module_of_crates", "crates", "Crates-"),))
    with pytest.raises(MissingExtraError, match='a module "module_of_crates" that can be .*another_module'):
        GymEnv("Crates-v0")


def test_an_extra_of_ours_is_named_where_its_package_is_missing(monkeypatch):
    monkeypatch.setattr(ids, "find_spec", lambda module: None)
    hint = package_hint("MiniGrid-MemoryS11-v0")
    assert 'pip install -c constraints.txt -e ".[minigrid]", and write "minigrid:MiniGrid-MemoryS11-v0"' in hint
    assert install_hint("minigrid") == 'pip install -c constraints.txt -e ".[minigrid]".'


@pytest.mark.parametrize(
    ("env_id", "written"),
    [
        ("Pong-v5", 'Did you mean "ALE/Pong-v5"?'),
        ("ALE/Pongg-v5", 'Did you mean "ALE/Pong-v5"?'),
        ("ALE/Chess-v5", "ale-py is installed and registers no such id."),
    ],
)
def test_of_an_installed_package_the_right_id_is_named(env_id, written):
    pytest.importorskip("ale_py")
    with pytest.raises(EnvError, match=written.replace("?", r"\?")):
        GymEnv(env_id)


def test_pip_is_told_the_name_of_the_package():
    assert install_hint("ale_py") == 'pip install -c constraints.txt -e ".[atari]".'
    assert install_hint("PyFlyt") == "pip install PyFlyt."
