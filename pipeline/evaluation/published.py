"""What was published of reward models: HelpSteer2's Table 3 on RewardBench with the compute of two of them, and scores on other benchmarks."""

PUBLISHED_SOURCE = "HelpSteer2 (arXiv 2406.08673), Table 3"
PUBLISHED_SCORES: tuple[tuple[str, float, float, float, float, float, float | None], ...] = (
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

COMPUTE = {
    "Nemotron-4 340B RM (w. HelpSteer2)": "256 node-hours of 8 H100",
    "Llama 3 70B RM (w. HelpSteer2)": "64 node-hours of 8 H100",
}
"""Training, from the paper's appendix, in H100-equivalents."""

TABLE_3 = "pairs"
"""The form that the scores above are of."""
OTHERS = {"rewardbench2": "RewardBench 2", "rm_bench": "RM-Bench", "judgebench": "JudgeBench"}
"""Names of the other benchmarks, by their forms."""
_SKYWORK, _RLBFF = "Skywork-Reward-V2 (arXiv 2507.01352)", "RLBFF (arXiv 2509.21319)"
_HELPSTEER3, _REWARDBENCH2 = "HelpSteer3-Preference (arXiv 2505.11475)", "RewardBench 2 (arXiv 2506.01937)"
PUBLISHED_OVERALL: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("Skywork-Reward-V2-Llama-3.1-8B-40M", _SKYWORK, {"rewardbench2": 86.5, "rm_bench": 96.0, "judgebench": 83.4}),
    ("Skywork-Reward-V2-Llama-3.1-8B", _SKYWORK, {"rewardbench2": 84.1, "rm_bench": 92.8, "judgebench": 80.0}),
    ("LMUnit-qwen72b", _REWARDBENCH2, {"rewardbench2": 82.1}),
    ("LMUnit-70b", _REWARDBENCH2, {"rewardbench2": 80.5}),
    ("PGRM", _REWARDBENCH2, {"rewardbench2": 80.0}),
    ("gemini-2.5-pro", _REWARDBENCH2, {"rewardbench2": 79.5}),
    ("Skywork-Reward-V2-Qwen3-8B", _SKYWORK, {"rewardbench2": 78.4}),
    ("QRM-Gemma", _REWARDBENCH2, {"rewardbench2": 76.7}),
    ("Llama-3.1-Nemotron-70B-Reward", _SKYWORK, {"rewardbench2": 76.7, "rm_bench": 72.2, "judgebench": 65.8}),
    ("INF-ORM-Llama3.1-70B", _SKYWORK, {"rewardbench2": 76.5}),
    ("Skywork-Reward-V2-Qwen3-0.6B", _SKYWORK, {"rewardbench2": 61.3}),
    ("Qwen3-Nemotron-32B-GenRM-Principle", _RLBFF, {"rm_bench": 86.2, "judgebench": 81.4}),
    ("Reward-Principle, 70B", _RLBFF, {"rm_bench": 83.6, "judgebench": 76.3}),
    ("HelpSteer3 multilingual, 70B", _HELPSTEER3, {"rm_bench": 82.4, "judgebench": 69.4}),
    ("HelpSteer3 English, 70B", _HELPSTEER3, {"rm_bench": 79.9, "judgebench": 73.7}),
)
"""Model, where it was published, and overall scores in percent, by form."""
