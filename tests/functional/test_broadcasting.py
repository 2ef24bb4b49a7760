"""No public function broadcasts: a law of every argument that may be a tensor, which its annotation tells."""

import inspect

import pytest
import torch

from torchrl import functional
from torchrl.errors import SpecError

FLAGS = ("terminated", "truncated", "is_init", "mask")
NUMBERS = {"gamma": 0.9, "lambda_": 0.7, "n": 2, "clip": 0.2, "clip_epsilon": 0.2, "kl_coef": 1.0}
OTHER_NUMBERS = {
    "adapted_kl_coef": {"target": 0.01},
    "categorical_target": {"low": -1.0, "high": 1.0},
    "temperature_loss": {"log_temperature": 0.1, "target_entropy": -1.0},
}
ATOMS = {"categorical_target": ("next_probabilities",)}  # arguments that need more than one number per row
BEFORE = ("start",)  # has no time dimension
OF_IMAGES = ("cut_images", "jitter_colors")  # their rows are pictures, no columns: test_images refuses other shapes
OF_ONE_NUMBER = ("adapted_kl_coef",)  # its tensors are [], those of all others have rows

NAMES = [name for name in functional.__all__ if name not in OF_IMAGES]


def tensors_of(name):
    """Return the arguments of a function that may be tensors, and those of them that may be numbers instead."""
    parameters = inspect.signature(getattr(functional, name)).parameters
    tensors = [key for key, parameter in parameters.items() if "Tensor" in parameter.annotation]
    return tensors, [key for key in tensors if "float" in parameters[key].annotation]


def arguments(name):
    """Return columns, ``[3, 4, 1]``, and numbers for all arguments of a function."""
    tensors, coefficients = tensors_of(name)
    parameters = inspect.signature(getattr(functional, name)).parameters
    given = {key: x for key, x in NUMBERS.items() if key in parameters}
    given |= OTHER_NUMBERS.get(name, {})
    for key in set(tensors) - set(coefficients):
        num = 5 if key in ATOMS.get(name, ()) else 1
        x = torch.rand(()) if name in OF_ONE_NUMBER else torch.rand(3, 4, num)
        x = x[:, 0] if key in BEFORE else x
        given[key] = x > 0.3 if key in FLAGS else x
    return given


def cases():
    """Yield every argument that must have the shape of another."""
    for name in NAMES:
        tensors, coefficients = tensors_of(name)
        for key in tensors:
            if key in coefficients or len(tensors) - len(coefficients) > 1:
                yield name, key


@pytest.mark.parametrize("name", NAMES)
def test_columns_are_taken(name):
    getattr(functional, name)(**arguments(name))


@pytest.mark.parametrize(("name", "key"), list(cases()))
def test_rows_against_columns_are_refused(name, key):
    given = arguments(name)
    row = torch.rand(1) if name in OF_ONE_NUMBER else torch.rand(3, 4)
    given[key] = row > 0.3 if key in FLAGS else row
    with pytest.raises(SpecError, match=r"\[1\]" if name in OF_ONE_NUMBER else r"\[3, 4\]"):
        getattr(functional, name)(**given)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, key in cases() if key in tensors_of(name)[1]])
def test_coefficients_in_a_column_against_rows_are_refused(name, key):
    given = {k: x.squeeze(-1) if isinstance(x, torch.Tensor) and x.ndim else x for k, x in arguments(name).items()}
    with pytest.raises(SpecError):
        getattr(functional, name)(**given | {key: torch.rand(3, 4, 1)})
