import pytest

from torchrl.commands import envs
from torchrl.errors import MissingExtraError


def test_all_libraries_are_listed_and_those_that_are_absent_named(torchrl, monkeypatch):
    def installed(library):
        if library in ("ale", "brax"):
            raise MissingExtraError(library)
        return [f"{library}-1", f"{library}-2"]

    monkeypatch.setattr(envs, "installed_worlds", installed)
    monkeypatch.setattr(envs, "LIBRARIES", ("gym", "ale", "brax", "native"))
    assert torchrl("envs") == [
        "gym (2): gym-1, gym-2",
        "native (2): native/native-1, native/native-2",
        "not installed: ale, brax",
        "4 environments; torchrl check ENV_ID looks whether one keeps the rules",
    ]


def test_spaces_of_those_that_fit_are_shown(torchrl):
    lines = torchrl("envs", "NATIVE/pend")
    assert lines[:-1] == [
        "native/Pendulum",
        "  observation: from -8 to 8, float32 [3]",
        "  action: from -2 to 2, float32 [1]",
    ]
    assert torchrl("envs", "native/pend", "--spaces=0")[0] == "native (1): native/Pendulum"


def test_a_world_that_cannot_be_built_says_why(torchrl, monkeypatch):
    monkeypatch.setattr(envs, "installed_worlds", lambda library: ["Absent-v0"])
    monkeypatch.setattr(envs, "LIBRARIES", ("gym",))
    assert torchrl("envs", "absent")[0].startswith("Absent-v0 cannot be built here: ")


def test_a_filter_that_nothing_fits_is_refused(refused):
    assert "got 'no such'" in refused("envs", "no such")


@pytest.mark.parametrize("name", ["check", "envs"])
def test_the_commands_say_what_they_do(torchrl, name):
    with pytest.raises(SystemExit):
        torchrl(name, "--help")
