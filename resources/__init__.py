"""The outside world, swappable: where data lies, where workers run, who annotates."""
