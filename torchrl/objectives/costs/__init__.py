"""Losses: modules that turn a batch into a TensorDict of scalars, of which ``loss_*`` are summed and differentiated."""
