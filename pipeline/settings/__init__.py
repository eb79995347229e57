"""Profiles: everything that a run depends on but secrets, as pydantic models read from YAML.

A profile is a file in `pipeline/profiles/` named without its ending, or a path. `PIPELINE_PROFILE` picks one; the default is `tiny`.
`extends: NAME` takes another profile as the base: mappings are merged key by key, anything else is replaced.
A module a section; `profile` has the whole, `reading` takes it from YAML. Every name is to be had from here.
"""

from pipeline.settings.annotations import (
    HELD_BACK,
    RATERS,
    Annotations,
    Desk,
    DeskSection,
    FilesDesk,
    HelpSteer2Desk,
    ModelsDesk,
    OwnDesk,
    Panelist,
    RaterSampling,
    SimulatedDesk,
)
from pipeline.settings.checkpoints import Checkpoint, Parameter, Price, Recording, Sampling, Server
from pipeline.settings.compute import Compute, RayCluster, Schedule, Tracking
from pipeline.settings.dataset import Dataset, Push
from pipeline.settings.evaluation import (
    PUBLISHED_BENCHMARKS,
    Benchmark,
    BenchmarkForm,
    BuiltinBenchmark,
    CollectedBenchmark,
    Evaluation,
    FileBenchmark,
    HubBenchmark,
)
from pipeline.settings.profile import Profile
from pipeline.settings.prompts import (
    Complexity,
    FilesSource,
    HubSource,
    PromptFilters,
    Prompts,
    Sample,
    ShareGPTSource,
    Source,
    Topics,
)
from pipeline.settings.reading import load_profile
from pipeline.settings.recipes import Lora, Objective, PairObjective, PreferenceStage, RatingObjective, Recipe
from pipeline.settings.responses import Contexts, Generator, NextTurnScorer, RewardScorer, Scorer
from pipeline.settings.section import ENGINE_POOL, PROFILES, PROJECT, Name, ProfileError, Section, Share, digest, said
from pipeline.settings.training_data import (
    COLLECTED,
    Decontamination,
    FileData,
    HelpSteer2Data,
    HelpSteerData,
    HHData,
    OasstData,
    TrainingData,
)

__all__ = [
    "COLLECTED",
    "ENGINE_POOL",
    "HELD_BACK",
    "PROFILES",
    "PROJECT",
    "PUBLISHED_BENCHMARKS",
    "RATERS",
    "Annotations",
    "Benchmark",
    "BenchmarkForm",
    "BuiltinBenchmark",
    "Checkpoint",
    "CollectedBenchmark",
    "Complexity",
    "Compute",
    "Contexts",
    "Dataset",
    "Decontamination",
    "Desk",
    "DeskSection",
    "Evaluation",
    "FileBenchmark",
    "FileData",
    "FilesDesk",
    "FilesSource",
    "Generator",
    "HHData",
    "HelpSteer2Data",
    "HelpSteer2Desk",
    "HelpSteerData",
    "HubBenchmark",
    "HubSource",
    "Lora",
    "ModelsDesk",
    "Name",
    "NextTurnScorer",
    "OasstData",
    "Objective",
    "OwnDesk",
    "PairObjective",
    "Panelist",
    "Parameter",
    "PreferenceStage",
    "Price",
    "Profile",
    "ProfileError",
    "PromptFilters",
    "Prompts",
    "Push",
    "RaterSampling",
    "RatingObjective",
    "RayCluster",
    "Recipe",
    "Recording",
    "RewardScorer",
    "Sample",
    "Sampling",
    "Schedule",
    "Scorer",
    "Section",
    "Server",
    "Share",
    "ShareGPTSource",
    "SimulatedDesk",
    "Source",
    "Topics",
    "Tracking",
    "TrainingData",
    "digest",
    "load_profile",
    "said",
]
