"""The record of the asset graph, `graph.json`. `python -m tests.orchestration.graph` writes it anew."""

import json
from pathlib import Path

from pipeline.definitions import build_defs
from pipeline.settings import load_profile

RECORD = Path(__file__).with_name("graph.json")


def graph() -> dict[str, dict[str, object]]:
    """Group and dependencies of each asset of the profile `tiny`."""
    specs = build_defs(load_profile("tiny")).resolve_all_asset_specs()
    return {
        s.key.to_user_string(): {"group": s.group_name, "deps": sorted(d.asset_key.to_user_string() for d in s.deps)}
        for s in specs
    }


if __name__ == "__main__":
    RECORD.write_text(json.dumps(dict(sorted(graph().items())), indent=1) + "\n")
