"""The definitions of returns as loops over Python floats, one row, reward dimension and row after the other.

Arguments are float64: rewards and values ``[B, T, R]``, flags and weights ``[B, T, 1]``; γ and λ anything that expands
to the reward. Nothing is shared with the library, the meaning of the flags included.
"""

import torch


def _rows(reward):
    rows, length, rewards = reward.shape
    for row in range(rows):
        for dim in range(rewards):
            yield row, dim, length


def _ends(terminated, truncated, row, t):
    return bool(terminated[row, t, 0]) or bool(truncated[row, t, 0])


def _after(next_value, terminated, row, t, dim):
    """What counts of the successor's value."""
    return 0.0 if next_value is None or bool(terminated[row, t, 0]) else float(next_value[row, t, dim])


def _weighted(x, value, weight, at):
    if weight is None:
        return x
    rho = float(weight[at[0], at[1], 0])
    return rho * x + (0.0 if value is None else (1 - rho) * float(value[at]))


def slow_n_step(reward, next_value, terminated, truncated, *, gamma, n, value=None, weight=None):
    """Walk forward from each row, at most n rewards far. With a large n this is the discounted return."""
    gamma = torch.as_tensor(gamma, dtype=torch.float64).expand(reward.shape)
    result = torch.zeros_like(reward)

    def walk(row, t, dim, length, left):
        stops = left == 1 or t + 1 == length or _ends(terminated, truncated, row, t)
        if stops:
            tail = _after(next_value, terminated, row, t, dim)
        else:
            tail = walk(row, t + 1, dim, length, left - 1)
        at = (row, t, dim)
        return _weighted(float(reward[at]) + float(gamma[at]) * tail, value, weight, at)

    for row, dim, length in _rows(reward):
        for t in range(length):
            result[row, t, dim] = walk(row, t, dim, length, n)
    return result


def slow_td_lambda(reward, next_value, terminated, truncated, *, gamma, lambda_, value=None, weight=None):
    """Walk backward, mixing the value of the successor with its return."""
    gamma, lambda_ = (torch.as_tensor(x, dtype=torch.float64).expand(reward.shape) for x in (gamma, lambda_))
    result = torch.zeros_like(reward)
    for row, dim, length in _rows(reward):
        for t in reversed(range(length)):
            at = (row, t, dim)
            tail = _after(next_value, terminated, row, t, dim)
            if t + 1 < length and not _ends(terminated, truncated, row, t):
                tail = (1 - float(lambda_[at])) * tail + float(lambda_[at]) * float(result[row, t + 1, dim])
            result[at] = _weighted(float(reward[at]) + float(gamma[at]) * tail, value, weight, at)
    return result


def slow_gae(reward, value, next_value, terminated, truncated, *, gamma, lambda_, weight=None):
    """Walk backward over the weighted one-step errors; returns the advantage."""
    gamma, lambda_ = (torch.as_tensor(x, dtype=torch.float64).expand(reward.shape) for x in (gamma, lambda_))
    advantage = torch.zeros_like(reward)
    for row, dim, length in _rows(reward):
        running = 0.0
        for t in reversed(range(length)):
            at = (row, t, dim)
            if _ends(terminated, truncated, row, t):
                running = 0.0
            delta = float(reward[at]) + float(gamma[at]) * _after(next_value, terminated, row, t, dim)
            running = delta - float(value[at]) + float(gamma[at]) * float(lambda_[at]) * running
            if weight is not None:
                running *= float(weight[row, t, 0])
            advantage[at] = running
    return advantage


def slow_vtrace(reward, value, next_value, terminated, truncated, *, gamma, lambda_, rho, c):
    """Sum equation 1 of the paper forward from each row; returns advantage and target. ``c`` is without λ."""
    gamma, lambda_ = (torch.as_tensor(x, dtype=torch.float64).expand(reward.shape) for x in (gamma, lambda_))
    target, advantage = torch.zeros_like(reward), torch.zeros_like(reward)
    for row, dim, length in _rows(reward):
        for s in range(length):
            total, factor, t = float(value[row, s, dim]), 1.0, s
            while True:
                at = (row, t, dim)
                after = _after(next_value, terminated, row, t, dim)
                error = float(reward[at]) + float(gamma[at]) * after - float(value[at])
                total += factor * float(rho[row, t, 0]) * error
                if t + 1 == length or _ends(terminated, truncated, row, t):
                    break
                factor *= float(gamma[at]) * float(lambda_[at]) * float(c[row, t, 0])
                t += 1
            target[row, s, dim] = total
        for s in range(length):
            at = (row, s, dim)
            after = _after(next_value, terminated, row, s, dim)
            if s + 1 < length and not _ends(terminated, truncated, row, s):
                after = float(target[row, s + 1, dim])
            error = float(reward[at]) + float(gamma[at]) * after - float(value[at])
            advantage[at] = float(rho[row, s, 0]) * error
    return advantage, target
