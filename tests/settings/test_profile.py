from pathlib import Path

import pytest

from pipeline.settings import PROFILES, Profile, ProfileError, load_profile

ALL = sorted(path.stem for path in PROFILES.glob("*.yaml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ProfileError) as refused:
        load_profile(written(tmp_path, text))
    return str(refused.value)


@pytest.mark.parametrize("name", ALL)
def test_every_profile_that_ships_is_valid(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert len(profile.generators) == (0 if profile.recorded else 6)


def test_tiny_is_the_default_and_the_environment_picks_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_PROFILE", raising=False)
    assert load_profile().name == "tiny"
    monkeypatch.setenv("PIPELINE_PROFILE", "gpu")
    assert load_profile().name == "gpu"


def test_a_wrong_key_is_refused_with_file_line_place_and_what_is_allowed(tmp_path: Path) -> None:
    message = refusal(tmp_path, "extends: tiny\nprompts:\n  sample:\n    promts: 3\n")
    assert message == (
        f"{tmp_path / 'mine.yaml'}:4: prompts.sample.promts: unknown key; "
        "allowed here: prompts, multi_turn_share, complexity_weights"
    )


@pytest.mark.parametrize(
    ("text", "line", "place", "said"),
    [
        ("generators:\n  careful: {share: -1}", 3, "generators.careful.share", "greater than 0 (given: -1)"),
        (
            "prompts:\n  sources:\n    sharegpt: {limt: 3}",
            4,
            "prompts.sources.sharegpt.limt",
            "allowed here: kind, licence, limit",
        ),
        ("prompts:\n  sources:\n    hub: {kind: hub, licence: x}", 4, "prompts.sources.hub.id", "is missing"),
        ("annotations:\n  desk: {kind: simulatd}", 3, "annotations.desk", "'simulated', 'files'"),
        (
            "prompts:\n  sources:\n    ours: {kind: files, path: a.csv, licence: x, columns: {promt: q}}",
            4,
            "prompts.sources.ours.columns",
            "a conversation has no field promt; it has conversations, messages, turns, prompt, role, content",
        ),
        ("benchmarks:\n  b: {kind: hub, form: rm_bensh}", 3, "benchmarks.b.form", "'rewardbench2', 'rm_bench'"),
        (
            "benchmarks:\n  b: {kind: hub, id: me/pairs}",
            3,
            "benchmarks.b",
            "split: is missing; only allenai/reward-bench",
        ),
        (
            "benchmarks:\n  b: {kind: file, path: x, split: y}",
            3,
            "benchmarks.b.split",
            "allowed here: kind, path, form",
        ),
        (
            "alignment:\n  conversations:\n    ours: {kind: files, licence: x}",
            4,
            "alignment.conversations.ours.path",
            "is missing",
        ),
        (
            "alignment:\n  conversations: {ours: {kind: sharegpt, licence: x, weight: 2}}",
            2,
            "alignment",
            "conversations.ours.weight: all conversations are taken, so that a source has no weight",
        ),
        (
            "alignment:\n  methods: {sft: {origin: conversations}}",
            2,
            "alignment",
            "methods.sft.origin: there are no conversations; name their sources under `conversations`, or take data",
        ),
        (
            "alignment:\n  methods: {dpo: {origin: conversations}}",
            3,
            "alignment.methods.dpo",
            "origin: conversations have no pairs, which dpo learns; iterative_dpo makes pairs of samples",
        ),
        (
            "alignment:\n  methods: {sft: {origin: talks}}",
            3,
            "alignment.methods.sft.origin",
            "Input should be 'auto', 'data' or 'conversations'",
        ),
        ("dataset:\n  validation_share: 1.5", 3, "dataset.validation_share", "less than or equal to 1 (given: 1.5)"),
        ("nothing_like_it: 1", 2, "nothing_like_it", "unknown key; allowed here: name, store"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(tmp_path: Path, text: str, line: int, place: str, said: str) -> None:
    message = refusal(tmp_path, f"extends: tiny\n{text}\n")
    assert message.startswith(f"{tmp_path / 'mine.yaml'}:{line}: {place}: ")
    assert said in message


def test_every_problem_of_a_profile_is_told_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "extends: tiny\nseed: x\ndataset:\n  nam: y\n")
    assert len(message.splitlines()) == 2


def test_a_generator_without_its_checkpoint_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "extends: tiny\ngenerators:\n  careful: {checkpoint: gone}\n")
    assert "generators.careful.checkpoint: there is no checkpoint 'gone'; there are: smollm2_135m_instruct" in message


def test_a_generator_with_more_than_half_of_all_shares_is_refused(tmp_path: Path) -> None:
    assert "more than half" in refusal(tmp_path, "extends: tiny\ngenerators:\n  careful: {share: 5}\n")


def test_null_takes_away_what_the_extended_profile_has(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: tiny\nname: mine\nalignment: null\nrecipes: {smollm2_probe: null}\n")
    assert list(load_profile(tmp_path / "mine.yaml").recipes) == ["smollm2_regression"]


def test_a_checkpoint_names_one_origin(tmp_path: Path) -> None:
    text = "extends: tiny\ncheckpoints:\n  smollm2_135m_instruct: {hub: a/b}\n"
    assert "exactly one of: hub, folder, gguf" in refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "extends: mine_is_missing"])
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text)


def test_a_profile_that_extends_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert "extends itself" in refusal(tmp_path, f"extends: {path}\n")


def test_an_extending_profile_changes_only_what_it_names(tmp_path: Path) -> None:
    tiny, mine = (
        load_profile("tiny"),
        load_profile(written(tmp_path, "extends: tiny\ngenerators:\n  plain: {share: 0.1}\n")),
    )
    assert mine.generators["plain"].share == 0.1
    assert mine.generators["plain"].sampling == tiny.generators["plain"].sampling
    assert mine.generators["careful"] == tiny.generators["careful"]


def test_a_relative_store_counts_from_the_project() -> None:
    assert Path(load_profile("tiny").store).is_absolute()
    assert (
        Profile.model_validate({**load_profile("tiny").model_dump(), "store": "s3://bucket/x"}).store == "s3://bucket/x"
    )


PUBLISHED = "extends: published\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PUBLISHED + "annotations: {extra: 2}", "annotations.extra: with desk helpsteer2 it must be 0"),
        (PUBLISHED + "prompts: {sources: {s: {kind: sharegpt, licence: x}}, sample: {prompts: 9}}", "prompts: must not be there with desk"),
        (PUBLISHED + "annotations: {desk: {kind: simulated, limit: null}}", "annotations.desk.limit: unknown key"),
        ("extends: tiny\ncontexts: null", "contexts: missing; only desk helpsteer2 can do without"),
        ("extends: tiny\nannotations: {desk: {kind: helpsteer2}}", "prompts, contexts, generators: must not be there with desk helpsteer2"),
    ],
)  # fmt: skip
def test_a_chain_is_either_made_or_recorded(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text + "\n")


def test_replicas_need_a_cluster_and_an_accelerator_names_its_pool(tmp_path: Path) -> None:
    several = "extends: tiny\ncheckpoints: {smollm2_135m_instruct: {replicas: 2, accelerator: A100-80G}}\n"
    said = refusal(tmp_path, several)
    assert "checkpoints.smollm2_135m_instruct.replicas: more than one needs `compute: {kind: ray}`" in said
    profile = load_profile(written(tmp_path, several + "compute: {kind: ray}\n"))
    assert profile.checkpoints["smollm2_135m_instruct"].pool == "engine_a100_80g"


def test_a_hub_benchmark_is_its_forms_published_one_unless_another_is_named(tmp_path: Path) -> None:
    text = "extends: tiny\nname: mine\nbenchmarks:\n  a: {kind: hub, form: rm_bench}\n  b: {kind: hub, id: me/pairs, split: test}\n"
    benchmarks = load_profile(written(tmp_path, text)).benchmarks
    assert [(b.id, b.split, b.form) for b in (benchmarks["a"], benchmarks["b"]) if b.kind == "hub"] == [
        ("THU-KEG/RM-Bench", "train", "rm_bench"),
        ("me/pairs", "test", "pairs"),
    ]


SOURCES = "extends: tiny\nprompts:\n  sources:\n    more: {kind: hub, id: a/b, licence: Apache-2.0, weight: 2}\n"


def test_a_source_with_a_licence_that_the_profile_does_not_allow_is_refused_with_its_place(tmp_path: Path) -> None:
    said = refusal(tmp_path, f"{SOURCES}  licences: [Apache-2.0, CC0-1.0]\n")
    assert said.startswith(
        f"{tmp_path / 'mine.yaml'}:2: prompts: sources.sharegpt.licence: 'not stated' is not among `licences`"
    )
    assert "Apache-2.0, CC0-1.0" in said
    allowed = load_profile(written(tmp_path, f"{SOURCES}  licences: [Apache-2.0, not stated]\n"))
    assert allowed.prompts is not None
    assert {name: source.weight for name, source in allowed.prompts.sources.items()} == {"sharegpt": 1, "more": 2}


def test_prompts_of_a_benchmark_have_a_name_of_their_own(tmp_path: Path) -> None:
    said = refusal(tmp_path, "extends: tiny\nprompts: {filters: {benchmark_prompts: {smoke: a.jsonl}}}\n")
    assert "prompts.filters.benchmark_prompts.smoke: is the name of a benchmark; take another" in said


def test_who_rated_is_said_by_what_a_recipe_learns_from(tmp_path: Path) -> None:
    profile = load_profile(
        written(
            tmp_path,
            "extends: tiny\ntraining_data:\n  published: {kind: helpsteer2}\n  mine: {kind: file, path: a.jsonl, licence: CC0-1.0}\n"
            "recipes:\n  from_published: {base: smollm2_135m_instruct, data: published}\n"
            "  from_mine: {base: smollm2_135m_instruct, data: mine}\n",
        )
    )
    simulated = "simulated annotators"
    assert profile.rated_by_of("smollm2_probe", simulated) == simulated
    assert profile.ratings_note_of("smollm2_probe", simulated) == profile.ratings_note != ""
    assert profile.ratings_note_of("smollm2_probe", "people") == "", (
        "what the rows say, not the desk that the profile has now"
    )
    assert profile.ratings_note_of("smollm2_probe", "language models") == "Ratings by language models; no person rated."
    assert profile.rated_by_of("from_published", simulated) == "people"
    assert profile.ratings_note_of("from_published", simulated) == ""
    assert profile.rated_by_of("from_mine", simulated) == "people"
    assert (
        profile.ratings_note_of("from_mine", simulated)
        == "Trained on the file of mine: who gave its ratings is not recorded here."
    )


SERVED = """extends: tiny
checkpoints:
  theirs:
    licence: MIT
    server: {{base_url: "http://127.0.0.1:8000/v1", model: m, {}}}
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("parameters: {max_token: x}", "checkpoints.theirs.server.parameters.max_token: Input should be 'temperature', 'top_p', 'top_k'"),
        ("parameters: {max_tokens: Max Tokens}", "server.parameters.max_tokens: String should match pattern"),
        ("parameters: {max_tokens: seed}", "parameters: seed: is the name of two fields of a request"),
        ("parameters: {seed: stream}", "parameters: stream: is the name of two fields of a request"),
        ("extra_body: {model: x}", "extra_body: model: is set by the pipeline"),
        ("extra_body: {messages: []}", "extra_body: messages: is set by the pipeline"),
        ("extra_body: {max_tokens: 7}", "extra_body: max_tokens: is set by the pipeline"),
        ("extra_body: {chat_template_kwargs: {}}", "extra_body: chat_template_kwargs: is set by the pipeline"),
        ("extra_body: {x: 2026-01-01}", "server.extra_body.x: input was not a valid JSON value"),
    ],
)  # fmt: skip
def test_what_a_server_must_not_be_asked_is_refused_at_its_place(tmp_path: Path, options: str, said: str) -> None:
    assert said in refusal(tmp_path, SERVED.format(options))


def test_a_parameter_of_another_profile_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(SERVED.format("parameters: {seed: their_seed, max_tokens: max_new_tokens}"))
    (tmp_path / "mine.yaml").write_text(
        f"extends: {tmp_path / 'base.yaml'}\ncheckpoints: {{theirs: {{server: {{parameters: {{seed: null}}}}}}}}\n"
    )
    server = load_profile(tmp_path / "mine.yaml").checkpoints["theirs"].server
    assert server is not None
    assert [server.name_of("seed"), server.name_of("max_tokens"), server.name_of("top_p")] == [
        None,
        "max_new_tokens",
        "top_p",
    ]


def test_a_recording_has_no_chat_template_to_say_anything_to(tmp_path: Path) -> None:
    text = "extends: tiny\ncheckpoints: {old: {licence: MIT, recording: {path: a.jsonl}, chat_template_kwargs: {enable_thinking: false}}}\n"
    assert "chat_template_kwargs: a recording has no chat template" in refusal(tmp_path, text)
