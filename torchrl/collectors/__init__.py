"""Collectors: they step an environment with a policy and yield batches. They store nothing and train nothing."""

from torchrl.collectors.async_pool import AsyncEnvPoolCollector
from torchrl.collectors.episodes import EpisodeCollector
from torchrl.collectors.fragments import Fragment, FragmentSource
from torchrl.collectors.graph_policy import GraphPolicy
from torchrl.collectors.loop import collect
from torchrl.collectors.multi import MultiAsyncCollector, MultiSyncCollector
from torchrl.collectors.placement import PlacedPolicy
from torchrl.collectors.rollout import FragmentPool, fragments, rollout
from torchrl.collectors.single import Collector
from torchrl.collectors.warmup import WarmUp

__all__ = [
    "AsyncEnvPoolCollector",
    "Collector",
    "EpisodeCollector",
    "Fragment",
    "FragmentPool",
    "FragmentSource",
    "GraphPolicy",
    "MultiAsyncCollector",
    "MultiSyncCollector",
    "PlacedPolicy",
    "WarmUp",
    "collect",
    "fragments",
    "rollout",
]
