"""Settings of benchmarks and of what becomes of their scores."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from pipeline.settings.section import Section, Share

BenchmarkForm = Literal["pairs", "rewardbench2", "rm_bench", "judgebench"]
"""How a benchmark's records look, and what makes one figure of their scores: each is the module of its name in `pipeline.benchmarks`."""

PUBLISHED_BENCHMARKS: dict[str, tuple[str, str]] = {
    "pairs": ("allenai/reward-bench", "filtered"),
    "rewardbench2": ("allenai/reward-bench-2", "test"),
    "rm_bench": ("THU-KEG/RM-Bench", "train"),
    "judgebench": ("ScalerLab/JudgeBench", "gpt"),  # `claude` is the other; `gpt+claude` takes both
}
"""Id on the hub and split of each form's benchmark."""


class BuiltinBenchmark(Section):
    """Pairs that ship with the project: `smoke`."""

    kind: Literal["builtin"]
    form: ClassVar[BenchmarkForm] = "pairs"
    name: Literal["smoke"]


class CollectedBenchmark(Section):
    """The validation pairs of the collected data: the response with the higher helpfulness is the good one."""

    kind: Literal["collected"]
    form: ClassVar[BenchmarkForm] = "pairs"


class FileBenchmark(Section):
    """A benchmark in a file, or in several of a folder: JSON lines, a JSON list, CSV or Parquet. `pairs` has RewardBench's fields."""

    kind: Literal["file"]
    path: str = Field(description="the file, a folder of files, or a pattern with * that names several")
    form: BenchmarkForm = Field("pairs", description="form of its records")


class HubBenchmark(Section):
    """A benchmark on the hub. Without an `id` it is the one that its form was published with (`pairs`: RewardBench)."""

    kind: Literal["hub"]
    form: BenchmarkForm = Field("pairs", description="form of its records")
    id: str = Field(description="id on the hub, organisation/name")
    revision: str | None = Field(None, description="commit of the data set on the hub; pin it")
    split: str = Field(description="split that is read; several as `a+b`")

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        form = values.get("form", "pairs")
        where = next((published for name, published in PUBLISHED_BENCHMARKS.items() if name == form), None)
        if where is None:
            unknown = form not in get_args(BenchmarkForm)
            return {"id": "", "split": "", **values} if unknown else values  # `form` itself says what is wrong
        if values.get("id", where[0]) != where[0] and "split" not in values:
            raise ValueError(f"split: is missing; only {where[0]} has a default, {where[1]}")
        return {"id": where[0], "split": where[1], **values}


Benchmark = Annotated[BuiltinBenchmark | CollectedBenchmark | FileBenchmark | HubBenchmark, Field(discriminator="kind")]


class Evaluation(Section):
    """What becomes of scores that are worse than those of the run before."""

    gate: bool = Field(
        False, description="whether worse scores are refused; otherwise they are published, with a warning"
    )
    most_lost: Share | None = Field(
        None,
        description="loss of accuracy on a benchmark above which scores are worse, whatever the interval of the difference; null: no such rule",
    )
