"""Every setting of a run, and the YAML files that they come from. No Ray, vLLM or torch is imported."""

from east_ray.config.base import InputError, flatten, set_dotted
from east_ray.config.compare import CompareConfig
from east_ray.config.evaluation import StudiesConfig
from east_ray.config.examples import AnswersConfig, WeightingConfig
from east_ray.config.questions import PromptConfig, QuestionsConfig, SamplesConfig
from east_ray.config.sampling import EnginePoolConfig
from east_ray.config.settings import BASE, TRAINED, ClusterConfig, Config, validate
from east_ray.config.training import LoraConfig, TrainingConfig

__all__ = [
    "BASE",
    "TRAINED",
    "AnswersConfig",
    "ClusterConfig",
    "CompareConfig",
    "Config",
    "EnginePoolConfig",
    "InputError",
    "LoraConfig",
    "PromptConfig",
    "QuestionsConfig",
    "SamplesConfig",
    "StudiesConfig",
    "TrainingConfig",
    "WeightingConfig",
    "flatten",
    "set_dotted",
    "validate",
]
