"""A TensorDict-centric, modular reinforcement-learning library. Public names live in the subpackages."""

__version__ = "0.1.0"
