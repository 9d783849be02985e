"""Every setting of a run, and the YAML files that they come from. No Ray, vLLM or torch is imported."""

from east_ray.config.base import InputError, flatten
from east_ray.config.endpoint import EndpointConfig
from east_ray.config.labels import LabelsConfig
from east_ray.config.prompting import PromptConfig, WorkedQuestion
from east_ray.config.samples import SamplesConfig
from east_ray.config.sections import (
    AnswersConfig,
    EnginePoolConfig,
    LoraConfig,
    QuestionsConfig,
    SamplingConfig,
    TrainingConfig,
)
from east_ray.config.settings import BASE, TRAINED, ClusterConfig, CompareConfig, Config
from east_ray.config.weighting import WeightingConfig

__all__ = ["BASE", "TRAINED", "ClusterConfig", "CompareConfig", "Config", "InputError", "flatten"]
__all__ += ["AnswersConfig", "EndpointConfig", "EnginePoolConfig", "LabelsConfig", "LoraConfig", "PromptConfig"]
__all__ += ["QuestionsConfig", "SamplesConfig", "SamplingConfig", "TrainingConfig", "WeightingConfig", "WorkedQuestion"]
