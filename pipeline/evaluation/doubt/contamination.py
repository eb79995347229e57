"""Which items of a benchmark have a prompt that was trained on."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.schema import CONTAMINATED
from pipeline.settings import Decontamination
from pipeline.texts.decontamination import overlaps
from pipeline.texts.words import prompt_texts


def contaminated(items: pa.Table, training: Sequence[pa.ChunkedArray] | pa.Table, rule: Decontamination) -> pa.Table:
    """Items whose prompt is too close to one that was trained on, in the schema CONTAMINATED: by how much, as decontamination counts it.

    training: conversations that were trained on, as columns of messages, or fingerprints of their prompts. rule: n-grams and threshold.
    """
    texts = prompt_texts(items["messages"])
    trained = training
    if not isinstance(training, pa.Table):
        trained = pc.unique(pa.concat_arrays([prompt_texts(column) for column in training]))
    once = pc.unique(texts)
    found = overlaps(trained, {str(n): once.slice(n, 1) for n in range(len(once))}, rule)
    most = found.group_by("benchmark", use_threads=False).aggregate([("overlap", "max")])
    prompts = once.take(pc.cast(most["benchmark"], pa.int64()).combine_chunks())
    place = pc.index_in(texts, value_set=prompts)
    hit = items.select(["benchmark", "subset", "item_id"]).filter(pc.is_valid(place))
    return hit.append_column("overlap", most["overlap_max"].take(place.drop_null())).cast(CONTAMINATED)
