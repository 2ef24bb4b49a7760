"""Envs that are batches of simulators (serial, parallel, EnvPool, gymnasium's), and workers that step simulators."""
