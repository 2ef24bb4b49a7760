#!/bin/sh
# mujoco: the type of a joint equals its name, but the name does not equal the type; gymnasium-robotics cannot build its arms.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "gymnasium-robotics==1.4.2" "mujoco==3.17.0" "numpy==2.4.6"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import gymnasium
import gymnasium_robotics
import mujoco

print("mujoco", version("mujoco"), "gymnasium-robotics", version("gymnasium-robotics"))
xml = '<mujoco><worldbody><body><joint type="slide"/><geom size="1"/></body></worldbody></mujoco>'
joint, slide = mujoco.MjModel.from_xml_string(xml).jnt_type[0], mujoco.mjtJoint.mjJNT_SLIDE
print(f"{joint!r} == {slide}: {joint == slide}; {slide} == {joint!r}: {slide == joint}; {joint!r} in ({slide},): {joint in (slide,)}")
assert joint == slide and not slide == joint and joint not in (slide,)
assert int(joint) == int(slide) and int(joint) in (int(slide),)

gymnasium.register_envs(gymnasium_robotics)
try:
    gymnasium.make("FetchReach-v4")
except AssertionError:
    print("FetchReach-v4: AssertionError in", "set_joint_qpos, which asks whether a joint's type is in a tuple of names")
else:
    raise AssertionError("FetchReach-v4 was built")
END
