"""The command `plan` of `python -m pipeline.alignment`: its options, and the tables that it prints."""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

from rich.table import Column, Table

from pipeline.alignment.planning.costs import ENGINE_MEMORY, SHARE_OF_BANDWIDTH, Machine, Need
from pipeline.alignment.planning.data import MEAN_PROMPT, MEAN_RESPONSE, Data
from pipeline.alignment.planning.parts import WORK, MethodPlan, Work
from pipeline.alignment.planning.plan import data_of, plan, reported, stated
from pipeline.commands import add_profile, console
from pipeline.reward_model import rows
from pipeline.reward_model.planning.options import add_characters_per_token, add_device, short
from pipeline.reward_model.planning.plan import HEADROOM, device_of
from pipeline.reward_model.planning.published import GPUS_A_NODE
from pipeline.reward_model.planning.shapes import PlanError
from pipeline.settings import Profile, load_profile

WORK_NAMES: Mapping[Work, str] = {
    "sampling": "samples",
    "scoring": "rewards",
    "reading": "log-probabilities",
    "training": "training",
    "again": "activations again",
    "evaluations": "evaluations",
    "judging": "policy_rewards",
}


def add_plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command; its arguments' `run` plans, and prints it. Raises ValueError and OSError with the reason where it can't."""
    command = commands.add_parser(
        "plan",
        help="print the steps, tokens, operations, memory, GPUs and hours that methods take, before they run",
        description="Print the steps, tokens, operations, memory, GPUs and hours that a profile's methods take, before they run. The data are "
        "FILE, or numbers; where none are given, the original's for its model, else what the profile collects.",
    )
    command.set_defaults(run=_plan)
    command.add_argument(
        "input",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="file of rated responses or pairs to plan for, whose name ends in " + ", ".join(rows.ENDINGS),
    )
    add_profile(command)
    command.add_argument("--method", metavar="NAME", help="method of the profile to plan (default: all of them)")
    counts = {
        "--prompts": "number of prompts with a response to learn, each of which is a conversation of SFT",
        "--rows": "number of responses that the reward model rates (default: two a prompt)",
        "--pairs": "number of preferences (default: one a prompt)",
    }
    for option, what in counts.items():
        command.add_argument(option, type=int, metavar="N", help=what)
    command.add_argument("--mean-prompt-tokens", type=float, metavar="T", help="mean number of tokens of a prompt")
    command.add_argument("--mean-response-tokens", type=float, metavar="T", help="mean number of tokens of a response")
    add_characters_per_token(command)
    add_device(command)
    command.add_argument(
        "--bandwidth-gbs", type=float, metavar="B", help="bandwidth of the device's memory, in GB a second"
    )
    command.add_argument(
        "--bandwidth-share",
        type=float,
        default=SHARE_OF_BANDWIDTH,
        metavar="S",
        help="share of the memory's bandwidth that sampling reaches (default: %(default)s)",
    )


def _plan(options: argparse.Namespace) -> None:
    if not options.characters_per_token > 0:
        raise PlanError("--characters-per-token: must be above 0")
    profile = load_profile(options.profile)
    sheet = (options.peak_tflops, options.float32_tflops, options.memory_gb, options.bandwidth_gbs)
    machine = Machine(device_of(options.device, *sheet), options.share, options.bandwidth_share)
    data = _data(profile, options)
    plans = plan(profile, data, machine, options.method, options.characters_per_token)
    if options.json:
        print(json.dumps(reported(plans, data, machine, profile)))
    else:
        show(plans, data, machine, profile)


def _data(profile: Profile, options: argparse.Namespace) -> Data:
    """What is planned for: a file's rows, or numbers, of which those not given are `data_of` the profile."""
    given = {name: n for name in ("prompts", "rows", "pairs") if (n := getattr(options, name)) is not None}
    means = (options.mean_prompt_tokens, options.mean_response_tokens)
    if options.input:
        if given or any(mean is not None for mean in means):
            raise PlanError("plan: give either a file or numbers, not both")
        found = rows.read(options.input)
        return Data.of_tables(found.rated, found.preferred, options.characters_per_token, options.input.name)
    counts, said = data_of(profile)
    if "prompts" in given:
        n = given["prompts"]
        counts, said = {"prompts": n, "rows": 2 * n, "pairs": n}, "the numbers given"
    elif not counts:
        raise PlanError(f"profile {profile.name} doesn't say how much it is to tune on; give a file, or --prompts")
    elif given:
        said += ", but for the numbers given"
    prompt, response = (
        default if mean is None else mean for mean, default in zip(means, (MEAN_PROMPT, MEAN_RESPONSE), strict=True)
    )
    lengths = "HelpSteer2's mean lengths" if None in means else "the mean lengths given"
    return Data.of_counts(**(counts | given), prompt=prompt, response=response, said=f"{said}; {lengths}")


# ------------------------------------------------------------------------------------------------------------------------------ tables


def show(plans: Sequence[MethodPlan], data: Data, machine: Machine, profile: Profile) -> None:
    """Print plans as tables, with what they rest on."""
    for table in (_methods(plans), _work(plans), _memory(plans)):
        console.print(table)
    if hours := stated(profile, plans):
        shown = Table(
            "kind",
            "stated",
            "planned",
            title="Node-hours that HelpSteer2 states for its methods, and those of this plan",
        )
        for kind, pair in hours.items():
            shown.add_row(kind, *(f"{h:,.1f}" for h in pair))
        console.print(shown)
        console.print(
            "What the stated hours hold besides (searches over learning rates, validation, generation that was not optimised, ...) isn't said: "
            "they are no check of this plan."
        )
    console.print(
        f"Planned for {data.prompts:,} prompts, {data.rows:,} responses and {data.pairs:,} pairs, of which {_held_out(profile):.0%} are held out: "
        f"{data.said}. A response that is sampled is as long as those, but no longer than the method allows."
    )
    device = machine.device
    bandwidth = "an unknown number of" if device.bandwidth is None else f"{device.bandwidth / 1e9:,g}"
    console.print(
        f"{device.name}: {device.bfloat16 / 1e12:g} teraFLOPS in bfloat16, {device.float32 / 1e12:g} in float32, {device.memory / 1e9:g} GB, of "
        f"which {HEADROOM:.0%} stay free ({1 - ENGINE_MEMORY:.0%} beside vLLM), {bandwidth} GB a second; {machine.share:.0%} of peak and "
        f"{machine.bandwidth_share:.0%} of bandwidth are assumed. A node has {GPUS_A_NODE} devices."
    )
    for line in dict.fromkeys((*(note for p in plans for note in p.notes), *_limits(plans))):
        console.print(line)


def _held_out(profile: Profile) -> float:
    return profile.alignment.held_out_share if profile.alignment else 0.0


def _folding(*names: str) -> list[Column]:
    return [Column(name, overflow="fold") for name in names]


def _methods(plans: Sequence[MethodPlan]) -> Table:
    names = [Column(name, no_wrap=True) for name in ("method", "trained on")]
    figures = _folding("steps", "parameters", "tokens sampled (at most)", "tokens learned")
    table = Table(*names, *figures, title="Methods")
    for p in plans:
        if not p.kind:
            continue
        size = short(p.parameters) + (f", {short(p.trained)} trained" if 0 < p.trained < p.parameters else "")
        sampled = f"{short(p.sampled)} ({short(p.sampled_most)})" if p.sampled else "-"
        steps, learned = (f"{p.steps:,}", short(p.learned)) if p.steps else ("-", "-")
        table.add_row(p.name, f"{p.units:,} {p.unit}", steps, size, sampled, learned)
    return table


def _work(plans: Sequence[MethodPlan]) -> Table:
    """Rows of the work of each plan, and of all."""
    table = Table(*_folding("method", "work", "tokens", "operations", "GPU-hours"), title="Work")
    whole = [reduce(MethodPlan.beside, plans, MethodPlan("all"))] if len(plans) > 1 else []
    for p in (*plans, *whole):
        works = [(WORK_NAMES[work], p.costs[work]) for work in WORK if work in p.costs and p.costs[work].operations]
        rows = [*works, ("all", p.total)] if len(works) > 1 else works
        for n, (name, cost) in enumerate(rows):
            hours = f"{cost.gpu_hours:,.2f}" if cost.gpu_hours >= 0.005 else "< 0.01"
            cells = ("" if n else p.name, name, short(cost.tokens), f"{cost.operations:.2e}", hours)
            table.add_row(*cells, end_section=n == len(rows) - 1)
    return table


def _memory(plans: Sequence[MethodPlan]) -> Table:
    columns = _folding("process", "methods", "GPUs", "states", "whole", "activations", "logits of these")
    table = Table(*columns, title="Memory of a GPU, on the fewest that hold a process")
    by: dict[Need, list[str]] = {}
    for p in plans:
        for need in p.needs:
            if p.name not in by.setdefault(need, []):
                by[need].append(p.name)
    for need, of in by.items():
        memory, some = need.memory, ", ".join(of) if len(of) < 4 else f"{of[0]} and {len(of) - 1} more"
        parts = (memory.states, memory.whole, memory.activations, need.logits)
        gpus = "too large" if memory.gpus is None else f"{memory.gpus:,}"
        table.add_row(need.process, some, gpus, *(f"{part / 1e9:,.1f} GB" for part in parts))
    return table


def _limits(plans: Sequence[MethodPlan]) -> list[str]:
    """What stands in the way of running plans."""
    needs, said = [need for p in plans for need in p.needs], list[str]()
    several = [n for n in needs if n.process == "training" and n.memory.gpus != 1]
    if several:
        said.append(
            "The worker trains in one process, on one GPU. More are what it would take if weights, gradients and optimiser were sharded over "
            "them, as reward models' are (FSDP): that is not there yet."
        )
    if any(n.memory.gpus is None for n in several):
        said.append(
            "A training that is too large here is so on any number of GPUs: what doesn't shrink with it (whole, activations) is more than one "
            "has. Turn on gradient_checkpointing where the method has it, or lower micro_batch_tokens or max_tokens."
        )
    if alone := sorted({n.process for n in needs if n.memory.gpus is None and n.process not in ("training", "engine")}):
        said.append(f"{', '.join(alone)}: in float32, with all weights on one GPU, which doesn't hold them.")
    if any(n.memory.gpus is None for n in needs if n.process == "engine"):
        said.append("engine: no number of GPUs that divides the model's heads holds its weights and one whole context.")
    return said
