"""The state of MuJoCo: everything that is read before the next step, and edits of the model."""

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")

from torchrl.envs.simulators.physics import get_physics, set_physics  # noqa: E402
from torchrl.errors import EnvError  # noqa: E402

XML = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 .1"/>
    <body name="ball" pos="0 0 {height}"><freejoint/><geom name="ball" size=".1"/></body>
    <body mocap="true"><geom size=".01" contype="0" conaffinity="0"/></body>
    {more}
  </worldbody>
  <sensor><accelerometer site="{site}"/></sensor>
</mujoco>
"""


def build(height=0.11, more="<site name='s'/>"):
    model = mujoco.MjModel.from_xml_string(XML.format(height=height, more=more, site="s"))
    return model, mujoco.MjData(model)


def run(model, data, steps=30):
    """Everything a task might read before and after each step."""
    seen = []
    for _ in range(steps):
        seen += [data.xpos.copy(), data.qacc.copy(), data.sensordata.copy(), data.cvel.copy(), [data.time, data.ncon]]
        mujoco.mj_step(model, data)
    return seen + [data.qpos.copy()]


def test_derived_quantities_lag_as_before():
    model, data = build()
    mujoco.mj_step(model, data, 17)
    stale = data.xpos.copy()
    other_model, other = build()
    set_physics(other_model, other, get_physics(model, data))
    np.testing.assert_array_equal(other.xpos, stale)
    mujoco.mj_forward(other_model, other)
    assert not np.array_equal(other.xpos, stale)


def test_contacts_and_all_that_is_derived_continue_bit_for_bit():
    model, data = build()
    run(model, data, 25)
    assert data.ncon == 1
    other_model, other = build(height=0.4)
    run(other_model, other, 3)
    set_physics(other_model, other, get_physics(model, data))
    for one, two in zip(run(model, data), run(other_model, other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_edits_of_the_model_are_part_of_the_state():
    model, data = build()
    model.geom_pos[0, 2] = -0.3
    model.opt.gravity[2] = -2.0
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICIT
    other_model, other = build()
    set_physics(other_model, other, get_physics(model, data))
    assert other_model.geom_pos[0, 2] == -0.3
    assert other_model.opt.gravity[2] == -2.0
    assert other_model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICIT


def test_a_state_is_a_copy():
    model, data = build()
    state = get_physics(model, data)
    run(model, data)
    set_physics(model, data, state)
    assert data.time == 0
    assert get_physics(model, data)["data"].tobytes() == state["data"].tobytes()


def test_the_state_of_another_model_is_refused():
    model, data = build(more="<site name='s'/><site name='t'/>")
    with pytest.raises(EnvError, match="this MuJoCo model and version"):
        set_physics(*build(), get_physics(model, data))
