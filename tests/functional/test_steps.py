import math

import pytest
import torch

from torchrl.errors import ConfigError, SpecError
from torchrl.functional import importance_weight
from torchrl.functional.steps import coefficient


class TestImportanceWeight:
    def test_by_hand(self):
        log_weight = torch.tensor([0.0, math.log(0.5), math.log(3.0), -math.inf], dtype=torch.float64)
        torch.testing.assert_close(importance_weight(log_weight).tolist(), [1.0, 0.5, 3.0, 0.0])
        torch.testing.assert_close(importance_weight(log_weight, clip=2.0).tolist(), [1.0, 0.5, 2.0, 0.0])
        assert importance_weight(log_weight, clip=1.0).max() == 1

    def test_no_overflow_in_weight_or_gradient(self):
        log_weight = torch.tensor([1000.0, -1000.0, 0.0], requires_grad=True)
        weight = importance_weight(log_weight, clip=1.5)
        torch.testing.assert_close(weight.tolist(), [1.5, 0.0, 1.0])
        weight.sum().backward()
        assert log_weight.grad.tolist() == [0.0, 0.0, 1.0]

    @pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
    def test_clip_is_positive(self, clip):
        with pytest.raises(ConfigError, match="importance_weight.*positive"):
            importance_weight(torch.zeros(2), clip=clip)


class TestCoefficient:
    REWARD = torch.zeros(2, 5, 3)

    def test_numbers_stay_numbers_and_tensors_take_the_dtype_of_the_reward(self):
        assert coefficient("f", "gamma", 0.9, self.REWARD) == 0.9
        for shape in ((), (3,), (2, 5, 3)):
            x = torch.rand(shape, dtype=torch.float64)
            got = coefficient("f", "gamma", x, self.REWARD)
            assert got.dtype is torch.float32 and torch.equal(got, x.float())

    @pytest.mark.parametrize("shape", [(1,), (2,), (5,), (5, 3), (2, 5), (2, 5, 1), (1, 5, 3), (1, 1, 1)])
    def test_other_shapes_are_refused(self, shape):
        with pytest.raises(SpecError, match=r"f: expected gamma .*\[3\] or \[2, 5, 3\], got .*Nothing is broadcast"):
            coefficient("f", "gamma", torch.ones(shape), self.REWARD)
