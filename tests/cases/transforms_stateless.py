"""Transforms that remember nothing: name -> (make_env(num_envs), make_transform), to be held against the laws."""

CASES = {}
