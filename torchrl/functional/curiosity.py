"""Terms of rewards for novelty as pure functions: errors of prediction and running returns. Networks: ``modules``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchrl.errors import SpecError, explain
from torchrl.functional.returns import reverse_scan
from torchrl.shapes import require_same_shape


def prediction_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the squared distance of each row's predicted features from the true ones, ``‖p - t‖²``.

    >>> prediction_error(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 3.0]])).tolist()
    [[5.0], [9.0]]

    Burda et al., "Exploration by Random Network Distillation" (2018), https://arxiv.org/abs/1810.12894, section 2.2;
    half of it is the forward loss of Pathak et al., "Curiosity-driven Exploration by Self-supervised Prediction"
    (2017), https://arxiv.org/abs/1705.05363, equation 5.

    Args:
        prediction: p, ``[N, F]``.
        target: t, same shape.

    Returns:
        ``[N, 1]``.

    Raises:
        SpecError: arguments of different shapes; nothing is broadcast.
    """
    require_same_shape("prediction_error", prediction=prediction, target=target)
    return (prediction - target).square().sum(-1, keepdim=True)


def inverse_model_loss(prediction: Tensor, action: Tensor) -> Tensor:
    """Compute how badly each row's action is guessed: ``-log softmax(p)_a`` of a choice, ``½ ‖p - a‖²`` of a vector.

    >>> logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    >>> inverse_model_loss(logits, torch.tensor([0])).exp().tolist()
    [[2.0]]
    >>> inverse_model_loss(torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 1.0]])).tolist()
    [[2.0]]

    Pathak et al., "Curiosity-driven Exploration by Self-supervised Prediction" (2017),
    https://arxiv.org/abs/1705.05363, equation 3: the likelihood of the actions, a vector's under a normal distribution
    of variance 1.

    Args:
        prediction: p, logits of A choices or the A numbers of a vector, ``[N, A]``.
        action: an integer ``[N]``, or a vector of floats ``[N, A]``.

    Returns:
        ``[N, 1]``, of choices in nats.

    Raises:
        SpecError: the shapes do not belong together.
    """
    if action.is_floating_point():
        return 0.5 * prediction_error(prediction, action)
    if action.shape != prediction.shape[:-1]:
        expected = f"choices of shape {list(prediction.shape[:-1])}"
        hint = "The index of a one-hot action is action.argmax(-1)."
        raise SpecError(explain("inverse_model_loss", expected=expected, got=list(action.shape), hint=hint))
    return -F.log_softmax(prediction, -1).gather(-1, action.long().unsqueeze(-1))


def return_so_far(reward: Tensor, start: Tensor, *, gamma: float, mask: Tensor | None = None) -> Tensor:
    """Compute the discounted sum of all rewards up to each step, ``R_t = γ R_{t-1} + r_t``, over endings as well.

    >>> return_so_far(torch.ones(3, 1), torch.tensor([4.0]), gamma=0.5).squeeze(-1).tolist()
    [3.0, 2.5, 2.25]

    It sums past rewards, where a return sums future ones; rewards are divided by its deviation, Burda et al. (2018),
    https://arxiv.org/abs/1810.12894, section 2.4. Endings are ignored, since novelty does not end with an episode
    (section 2.3).

    Args:
        reward: r, ``[*B, T, 1]``.
        start: R before the first step, ``[*B, 1]``.
        gamma: discount γ.
        mask: bool ``[*B, T, 1]``; at a step where it is false R stays as it was, whatever the reward is.

    Returns:
        R, ``[*B, T, 1]``.

    Raises:
        SpecError: arguments of different shapes; nothing is broadcast.
    """
    decay = torch.full_like(reward, gamma)
    if mask is not None:
        require_same_shape("return_so_far", reward=reward, mask=mask)
        reward, decay = torch.where(mask, reward, 0), torch.where(mask, decay, 1)
    require_same_shape("return_so_far", reward=reward[..., 0, :], start=start)
    first = reward[..., :1, :] + decay[..., :1, :] * start.unsqueeze(-2)
    reward = torch.cat([first, reward[..., 1:, :]], -2)
    return reverse_scan(reward.flip(-2), decay.flip(-2)).flip(-2)
