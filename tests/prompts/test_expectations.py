from collections.abc import Sequence

import pyarrow as pa
import pytest

from pipeline.gate import Outcome, evaluate
from pipeline.prompts import expectations
from pipeline.prompts.sampling import draw
from pipeline.prompts.schema import CONVERSATIONS, PROMPTS
from pipeline.prompts.shapes import UnusableError
from pipeline.prompts.sources import ReadReport
from pipeline.rules import ROWS, Rule
from pipeline.settings import FilesSource, PromptFilters, Prompts, Sample
from tests.prompts.test_sampling import ids, pool_of

WANTED = Prompts(
    sources={"ours": FilesSource(kind="files", path="a.jsonl", licence="MIT")},
    filters=PromptFilters(),
    sample=Sample(prompts=10, multi_turn_share=0.3),
)
POOL = pool_of([(1 + (n % 3 == 0), n % 4, 1 + n % 5) for n in range(60)])
GOOD, _ = draw(POOL, WANTED.sample, 1, "d1", ())


def broken(rules: Sequence[Rule], table: pa.Table, views: dict[str, pa.Table]) -> set[str]:
    outcomes: list[Outcome] = list(evaluate(rules, {ROWS: table, **views}))
    assert not [o.error for o in outcomes if o.error]
    return {o.rule.name for o in outcomes if not o.passed}


def of_prompts(table: pa.Table, taken: Sequence[str] = ()) -> set[str]:
    return broken(expectations.PROMPTS, table, expectations.prompt_views(table, taken, WANTED))


def with_value(column: str, value: object) -> pa.Table:
    rows = GOOD.to_pylist()
    rows[0] = {**rows[0], column: value}
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def test_a_good_draw_breaks_no_rule() -> None:
    assert of_prompts(GOOD) == set()


@pytest.mark.parametrize(
    ("table", "rules"),
    [
        (with_value("prompt_id", "0" * 64), {"id_of_content"}),
        (with_value("turns", ["another text"]), {"id_of_content"}),
        (with_value("n_turns", 9), {"turns_counted"}),
        (with_value("language", "de"), {"language"}),
        (with_value("complexity", 6), {"in_range"}),
        (with_value("complexity", None), {"rated"}),
        (with_value("source", "theirs"), {"allowed"}),
        (with_value("licence", "not stated"), {"allowed"}),
        (GOOD.slice(1), {"full"}),
        (pa.concat_tables([GOOD, GOOD.slice(0, 1)]), {"prompt_once", "full"}),
        (PROMPTS.empty_table(), {"full"}),
    ],
)
def test_each_rule_of_prompts_is_broken_by_what_it_forbids(table: pa.Table, rules: set[str]) -> None:
    assert rules <= of_prompts(table) <= rules | {"multi_turn_share", "level_shares", "turns_counted"}


def test_a_prompt_of_another_delivery_breaks_a_gating_rule() -> None:
    assert of_prompts(GOOD, ids(GOOD)[3:4]) == {"new"}
    assert next(r for r in expectations.PROMPTS if r.name == "new").gating


def test_a_prompt_that_a_delivery_had_and_lost_only_warns() -> None:
    assert broken(expectations.PROMPTS, GOOD, expectations.prompt_views(GOOD, (), WANTED, 1)) == {"none_replaced"}
    assert not next(r for r in expectations.PROMPTS if r.name == "none_replaced").gating


def test_a_pool_that_is_too_small_breaks_a_gating_rule_and_one_without_multi_turn_prompts_only_warns() -> None:
    small, _ = draw(POOL.slice(0, 6), WANTED.sample, 1, "d1", ())
    assert "full" in of_prompts(small)
    singles, _ = draw(pool_of([(1, n % 4, 1 + n % 5) for n in range(60)]), WANTED.sample, 1, "d1", ())
    assert of_prompts(singles) == {"multi_turn_share"}
    gating = {r.name: r.gating for r in expectations.PROMPTS}
    assert gating["full"]
    assert not gating["multi_turn_share"]


def conversation_rules(
    role: str = "user", malformed: int = 0, kept: int = 100, cut: str | None = None, fault: str | None = None
) -> set[str]:
    row = {"conversation_id": "a", "source": "ours", "licence": "MIT", "turns": [{"role": role, "content": "Hi"}]}
    table = pa.Table.from_pylist([row], schema=CONVERSATIONS)
    cuts, faults = ([said] if said else [] for said in (cut, fault))
    report = ReadReport("ours", records=kept + malformed, kept=kept, cuts=cuts, faults=faults)
    for n in range(malformed):
        report.reject("a.jsonl", n, UnusableError("not_json", "broken"))
    report.reject("a.jsonl", 0, UnusableError("repeated", "the same again"))
    return broken(expectations.CONVERSATIONS, table, expectations.conversation_views({role}, [report]))


def test_each_rule_of_conversations_is_broken_by_what_it_forbids() -> None:
    assert conversation_rules() == set()
    assert conversation_rules(malformed=11) == set()
    assert conversation_rules(malformed=12) == {"well_formed"}
    assert conversation_rules(role="assistant") == {"only_user_turns"}
    assert conversation_rules(kept=0) == {"every_source"}
    assert conversation_rules(cut="a.jsonl breaks off") == {"not_cut"}
    assert conversation_rules(fault="a.json is no JSON after 3 records") == {"no_fault"}
    assert next(r for r in expectations.CONVERSATIONS if r.name == "no_fault").gating


def test_a_lost_conversation_and_filters_that_leave_next_to_nothing_break_rules_of_candidates() -> None:
    kept = POOL.drop_columns(["topic", "topic_name", "complexity"])

    def rules(rejected: int, conversations: int) -> set[str]:
        views = expectations.candidate_views(kept.to_batches(), rejected, conversations, PromptFilters())
        return broken(expectations.CANDIDATES, kept, views)

    assert rules(40, 100) == set()
    assert rules(39, 100) == {"all_accounted"}
    assert rules(3940, 4000) == {"some_kept"}


def test_a_candidate_without_topic_and_a_topic_that_swallows_break_rules_of_topics() -> None:
    def rules(
        topics: pa.Table, table: pa.Table, known: pa.Table = POOL, names: str = "a b", before: str = "a b"
    ) -> set[str]:
        named, earlier = (pa.chunked_array([text.split()]) for text in (names, before))
        return broken(expectations.TOPICS, table, expectations.topic_views(topics, POOL, known, named, earlier))

    assert rules(POOL, POOL) == set()
    topics = pa.array([0] * 40 + list(range(1, 20)) + [None], pa.int32())
    assert rules(POOL.slice(1), POOL) == {"all_candidates"}
    lopsided = POOL.set_column(POOL.schema.get_field_index("topic"), "topic", topics)
    assert rules(lopsided, lopsided, lopsided) == {"has_topic", "none_swallows"}
    assert rules(lopsided, lopsided) == {"has_topic", "none_swallows", "topics_kept"}
    assert rules(POOL, POOL, names="a c") == {"topics_kept"}
    assert rules(POOL, POOL, names="a") == {"topics_kept"}
    assert rules(POOL, POOL, names="a b c") == set()


def test_a_pool_without_a_level_only_warns() -> None:
    without, _ = draw(pool_of([(1 + (n % 3 == 0), n % 4, 1 + n % 4) for n in range(60)]), WANTED.sample, 1, "d1", ())
    assert of_prompts(without) == {"level_shares"}
    assert not next(r for r in expectations.PROMPTS if r.name == "level_shares").gating


def test_a_pool_that_is_empty_or_that_lost_more_than_a_tenth_to_a_rater_breaks_gating_rules() -> None:
    def rules(rated: int, unrated: int) -> set[str]:
        table = POOL.slice(0, rated)
        return broken(expectations.COMPLEXITY, table, expectations.complexity_views(table, POOL.slice(0, unrated)))

    assert rules(54, 6) == set()
    assert rules(53, 7) == {"few_unrated"}
    assert rules(0, 60) == {"some_rows", "few_unrated", "spread"}
    assert rules(0, 0) == {"some_rows", "spread"}
    assert all(r.gating for r in expectations.COMPLEXITY if r.name in {"some_rows", "few_unrated"})
