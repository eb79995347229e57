"""The code in a model's card gives our scores, whatever special tokens the base model's tokenizer and template write."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import processors
from transformers import AutoTokenizer
from upath import UPath

from pipeline.models.encoding import encode, leave_to_template, prepare_tokenizer
from pipeline.models.loading import load_scorer
from pipeline.models.scoring import score
from pipeline.reward_model import export
from pipeline.reward_model.spec import TrainingSpec
from pipeline.reward_model.worker import work
from pipeline.settings import Recipe
from pipeline.store import local_path
from tests.helpers import quiet
from tests.reward_model.small import CHATML, small_tokenizer
from tests.reward_model.test_training import RECIPE, spec

BEGINNING, END = ("<|bos|>", 3), ("<|endoftext|>", 0)
PROCESSORS = {
    "nothing": None,
    "beginning": processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[BEGINNING]),
    "both": processors.TemplateProcessing(single="<|bos|> $A <|endoftext|>", special_tokens=[BEGINNING, END]),
    "byte_level": processors.Sequence(
        [processors.ByteLevel(), processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[BEGINNING])]
    ),
    "roberta": processors.RobertaProcessing(END, BEGINNING),
}
"""What a tokenizer adds to a text: of ChatML's models, of Gemma's, of those with an end, of Llama 3's, of encoders."""
TEMPLATES = {"plain": CHATML, "writes_it": "{{ bos_token }}" + CHATML, "as_a_text": "<|bos|>" + CHATML}
QUESTION, ANSWERS = [{"role": "user", "content": "one two"}], ("good yes", "bad no no", "three")
WEIGHTS = {"helpfulness": 1.0, "verbosity": -0.5}


def tokenizer_of(adds: str, template: str) -> Any:
    tokenizer = small_tokenizer(adds_bos=True)
    tokenizer.backend_tokenizer.post_processor = PROCESSORS[adds] or processors.ByteLevel()
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


@pytest.mark.parametrize("adds", PROCESSORS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_who_tokenizes_the_text_of_the_template_has_the_tokens_of_the_template(
    adds: str, template: str, tmp_path: Path
) -> None:
    prepare_tokenizer(tokenizer_of(adds, template)).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    messages = [*QUESTION, {"role": "assistant", "content": ANSWERS[0]}]
    ids = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False)).input_ids
    assert ids == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert ids == encode(tokenizer, QUESTION, ANSWERS[0], 64).ids
    begins = adds != "nothing" or template != "plain"
    assert ids.count(BEGINNING[1]) == begins
    assert ids[0] == (BEGINNING[1] if begins else 1)
    assert END[1] not in ids


def test_a_folder_of_another_tokenizer_is_left_to_its_template_too(tmp_path: Path) -> None:
    tokenizer_of("both", "writes_it").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    leave_to_template(tokenizer)
    assert tokenizer("one").input_ids == tokenizer("one", add_special_tokens=False).input_ids


def trained(place: Path, **changes: Any) -> TrainingSpec:
    """What a model was trained by; its folder, with its card, is `out`."""
    place.mkdir()
    given = spec(
        place, recipe=Recipe(**RECIPE.model_dump(exclude_defaults=True) | {"epochs": 1, "evaluations": 1} | changes)
    )
    work(given, quiet)
    return given


def exported(given: TrainingSpec, model: Path) -> Path:
    """The folder of a model's export, with its card."""
    out = model.with_name(f"{model.name}-one")
    out.mkdir()
    wanted = export.ExportSpec(
        model=model,
        weights=WEIGHTS,
        rated=given.rated,
        preferred=given.preferred,
        max_tokens=64,
        name="small",
        licences=("none",),
        scores=(),
        rated_by=given.rated_by,
        ratings_note="",
        out=UPath(out),
    )
    assert export.work(wanted, quiet)["largest_difference"] < 1e-4
    return out


def blocks(folder: Path) -> list[str]:
    """The card's Python, once for each answer: the folder's name before it, and the conversation in place of the dots."""
    found = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    turns = [QUESTION[0]["content"], "{answer}"]
    codes = [re.sub(r'"\.\.\."', lambda _, left=list(turns): json.dumps(left.pop(0)), code) for code in found]
    return [f"folder = {str(folder)!r}\n{code.replace('{answer}', answer)}" for code in codes for answer in ANSWERS]


def values(line: str) -> list[float]:
    """What a snippet printed: outputs, or the answer of transformers' pipeline."""
    found = ast.literal_eval(line)
    return [found[0]["score"]] if isinstance(found[0], dict) else found


def test_the_code_of_every_card_gives_our_scores(tmp_path: Path) -> None:
    regression, probe = trained(tmp_path / "regression"), trained(tmp_path / "probe", objective="probe")
    folders = [local_path(probe.out), exported(probe, local_path(probe.out))]
    for adds, template in (
        ("nothing", "plain"),
        ("beginning", "writes_it"),
        ("both", "plain"),
        ("byte_level", "as_a_text"),
    ):
        folder = tmp_path / f"{adds}-{template}"
        shutil.copytree(regression.out, folder)
        prepare_tokenizer(tokenizer_of(adds, template)).save_pretrained(folder)
        folders += [folder, exported(regression, folder)]
    codes, wanted = list[str](), list[list[float]]()
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        encoded = [encode(tokenizer, QUESTION, answer, 64).ids for answer in ANSWERS]
        ours = score(load_scorer(folder), encoded).tolist()
        code = blocks(folder)
        codes += code
        wanted += ours * (len(code) // len(ANSWERS))
    run = "import json, sys\nfor code in json.load(sys.stdin): exec(code, {})"
    done = subprocess.run([sys.executable, "-c", run], input=json.dumps(codes), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [values(line) for line in done.stdout.splitlines()]
    # an export's card has a snippet of its own, and that of the model that it is made from; a probe's has the latter alone
    assert len(found) == len(wanted) == (2 + 4 * 3) * len(ANSWERS)
    for theirs, ours in zip(found, wanted, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert len({round(row[0], 6) for row in found}) > len(ANSWERS)
