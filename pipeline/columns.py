"""What the columns of published tables hold, for the UI: a name means one thing in every table, but for a few whose meaning is told by asset."""

from pipeline.vocabulary import ATTRIBUTES

_EVERYWHERE = {
    # prompts
    "conversation_id": "Hash of the source's name and the user's turns; neither file names nor the order of records change it.",
    "prompt_id": "Hash of the user's turns; letter case, white space and Unicode form make no difference.",
    "source": "Source that the prompt comes from, by its name in the profile.",
    "licence": "Licence of the source that the prompt comes from.",
    "turns": "The user's turns in their order; the last one is to be answered.",
    "n_turns": "Number of user turns in the prompt.",
    "n_characters": "Number of characters in all of the user's turns.",
    "language": "Most likely language of the prompt, as an ISO 639-1 code.",
    "language_probability": "Probability of the prompt's most likely language, 0 to 1.",
    "flags": "Flags that filters or the source set on the prompt: `unsafe`, `redacted`, `EMAIL_ADDRESS`, ...",
    "topic": "Number of the prompt's topic; once published, a topic keeps its number.",
    "topic_name": "Name of the prompt's topic: the words that weigh most in it.",
    "complexity": "Complexity of the prompt, 1 to 5, by the number of its intentions and constraints.",
    # responses
    "messages": "Conversation up to the user turn that is to be answered, as role and content.",
    "generator": "Generator that answers the prompt: its name in the profile, or `recorded` where the response was published elsewhere.",
    "model": "Model that wrote the response.",
    "model_revision": "Revision or hash of the weights of the model that wrote the text.",
    "position": "Position at which annotators see the response: 1 (first) or 2 (second).",
    "seed": "Seed with which the response is sampled.",
    "response_id": "Identifier of the response: a hash of its prompt, generator and request.",
    "response": "Text of the response.",
    "reasoning": "What the model thought before it responded; null where it didn't, or where its server keeps that to itself.",
    "finish_reason": "How the response ended: `stop` (complete), `length` (cut off at the most tokens allowed) or `refused` (not answered).",
    "detail": "Why the request was refused; null where it was answered.",
    "prompt_tokens": "Number of tokens of the conversation, with the chat template.",
    "output_tokens": "Number of tokens of the response.",
    "sampling": "Sampling parameters of the request, as JSON.",
    "request_key": "Hash of everything that decides the response: model, precision, messages, sampling and seed.",
    # annotations
    "response_1_id": "Identifier of the response that is shown first.",
    "response_1": "Text of the response that is shown first.",
    "response_2_id": "Identifier of the response that is shown second.",
    "response_2": "Text of the response that is shown second.",
    "ratings": "Number of further annotators who are asked to rate the response.",
    "seen_by": "Annotators who have rated the response already and are not asked again.",
    "spread": "Highest minus lowest helpfulness rating of the response so far.",
    "annotator_id": "Pseudonym of the annotator.",
    "round": "Round of the rating: 1 for the first annotators, 2 for those who were asked because the first disagreed.",
    "safe": "Whether the annotator considers the response safe; null: not asked.",
    "confidence": "How confident the annotator was: 1 not confident or unable to verify, 2 somewhat, 3 very.",
    "comment": "Comment of the annotator on the response.",
    "lead_time_s": "Time that the annotator took, seconds.",
    "annotated_at": "Time at which the rating was given, UTC.",
    "desk": "Annotation desk that the rating comes from.",
    "simulated": "Whether a simulated annotator gave the rating.",
    "rated_by": "Who gave the ratings: `people`, `simulated annotators` or `language models`.",
    "attribute": "Attribute that the agreement is measured on, one of the five.",
    "stage": "Which ratings the figures are of: `all`, `outliers removed` or `tasks removed`.",
    "responses": "Number of responses that have a rating of the attribute at the stage.",
    "published": "HelpSteer2's published kappa of the attribute at the stage.",
    # data set
    "split": "Split that the prompt is in: `train` or `validation`, by a hash of the prompt.",
    "delivery": "Delivery that the row comes from.",
    "version": "Version of `helpsteer_dataset` that was pushed.",
    "repo": "Repository on the Hugging Face hub that the data set was pushed to.",
    "private": "Whether the profile asks for a private repository.",
    "commit": "Hash of the commit on the Hugging Face hub.",
    "commit_url": "Address of the commit on the Hugging Face hub.",
    # reward models
    "weight": "Weight of the predicted attribute in the goodness that responses are ranked by.",
    "published_70b": "Weight of the attribute that HelpSteer2 published for its 70B reward model.",
    "published_340b": "Weight of the attribute that HelpSteer2 published for its 340B reward model.",
    "tuned_on": "What the weights were found on: held-out preferences, or the benchmark that they were searched on.",
    "penalty": "L2 penalty of the weights, chosen by cross-validation; null where there is none.",
    "pairs": "Number of preferences, or of items of the benchmark, that the weights were found on.",
    # evaluation
    "benchmark": "Name of the benchmark; of published scores `RewardBench`.",
    "subset": "Subset of the benchmark that the item belongs to.",
    "item_id": "Identifier of the item, unique within its subset.",
    "good": "Whether the benchmark holds the response to be right.",
    "characters": "Number of characters in the response.",
    "reward": "Reward that a model trained on preferences predicts; null: not predicted.",
    "goodness": "What the response is ranked by: the predicted reward, or the predicted attributes by their weights.",
    "origin": "Whose figure it is: `ours` or `published`.",
    "level": "What the figure is of: the whole benchmark (`overall`), what is there of a published one (`part`), a `section` or a `subset`.",
    "name": "Name of the benchmark, section or subset that the figure is of.",
    "measure": "What the figure measures: `accuracy`, or a further measure that the benchmark defines.",
    "units": "Number of items, or of questions, that the figure is a mean over; null for published models.",
    "independent": "Number of clusters that the units are of; units of one cluster share a prompt or a problem. Null for published models.",
    "accuracy": "Accuracy of the model, percent.",
    "low": "Lower end of the 95 % bootstrap interval of the accuracy, percent; null for published models.",
    "high": "Upper end of the 95 % bootstrap interval of the accuracy, percent; null for published models.",
    # alignment
    "best": "Whether policies learn the response: of the data the best one to its prompt, of conversations every one.",
    "sample": "Number of the sample among those to its prompt, from 0.",
    "ended": "Whether the response ended by itself; else it was cut off at the most tokens allowed.",
    "tokens": "Number of tokens of the response.",
    "standardised": "Goodness less its mean over the data's responses, in their standard deviations: the reward.",
    "second_goodness": "Goodness by the reward model that watches and is not trained against; null: nobody watches.",
    "log_prob": "Log-probability of the response and its end by the policy, nats; null: too long, or refused by its chat template.",
    "log_prob_before": "The same by the policy that it started from; null: it is a checkpoint before any method.",
    "longest": "Accuracy of always preferring the longest response, percent.",
    "random": "Accuracy that scores drawn at random are expected to reach, percent.",
    "train_seconds": "Wall-clock time of the training, seconds.",
    "train_tokens": "Number of tokens that the model was trained on, without padding.",
    "score_seconds": "Wall-clock time of the scoring, seconds.",
    "score_tokens": "Number of tokens that were scored, without padding.",
    "device": "Device that the model was scored on; of published models the compute of their training.",
    "model_version": "Hash of the reward model's files; null for published models.",
}

_MODELS_LICENCE = "Licence of the model that wrote the response."
_HELD_OUT = (
    "Side that the prompt is on: `train`, or `held_out`, on which policies are evaluated, by a hash of the prompt."
)
_ORIGIN = (
    "What the response is of: the `data`, rated or of pairs, or `conversations` without ratings, whose last turn it is."
)
_OF_ASSET = {
    "conversations": {
        "source": "Source that the conversation comes from, by its name in the profile.",
        "licence": "Licence of the source that the conversation comes from.",
        "turns": "The user's turns, as role and content; what the source's assistant said is not kept.",
        "flags": "Flags that the source set on the conversation: `unsafe`, `redacted`.",
    },
    "contexts": {"model": "Model that wrote the assistant turns; null where the conversation has none."},
    "responses": {"licence": _MODELS_LICENCE},
    "response_pairs": {"licence": _MODELS_LICENCE},
    "initial_annotations": {"flags": "Flags that the annotator set on the response."},
    "annotations": {"flags": "Flags that the annotator set on the response."},
    "annotation_agreement": {"ratings": "Number of ratings of the attribute at the stage."},
    "helpsteer_dataset": {"licence": _MODELS_LICENCE},
    "training_data": {
        "split": "Side that the prompt is on: `train`, or `development` to pick the checkpoint, by a hash of the prompt.",
        "position": "Place of the response among those to the same prompt, from 1.",
    },
    "attribute_weights": {
        "attribute": "Output of the model that the weight is of: one of the five attributes, or `reward`.",
        "rated_by": "Who gave the preferences that the weights were found on: `people`, `simulated annotators` or `language models`; null for a "
        "benchmark.",
    },
    "benchmark_scores": {"response": "Place of the response among those to the item, from 0."},
    "alignment_data": {"split": _HELD_OUT, "origin": _ORIGIN},
    "scored_data": {"split": _HELD_OUT, "origin": _ORIGIN},
    "leaderboard": {
        "model": "Recipe of the reward model, or the published model's name.",
        "source": "Where the figure comes from: measured here, or the publication.",
        "tuned_on": "Benchmark that the weights were searched on; null: none.",
    },
}

_RATING = "Annotator's rating of {}, 0 to 4; null: not rated, or not kept."
_LABEL = "Label of {}: the mean of the kept ratings, rounded to a whole number, 0 to 4."
_OF_ATTRIBUTE = {
    "initial_annotations": _RATING,
    "annotations": _RATING,
    "consensus_annotations": _LABEL,
    "agreed_tasks": _LABEL,
    "helpsteer_dataset": _LABEL,
    "training_data": "Value of {} that the model learns to predict, 0 to 4; null: not rated.",
    "benchmark_scores": "Model's prediction of {}; null: not predicted.",
    **dict.fromkeys(
        ("scored_data", "scored_samples", "policy_rewards"), "Reward model's prediction of {}; null: not predicted."
    ),
}

_FIGURES = {
    "mean": "Mean of the kept ratings of {}.",
    "sd": "Standard deviation of the kept ratings of {}.",
    "n": "Number of kept ratings of {}.",
    "votes": "Numbers of kept ratings of {} that are 0, 1, 2, 3 and 4.",
}

_AGREEMENT = {
    "kappa": "Cohen's kappa with quadratic weights",
    "alpha_interval": "Krippendorff's alpha of interval data",
    "alpha_ordinal": "Krippendorff's alpha of ordinal data",
}
_PARTS = {
    "": "{}.",
    "_low": "Lower end of the 95 % bootstrap interval of {}.",
    "_high": "Upper end of the 95 % bootstrap interval of {}.",
    "_null": "{} by chance: of shuffled ratings after the same selection.",
}
_EVERYWHERE |= {name + part: says.format(what) for name, what in _AGREEMENT.items() for part, says in _PARTS.items()}


def descriptions() -> set[str]:
    """All that is said of a column."""
    of_assets = (says for columns in _OF_ASSET.values() for says in columns.values())
    of_figures = (says.format(attribute) for says in _FIGURES.values() for attribute in ATTRIBUTES)
    of_attributes = (says.format(attribute) for says in _OF_ATTRIBUTE.values() for attribute in ATTRIBUTES)
    return {*_EVERYWHERE.values(), *of_attributes, *of_assets, *of_figures}


def describe(asset: str, column: str) -> str | None:
    """What a column of an asset's table holds; None where nothing is known of it.

    asset: the first part of its key, `responses` for `responses/careful`.
    """
    if column in ATTRIBUTES and asset in _OF_ATTRIBUTE:
        return _OF_ATTRIBUTE[asset].format(column)
    attribute, _, figure = column.rpartition("_")
    if attribute in ATTRIBUTES and figure in _FIGURES:
        return _FIGURES[figure].format(attribute)
    return _OF_ASSET.get(asset, {}).get(column) or _EVERYWHERE.get(column)
