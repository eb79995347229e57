from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.operating.report import write_report
from pipeline.prompts.delivery_figures import ORIGINAL, against_original, by_level, by_topic, by_turns
from pipeline.prompts.sampling import draw
from pipeline.settings import Sample, load_profile
from pipeline.store import DATA, Store, write_table
from tests.evaluation.made import publish_leaderboard
from tests.prompts.test_sampling import POOL, kinds, pool_of

DRAWN, _ = draw(POOL, Sample(prompts=100), 1, "d1", ())


def test_a_delivery_stands_beside_the_originals_figures() -> None:
    rows = {row["figure"]: row for row in against_original(DRAWN).to_pylist()}
    turns = [2 * n - 1 for n in DRAWN["n_turns"].to_pylist()]
    characters = DRAWN["n_characters"].to_pylist()
    expected = [np.mean(turns), np.std(turns), np.mean(characters), np.std(characters), 29]
    assert [row["here"] for row in rows.values()] == pytest.approx(expected, abs=0.005)
    assert {name: row["HelpSteer2"] for name, row in rows.items()} == ORIGINAL


@settings(max_examples=50, deadline=None)
@given(kinds.filter(len), st.integers(2, 30), st.integers(0, 9))
def test_turns_are_counted_in_the_delivery_and_in_the_pool(
    kinds: list[tuple[int, int, int]], n: int, seed: int
) -> None:
    pool = pool_of(kinds)
    drawn, _ = draw(pool, Sample(prompts=n), seed, "d1", ())
    ours, theirs = drawn["n_turns"].to_pylist(), pool["n_turns"].to_pylist()
    for row in by_turns(drawn, pool).to_pylist():
        turns = row["user turns"]
        assert (row["prompts"], row["in the pool"]) == (ours.count(turns), theirs.count(turns))
        if turns == 1:
            assert row["percent of multi-turn"] is None
        else:
            multi = sum(k > 1 for k in theirs)
            assert row["in the pool, percent"] == pytest.approx(100 * theirs.count(turns) / multi, abs=0.051)
    assert {row["user turns"] for row in by_turns(drawn, pool).to_pylist()} == set(theirs)


def test_plots_are_pictures() -> None:
    for plot in (by_level({"pool": POOL}), by_level({"pool": POOL}, (1, 1, 1, 1, 2)), by_topic(DRAWN, 25)):
        assert plot.startswith("![")
        assert "](data:image/png;base64," in plot
    assert by_topic(pa.Table.from_batches([], DRAWN.schema), 3).startswith("![")


def test_the_report_shows_the_draw_beside_the_originals_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, store = load_profile("tiny"), Store(str(tmp_path / "store"))
    _, figures = draw(POOL, Sample(prompts=100), 1, "d1", ())
    for asset, partition, table in (("prompt_complexity", None, POOL), ("prompts", "d1", DRAWN)):
        staged = store.staging(asset, partition)
        write_table(table, staged / DATA)
        store.publish(asset, partition, staged, info=figures)
    # test doubles of what other stages' tests look at
    rest = {
        "mean_ratings": 3.0,
        "escalated": 0,
        "responses": 0,
        "removed": 0,
        "unrated": 0,
        "prompts": 0,
        "ratings": "",
    }
    delivery = {"key": "d1", **rest, "generators": [], "kappa": [], "samples": []}
    doubles = {"_pool": None, "_delivery": delivery, "_recipe": None, "_dataset": {"path": "", "splits": {}}}
    for part, double in doubles.items():
        monkeypatch.setattr(f"pipeline.operating.report.{part}", lambda *_, double=double: double)
    partitions = Store.partitions
    monkeypatch.setattr(Store, "partitions", lambda s, a: ["d1"] if a == "agreed_tasks" else partitions(s, a))
    publish_leaderboard(store, "people")
    page = write_report(store, profile.model_copy(update={"recipes": {}}), []).read_text()
    assert '<td>mean characters</td><td class="n">20.0</td><td class="n">712.6</td>' in page
    assert "0 of 20 topics gave less than their even share, 0 prompts in all." in page
    assert page.count("data:image/png;base64,") >= 2
    assert '<th class="n">percent of multi-turn</th>' in page
