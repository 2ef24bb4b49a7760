"""Collectors: they step an environment with a policy and yield batches. They store nothing and train nothing."""

from torchrl.collectors.loop import collect
from torchrl.collectors.placement import PlacedPolicy
from torchrl.collectors.single import Collector
from torchrl.collectors.warmup import WarmUp

__all__ = ["Collector", "PlacedPolicy", "WarmUp", "collect"]
