"""Transforms that remember something of each row: name -> (make_env(num_envs), make_transform), to be held against the laws."""

CASES = {}
