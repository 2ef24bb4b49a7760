"""Worlds written in jax, as one env of many rows."""
