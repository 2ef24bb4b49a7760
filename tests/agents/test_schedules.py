"""Schedules as functions of frames, and the hook that sets what they say."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from torchrl.agents import Anneal, Constant, LinearSchedule
from torchrl.errors import ConfigError


@pytest.mark.parametrize(("frames", "value"), [(0, 4.0), (25, 3.0), (100, 0.0), (1000, 0.0), (-5, 4.0)])
def test_linear_schedule(frames, value):
    assert LinearSchedule(4.0, 0.0, 100)(frames) == value


def test_constant_is_constant():
    assert [Constant(0.3)(frames) for frames in (0, 10**9)] == [0.3, 0.3]


def test_a_line_without_length_is_refused():
    with pytest.raises(ConfigError, match="num_frames"):
        LinearSchedule(1.0, 0.0, 0)


def test_every_parameter_group_gets_the_learning_rate_and_it_is_logged():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[0]}, {"params": weights[1], "lr": 5.0}], lr=1.0)
    hook, metrics = Anneal(optimizer, "lr", LinearSchedule(1.0, 0.0, 100)), {}
    hook.on_batch(SimpleNamespace(frames=25), None)
    assert [group["lr"] for group in optimizer.param_groups] == [0.75, 0.75]
    hook.on_optimised(SimpleNamespace(frames=50), None, metrics)  # the value the batch was trained with
    assert metrics == {"schedule/lr": 0.75}


def test_attributes_are_set_and_tensors_are_filled_in_place():
    module = nn.Module()
    module.register_buffer("scale", torch.ones(()))
    module.clip_epsilon = 0.2
    scale = module.scale
    Anneal(module, "scale", Constant(0.25)).on_batch(SimpleNamespace(frames=0), None)
    Anneal(module, "clip_epsilon", Constant(0.1)).on_batch(SimpleNamespace(frames=0), None)
    assert module.scale is scale and scale.item() == 0.25 and module.clip_epsilon == 0.1


@pytest.mark.parametrize("target", [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), nn.Linear(1, 1)])
def test_an_unknown_name_is_refused_at_construction_with_the_nearest(target):
    with pytest.raises(ConfigError, match="Did you mean '(lr|weight)'"):
        Anneal(target, "lrr" if isinstance(target, torch.optim.Optimizer) else "weigth", Constant(1.0))


@pytest.mark.parametrize("numbers", [(1.0, 0.0, 0), (1.0, 0.0, math.nan), (math.nan, 0.0, 9), (1.0, math.inf, 9)])
def test_lines_that_lead_nowhere_are_refused(numbers):
    with pytest.raises(ConfigError, match="LinearSchedule: expected"):
        LinearSchedule(*numbers)
