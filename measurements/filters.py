"""How well the filters tell prompts apart: on labelled examples, on planted personal data, on planted near-duplicates and benchmark prompts.

The examples (tests/prompts/examples.jsonl) were written and labelled by hand for this project. Half of them, by a hash, were held out while the
rules were made: those figures say how the rules do on text like it that they have not seen. The other half says less. What is planted comes
from generators (tests/prompts/planted.py), near-duplicates from the package's conversations by random edits of words.
With `presidio_analyzer` in the environment (it isn't in the lock), its recognisers are measured on the same texts.

Run: `python -m measurements.filters [--examples] [--wrong] [FOLDER]`, the folder with mt_bench_question.jsonl and arena_hard_v0.1_question.jsonl
"""

import hashlib
import importlib.util
import json
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.prompts.filters import candidate_prompts
from pipeline.prompts.pool import benchmark_prompts
from pipeline.prompts.schema import CONVERSATIONS
from pipeline.prompts.sources import conversations
from pipeline.settings import Decontamination, PromptFilters, ShareGPTSource
from pipeline.texts.decontamination import overlaps
from pipeline.texts.near_duplicates import near_to, shingles
from pipeline.texts.personal_data import KINDS, find, mask
from tests.prompts.planted import planted

EXAMPLES = Path(__file__).parents[1] / "tests/prompts/examples.jsonl"
OFF = PromptFilters(
    drop_code=False, drop_identity=False, personal_data="flag", near_duplicates=None, language_floor=0, min_characters=1
)
"""No rule but that of the language; each measurement turns on what it is about."""


def held_out(text: str) -> bool:
    """Whether an example was not looked at while the rules were made."""
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 1


def asked(texts: Sequence[str]) -> pa.Table:
    """Conversations of one turn each, numbered."""
    return pa.Table.from_pylist(
        [
            {
                "conversation_id": str(n),
                "source": "x",
                "licence": "x",
                "turns": [{"role": "user", "content": t}],
                "flags": [],
            }
            for n, t in enumerate(texts)
        ],
        schema=CONVERSATIONS,
    )


def judged(texts: Sequence[str], **rules: Any) -> tuple[list[str], list[list[str]]]:
    """Reason against each text ("" where there is none) and its flags, with some rules on."""
    filters = OFF.model_copy(update={"max_characters": 10**9, **rules})
    reasons, flags = [""] * len(texts), [[""]] * len(texts)
    for kept, rejected in candidate_prompts(asked(texts), filters, 1, {}, Decontamination()):
        for row in kept.to_pylist():
            flags[int(row["conversation_id"])] = row["flags"]
        for row in rejected.to_pylist():
            reasons[int(row["conversation_id"])], flags[int(row["conversation_id"])] = row["reason"], row["flags"]
    return reasons, flags


def scores(truth: Iterable[bool], found: Iterable[bool]) -> dict[str, Any]:
    """Counts, precision and recall."""
    pairs = np.array(list(zip(truth, found, strict=True)), dtype=bool).reshape(-1, 2)
    right = int((pairs[:, 0] & pairs[:, 1]).sum())
    positive, claimed = int(pairs[:, 0].sum()), int(pairs[:, 1].sum())
    return {
        "examples": len(pairs),
        "positive": positive,
        "found": right,
        "wrong": claimed - right,
        "precision": round(right / claimed, 3) if claimed else None,
        "recall": round(right / positive, 3) if positive else None,
    }


def on_examples(examples: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Scores of each rule, and the texts on which it is wrong."""
    texts = [e["text"] for e in examples]
    prose = [e for e in examples if not e["code"]]
    language = [
        r == "language" for r in judged([e["text"] for e in prose], language_floor=PromptFilters().language_floor)[0]
    ]
    personal = [{f.kind for f in find(t)} for t in texts]
    unsafe = ["unsafe" in f for f in judged(texts, language="xx", language_floor=0)[1]]
    code = [r == "code" for r in judged(texts, drop_code=True)[0]]
    identity = [r == "identity" for r in judged(texts, drop_identity=True)[0]]
    right_kinds = [sorted(p) == e["personal_data"] != [] for e, p in zip(examples, personal, strict=True)]
    pairs = {
        "not English": (prose, [e["language"] != "en" for e in prose], language),
        "code": (examples, [e["code"] for e in examples], code),
        "identity": (examples, [e["identity"] for e in examples], identity),
        "unsafe": (examples, [e["unsafe"] for e in examples], unsafe),
        "personal data": (examples, [e["personal_data"] != [] for e in examples], [bool(p) for p in personal]),
        "their kinds": (examples, [e["personal_data"] != [] for e in examples], right_kinds),
    }
    wrong = {
        name: [e["text"] for e, t, f in zip(of, truth, found, strict=True) if t != f]
        for name, (of, truth, found) in pairs.items()
    }
    return {name: scores(truth, found) for name, (_, truth, found) in pairs.items()}, wrong


def presidio_kinds(texts: Sequence[str]) -> list[set[str]]:
    """Kinds that Presidio's recognisers find, at a score of 0.4 and more."""
    from presidio_analyzer import predefined_recognizers as known

    names = "EmailRecognizer PhoneRecognizer CreditCardRecognizer IbanRecognizer UsSsnRecognizer IpRecognizer".split()
    found: list[set[str]] = [set() for _ in texts]
    for recogniser in (getattr(known, name)() for name in names):
        for row, text in enumerate(texts):
            results = recogniser.analyze(text, recogniser.supported_entities)
            found[row] |= {r.entity_type for r in results or () if r.score >= 0.4}
    return found


def on_planted(n: int = 150) -> dict[str, Any]:
    """Share of planted items that are found whole, under their kind, and by Presidio where it is there."""
    shares: dict[str, Any] = {}
    peer = importlib.util.find_spec("presidio_analyzer") is not None
    for kind in KINDS:
        texts = planted(kind, n)
        shown = [(mask(text, find(text)), item) for text, item in texts]
        whole = [f"<{kind}>" in text and item not in text for text, item in shown]
        shares[kind] = {"planted": n, "found": round(float(np.mean(whole)), 3)}
        if peer and kind != "SECRET_KEY":
            shares[kind]["presidio"] = round(
                float(np.mean([kind in k for k in presidio_kinds([t for t, _ in texts])])), 3
            )
    return shares


def sharegpt(limit: int) -> list[str]:
    """First turns of the package's conversations, of 40 to 4,000 characters, each once."""
    reader, _ = conversations({"s": ShareGPTSource(kind="sharegpt", licence="not stated")})
    first = (row["turns"][0]["content"] for row in reader.read_all().to_pylist())
    return list(dict.fromkeys(t for t in first if 40 <= len(t) <= 4000))[:limit]


def near_duplicates(similarity: float, n: int = 1000) -> list[dict[str, Any]]:
    """By share of edited words: planted copies that are found. Edits replace, drop or double a word, drawn from all texts."""
    texts = sharegpt(3 * n)
    draw = random.Random(3)
    words = [w for t in texts for w in t.split()]
    rows = []
    for share in (0.0, 0.01, 0.05, 0.1, 0.15, 0.2):
        copies = []
        for text in texts[:n]:
            parts = [(w, draw.random()) for w in text.split()]
            edited = [draw.choice([draw.choice(words), "", f"{w} {w}"]) if u < share else w for w, u in parts]
            copies.append(" ".join(edited))
        found = near_to(pa.array(copies), pa.array(texts[:n]), similarity)
        rows.append({"words edited": share, "copies": n, "found": round(float(found.mean()), 3)})
    others = near_to(pa.array(texts[n:]), pa.array(texts[:n]), similarity)
    rows.append({"other texts": len(others), "called near": int(others.sum())})
    return rows


def missed_by_hashing(similarity: float, n: int = 1500) -> dict[str, Any]:
    """Pairs of real texts at least so similar, by comparing all, and how many of the later ones the index finds."""
    texts = sharegpt(n)
    sets = [frozenset(s.tolist()) for s in shingles(pa.array(texts))]
    alike = set()
    for a, mine in enumerate(sets):
        for b in range(a):
            both = len(mine & sets[b])
            if both and both / (len(mine) + len(sets[b]) - both) >= similarity:
                alike.add(a)
                break
    found = [n for n in sorted(alike) if near_to(pa.array([texts[n]]), pa.array(texts[:n]), similarity)[0]]
    return {"texts": n, "repeat an earlier one": len(alike), "of them found": len(found)}


def contamination(folder: Path) -> dict[str, Any]:
    """Benchmark prompts, planted in a source as they are, and with words around them, that are found."""
    files = {"mt_bench": "mt_bench_question.jsonl", "arena_hard": "arena_hard_v0.1_question.jsonl"}
    against = benchmark_prompts({name: str(folder / file) for name, file in files.items()})
    figures: dict[str, Any] = {}
    for name, prompts in against.items():
        for how, around in (
            ("as they are", "{}"),
            ("with words around", "Hello there, I have a question. {} Thank you."),
        ):
            found = overlaps(
                pa.array([around.format(text) for text in prompts.to_pylist()]), against, Decontamination()
            )
            figures[f"{name}, {how}"] = {"planted": len(prompts), "found": len(pc.unique(found["prompt"]))}
    pool = sharegpt(20_000)
    found = overlaps(pa.array(pool), against, Decontamination())
    figures["in ShareGPT's own first turns"] = {"looked at": len(pool), "found": len(pc.unique(found["prompt"]))}
    return figures


def main() -> None:
    """Measure, print tables, and the figures as JSON in the last line."""
    examples = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    figures: dict[str, Any] = {}
    for name, part in (("held out", True), ("seen", False)):
        table, wrong = on_examples([e for e in examples if held_out(e["text"]) == part])
        figures[name] = table
        print(f"\n{name:<16}{'examples':>9}{'positive':>9}{'found':>7}{'wrong':>7}{'precision':>11}{'recall':>8}")
        for rule, row in table.items():
            cells = [row[k] for k in ("examples", "positive", "found", "wrong", "precision", "recall")]
            print(f"{rule:<16}{cells[0]:>9}{cells[1]:>9}{cells[2]:>7}{cells[3]:>7}{cells[4]!s:>11}{cells[5]!s:>8}")
        if "--wrong" in sys.argv and not part:
            print(json.dumps(wrong, indent=1, ensure_ascii=False))
    if importlib.util.find_spec("presidio_analyzer"):
        for name, part in (("held out", True), ("seen", False)):
            own = [e for e in examples if held_out(e["text"]) == part and e["personal_data"] != ["SECRET_KEY"]]
            kinds = presidio_kinds([e["text"] for e in own])
            figures[f"presidio, {name}"] = scores([bool(e["personal_data"]) for e in own], [bool(k) for k in kinds])
            print(f"presidio, {name}: {figures[f'presidio, {name}']}")
    if "--examples" not in sys.argv:
        figures["planted"] = on_planted()
        print()
        for kind, row in figures["planted"].items():
            print(f"{kind:<16}{row}")
        similarity = PromptFilters().near_duplicates or 1.0
        figures["near duplicates"] = near_duplicates(similarity)
        figures["near duplicates, exact"] = missed_by_hashing(similarity)
        print(*figures["near duplicates"], figures["near duplicates, exact"], sep="\n")
        folder = next((Path(a) for a in sys.argv[1:] if not a.startswith("-")), None)
        if folder:
            figures["contamination"] = contamination(folder)
            print(*figures["contamination"].items(), sep="\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
