"""Records that several tests of benchmarks read."""

JUDGED = {
    "pair_id": "x",
    "source": "mmlu-pro-law",
    "question": "q",
    "response_A": "a",
    "response_B": "b",
    "label": "B>A",
}
