"""What the commands that plan have in common: options of the device, and how counts are written."""

import argparse

from pipeline.reward_model.planning.plan import SHARE_OF_PEAK
from pipeline.reward_model.planning.published import CHARACTERS_A_TOKEN, DEVICES


def add_characters_per_token(command: argparse.ArgumentParser) -> None:
    """Add the option by which a file's characters are taken for tokens."""
    command.add_argument(
        "--characters-per-token",
        type=float,
        default=CHARACTERS_A_TOKEN,
        metavar="C",
        help="number of characters that a token of FILE has on average (default: %(default)s, for English under Llama 3's tokenizer)",
    )


def add_device(command: argparse.ArgumentParser) -> None:
    """Add the options that say what is planned for, and whether JSON is printed."""
    command.add_argument(
        "--device",
        default="H100",
        metavar="NAME",
        help=f"device to plan for: {', '.join(DEVICES)}, or another with its figures in the options below (default: H100)",
    )
    command.add_argument(
        "--peak-tflops",
        type=float,
        metavar="X",
        help="peak teraFLOPS of the device in bfloat16, from a measurement for example",
    )
    command.add_argument(
        "--float32-tflops",
        type=float,
        metavar="X",
        help="peak teraFLOPS of the device in float32, for recipes that compute in it",
    )
    command.add_argument("--memory-gb", type=float, metavar="G", help="memory of one device, in GB")
    command.add_argument(
        "--share",
        type=float,
        default=SHARE_OF_PEAK,
        metavar="S",
        help="share of the peak that training reaches (default: %(default)s)",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")


def short(count: float) -> str:
    """A count in thousands, millions, billions."""
    scale, unit = next(((s, u) for s, u in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if count >= s), (1.0, ""))
    return f"{count / scale:.3g}{unit}"
