"""RewardBench's composition and arithmetic as constants and small means, and the poster's published rows.

Source: allenai/reward-bench, constants of version 1 (method.md G1); HelpSteer2's Table 3 (method.md G3).
"""

import math
from collections.abc import Mapping
from typing import Any

REWARDBENCH: dict[str, dict[str, int]] = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
"""Subsets and their weights within a section. math-prm has 447 pairs and the weight 984: as much as all of code."""

SECTIONS = tuple(REWARDBENCH)
PRIOR_SETS = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
SUBSET_SECTION = {subset: section for section, subsets in REWARDBENCH.items() for subset in subsets}
SMOKE_SECTION = {
    "smoke-chat": "Chat",
    "smoke-chat-hard": "Chat Hard",
    "smoke-safety": "Safety",
    "smoke-reasoning": "Reasoning",
}


def section_of(subset: str) -> str:
    """Section of a subset; a subset of no known benchmark is a section of its own."""
    return SUBSET_SECTION.get(subset) or SMOKE_SECTION.get(subset) or subset


def section_scores(accuracies: Mapping[str, Any], pairs: Mapping[str, int]) -> dict[str, Any]:
    """Accuracy of each section: subset accuracies weighted by RewardBench's counts; a subset of another benchmark by its own number of pairs.

    accuracies: numbers, or arrays of one shape (bootstrap draws).
    """
    totals: dict[str, Any] = {}
    weights: dict[str, int] = {}
    for subset, accuracy in accuracies.items():
        section = section_of(subset)
        weight = REWARDBENCH.get(section, {}).get(subset, pairs[subset])
        totals[section] = totals.get(section, 0.0) + weight * accuracy
        weights[section] = weights.get(section, 0) + weight
    return {section: total / weights[section] for section, total in totals.items()}


def overall(sections: Mapping[str, Any], prior_sets: float | None = None) -> Any:
    """Plain mean of the sections; with Prior Sets, which count half, where given (NaN: not given). Raises ValueError without sections."""
    if not sections:
        raise ValueError("no sections to take the mean of")
    total, weight = sum(sections.values()), float(len(sections))
    if prior_sets is not None and not math.isnan(prior_sets):
        total, weight = total + 0.5 * prior_sets, weight + 0.5
    return total / weight


PUBLISHED_SOURCE = "HelpSteer2 (arXiv 2406.08673), Table 3"
PUBLISHED: tuple[tuple[str, float, float, float, float, float, float | None], ...] = (
    ("Nemotron-4 340B RM (w. HelpSteer2)", 92.0, 95.8, 87.1, 91.5, 93.7, 67.4),
    ("Cohere May 2024", 89.5, 96.4, 71.3, 92.7, 97.7, 78.2),
    ("Gemini 1.5 Pro-0514", 88.1, 92.3, 80.6, 87.5, 92.0, None),
    ("Cohere March 2024", 87.1, 94.7, 65.1, 90.3, 98.2, 74.6),
    ("GPT-4-0125-preview", 85.9, 95.3, 74.3, 87.2, 86.9, 70.9),
    ("GPT-4-0409-preview", 85.1, 95.3, 75.4, 87.1, 82.7, 73.6),
    ("GPT-4o-0513", 84.7, 96.6, 70.4, 86.7, 84.9, 72.6),
    ("Claude-3-Opus-02292024", 80.7, 94.7, 60.3, 89.1, 78.7, None),
    ("ArmoRM-Llama 3 8B", 90.8, 96.9, 76.8, 92.2, 97.3, 74.3),
    ("RLHFlow-Llama 3 8B", 87.1, 98.3, 65.8, 89.7, 94.7, 74.6),
    ("Eurus RM Mistral 7B", 82.8, 98.0, 65.6, 81.2, 86.3, 71.7),
    ("Starling RM Yi 34B", 82.7, 96.9, 57.2, 88.2, 88.5, 71.4),
    ("Prometheus 2 Mistral 8*7B", 75.3, 93.0, 47.1, 83.5, 77.4, None),
    ("Llama 3 70B RM (w. HelpSteer2)", 88.8, 91.3, 80.3, 92.8, 90.7, 66.5),
    ("Llama 3 70B (w. Open Assistant)", 79.1, 91.3, 59.2, 76.0, 89.9, 66.7),
    ("Llama 3 70B Instruct", 76.0, 97.6, 58.9, 69.2, 78.5, 70.4),
    ("Llama 3 70B (w. HH-RLHF)", 73.9, 94.4, 54.6, 81.2, 65.6, 68.8),
    ("Pythia 1.4B (w. Open Assistant)", 70.0, 88.5, 48.7, 65.3, 77.5, 65.3),
    ("Llama 3 70B (w. HelpSteer)", 66.1, 93.3, 59.7, 56.8, 54.9, 67.7),
)
"""Model, Overall, Chat, Chat Hard, Safety, Reasoning, Prior Sets, in percent. Overall is the mean of the four sections."""
