"""Datasets that Minari itself made: every kind of space, every format, parts of datasets, and what is noted of them."""

import json
import sys
from types import ModuleType, SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from torchrl.collectors import Collector
from torchrl.data import read_dataset, read_minari, write_dataset
from torchrl.data.replay import MixedReplay, ReplayBuffer, TensorStorage
from torchrl.envs import GymEnv, encode, spec_from_space
from torchrl.errors import ConfigError, MissingExtraError, SpecError, StorageError
from torchrl.modules import MLP, Categorical, ProbabilisticActor, QValueActor
from torchrl.objectives import DQNLoss

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
FORMATS = ["hdf5", "arrow", "parquet"]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")  # about authors and the like


def stacked(space, values):
    """Values of single steps as Minari wants an episode: arrays, dicts and tuples of them, lists of text."""
    if isinstance(space, spaces.Dict):
        return {name: stacked(part, [value[name] for value in values]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(part, [value[at] for value in values]) for at, part in enumerate(space))
    return list(values) if isinstance(space, spaces.Text) else np.stack([np.asarray(v, space.dtype) for v in values])


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a dataset of episodes of some lengths, and returns it with the observations and actions of each."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def dataset(observation, action=None, lengths=(2, 3), *, infos=None, env=None, values=None, **how):
        if how.get("data_format", "hdf5") != "hdf5":
            pytest.importorskip("pyarrow")
        action = action or spaces.Discrete(3, start=2)
        observation.seed(0), action.seed(0)
        played, buffers = [], []
        for number, num in enumerate(lengths):
            seen = values or [observation.sample() for _ in range(num + 1)]
            acted = [action.sample() for _ in range(num)]
            played.append((seen, acted))
            buffers.append(
                minari.data_collector.EpisodeBuffer(
                    id=number, seed=40 + number, options={"goal": {"x": number}},
                    observations=stacked(observation, seen), actions=stacked(action, acted),
                    rewards=np.arange(num) / 2, terminations=np.zeros(num, bool), truncations=np.arange(num) == num - 1,
                    infos=infos(num) if infos else None,
                )
            )  # fmt: skip
        about = {"env": env} if env else {"observation_space": observation, "action_space": action}
        return minari.create_dataset_from_buffers("test/data-v0", buffers, **about, **how), played

    return dataset


def rows(space, values):
    """What our own environments make of these values, one row for each."""
    return torch.stack([encode(space, value) for value in values])


BOXES = {
    "float64": spaces.Box(-1, 1, (2, 3), np.float64),
    "half": spaces.Box(-1, 1, (), np.float16),
    "int8": spaces.Box(-128, 127, (2,), np.int8),
    "uint16": spaces.Box(0, 60_000, (2,), np.uint16),
    "uint32": spaces.Box(0, 2**32 - 1, (1,), np.uint32),
    "bool": spaces.Box(0, 1, (2,), np.bool_),
    "arm/angle": spaces.Box(-1, 1, (1,), np.float32),
}
CHOICES = [spaces.Discrete(4, start=-3), spaces.MultiDiscrete([2, 3], start=[1, -1]), spaces.MultiBinary([2, 2])]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "space", [spaces.Dict(BOXES), spaces.Tuple([*CHOICES, spaces.Dict(deep=CHOICES[0])])], ids=["Dict", "Tuple"]
)
def test_every_space_is_read_as_an_environment_of_ours_gives_it(make, space, data_format):
    dataset, played = make(space, spaces.Tuple(CHOICES[:2]), data_format=data_format)
    episodes = read_minari(dataset)
    for episode, (seen, acted) in zip(episodes, played, strict=True):
        for keys, expected in (((), rows(space, seen[:-1])), (("next",), rows(space, seen[1:]))):
            for key, value in expected.items(True, True):
                key = key if isinstance(key, tuple) else (key,)
                got = episode[(*keys, *key)]
                assert got.dtype is value.dtype and torch.equal(got, value), key
        action = rows(dataset.action_space, acted)
        assert (episode["action"] == action).all() and action.keys() == episode["action"].keys()
    assert episodes.observation_space == space and episodes.action_space == dataset.action_space


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("shape", [(40, 36, 3), (40, 36)])
def test_pictures_in_the_code_of_jpeg_are_read_as_minari_reads_them(make, shape, data_format):
    space = spaces.Box(0, 255, shape, np.uint8)
    ramp = [np.broadcast_to(np.arange(36, dtype=np.uint8)[:, None] * (step + 1), (40, 36, 3)) for step in range(3)]
    values = [np.ascontiguousarray(picture[: shape[0], :, 0] if len(shape) == 2 else picture) for picture in ramp]
    dataset, _ = make(space, lengths=[2], values=values, data_format=data_format)
    (episode,) = read_minari(dataset)
    expected = torch.from_numpy(dataset[0].observations)
    assert episode["observation"].dtype is torch.uint8 and episode["observation"].shape == (2, *shape)
    assert torch.equal(episode["observation"], expected[:-1])
    assert torch.equal(episode["next", "observation"], expected[1:])
    assert (episode["observation"].int() - torch.from_numpy(np.stack(values[:-1])).int()).abs().max() < 8


def test_pictures_without_a_code_are_read_bit_for_bit(make):
    space = spaces.Dict(pixels=spaces.Box(0, 255, (40, 36, 3), np.uint8), speed=spaces.Box(-1, 1, (1,), np.float32))
    dataset, ((seen, _),) = make(space, lengths=[2], jpeg_encoding=False)
    (episode,) = read_minari(dataset)
    assert torch.equal(episode["pixels"], torch.from_numpy(np.stack([value["pixels"] for value in seen[:-1]])))


def test_bytes_that_begin_like_a_picture_are_no_picture_where_the_space_is_flat(make):
    values = [np.array([0xFF, 0xD8, 0xFF, step], np.uint8) for step in range(3)]
    dataset, _ = make(spaces.Box(0, 255, (4,), np.uint8), lengths=[2], values=values)
    assert next(read_minari(dataset))["observation"].tolist() == [[255, 216, 255, 0], [255, 216, 255, 1]]


def test_text_is_left_out_by_name(make):
    text = spaces.Text(5)
    space = spaces.Dict(
        mission=text, arm=spaces.Dict(name=text, angle=spaces.Box(-1, 1, (1,))), only=spaces.Dict(t=text)
    )
    dataset, _ = make(space)
    for leave_out, key in (((), "'mission'"), (["mission"], "'arm/name'"), (["arm", "mission"], "'only/t'")):
        with pytest.raises(SpecError, match=r"read_minari\(..., leave_out=\[.*\]\) goes without") as caught:
            next(read_minari(dataset, leave_out=leave_out))
        assert f"leave_out=[{key}]" in str(caught.value)
    episodes = read_minari(dataset, leave_out=["mission", ("arm", "name"), "only/t"])
    assert set(next(episodes).exclude("next").keys(True, True)) == {
        *(("arm", "angle"), "action", "is_init", ("collector", "traj_ids")),
    }
    assert episodes.observation_space == spaces.Dict(arm=spaces.Dict(angle=space["arm"]["angle"]))
    assert spec_from_space(episodes.observation_space).shape == ()


def test_observations_named_as_entries_of_a_batch_get_another_name(make):
    space = spaces.Dict(action=spaces.Discrete(3, start=1), reward=spaces.Box(-1, 1, (1,)), x=spaces.MultiBinary(2))
    dataset, ((seen, acted), _) = make(space)
    with pytest.raises(
        SpecError, match=r"\['action', 'reward'\]. read_minari\(..., rename={\"action\": \"observed_action\"}"
    ):
        read_minari(dataset)
    episodes = read_minari(dataset, rename={"action": "last_action", "reward": "last_reward"})
    episode = next(episodes)
    assert episode["last_action"].tolist() == [value["action"] - 1 for value in seen[:-1]]
    assert episode["next", "last_action"].tolist() == [value["action"] - 1 for value in seen[1:]]
    assert episode["action"].tolist() == [action - 2 for action in acted]
    assert episode["next", "reward"].tolist() == [[0.0], [0.5]]
    assert set(episodes.observation_space.keys()) == {"last_action", "last_reward", "x"}
    assert "reward" not in next(read_minari(dataset, rename={"action": "a"}, leave_out=["reward"])).keys()


def test_names_that_do_not_fit_are_found_at_once(make):
    dataset, _ = make(spaces.Box(-1, 1, (1,)))
    for changes, error, message in [
        (
            {"leave_out": ["x"]},
            ConfigError,
            r"leave_out to name some of the observations \['observation'\], got \['x'\]",
        ),
        ({"leave_out": ["observation"]}, ConfigError, "an observation that is not left out"),
        ({"leave_out": [("observation", "x")]}, ConfigError, r"got \['observation/x'\]"),
        ({"leave_out": "x"}, ConfigError, "a list of names as leave_out, got 'x'"),
        ({"leave_out": [3]}, ConfigError, "names, or tuples of them, got 3"),
        (
            {"rename": {"x": "y"}},
            ConfigError,
            r"rename to name some of the observations \['observation'\], got \['x'\]",
        ),
        ({"rename": {"observation": "done"}}, SpecError, r"names of their own, got \['done'\]"),
        ({"info_keys": ["observation"]}, SpecError, r"names of their own, got \['observation'\]"),
    ]:
        with pytest.raises(error, match=message):
            read_minari(dataset, **changes)
    episodes = read_minari(dataset, rename={"observation": "state"})
    assert "state" in next(episodes).keys() and set(episodes.observation_space.keys()) == {"state"}
    with pytest.raises(ConfigError, match="a path, the name of a dataset, or a MinariDataset, got int"):
        read_minari(3)


@pytest.mark.parametrize("data_format", FORMATS)
def test_infos_are_observations_where_they_are_asked_for(make, data_format):
    def infos(num):
        position = np.arange((num + 1) * 4, dtype=np.float64).reshape(num + 1, 2, 2)
        return {
            "success": [step > 1 for step in range(num + 1)],
            "arm": {"position": position},
            "name": ["a"] * (num + 1),
        }

    dataset, _ = make(spaces.Discrete(5), lengths=[2], infos=infos, data_format=data_format)
    assert "success" not in next(read_minari(dataset)).keys()
    (episode,) = read_minari(dataset, info_keys=["success", ("arm", "position")])
    assert episode["success"].tolist() == [False, False] and episode["next", "success"].tolist() == [False, True]
    assert episode["next", "arm", "position"].tolist() == [[[4.0, 5.0], [6.0, 7.0]], [[8.0, 9.0], [10.0, 11.0]]]
    for key, error, message in [
        ("wins", ConfigError, "info_keys to name some of infos: .*success.*got 'wins'"),
        (("arm", "x"), ConfigError, r"some of infos/arm: \['position'\], got 'x'"),
        ("name", SpecError, "infos/name: expected an array of numbers"),
    ]:
        with pytest.raises(error, match=message):
            next(read_minari(dataset, info_keys=[key]))


@pytest.mark.parametrize("data_format", FORMATS)
def test_a_part_of_a_dataset_is_read_in_its_order(make, data_format):
    dataset, _ = make(spaces.Discrete(5), lengths=[1, 2, 3], data_format=data_format)
    part = minari.MinariDataset(dataset.storage, np.array([2, 0]))
    episodes = read_minari(part)
    assert episodes.numbers == [2, 0] and episodes.num_episodes == 2
    assert [episode["collector", "traj_ids"].tolist() for episode in episodes] == [[2, 2, 2], [0]]
    folder = dataset.storage.data_path
    for source in (dataset, "test/data-v0", folder, str(folder), folder.parent):
        assert [len(episode) for episode in read_minari(source)] == [1, 2, 3]
    with pytest.raises(StorageError, match="minari.download_dataset"):
        read_minari("test/nothing-v0")


@pytest.mark.parametrize("data_format", FORMATS)
def test_what_is_noted_of_a_dataset_and_its_episodes(make, tmp_path, data_format):
    env = gymnasium.make("CartPole-v1", max_episode_steps=7)
    dataset, _ = make(env.observation_space, env.action_space, env=env, data_format=data_format)
    episodes = read_minari(dataset.storage.data_path)
    assert episodes.metadata["dataset_id"] == "test/data-v0" and episodes.metadata["total_steps"] == 5
    about = episodes.episode_metadata(1)
    assert about["seed"] == 41 and about["options"] == {"goal": {"x": 1}}
    with pytest.raises(ConfigError, match="number of an episode, got 2"):
        episodes.episode_metadata(2)
    ours = GymEnv(episodes.make_env())
    assert ours.action_spec == spec_from_space(episodes.action_space)
    assert ours.rollout(50)["next", "truncated"][6].item() or ours.rollout(50)["next", "terminated"].any()
    assert episodes.make_env().spec.max_episode_steps == 7
    write_dataset(tmp_path / "ours", episodes, metadata={"minari": episodes.metadata, "first": about})
    assert read_dataset(tmp_path / "ours").metadata["minari"]["dataset_id"] == "test/data-v0"


def test_own_steps_and_those_of_a_dataset_train_together(make, caplog):
    env = gymnasium.make("CartPole-v1")
    dataset, _ = make(env.observation_space, env.action_space, [5, 6], env=env)
    shown, buffer = ReplayBuffer(TensorStorage(100), seed=0), ReplayBuffer(TensorStorage(100), seed=1)
    for episode in read_minari(dataset):
        shown.extend(episode)
    actor = ProbabilisticActor(MLP(4, 2), Categorical)
    for batch in Collector(GymEnv("CartPole-v1", num_envs=2), actor, frames_per_batch=32, total_frames=32, seed=0):
        buffer.extend(batch)
    sample = MixedReplay([buffer, shown], [3, 1], batch_size=16).sample()
    assert sample["replay", "buffer"].tolist() == [0] * 12 + [1] * 4
    assert "action_log_prob" not in sample.keys() and "'action_log_prob' in buffers [0] only" in caplog.text
    network = QValueActor(MLP(4, 2))
    assert DQNLoss(network)(sample)["loss_value"].isfinite()


def test_a_file_alone_has_no_spaces_and_no_environment(make, tmp_path):
    dataset, ((seen, acted), _) = make(spaces.Discrete(5))
    alone = tmp_path / "alone.hdf5"
    alone.write_bytes((dataset.storage.data_path / "main_data.hdf5").read_bytes())
    episodes = read_minari(alone)
    assert next(episodes)["action"].tolist() == [int(action) for action in acted]  # where they start nobody knows
    for look in (lambda: episodes.action_space, lambda: episodes.observation_space, episodes.make_env):
        with pytest.raises(StorageError, match=r"alone.hdf5: expected a metadata.json with"):
            look()


def test_numbers_that_do_not_fit_their_space_are_named(make):
    dataset, _ = make(spaces.Dict(x=spaces.Box(-1, 1, (2,), np.float64), big=spaces.Box(0, 2**64 - 1, (1,), np.uint64)))
    path = dataset.storage.data_path / "main_data.hdf5"

    def change(key, value):
        with pytest.importorskip("h5py").File(path, "r+") as file:
            before = file[f"episode_0/{key}"][()]
            del file[f"episode_0/{key}"]
            file[f"episode_0/{key}"] = value
        with pytest.raises(SpecError) as caught:
            next(read_minari(path))
        with pytest.importorskip("h5py").File(path, "r+") as file:
            del file[f"episode_0/{key}"]
            file[f"episode_0/{key}"] = before
        return str(caught.value)

    assert "choices of a Discrete, 3 of them from 2 on, got 1" in change("actions", np.array([1, 4]))
    assert "numbers that float32 can hold, got 1e+300" in change("observations/x", np.full((3, 2), 1e300))
    assert "numbers that int64 can hold, got 9223372036854775808" in change(
        "observations/big", np.full((3, 1), 2**63, np.uint64)
    )
    assert "rows of shape [2], as its space says, got [3]" in change("observations/x", np.zeros((3, 3)))
    assert "read_minari" in change("observations/x", np.zeros((3, 2), "S3"))


def test_a_format_that_nobody_knows_and_a_missing_reader_are_named(make, monkeypatch):
    dataset, _ = make(spaces.Discrete(5))
    about = dataset.storage.data_path / "metadata.json"
    noted = json.loads(about.read_text())
    (dataset.storage.data_path / "main_data.hdf5").unlink()
    about.write_text(json.dumps(noted | {"data_format": "zarr"}))
    with pytest.raises(StorageError, match="one of the formats hdf5, arrow, parquet in .* got 'zarr'"):
        read_minari(dataset)
    about.write_text(json.dumps(noted | {"data_format": "arrow"}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="minari-arrow"):
        read_minari(dataset)


class FakeColumn:
    """Rows of numbers, of lists of one length, or of structs, with what is asked of pyarrow's arrays."""

    def __init__(self, rows, parts=None, shape=None):
        self.rows, self.parts, self.metadata = rows, parts, None if shape is None else {b"shape": shape}
        self.type = FakeType(
            [SimpleNamespace(name=name, metadata=part.metadata) for name, part in (parts or {}).items()]
        )
        self.type.is_struct, self.type.list_size = (
            parts is not None,
            0 if rows is None or rows.ndim == 1 else rows.shape[1],
        )

    def __len__(self):
        return len(next(iter(self.parts.values()))) if self.rows is None else len(self.rows)

    def __getitem__(self, at):
        parts = self.parts and {name: part[at] for name, part in self.parts.items()}
        return FakeColumn(None if self.rows is None else self.rows[at], parts)

    def field(self, name):
        return self.parts[name]

    def flatten(self):
        return FakeColumn(self.rows.ravel())

    def to_numpy(self, zero_copy_only):
        assert not zero_copy_only  # bools and text are no memory of numpy's
        return self.rows

    def combine_chunks(self):
        return self


class FakeType(list):
    """Of a column; a list of its fields."""

    def field(self, name):
        return next(field for field in self if field.name == name)


def test_an_episode_that_pyarrow_reads_in_pieces_is_read_whole(make):
    values = [
        step % 5 for step in range(33_001)
    ]  # pyarrow writes 32,768 rows a piece, and Minari reads the first piece
    dataset, _ = make(spaces.Discrete(5), spaces.Discrete(2), [33_000], values=values, data_format="arrow")
    (episode,) = read_minari(dataset)
    assert episode["observation"].tolist() == values[:-1] and episode["next", "observation"].tolist() == values[1:]


def test_tables_are_read_by_pyarrow(tmp_path, monkeypatch):
    counts = np.arange(3)
    flags = FakeColumn(np.array([False, True, False]))
    table = {
        "observations": FakeColumn(None, {"x": FakeColumn(np.arange(12.0).reshape(3, 4)), "n": FakeColumn(counts + 5)}),
        "actions": FakeColumn(np.array([1, 2, 0])), "rewards": FakeColumn(np.array([0.5, 1.5, 0.0])),
        "terminations": flags, "truncations": FakeColumn(np.zeros(3, bool)),
        "infos": FakeColumn(None, {"place": FakeColumn(np.arange(12).reshape(3, 4), shape=b"2,2")}),
    }  # fmt: skip
    asked = []

    def dataset(folder, *, format, ignore_prefixes):
        asked.append((folder, format, ignore_prefixes))
        column = FakeColumn(None, table)
        return SimpleNamespace(
            to_table=lambda: SimpleNamespace(column_names=list(table), to_struct_array=lambda: column)
        )

    types = SimpleNamespace(is_struct=lambda type: type.is_struct, is_fixed_size_list=lambda type: type.list_size > 0)
    arrow, arrow_dataset = ModuleType("pyarrow"), ModuleType("pyarrow.dataset")
    arrow.types, arrow.ArrowInvalid, arrow_dataset.dataset = types, ValueError, dataset
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.dataset", arrow_dataset)
    space = {"x": {"type": "Box", "dtype": "float64", "shape": [2, 2]}, "n": {"type": "Discrete", "n": 3, "start": 5}}
    noted = {"data_format": "parquet", "observation_space": {"type": "Dict", "subspaces": space}}
    (tmp_path / "metadata.json").write_text(json.dumps(noted))
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "metadata.json").write_text('{"seed": 3}')
    episodes = read_minari(tmp_path, info_keys=["place"])
    assert episodes.numbers == [4] and episodes.episode_metadata(4) == {"seed": 3}
    (episode,) = episodes
    assert asked == [(str(tmp_path / "4"), "parquet", ["_", ".", "metadata.json"])]
    assert (
        episode["x"].tolist() == [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]]]
        and episode["x"].dtype is torch.float32
    )
    assert episode["next", "n"].tolist() == [1, 2] and episode["next", "place"].tolist() == [
        [[4, 5], [6, 7]],
        [[8, 9], [10, 11]],
    ]
    assert episode["action"].tolist() == [1, 2] and episode["next", "reward"].tolist() == [[0.5], [1.5]]
    assert episode["next", "done"].tolist() == [[False], [True]]
