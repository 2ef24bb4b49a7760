"""Settings: dataclasses become flags, help and config files, and come back."""

import re
from dataclasses import FrozenInstanceError, dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest

from cases.examples import load, parser, settings_class
from torchrl.errors import ConfigError
from torchrl.recipes import from_flags, parser_of, values_of
from torchrl.recipes.sense import _COMPARISON, _FACTS, _NEEDS
from torchrl.recipes.settings import Fraction, PositiveFloat, PositiveInt, explanations, parts_of

ALGORITHMS = ("a2c", "ddpg", "diayn", "dqn", "hierarchical", "impala", "ppo", "r2d2", "redq", "reinforce", "sac", "td3")


@dataclass(frozen=True)
class Network:
    """Hidden layers."""

    num_cells: tuple[PositiveInt, ...] = (64, 64)
    "units of each hidden layer"
    activation: Literal["relu", "tanh"] = "relu"
    "between the layers"


@dataclass(frozen=True)
class DeepNetwork(Network):
    """More of them."""

    num_cells: tuple[PositiveInt, ...] = (8, 8, 8)
    is_deep: bool = True
    """a text over
    two lines"""


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    clip: PositiveFloat | None = 0.5
    "limit; none sets no limit"
    words: tuple[str, ...] = ()
    "any"
    run: str | None = field(default=None, metadata={"metavar": "RUN"})
    "a folder"


@dataclass(frozen=True)
class Command:
    """Train something.

    More of this is not shown.
    """

    network: Network = DeepNetwork(activation="tanh")
    the_loss: Loss = Loss()


def parse(*flags):
    return from_flags(Command, parser_of(Command).parse_args(list(flags)))


def test_without_flags_the_settings_are_their_defaults():
    assert parse() == Command()
    assert parse().network == DeepNetwork((8, 8, 8), "tanh", True)


def test_a_flag_sets_its_field_with_its_type():
    settings = parse("--num_cells", "3", "4", "--no-is_deep", "--clip=none", "--words", "a", "b", "--run=x")
    assert settings == Command(DeepNetwork((3, 4), "tanh", False), Loss(clip=None, words=("a", "b"), run="x"))
    assert hash(settings) == hash(settings) and type(settings.network.num_cells[0]) is int


@pytest.mark.parametrize("flag", ["--gamma=2", "--clip=-1", "--activation=elu", "--num_cells", "--num_cells=0"])
def test_a_value_that_its_type_refuses_is_a_mistake(flag):
    with pytest.raises(ConfigError, match=re.escape(flag.partition("=")[0])):
        parse(flag)


def test_help_has_a_heading_for_each_part_and_a_line_for_each_field():
    text = " ".join(parser_of(Command).format_help().split())
    assert "Train something." in text and "not shown" not in text
    for line in (
        "network:",
        "the loss:",
        "--num_cells X [X ...] units of each hidden layer (default: 8 8 8)",
        "--activation {relu,tanh} between the layers (default: tanh)",
        "--is_deep, --no-is_deep a text over two lines (default: true)",
        "--clip X limit; none sets no limit (default: 0.5)",
        "--words [X ...] any (default: [])",
        "--run RUN a folder (default: none)",
    ):
        assert line in text


def test_values_by_name_give_the_settings_back():
    settings = parse("--num_cells", "3", "--gamma=0.5")
    values = values_of(settings)
    assert values["num_cells"] == [3] and values["gamma"] == 0.5 and values["words"] == []
    assert from_flags(Command, values | {"of_another": 1}) == settings
    del values["gamma"]
    with pytest.raises(ConfigError, match="Command: expected a value for 'gamma', got none"):
        from_flags(Command, values)


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        parse().the_loss.gamma = 0.5


@dataclass(frozen=True)
class Unexplained:
    """One field says what it is."""

    gamma: Fraction = 0.9
    "discount"
    beta: PositiveFloat = 1.0


def test_a_field_without_a_text_is_named():
    with pytest.raises(ConfigError, match="Unexplained: expected a text in the line under 'beta', which --help shows"):
        explanations(Unexplained)


def test_a_class_without_source_has_flags_all_the_same():
    names = {"dataclass": dataclass, "__name__": "prompt"}
    exec("@dataclass(frozen=True)\nclass Typed:\n    clip_epsilon: float = 0.2\n    'how far'", names)
    assert explanations(names["Typed"]) == {"clip_epsilon": "clip epsilon"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_setting_of_an_example_says_what_it_is_and_needs_what_there_is(algorithm):
    known = {action.dest for name in ALGORITHMS for action in parser(name)._actions}
    for _, part in parts_of(settings_class(algorithm)):
        assert type(part).__doc__ and not type(part).__doc__.startswith(type(part).__name__ + "(")
        for one in fields(part):
            needs = _NEEDS.search(explanations(type(part))[one.name])
            for condition in re.split(" and | or ", needs[1]) if needs else []:
                comparison = _COMPARISON.fullmatch(condition)
                flag = comparison[1] if comparison else condition.removeprefix("--").partition("=")[0]
                assert condition in _FACTS or flag.removeprefix("no-") in known, condition


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_example_shows_its_algorithm_in_few_lines(algorithm):
    text = Path(load(algorithm).__file__).read_text(encoding="utf-8")
    assert text.count("\n") <= (180 if algorithm == "dqn" else 150)  # dqn holds all of Rainbow
    for word in ("loss = ", "collector = ", "Agent(", "initial_weights", "named_seeds"):
        assert word in text
