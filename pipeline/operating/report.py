"""The report of what a store has, as one page: what went in, what came out, how good it is. Strangers' text is escaped."""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from pipeline import plots
from pipeline.evaluation import page
from pipeline.evaluation.leaderboard import wide
from pipeline.evaluation.published import PUBLISHED_SOURCE
from pipeline.operating.made import Row
from pipeline.prompts import delivery_figures
from pipeline.settings import Profile, Recipe
from pipeline.store import Store, local_path
from pipeline.vocabulary import ATTRIBUTES

_PICTURE = re.compile(r"!\[(.*?)\]\((data:image/png;base64,[A-Za-z0-9+/=]+)\)")


def write_report(store: Store, profile: Profile, rows: Sequence[Row]) -> Path:
    """Write `report.html` into the store's folder; its path. rows: what was made; see `pipeline.operating.made`.

    Raises `NotPublishedError` where the store lacks what the report is of, and ValueError where it isn't on a local disk.
    """
    root = local_path(store.root)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["link"] = lambda path: quote(os.path.relpath(Path(path), root))  # as seen from the report
    text = environment.get_template("report.html").render(
        profile=profile,
        rows=[(row, str(store.path(row.asset, row.partition))) for row in rows],
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        deliveries=[_delivery(store, key) for key in store.partitions("agreed_tasks")],
        pool=None if profile.recorded else _pool(store),
        draws={} if profile.recorded else {key: _draw(store, profile, key) for key in store.partitions("prompts")},
        data=_dataset(store),
        recipes=[
            _recipe(store, name, recipe)
            for name, recipe in profile.recipes.items()
            if store.manifest("benchmark_scores", name)
        ],
        boards=_boards(store.read("leaderboard")),
        board_page=str(store.path("leaderboard", None, page.HTML)),
        source=PUBLISHED_SOURCE,
        attributes=ATTRIBUTES,
    )
    path = root / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def _pool(store: Store) -> dict[str, Any]:
    rejected = store.read("candidate_prompts", None, "rejected.parquet")
    aside = store.read("conversations", None, "rejected.parquet")
    levels = (
        store.read("prompt_complexity", columns=["complexity"])
        .to_pandas()["complexity"]
        .value_counts()
        .reindex(range(1, 6))
        .fillna(0)
    )
    return {
        "reasons": [*_counts(aside["reason"]), *_counts(rejected["reason"])],
        "levels": _picture(
            plots.bar_chart([str(n) for n in levels.index], list(levels), "Complexity of the pool, 1 to 5", "prompts")
        ),
    }


def _draw(store: Store, profile: Profile, key: str) -> dict[str, Any]:
    prompts = store.read("prompts", key)
    pool = store.read("prompt_complexity", columns=["topic", "complexity", "n_turns"])
    weights = profile.prompts.sample.complexity_weights if profile.prompts else ()
    manifest = store.manifest("prompts", key)
    figures = manifest.info if manifest else {}
    levels = delivery_figures.by_level({"delivery": prompts, "pool": pool}, weights)
    return {
        "against": delivery_figures.against_original(prompts).to_pylist(),
        "levels": _picture(levels),
        "topics": _picture(delivery_figures.by_topic(prompts, figures["topics in the pool"])),
        "turns": delivery_figures.by_turns(prompts, pool).to_pylist(),
        "figures": figures,
    }


def _delivery(store: Store, key: str) -> dict[str, Any]:
    annotations, pairs = store.read("annotations", key), store.read("response_pairs", key)
    labels, rated = store.read("agreed_tasks", key), store.read("consensus_annotations", key, columns=["prompt_id"])
    prompts, labelled, agreed = (len(pc.unique(t["prompt_id"])) for t in (pairs, rated, labels))
    kappa = store.read("annotation_agreement", key).to_pandas()
    counts: dict[str, list[float]] = {
        a: list(annotations.to_pandas()[a].value_counts().reindex(range(5)).fillna(0)) for a in ATTRIBUTES
    }
    per_response = annotations.group_by("response_id").aggregate([([], "count_all")])["count_all"]
    return {
        "key": key,
        "ratings": _picture(
            plots.grouped_bars([str(n) for n in range(5)], counts, "Ratings by level, 0 to 4", "annotations")
        ),
        "kappa": [
            {"attribute": a, **{r["stage"]: r for r in kappa.loc[kappa["attribute"] == a].to_dict("records")}}
            for a in ATTRIBUTES
        ],
        "escalated": len(store.read("escalation_tasks", key)) if store.manifest("escalation_tasks", key) else 0,
        "responses": len(per_response),
        "mean_ratings": len(annotations) / max(len(per_response), 1),
        "removed": labelled - agreed,
        "unrated": prompts - labelled,
        "prompts": prompts,
        "generators": _generators(pairs, labels),
        "samples": _samples(pairs, labels),
    }


def _generators(pairs: pa.Table, labels: pa.Table) -> list[dict[str, Any]]:
    rows = pairs.select(["response_id", "generator", "output_tokens", "finish_reason"]).to_pandas()
    rated = rows.merge(labels.select(["response_id", *ATTRIBUTES]).to_pandas(), on="response_id", how="left")
    cut = rated.assign(cut=rated["finish_reason"] == "length").groupby("generator")
    means = cut[[*ATTRIBUTES, "output_tokens", "cut"]].mean()
    return [
        {"generator": name, "responses": int(cut.size()[name]), **row} for name, row in means.to_dict("index").items()
    ]


def _samples(pairs: pa.Table, labels: pa.Table) -> list[dict[str, Any]]:
    """Three agreed tasks: the first with several turns, the widest apart in helpfulness, the first with one turn."""
    merged = pd.merge(pairs.to_pandas(), labels.select(["response_id", *ATTRIBUTES]).to_pandas(), on="response_id")
    turns = merged.groupby("prompt_id")["messages"].first().map(len)
    gap = merged.groupby("prompt_id")["helpfulness"].agg(lambda h: int(h.max() - h.min()))
    wanted = [
        *turns[turns > 1].index[:1],
        *gap.sort_values(ascending=False, kind="stable").index[:1],
        *turns[turns == 1].index[:1],
    ]
    samples = []
    for prompt in dict.fromkeys(wanted):
        rows = merged.loc[merged["prompt_id"] == prompt].sort_values("position").to_dict("records")
        samples.append({"messages": list(rows[0]["messages"]), "responses": rows})
    return samples


def _dataset(store: Store) -> dict[str, Any]:
    table = store.read("helpsteer_dataset", columns=["split", "prompt_id"])
    parts = {split: table.filter(pc.equal(table["split"], split)) for split in ("train", "validation")}
    return {
        "path": str(store.path("helpsteer_dataset")),
        "splits": {split: (len(pc.unique(part["prompt_id"])), len(part)) for split, part in parts.items()},
    }


def _recipe(store: Store, name: str, recipe: Recipe) -> dict[str, Any]:
    curve = store.read("reward_model", name, "training_curve.parquet")
    manifest = store.manifest("reward_model", name)
    info = manifest.info if manifest else {}
    losses = {"development": curve["development_loss"].to_pylist(), "training": curve["train_loss"].to_pandas()}
    return {
        "name": name,
        "path": str(store.path("reward_model", name)),
        "curve": _picture(
            plots.line_chart(curve["step"].to_pylist(), losses, "Loss over the training", "step", "loss")
        ),
        "best": next(row for row in curve.to_pylist() if row["chosen"]),
        "info": info,
        "max_tokens": recipe.max_tokens,
        "conversations": info["train_responses"] + info["development_responses"],
        "weights": store.read("attribute_weights", name).to_pylist(),
        "summary": store.read("benchmark_scores", name, "summary.parquet").to_pylist(),
    }


def _boards(table: pa.Table) -> list[dict[str, Any]]:
    """One table a benchmark of ours, then the published one: rows, and whose they are."""
    places = dict.fromkeys(
        (row["benchmark"], row["origin"]) for row in table.select(["benchmark", "origin"]).to_pylist()
    )
    return [
        {"benchmark": benchmark, "origin": origin, "rows": wide(table, benchmark, origin).to_pylist()}
        for benchmark, origin in places
    ]


def _counts(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    return sorted(((c["values"], c["counts"]) for c in pc.value_counts(column).to_pylist()), key=lambda c: -c[1])


def _picture(markdown: str) -> Markup:
    """The image element of a plot, with its alternative text."""
    found = _PICTURE.fullmatch(markdown)
    if not found:
        raise ValueError("not a plot")
    return Markup('<img alt="{}" src="{}">').format(*found.groups())
