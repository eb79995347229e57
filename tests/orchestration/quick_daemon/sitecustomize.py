"""On the path of a `dagster dev` for tests: its daemon looks at backfills every second, not every half minute. All else is as it comes."""

import sys

if "dagster._daemon" in sys.orig_argv:
    from dagster._daemon import controller

    assert controller.DEFAULT_DAEMON_INTERVAL_SECONDS
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
