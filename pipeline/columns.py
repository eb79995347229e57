"""What the columns of published tables hold, for the UI: a name means one thing in every table, but for a few whose meaning is told by asset."""

from pipeline.vocabulary import ATTRIBUTES

_EVERYWHERE = {
    # prompts
    "conversation_id": "Hash of the source's name and the user's turns: outlives new file names and order.",
    "prompt_id": "Hash of the user's turns, whatever their case, white space and Unicode form.",
    "source": "Name of the source in the profile.",
    "licence": "Of the source.",
    "turns": "The user's turns; the last one is to be answered.",
    "n_turns": "User turns.",
    "n_characters": "Characters of all user turns.",
    "language": "Most likely language, ISO 639-1.",
    "language_probability": "Of that language, 0 to 1.",
    "flags": "Of filters that flag, and of the source: `unsafe`, `redacted`, `EMAIL_ADDRESS`, ...",
    "topic": "Number of the topic; a published topic keeps it.",
    "topic_name": "The words that weigh most in the topic.",
    "complexity": "1 to 5, by the number of intentions and constraints.",
    # responses
    "messages": "The conversation up to the user turn that is to be answered: role and content.",
    "generator": "Slot of the profile.",
    "model": "That wrote the response.",
    "model_revision": "Revision or hash of that model's weights.",
    "position": "1 or 2: the order in which annotators see the responses.",
    "seed": "Of the response's sampling.",
    "response_id": "Hash of prompt, generator and request.",
    "response": "The response.",
    "finish_reason": "`stop`, `length` or `refused`.",
    "detail": "Why a request was refused.",
    "prompt_tokens": "Tokens of the conversation, with its template.",
    "output_tokens": "Tokens of the response.",
    "sampling": "Sampling parameters, JSON.",
    "request_key": "Hash of everything that decides the answer: model, precision, messages, sampling, seed.",
    "empty_turns": "Assistant turns of the conversation for which the model wrote nothing.",
    # annotations
    "response_1_id": "Of the response that is shown first.",
    "response_1": "The response that is shown first.",
    "response_2_id": "Of the response that is shown second.",
    "response_2": "The response that is shown second.",
    "ratings": "How many further annotators are asked for.",
    "seen_by": "Annotators who are not asked again.",
    "spread": "Greatest less least helpfulness rating so far.",
    "annotator_id": "Pseudonym.",
    "round": "1: the first annotators; 2: asked because those disagreed.",
    "safe": "Whether the annotator holds the response to be safe; null: not asked.",
    "confidence": "1 not confident, or unable to verify; 2 somewhat; 3 very.",
    "comment": "The annotator's words.",
    "lead_time_s": "Seconds that the annotator took.",
    "annotated_at": "When the rating was given, UTC.",
    "desk": "Where the rating comes from.",
    "simulated": "Whether a simulated annotator gave it.",
    "rated_by": "`people`, `simulated annotators` or `language models`.",
    "attribute": "One of the five attributes.",
    "stage": "Which ratings: `all`, `outliers removed`, `tasks removed`.",
    "responses": "Responses that have a rating.",
    "published": "HelpSteer2's kappa.",
    # data set
    "split": "`train` or `validation`, by a hash of the prompt.",
    "delivery": "Partition that the row comes from.",
    "version": "Of `helpsteer_dataset`.",
    "repo": "Repository on the hub.",
    "private": "Whether the repository was to be private.",
    "commit": "On the hub.",
    "commit_url": "On the hub.",
    # reward models
    "weight": "What the attribute's prediction counts in the reward.",
    "published_70b": "Weight in HelpSteer2's 70B model.",
    "published_340b": "Weight in HelpSteer2's 340B model.",
    "tuned_on": "Held-out preferences, or the benchmark that the weights were searched on.",
    "penalty": "L2, chosen by cross-validation; null where there is none.",
    "pairs": "Preferences, or items of that benchmark, that the weights were found on.",
    # evaluation
    "benchmark": "Name of the benchmark in the profile.",
    "subset": "Of the benchmark.",
    "item_id": "Once in a subset.",
    "good": "Whether the benchmark holds the response to be right.",
    "characters": "Of the response.",
    "reward": "Predicted, of a model that learnt from preferences; null: not predicted.",
    "goodness": "What responses are ordered by: the reward, or the attributes by their weights.",
    "origin": "`ours` or `published`.",
    "level": "`overall` or `section`.",
    "name": "Of the section.",
    "measure": "What `accuracy` measures.",
    "units": "Items, or questions, that the figure is a mean over.",
    "accuracy": "Percent.",
    "low": "Lower end of the 95 % bootstrap interval, percent.",
    "high": "Upper end of the 95 % bootstrap interval, percent.",
    "longest": "Percent of always preferring the longer response.",
    "random": "Percent expected of scores drawn at random.",
    "train_seconds": "Wall clock of the training.",
    "train_tokens": "Tokens trained on, without padding.",
    "score_seconds": "Wall clock of the scoring.",
    "score_tokens": "Tokens scored, without padding.",
    "device": "What it was scored on; of published models, what they were trained on.",
    "model_version": "Of the published model.",
}

_OF_ASSET = {
    "conversations": {
        "turns": "The user's turns, role and content; what a source's assistant said is not kept.",
        "flags": "What the source says of it: `unsafe`, `redacted`.",
    },
    "contexts": {"model": "That wrote the assistant turns; null where there are none."},
    "responses": {"licence": "Of the model."},
    "response_pairs": {"licence": "Of the model."},
    "initial_annotations": {"flags": "The annotator's."},
    "annotations": {"flags": "The annotator's."},
    "annotation_agreement": {"ratings": "Ratings of this attribute at this stage."},
    "helpsteer_dataset": {"licence": "Of the model that wrote the response."},
    "training_data": {
        "split": "`train` or `development`, by a hash of the prompt.",
        "position": "Of the response among those of its prompt, from 1.",
    },
    "attribute_weights": {
        "attribute": "One of the five attributes, or `reward`.",
        "rated_by": "Who preferred: `people`, `simulated annotators` or `language models`; null for a benchmark.",
    },
    "benchmark_scores": {"response": "Its place among the item's responses, from 0."},
    "leaderboard": {
        "model": "Recipe, or the published model's name.",
        "source": "Where the figure comes from.",
        "tuned_on": "The benchmark that the weights were searched on; null: none.",
    },
}

_RATING = "The annotator's rating, 0 to 4; null: not rated, or not kept."
_LABEL = "Label: the mean of the kept ratings, rounded; 0 to 4."
_OF_ATTRIBUTE = {
    "initial_annotations": _RATING,
    "annotations": _RATING,
    "consensus_annotations": _LABEL,
    "agreed_tasks": _LABEL,
    "helpsteer_dataset": _LABEL,
    "training_data": "Target, 0 to 4; null: not rated.",
    "benchmark_scores": "Predicted; null: not predicted.",
}

_FIGURES = {
    "mean": "Mean of the kept ratings of {}.",
    "sd": "Standard deviation of the kept ratings of {}.",
    "n": "Kept ratings of {}.",
    "votes": "How many annotators said 0, 1, 2, 3 and 4 for {}.",
}

_AGREEMENT = {
    "kappa": "Cohen's kappa, quadratic weights",
    "alpha_interval": "Krippendorff's alpha, interval",
    "alpha_ordinal": "Krippendorff's alpha, ordinal",
}
_PARTS = {
    "": "{}.",
    "_low": "{}: lower end of the 95 % bootstrap interval.",
    "_high": "{}: upper end of the 95 % bootstrap interval.",
    "_null": "{}, of ratings by chance to which the same selection was applied.",
}
_EVERYWHERE |= {name + part: says.format(what) for name, what in _AGREEMENT.items() for part, says in _PARTS.items()}


def descriptions() -> set[str]:
    """All that is said of a column."""
    of_assets = (says for columns in _OF_ASSET.values() for says in columns.values())
    of_figures = (says.format(attribute) for says in _FIGURES.values() for attribute in ATTRIBUTES)
    return {*_EVERYWHERE.values(), *_OF_ATTRIBUTE.values(), *of_assets, *of_figures}


def describe(asset: str, column: str) -> str | None:
    """What a column of an asset's table holds; None where nothing is known of it.

    asset: the first part of its key, `responses` for `responses/careful`.
    """
    if column in ATTRIBUTES and asset in _OF_ATTRIBUTE:
        return _OF_ATTRIBUTE[asset]
    attribute, _, figure = column.rpartition("_")
    if attribute in ATTRIBUTES and figure in _FIGURES:
        return _FIGURES[figure].format(attribute)
    return _OF_ASSET.get(asset, {}).get(column) or _EVERYWHERE.get(column)
