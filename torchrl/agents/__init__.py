"""Agents: collect → store → optimise → record, with hooks, evaluation and checkpoints. They read no command line."""

from torchrl.agents.adam import FusedAdam
from torchrl.agents.agent import Agent
from torchrl.agents.checkpoint import load_checkpoint, save_checkpoint
from torchrl.agents.checkpoints import (
    AGENT,
    CHECKPOINTS,
    KeepCheckpoints,
    checkpoints_in,
    frames_of,
    newest_checkpoint,
    require_whole,
)
from torchrl.agents.evaluate import Evaluation, Evaluator
from torchrl.agents.evaluate_beside import BesideResult, EvaluationProcess
from torchrl.agents.film import VIDEOS, RecordVideo, film_episode
from torchrl.agents.graph_step import GraphStep
from torchrl.agents.hooks import (
    BUFFER,
    AdaptPenalty,
    BatchReport,
    Hook,
    ProgressBar,
    SaveBuffer,
    StepExploration,
    StopAtReturn,
    SuccessShare,
    UpdateNormalizer,
)
from torchrl.agents.interrupt import InterruptGuard
from torchrl.agents.optimise import MinibatchEpochs
from torchrl.agents.recording import BEST, LAST
from torchrl.agents.replay_updates import ReplayUpdates
from torchrl.agents.reward_scale import RewardScale
from torchrl.agents.schedules import Anneal, Constant, LinearSchedule
from torchrl.agents.statistics import LATEST, Figures, episode_statistics
from torchrl.agents.summary import summarise, write_summary

__all__ = [
    "AGENT",
    "BEST",
    "BUFFER",
    "CHECKPOINTS",
    "LAST",
    "LATEST",
    "VIDEOS",
    "AdaptPenalty",
    "Agent",
    "Anneal",
    "BatchReport",
    "BesideResult",
    "Constant",
    "Evaluation",
    "EvaluationProcess",
    "Evaluator",
    "Figures",
    "FusedAdam",
    "GraphStep",
    "Hook",
    "InterruptGuard",
    "KeepCheckpoints",
    "LinearSchedule",
    "MinibatchEpochs",
    "ProgressBar",
    "RecordVideo",
    "ReplayUpdates",
    "RewardScale",
    "SaveBuffer",
    "StepExploration",
    "StopAtReturn",
    "SuccessShare",
    "UpdateNormalizer",
    "checkpoints_in",
    "episode_statistics",
    "film_episode",
    "frames_of",
    "load_checkpoint",
    "newest_checkpoint",
    "require_whole",
    "save_checkpoint",
    "summarise",
    "write_summary",
]
