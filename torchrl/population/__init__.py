"""Populations: several agents of one recipe, trained in one process. They read no command line."""

from torchrl.population.population import Population

__all__ = ["Population"]
