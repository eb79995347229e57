"""Every family of base models: what is made of a tiny one is what anyone reads, and the table of the page is of these families."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from measurements.families import COLUMNS
from pipeline.models.classifier import head_of, new_model, outputs_of, set_head
from pipeline.models.encoding import encode, prepare_tokenizer
from pipeline.models.loading import load_scorer
from pipeline.models.scoring import score
from pipeline.reward_model.export import fold
from pipeline.settings import PROJECT
from pipeline.vocabulary import ATTRIBUTES
from tests.models.bases import FAMILIES, save_base

WEIGHTS = dict(zip(ATTRIBUTES, (0.65, 0.8, 0.45, 0.55, -0.4), strict=True))
ASKED = [{"role": "user", "content": "What is 7 times 6?"}]
RESPONSES = ("42", "no " * 30, "yes, it is 42 and not 41")


def table() -> dict[str, dict[str, str]]:
    """The page's table, by family and column."""
    page = (PROJECT / "docs" / "reward-models.md").read_text()
    lines = page[page.index("| family |") :].split("\n\n")[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_the_page_has_every_family_and_column_once() -> None:
    assert set(table()) == set(FAMILIES)
    assert set(COLUMNS) <= set(table()["Llama 3"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folded_model_of_any_family_has_the_same_scores_for_everyone(family: str, tmp_path: Path) -> None:
    base = save_base(family, tmp_path / "base")
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(base), FAMILIES[family].template)
    if table()[family]["training"] == "-":
        with pytest.raises(ValueError, match=r"has no class for sequence classification .* take objective: probe"):
            new_model(base, tokenizer.pad_token_id, ATTRIBUTES)
        return
    model = new_model(base, tokenizer.pad_token_id, ATTRIBUTES, layers=2)
    generator = np.random.default_rng(0)
    set_head(model, generator.normal(size=(len(ATTRIBUTES), head_of(model).in_features)))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    fold(tmp_path / "model", tmp_path / "reward", WEIGHTS)

    encoded = [encode(tokenizer, ASKED, response, 512).ids for response in RESPONSES]
    scorer = load_scorer(tmp_path / "model")
    assert outputs_of(scorer.config) == ATTRIBUTES
    wanted = score(scorer, encoded) @ np.array(list(WEIGHTS.values()))
    assert score(load_scorer(tmp_path / "reward"), encoded)[:, 0] == pytest.approx(wanted, abs=1e-3)

    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    reader = AutoTokenizer.from_pretrained(tmp_path / "reward")
    for response, reward in zip(RESPONSES, wanted, strict=True):
        messages = [*ASKED, {"role": "assistant", "content": response}]
        with torch.no_grad():
            found = theirs(**reader.apply_chat_template(messages, return_tensors="pt", return_dict=True)).logits
        assert float(found) == pytest.approx(reward, abs=1e-3)
