"""What answers cost: tokens, seconds of the device, money by the profile's prices."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.settings import Checkpoint


def account(mine: pa.Table, together: pa.Table, seconds: float, checkpoint: Checkpoint) -> dict[str, Any]:
    """Tokens, device seconds and cost of one generator's responses, for its metadata.

    mine: its responses, together: those of all generators that were answered with it (schema RESPONSES), seconds: of generation in this
    run. Device seconds are shared by output tokens, times the devices of all its replicas; answers kept from earlier runs took theirs
    then. Tokens are those of all responses, whenever they were written. Cost is absent where the profile has no price.
    """
    prompt, output = (int(pc.sum(mine[f"{kind}_tokens"]).as_py() or 0) for kind in ("prompt", "output"))
    everyone = int(pc.sum(together["output_tokens"]).as_py() or 0)
    device = seconds * checkpoint.tensor_parallel * checkpoint.replicas * output / everyone if everyone else 0.0
    found: dict[str, Any] = {
        "prompt tokens": prompt,
        "output tokens": output,
        "device seconds of this run": round(device, 1),
    }
    price = checkpoint.price
    parts = (prompt * price.input_million / 1e6, output * price.output_million / 1e6, device * price.device_hour / 3600)
    if any((price.input_million, price.output_million, price.device_hour)):
        found[f"cost ({price.currency})"] = round(sum(parts), 4)
    return found
