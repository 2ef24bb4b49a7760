"""Acting by a saved policy: forms of observations, draws, memory by row, and files that are none."""

import math
import shutil
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import torchrl
from cases.deployed import SENSES, TORQUES, gsde, normal, remembering, world
from torchrl.data.specs import Categorical as Choice, Composite
from torchrl.deploy import load_policy, save_policy
from torchrl.envs.transforms import GSDENoise, LastReward, TensorDictPrimer
from torchrl.errors import CheckpointError, ConfigError, SpecError
from torchrl.modules import GRU, MLP, Categorical, Distribution, Normal, ProbabilisticActor

ROW = np.array([0.1, -0.2, 0.3, 0.4], np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Save a policy whose action 1 is 3 times as probable as action 0, whatever it sees."""
    network = nn.Linear(4, 2)
    nn.init.zeros_(network.weight)
    network.bias.data = torch.tensor([0.0, math.log(3.0)])
    folder = tmp_path_factory.mktemp("saved") / "run"
    save_policy(ProbabilisticActor(network, Categorical), folder, env=world(SENSES, Choice(2))(1))
    return folder / "policy.pt2"


@pytest.fixture(scope="module")
def remembered(tmp_path_factory):
    policy = remembering(GRU(4, 8))
    path = tmp_path_factory.mktemp("saved") / "policy.pt2"
    save_policy(policy, path, env=world(SENSES, Choice(3), lambda: TensorDictPrimer(policy.initial_state()))(2))
    return path


def test_it_takes_rows_in_all_their_forms(path):
    policy = torchrl.load_policy(path)
    frozen = ROW.copy()
    frozen.setflags(write=False)
    for one in (ROW, ROW.astype(np.float64), ROW.tolist(), {"observation": ROW}, frozen, np.repeat(ROW, 2)[::2]):
        assert policy(one) == 1
        assert policy(one).shape == ()
    assert policy(np.stack([ROW] * 3)).tolist() == [1, 1, 1]
    assert policy(np.stack([ROW] * 3)[::-1]).dtype == np.int64


def test_it_draws_by_the_probabilities_and_a_seed_repeats_the_draws(path):
    policy = load_policy(path)
    rows = np.zeros((4000, 4), np.float32)
    drawn = policy(rows, deterministic=False, seed=1)
    assert drawn.mean() == pytest.approx(0.75, abs=0.03)
    assert (policy(rows, deterministic=False) != drawn).any()
    assert (policy(rows, deterministic=False, seed=1) == drawn).all()


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (ROW[:3], r"expected 'observation' of shape \[4\], or \['N', 4\] for N rows, got \[3\]"),
        (ROW.astype(complex), "'observation' of float32, got complex128"),
        ({"observatoin": ROW}, "Did you mean 'observatoin'"),
    ],
)
def test_it_refuses_what_does_not_fit(path, observation, message):
    with pytest.raises(SpecError, match=message):
        load_policy(path)(observation)


def test_torch_alone_runs_the_program(path):
    program = torch.export.load(path).module()
    noise = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    assert program(torch.zeros(2, 4), noise)[0].tolist() == [1, 0]


def test_a_folder_explains_itself(path):
    assert {file.name for file in path.parent.iterdir()} == {"policy.pt2", "policy.json", "README.txt"}
    assert "(action,) = program(observation, noise)" in (path.parent / "README.txt").read_text()
    assert load_policy(path.parent).form == load_policy(path).form


def test_memory_is_kept_by_row_and_reset_by_row(remembered):
    policy, twin = load_policy(remembered), load_policy(remembered)
    rows = np.stack([ROW, -ROW])
    policy(rows)
    policy.reset([1])
    came = policy(np.stack([ROW, -ROW]))
    twin(rows[:1])
    assert came[0] == twin(rows[:1])[0]
    twin.reset()
    assert came[1] == twin(rows[1:])[0]
    with pytest.raises(SpecError, match="expected 2 rows, as before, got 1"):
        policy(rows[:1])
    with pytest.raises(SpecError, match="numbers of 2 rows, got"):
        policy.reset([2])


def test_noise_of_gsde_lasts_as_long_as_in_the_environment(tmp_path):
    env = world(SENSES, TORQUES, lambda: GSDENoise(8, 2, resample_every=2))(1)
    save_policy(gsde(), tmp_path / "policy.pt2", env=env)
    policy = load_policy(tmp_path / "policy.pt2")
    actions = [policy(ROW, deterministic=False, seed=None).tolist() for _ in range(4)]
    assert actions[0] == actions[1] != actions[2] == actions[3]
    policy.reset()
    assert policy(ROW, deterministic=False).tolist() != actions[3]


def test_a_family_without_noise_acts_by_its_mode_alone(tmp_path):
    class Mine(Distribution):
        parameter_names = ("logits",)

        def __init__(self, logits):
            self.logits = logits

        @property
        def mode(self):
            return self.logits.argmax(-1)

    save_policy(
        ProbabilisticActor(MLP(4, 2), Mine, log_prob_key=None), tmp_path / "a.pt2", env=world(SENSES, Choice(2))(1)
    )
    policy = load_policy(tmp_path / "a.pt2")
    assert policy(ROW) in (0, 1)
    with pytest.raises(ConfigError, match="no from_noise"):
        policy(ROW, deterministic=False)


class Halved(Normal):
    """A normal whose mode is not that of its base, as from_noise still believes."""

    @property
    def mode(self):
        return self.loc / 2


class Peeking(nn.Module):
    def forward(self, x):
        return x[:, :2] if x.sum() > 0 else x[:, 2:]


class Drawing(nn.Module):
    def forward(self, x):
        return x[:, :2] + torch.rand(2)


@pytest.mark.parametrize(
    ("policy", "transforms", "message"),
    [
        (lambda: normal(family=Halved), [], "Halved.from_noise to give the mode for zero noise"),
        (
            lambda: ProbabilisticActor(Peeking(), Categorical),
            [],
            "got a ProbabilisticActor, which fails: Could not guard",
        ),
        (lambda: ProbabilisticActor(Drawing(), Categorical), [], "one that calls aten.rand"),
        (normal, [LastReward], "got LastReward, which fails: 'reward'|got LastReward"),
        (lambda: print, [], "a policy that is a torch module, got print"),
    ],
    ids=["wrong noise", "looks at values", "draws", "needs the reward", "no module"],
)
def test_what_is_no_function_of_tensors_is_refused_by_name(tmp_path, policy, transforms, message):
    with pytest.raises(ConfigError, match=message):
        save_policy(policy(), tmp_path / "policy.pt2", env=world(SENSES, TORQUES, *transforms)(1))
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_policies_are_named(tmp_path, path):
    torch.save({}, tmp_path / "last.pt")
    (tmp_path / "text.pt2").write_text("a policy")
    (tmp_path / "cut.pt2").write_bytes(path.read_bytes()[:2000])
    shutil.copy(path, tmp_path / "later.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "later.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"version": 1,', b'"version": 9,'))
    found = {"last.pt": "a file of save_policy, got other", "text.pt2": "that is no policy", "cut.pt2": "cut short"}
    for name, message in (found | {"later.pt2": "version 1, got version 9", "none.pt2": "got nothing at"}).items():
        with pytest.raises(CheckpointError, match=message):
            load_policy(tmp_path / name)
    with pytest.raises(ConfigError, match="ends with .pt2, or a folder"):
        save_policy(normal(), tmp_path / "policy.pt", env=world(SENSES, TORQUES)(1))


def test_only_what_is_read_is_asked_for(tmp_path):
    seen = Composite({"observation": SENSES, "film": SENSES})
    form = save_policy(normal(), tmp_path / "policy.pt2", env=world(seen, TORQUES)(2))
    assert [entry.name for entry in form.inputs] == ["observation", "noise"]
    assert load_policy(tmp_path / "policy.pt2")(ROW).shape == (2,)
