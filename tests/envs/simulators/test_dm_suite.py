"""Some tasks of the suite, held against dm_control itself; `tests/world_table.py` does so with all of them."""

import pytest

from cases.dm_worlds import compare_with_the_suite

pytest.importorskip("dm_control")


@pytest.mark.parametrize(
    ("domain", "task"),
    [
        ("acrobot", "swingup_sparse"),
        ("finger", "turn_hard"),  # scalars
        ("lqr", "lqr_6_2"),  # no bounds, a system drawn when it is built
        ("quadruped", "fetch"),  # bounds of its own for each joint
        ("stacker", "stack_2"),  # observations of two dimensions
    ],
)
def test_a_task_is_the_suites_own_step_by_step(domain, task):
    assert compare_with_the_suite(domain, task, 50, 20) == (0, 2)
