"""Datasets in folders and files of Minari: values by hand, writes that are cut short, damage."""

import json
import shutil

import numpy as np
import pytest
import torch
from tensordict import TensorDict, lazy_stack

from torchrl.data import read_dataset, read_minari, write_dataset
from torchrl.data.replay import ReplayBuffer, SliceSampler, TensorStorage
from torchrl.data.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, OneHot, Unbounded
from torchrl.errors import ConfigError, KeyMissing, SpecError, StorageError


def steps(counts, *, starts=(), ends=(), **more):
    """Steps that count; ``counts`` is ``[T]`` or ``[B, T]``, and those listed begin or end an episode."""
    counts = torch.as_tensor(counts)
    is_init, done = (torch.isin(counts, torch.tensor(list(some), dtype=torch.int64)) for some in (starts, ends))
    entries = {"observation": counts.float(), "is_init": is_init[..., None], "next": {"done": done[..., None]}}
    return TensorDict({**entries, **more}, batch_size=counts.shape)


def episodes_of(folder):
    return [episode["observation"].int().tolist() for episode in read_dataset(folder)]


# ---- datasets --------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path):
    source = steps([0, 1, 2, 3, 4], starts=[0, 3], ends=[2, 4])
    source["half"] = torch.arange(5).bfloat16()
    source["image"] = torch.arange(5 * 6).view(5, 2, 3).to(torch.uint8)
    source["nothing"] = torch.zeros(5, 0)
    source["replay"] = {"index": torch.arange(5)}
    write_dataset(tmp_path / "data", source, metadata={"env": "Counting", "seed": 3})
    dataset = read_dataset(tmp_path / "data")
    assert len(dataset) == 5 and dataset.num_episodes == 2
    assert dataset.metadata == {"env": "Counting", "seed": 3}
    expected = source.exclude("replay")
    assert set(dataset.steps.keys(True, True)) == set(expected.keys(True, True))
    for key in expected.keys(True, True):
        assert dataset.steps[key].dtype is expected[key].dtype and torch.equal(dataset.steps[key], expected[key]), key
    assert dataset.episode(0)["observation"].tolist() == [0, 1, 2]
    assert dataset.episode(-1)["observation"].tolist() == [3, 4]
    for index in (2, -3):
        with pytest.raises(IndexError, match="from -2 to 1"):
            dataset.episode(index)


def test_episodes_are_put_together_over_batches(tmp_path):
    batches = [
        steps([[0, 1], [10, 11]], starts=[0, 10], ends=[11]),
        steps([[2, 3], [20, 21]], starts=[20], ends=[2]),  # 3 begins no episode by its flag: its beginning is missing
        steps([[4, 5], [22, 23]], ends=[5]),
    ]
    write_dataset(tmp_path, iter(batches))
    assert episodes_of(tmp_path) == [[10, 11], [0, 1, 2], [3, 4, 5], [20, 21, 22, 23]]
    assert read_dataset(tmp_path).steps["is_init"][:, 0].nonzero()[:, 0].tolist() == [0, 2, 5, 8]
    assert not batches[1]["is_init"][0, 1]  # what was given stays as it is


def test_a_batch_that_is_written_over_loses_nothing(tmp_path):
    def collect():
        reused = steps([[0, 1], [10, 11]], starts=[0, 10])
        yield reused
        reused.copy_(steps([[2, 3], [12, 13]], ends=[3, 13]))
        yield reused

    write_dataset(tmp_path, collect())
    assert episodes_of(tmp_path) == [[0, 1, 2, 3], [10, 11, 12, 13]]


def test_one_row_goes_on_from_batch_to_batch(tmp_path):
    batches = [steps([0, 1], starts=[0]), steps([2, 3], ends=[3]), steps([4], starts=[4]), steps([5])]
    write_dataset(tmp_path, batches)
    assert episodes_of(tmp_path) == [[0, 1, 2, 3], [4, 5]]


def test_masked_steps_are_left_out_and_nothing_goes_on_over_them(tmp_path):
    batch = steps([[0, 1, 2, 3], [10, 11, 12, 13]], starts=[0, 10])
    batch["collector"] = {"mask": torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]]).bool()}
    write_dataset(tmp_path, [batch, steps([[4, 5], [14, 15]])])
    assert sorted(episodes_of(tmp_path)) == [[0], [2, 3, 4, 5], [10, 11], [14, 15]]
    assert ("collector", "mask") not in read_dataset(tmp_path).steps.keys(True)


def test_other_trajectories_and_other_rows_are_no_continuation(tmp_path):
    traj_ids = [{"collector": {"traj_ids": torch.tensor(ids)}} for ids in ([7, 7], [8, 8])]
    write_dataset(tmp_path, [steps([0, 1], starts=[0], **traj_ids[0]), steps([2, 3], **traj_ids[1])])
    assert episodes_of(tmp_path) == [[0, 1], [2, 3]]
    write_dataset(tmp_path, [steps([[0, 1], [10, 11]], starts=[0, 10]), steps([[2, 3]])])
    assert episodes_of(tmp_path) == [[0, 1], [10, 11], [2, 3]]


def test_writing_to_what_was_read_changes_no_file(tmp_path):
    write_dataset(tmp_path, steps([0, 1, 2], starts=[0]))
    read_dataset(tmp_path).steps["observation"].fill_(9)
    assert episodes_of(tmp_path) == [[0, 1, 2]]


def test_filling_a_replay_buffer(tmp_path):
    write_dataset(tmp_path, steps(list(range(10)), starts=[0, 4], ends=[3, 9]))
    dataset = read_dataset(tmp_path)
    buffer = ReplayBuffer(TensorStorage(10), sampler=SliceSampler(4), seed=0)
    dataset.fill(buffer, chunk_len=3)
    assert buffer[:]["observation"].tolist() == list(range(10))
    firsts = {row[0] for row in buffer.sample(400)["observation"].int().tolist()}
    assert firsts == {0, 4, 5, 6}  # slices stay in their episode, over the seams of the chunks
    with pytest.raises(ConfigError, match="chunk_len"):
        dataset.fill(buffer, chunk_len=0)


def test_a_dataset_is_replaced_and_nothing_else_is_touched(tmp_path):
    (tmp_path / "steps-notes").mkdir()
    write_dataset(tmp_path, steps([0, 1], starts=[0]))
    write_dataset(tmp_path, steps([5, 6, 7], starts=[5]))
    assert episodes_of(tmp_path) == [[5, 6, 7]]
    assert len(list(tmp_path.iterdir())) == 3  # the index, the steps, the notes


def test_a_write_that_fails_leaves_the_last_dataset(tmp_path):
    def failing():
        yield steps([5, 6], starts=[5])
        raise RuntimeError("the simulator broke")

    with pytest.raises(RuntimeError, match="the simulator broke"):
        write_dataset(tmp_path / "none", failing())
    with pytest.raises(StorageError, match="got none"):
        read_dataset(tmp_path / "none")
    write_dataset(tmp_path / "data", steps([0, 1], starts=[0]))
    with pytest.raises(RuntimeError, match="the simulator broke"):
        write_dataset(tmp_path / "data", failing())
    assert episodes_of(tmp_path / "data") == [[0, 1]]
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_a_write_that_was_killed_is_detected(tmp_path):
    write_dataset(tmp_path / "data", steps([0, 1], starts=[0]))
    (killed,) = (tmp_path / "data").glob("steps-*")
    shutil.copytree(killed, tmp_path / "half" / "steps-0123456789abcdef")
    with pytest.raises(StorageError, match="cut short"):
        read_dataset(tmp_path / "half")
    shutil.copytree(killed, tmp_path / "data" / "steps-0123456789abcdef")
    assert episodes_of(tmp_path / "data") == [[0, 1]]
    write_dataset(tmp_path / "data", steps([2], starts=[2]))
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_damage_is_named(tmp_path):
    def change(**entries):
        index.write_text(json.dumps(sound | entries))

    with pytest.raises(StorageError, match="got none"):
        read_dataset(tmp_path / "nowhere")
    write_dataset(tmp_path, steps([0, 1], starts=[0]))
    index = tmp_path / "dataset.json"
    sound = json.loads(index.read_text())
    change(version=2)
    with pytest.raises(StorageError, match="got version 2"):
        read_dataset(tmp_path)
    wrong = [{"starts": [1]}, {"starts": [0, 5]}, {"starts": []}, {"num_steps": 0}, {"data": "../elsewhere"}]
    for entries in [*wrong, {"entries": [{}]}, {"num_steps": "2"}]:
        change(**entries)
        with pytest.raises(StorageError, match=r"dataset\.json.*damaged"):
            read_dataset(tmp_path)
    change(num_steps=3)
    with pytest.raises(StorageError, match=r"\.bin, got 2 bytes, not 3"):
        read_dataset(tmp_path)
    for text in ("{", "[]", "{}"):
        index.write_text(text)
        with pytest.raises(StorageError, match=r"dataset\.json.*damaged"):
            read_dataset(tmp_path)
    change()
    assert episodes_of(tmp_path) == [[0, 1]]
    (tmp_path / sound["data"] / "0.bin").unlink()
    with pytest.raises(StorageError, match=r"0\.bin, got FileNotFoundError"):
        read_dataset(tmp_path)


def test_bad_batches_are_refused_and_nothing_is_left(tmp_path):
    good = steps([0, 1], starts=[0])
    for batches, error, message in [
        ([], SpecError, "with steps, got none"),
        ([good[:0]], SpecError, "with steps, got none"),
        ([good[0]], SpecError, r"batches of size \[T\]"),
        ([{"observation": 1}], SpecError, "got <class 'dict'>"),
        ([good.exclude("is_init")], KeyMissing, '"is_init"'),
        ([good.clone().set("is_init", torch.ones(2).bool())], SpecError, r"'is_init'.*\[2, 1\]"),
        ([good, good.clone().set("extra", torch.ones(2))], SpecError, "'extra' is new"),
        (
            [good, good.clone().set("observation", torch.ones(2, 3))],
            SpecError,
            r"'observation' is \[3\] .* instead of \[\]",
        ),
    ]:
        with pytest.raises(error, match=message):
            write_dataset(tmp_path, batches)
    for metadata in ({"a": (1, 2)}, {1: 2}, {"a": float("nan")}, {"a": torch.ones(1)}, [1]):
        with pytest.raises(ConfigError, match="metadata"):
            write_dataset(tmp_path, good, metadata=metadata)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="NotADirectoryError"):
        write_dataset(tmp_path / "file" / "data", steps([0], starts=[0]))


def test_a_full_disk(small_disk):
    write_dataset(small_disk, steps([0, 1], starts=[0]))
    large = steps(list(range(300_000)), starts=[0])
    with pytest.raises(StorageError, match="No space left on device.*The dataset that was there before is unchanged"):
        write_dataset(small_disk, large)
    assert episodes_of(small_disk) == [[0, 1]]
    assert len(list(small_disk.iterdir())) == 2
    write_dataset(small_disk, steps([7], starts=[7]))
    assert episodes_of(small_disk) == [[7]]


def test_a_read_only_folder(read_only):
    folder, lock = read_only
    write_dataset(folder / "data", steps([0, 1], starts=[0]))
    lock()
    for name in ("data", "other"):
        with pytest.raises(StorageError, match="PermissionError"):
            write_dataset(folder / name, steps([7], starts=[7]))
    assert episodes_of(folder / "data") == [[0, 1]]


def test_text_is_refused(tmp_path):
    batch = steps([0, 1], starts=[0])
    batch.set_non_tensor("name", "a")
    with pytest.raises(SpecError, match="key 'name': expected tensors, got NonTensor"):
        write_dataset(tmp_path, batch)


SPECS = {
    "unbounded": Unbounded((3,)), "scalar": Unbounded(()), "half": Unbounded((2,), torch.float16),
    "double": Unbounded((2,), torch.float64), "bounded": Bounded(-1, 1, (2,)),
    "bytes": Bounded(-5, 5, (2,), torch.int8),
    "pixels": Bounded(0, 255, (5, 4, 3), torch.uint8), "choice": Categorical(4), "flag": Categorical(2, (), torch.bool),
    "choices": MultiCategorical([2, 3]), "one_hot": OneHot(4), "one_hots": MultiOneHot([2, 3]), "bits": Binary((3,)),
    "nest": Composite({"a": Unbounded((2,)), "b": Composite({"c": Categorical(3)})}),
}  # fmt: skip


def test_entries_of_every_spec_are_read_as_they_were_written(tmp_path):
    source = steps([0, 1, 2], starts=[0], ends=[2])
    for name, spec in SPECS.items():
        source[name] = torch.stack([spec.rand() for _ in range(3)])
    write_dataset(tmp_path, source)
    read = read_dataset(tmp_path).steps
    assert set(read.keys(True, True)) == set(source.keys(True, True))
    for key, value in source.items(True, True):
        assert read[key].dtype is value.dtype and torch.equal(read[key], value), key
    for name, spec in SPECS.items():
        assert all(spec.contains(read[step][name]) for step in range(3)), name


def test_keys_and_memory_of_every_form(tmp_path):
    numbers = torch.arange(3)
    source = steps([0, 1, 2], starts=[0], ends=[2])
    source.update({"a/b": numbers, "a": {"b": numbers + 5, "next": numbers + 6}, "": numbers + 7, "x.y": numbers + 8})
    source.update(
        {
            "turned": torch.arange(6).view(2, 3).t(),
            "every other": torch.arange(6)[::2],
            "0": numbers.expand(2, 3).t(),
        }
    )
    source.update({"none": torch.zeros(3, 0, 2), "learned": torch.ones(3, requires_grad=True)})
    source.update(
        {"odd": torch.tensor([float("nan"), float("inf"), -0.0]), "complex": torch.ones(3, dtype=torch.cfloat)}
    )
    for batch in (source.lock_(), lazy_stack(list(source.unbind(0)))):
        write_dataset(tmp_path, batch)
        read = read_dataset(tmp_path).steps
        assert set(read.keys(True, True)) == set(source.keys(True, True))
        for key, value in source.items(True, True):
            assert read[key].dtype is value.dtype and torch.equal(read[key].nan_to_num(3), value.nan_to_num(3)), key


def test_what_cannot_be_written_is_named(tmp_path):
    rows = [steps([count], starts=[0])[0].clone() for count in range(3)]
    ragged = [row.clone().set("x", torch.zeros(at + 1)) for at, row in enumerate(rows)]
    uneven = [row.clone().update({"next": {"y": torch.zeros(1)}} if at else {}) for at, row in enumerate(rows)]
    for batch, message in [
        (lazy_stack(ragged), "stack of parts with the same entries, got 'x' in some"),
        (lazy_stack(uneven), "stack of parts with the same entries, got 'next/y' in some"),
        (steps([0, 1]).set("x", torch.eye(2).to_sparse()), "key 'x': expected a dense tensor .*sparse"),
        (steps([0, 1]).set("x", torch.ones(2, device="meta")), "key 'x': expected a dense tensor .*without data"),
    ]:
        with pytest.raises(SpecError, match=message):
            write_dataset(tmp_path, batch)
    assert not list(tmp_path.iterdir())


# ---- Minari ----------------------------------------------------------------------------------------------------------


def write_episode(file, number, *, observations, actions, rewards, terminations, truncations):
    group = file.create_group(f"episode_{number}")
    for name, value in (("observations", observations), ("actions", actions)):
        for path, array in value.items() if isinstance(value, dict) else [("", value)]:
            group.create_dataset(f"{name}/{path}".rstrip("/"), data=array)
    group["rewards"], group["terminations"], group["truncations"] = rewards, terminations, truncations


def two_steps(**changes):
    episode = {
        "observations": np.array([[0.5], [1.5], [2.5]]),
        "actions": np.array([1, 0]),
        "rewards": np.array([1.0, 2.0]),
        "terminations": np.array([False, False]),
        "truncations": np.array([False, True]),
    }
    return episode | changes


@pytest.fixture
def make_file(tmp_path):
    h5py = pytest.importorskip("h5py")

    def make(*episodes, numbers=None):
        with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
            for number, episode in zip(numbers or range(len(episodes)), episodes, strict=True):
                write_episode(file, number, **episode)
        return tmp_path / "main_data.hdf5"

    return make


def test_minari_episodes_become_transitions(make_file):
    one_step = two_steps(
        observations=np.array([[7.0], [8.0]]), actions=np.array([1]), rewards=np.array([-1.0]),
        terminations=np.array([True]), truncations=np.array([False]),
    )  # fmt: skip
    first, second = read_minari(make_file(two_steps(), one_step, numbers=[2, 10]))
    assert first.batch_size == (2,) and second.batch_size == (1,)
    assert first["observation"].tolist() == [[0.5], [1.5]] and first["next", "observation"].tolist() == [[1.5], [2.5]]
    assert first["observation"].dtype is torch.float32 and first["action"].dtype is torch.int64
    assert first["action"].tolist() == [1, 0] and first["is_init"].tolist() == [[True], [False]]
    assert first["next", "reward"].tolist() == [[1.0], [2.0]] and first["next", "reward"].dtype is torch.float32
    assert first["next", "terminated"].tolist() == [[False], [False]]
    assert first["next", "truncated"].tolist() == first["next", "done"].tolist() == [[False], [True]]
    assert second["next", "terminated"].tolist() == second["next", "done"].tolist() == [[True]]
    assert first["collector", "traj_ids"].tolist() == [2, 2] and second["collector", "traj_ids"].tolist() == [10]


def test_minari_nested_observations_and_actions(make_file):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    observations = {"pixels": pixels, "arm/angle": np.array([0.0, 1.0, 2.0]), "pair/_index_1": np.array([4, 5, 6])}
    actions = {"_index_0": np.array([1, 0]), "_index_1": np.array([[0.5], [1.5]])}
    (episode,) = read_minari(make_file(two_steps(observations=observations, actions=actions)))
    assert episode["pixels"].dtype is torch.uint8 and torch.equal(episode["pixels"], torch.from_numpy(pixels[:2]))
    assert episode["arm", "angle"].tolist() == [0.0, 1.0] and episode["next", "arm", "angle"].tolist() == [1.0, 2.0]
    assert episode["pair", "1"].tolist() == [4, 5] and episode["next", "pair", "1"].tolist() == [5, 6]
    assert episode["action", "0"].tolist() == [1, 0] and episode["action", "1"].tolist() == [[0.5], [1.5]]


def test_minari_to_a_dataset_and_a_buffer(make_file, tmp_path):
    path = make_file(two_steps(), two_steps(), two_steps())
    write_dataset(tmp_path / "data", read_minari(path))
    dataset = read_dataset(tmp_path / "data")
    assert len(dataset) == 6 and dataset.num_episodes == 3
    assert dataset.steps["collector", "traj_ids"].tolist() == [0, 0, 1, 1, 2, 2]
    buffer = ReplayBuffer(TensorStorage(6))
    dataset.fill(buffer)
    assert buffer[:]["observation"].flatten().tolist() == [0.5, 1.5] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((2, 1))}, "episode 0: expected observations with 3 rows"),
        ({"actions": {"a": np.zeros(3)}}, "actions with 2 rows"),
        ({"rewards": np.zeros((2, 2))}, "rewards with one number for each step"),
        ({"rewards": np.zeros(0)}, "at least one"),
        ({"terminations": np.array([True, False])}, "an ending on the last step alone, got one on step 0"),
        ({"observations": np.array([b"a", b"b", b"c"])}, "observations: expected an array of numbers"),
        ({"observations": {"reward": np.zeros(3)}}, r"names of their own, got \['reward'\]. .*rename={"),
        ({"observations": np.frombuffer(b"\xff\xd8\xff\xe0" * 3, np.uint8).reshape(3, 4)}, "pictures in JPEG's code"),
    ],
)
def test_minari_episodes_that_do_not_fit_are_named(make_file, changes, message):
    with pytest.raises(SpecError, match=message):
        list(read_minari(make_file(two_steps(**changes))))


def test_minari_files_that_are_none_are_refused_at_once(make_file, tmp_path):
    h5py = pytest.importorskip("h5py")
    with pytest.raises(StorageError, match="got nothing"):
        read_minari(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="a folder without one"):
        read_minari(str(tmp_path))
    path = make_file()
    with pytest.raises(StorageError, match='groups "episode_0"'):
        read_minari(path)
    with h5py.File(path, "w") as file:
        file.create_group("episode_0")["rewards"] = [1.0]
    with pytest.raises(StorageError, match="got no observations, actions, terminations, truncations"):
        next(read_minari(path))
    path.write_bytes(make_file(two_steps()).read_bytes()[:100])
    with pytest.raises(StorageError, match="a whole HDF5 file"):
        read_minari(path)
