"""A point in a square, moved by hand."""

import torch

from torchrl.envs import Plane


def test_points_move_stop_at_walls_and_are_paid_their_distance_from_the_middle():
    env = Plane(2)
    root = env.reset(seed=0)
    assert (root["observation"] == 0).all()
    action = torch.tensor([[1.0, 0.5], [-3.0, 0.0]])  # the second as fast as the first, at most
    shown, paid = [], []
    for _ in range(20):
        transition, root = env.step_and_reset(root.set("action", action))
        shown.append(transition["next", "observation"].clone())
        paid.append(transition["next", "reward"].flatten().clone())
    torch.testing.assert_close(shown[0], torch.tensor([[0.1, 0.05], [-0.1, 0.0]]))
    torch.testing.assert_close(shown[11], torch.tensor([[1.0, 0.6], [-1.0, 0.0]]))
    torch.testing.assert_close(torch.stack(paid), torch.stack(shown).norm(dim=-1))
    assert transition["next", "truncated"].all() and not transition["next", "terminated"].any()
    assert (root["observation"] == 0).all()
