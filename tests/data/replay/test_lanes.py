"""What came before what: the links of items by hand, over batches, sources and gaps."""

import numpy as np

from torchrl.data.replay.lanes import Lanes


def flags(*rows):
    return np.array([[mark == "x" for mark in row] for row in rows])


def numbers(first, num_rows, num_steps):
    return np.arange(first, first + num_rows * num_steps).reshape(num_steps, num_rows).T


def columns(links):
    return [column.tolist() for column in links]


def test_a_row_goes_on_in_the_next_batch():
    lanes = Lanes()
    first = lanes.link(numbers(0, 2, 3), is_init=flags("x..", "x.."), done=flags("...", "..x"))
    assert columns(first) == [[[0, 2, 2], [0, 2, 2]], [[1, 2, 3], [1, 2, 3]]]
    second = lanes.link(numbers(6, 2, 2), is_init=flags("..", "x."), done=flags("..", ".."))
    assert columns(second) == [[[2, 2], [2, 2]], [[4, 5], [1, 2]]]


def test_an_episode_that_begins_follows_in_time_but_not_in_the_episode():
    links = Lanes().link(numbers(10, 1, 5), is_init=flags("x..x."), done=flags("..x.."))
    assert columns(links) == [[[0, 1, 1, 1, 1]], [[1, 2, 3, 1, 2]]]


def test_steps_that_contradict_each_other_are_not_linked():
    """A beginning after a step that ended nothing (a reset in mid-episode), a step after an end that begins nothing."""
    links = Lanes().link(numbers(0, 1, 5), is_init=flags("x.x.."), done=flags("...x."))
    assert columns(links) == [[[0, 1, 0, 1, 0]], [[1, 2, 1, 2, 1]]]


def test_batches_of_another_width_change_the_gap():
    """Of several sources in turn: the trajectories tell which one goes on."""
    lanes = Lanes()
    one, other = np.array([[5, 5], [6, 6]]), np.array([[8, 8]])
    lanes.link(numbers(0, 2, 2), is_init=flags("x.", "x."), done=flags("..", ".."), trajectories=one)
    lanes.link(numbers(4, 1, 2), is_init=flags("x."), done=flags(".."), trajectories=other)
    links = lanes.link(numbers(6, 2, 2), is_init=flags("..", ".."), done=flags("..", ".."), trajectories=one)
    assert columns(links) == [[[4, 2], [4, 2]], [[3, 4], [3, 4]]]
    links = lanes.link(numbers(10, 1, 2), is_init=flags(".."), done=flags(".."), trajectories=other)
    assert columns(links) == [[[5, 1]], [[3, 4]]]


def test_trajectories_that_nobody_knows_begin_a_chain():
    lanes = Lanes()
    lanes.link(numbers(0, 1, 2), is_init=flags("x."), done=flags(".."), trajectories=np.array([[1, 1]]))
    links = lanes.link(numbers(2, 1, 2), is_init=flags(".."), done=flags(".."), trajectories=np.array([[2, 2]]))
    assert columns(links) == [[[0, 1]], [[1, 2]]]


def test_steps_that_are_left_out_cut_the_chain():
    lanes = Lanes()
    ids = np.array([[0, 1, -1, 2, 3], [4, -1, -1, -1, -1]])
    links = lanes.link(ids, is_init=flags("x....", "x...."), done=flags(".....", "....."))
    assert links.gap[0, [0, 1, 3, 4]].tolist() == [0, 1, 0, 1] and links.run[0, [0, 1, 3, 4]].tolist() == [1, 2, 1, 2]
    links = lanes.link(np.array([[5], [6]]), is_init=flags(".", "."), done=flags(".", "."))
    assert links.gap[:, 0].tolist() == [2, 0] and links.run[:, 0].tolist() == [3, 1]


def test_the_state_goes_on():
    lanes, twin = Lanes(), Lanes()
    lanes.link(numbers(0, 2, 3), is_init=flags("x..", "x.."), done=flags("...", "..x"))
    twin.load(lanes.state())
    batch = {"is_init": flags("..", "x."), "done": flags("..", "..")}
    assert columns(lanes.link(numbers(6, 2, 2), **batch)) == columns(twin.link(numbers(6, 2, 2), **batch))
    lanes.clear()
    assert lanes.link(numbers(10, 2, 2), is_init=flags("..", ".."), done=flags("..", "..")).run[:, 0].tolist() == [1, 1]


def test_steps_that_are_not_there_cut_the_chain():
    """The counts of the episodes tell: rows of a batch that were left out, a batch that was not stored."""
    lanes = Lanes()
    playing = {"is_init": flags("...."), "done": flags("....")}
    first = lanes.link(numbers(0, 1, 4), **playing, num_steps=(np.array([[3, 4, 6, 7]]), np.array([[4, 5, 7, 8]])))
    assert first.gap.tolist() == [[0, 1, 0, 1]] and first.run.tolist() == [[1, 2, 1, 2]]
    second = lanes.link(
        numbers(4, 1, 4), **playing, num_steps=(np.array([[8, 9, 10, 11]]), np.array([[9, 10, 11, 12]]))
    )
    assert second.gap.tolist() == [[1, 1, 1, 1]] and second.run.tolist() == [[3, 4, 5, 6]]
    third = lanes.link(
        numbers(8, 1, 4), **playing, num_steps=(np.array([[13, 14, 15, 16]]), np.array([[14, 15, 16, 17]]))
    )
    assert third.gap.tolist() == [[0, 1, 1, 1]] and third.run.tolist() == [[1, 2, 3, 4]]
