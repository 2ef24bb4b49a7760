"""Populations: several agents of one recipe, trained in one process. They read no command line."""

from torchrl.population.mapped import MappedGraph
from torchrl.population.population import Population
from torchrl.population.stacking import Stack
from torchrl.population.step import MappedStep
from torchrl.population.updates import join_updates

__all__ = ["MappedGraph", "MappedStep", "Population", "Stack", "join_updates"]
