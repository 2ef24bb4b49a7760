"""Envs that are batches of simulators: the workers that step these, and the back ends that call the workers."""
