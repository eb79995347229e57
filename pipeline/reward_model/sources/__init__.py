"""What recipes train on, as tables: this store's data set, and published data sets in the form in which they are published.

| kind | ratings | preferences |
|---|---|---|
| `collected` | labels, or their means (the train split) | which response's mean helpfulness is higher, by how much |
| `helpsteer2` | five labels, 0 to 4 | people's, 1 to 3, where the file is there; else from helpfulness |
| `helpsteer` | five labels, 0 to 4 | from helpfulness, every pair of a prompt's responses |
| `oasst` | labels times 4, rounded (method F2) or not | from the ranks of sibling replies; strength 1 |
| `hh_rlhf` | none | chosen and rejected; strength 1 |
| `file` | labels or means, 0 to 4, such as there are | people's, in several forms (`sources.files`); else from helpfulness |

Files are read as a stream; a record that can't be used is set aside with its line, field and reason. A source's own validation split is
never trained on: it is counted, and its prompts are kept to be looked for among the others. Texts are data: nothing in them is run.
"""

from pathlib import Path

import pyarrow as pa

from pipeline.records import FileError
from pipeline.reward_model.sources import files, helpsteer, hh_rlhf, oasst
from pipeline.reward_model.sources.collected import COLUMNS, collected
from pipeline.reward_model.sources.reading import folder_of, there
from pipeline.reward_model.sources.tables import (
    BEYOND_LIMIT,
    DELETED,
    OTHER_LANGUAGE,
    PARTED,
    PREFERRED_ROWS,
    RATED_ROWS,
    REFUSED,
    REPLIES,
    SAME_TEXT,
    SPAM,
    SYNTHETIC,
    TIES,
    UNRATED,
    VALIDATION_PAIRS,
    VALIDATION_ROWS,
    LabelKind,
    Source,
    context_id,
    preferences_of,
)
from pipeline.settings import (
    COLLECTED,
    PROJECT,
    FileData,
    HelpSteer2Data,
    HelpSteerData,
    HHData,
    OasstData,
    Profile,
    Recipe,
    TrainingData,
)

__all__ = [
    "BEYOND_LIMIT",
    "COLUMNS",
    "DELETED",
    "OTHER_LANGUAGE",
    "PARTED",
    "PREFERRED_ROWS",
    "RATED_ROWS",
    "REFUSED",
    "REPLIES",
    "SAME_TEXT",
    "SPAM",
    "SYNTHETIC",
    "TIES",
    "UNRATED",
    "VALIDATION_PAIRS",
    "VALIDATION_ROWS",
    "LabelKind",
    "Source",
    "collected",
    "context_id",
    "preferences_of",
    "read",
    "source_of",
]


def source_of(recipe: Recipe, profile: Profile, data: pa.Table) -> Source:
    """What a recipe learns from: this store's data set (`data`, with COLUMNS), or what the profile names.

    Raises as `read` does, and ValueError where files have no rating of an attribute that the recipe learns from.
    """
    if recipe.data == COLLECTED:
        return collected(data, recipe.labels, profile.dataset.licence)
    published = profile.training_data[recipe.data]
    source = read(recipe.data, published, recipe.labels)
    if isinstance(published, FileData):
        files.check_rated(source.rated, recipe)
    return source


def read(name: str, data: TrainingData, labels: LabelKind) -> Source:
    """Published training data of a profile. labels: `mean` for ratings before rounding, where the source has them.

    Raises FileError where files can't be had, or hold nothing to train on, and ValueError for means that the source doesn't have.
    """
    if labels == "mean" and data.rated and not data.means:
        raise ValueError(
            f"training data {name} ({data.kind}) has no ratings before rounding; set the recipe's labels to rounded"
        )
    source = Source(name, data.licence)
    match data:
        case HelpSteer2Data():
            folder = folder_of(data, [helpsteer.ROWS, helpsteer.VALIDATION, helpsteer.PREFERENCES])
            helpsteer.fill(
                source,
                folder / helpsteer.ROWS,
                folder / helpsteer.VALIDATION,
                folder / helpsteer.PREFERENCES,
                data.limit,
            )
        case HelpSteerData():
            folder = folder_of(data, [helpsteer.ROWS, helpsteer.VALIDATION])
            helpsteer.fill(source, folder / helpsteer.ROWS, folder / helpsteer.VALIDATION, None, data.limit)
        case FileData():
            rows, preferences = (PROJECT / Path(p).expanduser() if p else None for p in (data.path, data.preferences))
            if preferences and not preferences.is_file():
                raise FileError(f"{preferences}: there is no such file, though training data {name} names it")
            files.fill(source, there(rows) if rows else None, preferences, labels, data.limit, data.columns)
        case OasstData():
            oasst.fill(source, folder_of(data, ["data/*.parquet"]), data, labels)
        case HHData():
            wanted = [f"{subset}/{split}.jsonl.gz" for subset in data.subsets for split in ("train", "test")]
            hh_rlhf.fill(source, folder_of(data, wanted), data)
    if not len(source.rated) and not len(source.preferred):
        first = f"; the first record set aside: {source.quarantine.rows[0]['reason']}" if source.quarantine.rows else ""
        raise FileError(f"training data {name}: nothing in it can be trained on{first}")
    return source
