"""Losses: modules that compute terms from a batch; ``total_loss`` sums ``loss_*``, the rest is for logs and replay."""
