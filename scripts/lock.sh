#!/usr/bin/env bash
# Resolve pyproject.toml (extras `s3` and `dev`, which holds all that development needs) into requirements.lock.
# The lock names versions only: no hosts, no hashes, and torch without the suffix of one build (+cpu, +cu128).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/python_packages.sh

resolved="$(mktemp)"
trap 'rm -f "$resolved"' EXIT
((${#torch_options[@]} == 0)) || torch_options=(--torch-backend cpu)
.venv/bin/python -m uv pip compile pyproject.toml --extra dev --extra s3 --python-version 3.11 --quiet --upgrade \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
  ${torch_options[@]+"${torch_options[@]}"} --output-file "$resolved"
sed -E 's/^([A-Za-z0-9._-]+==[^+; ]+)\+[A-Za-z0-9.]+/\1/' "$resolved" | grep -vE '^estudio(\[|==| |$)' >requirements.lock
grep -qE '^torch==2\.13\.' requirements.lock || { echo "torch was not resolved to 2.13" >&2; exit 1; }
printf '%s packages in requirements.lock\n' "$(wc -l <requirements.lock | tr -d ' ')"
