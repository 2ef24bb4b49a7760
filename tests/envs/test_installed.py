import pytest

from torchrl.envs import installed_worlds, native_env
from torchrl.envs.installed import LIBRARIES
from torchrl.errors import EnvError, MissingExtraError


def test_native_names_are_those_that_can_be_built():
    assert all(native_env(name, 1).batch_size == (1,) for name in installed_worlds("native"))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_lists_its_worlds_or_names_its_extra(library):
    try:
        names = installed_worlds(library)
    except MissingExtraError as error:
        assert "pip install" in str(error)
    else:
        assert names and names == sorted(names)


def test_another_library_is_refused():
    with pytest.raises(EnvError, match="one of gym, ale"):
        installed_worlds("nintendo")
