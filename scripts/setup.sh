#!/usr/bin/env bash
# Make .venv with the locked dependencies and this project in it (editable). Safe to run again at any time.
# Environment: PYTHON (interpreter to use), EXTRAS (extras of pyproject.toml), TORCH_BACKEND (see python_packages.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV
began=$SECONDS

step() { printf '\n[%s/3] %s\n' "$1" "$2"; }
fail() { printf '\nSet-up stopped: %s\n' "$1" >&2; exit 1; }

new_enough() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

choose_python() {
  local candidate
  if [[ -n "${PYTHON:-}" ]]; then
    new_enough "$PYTHON" || fail "PYTHON=$PYTHON is not a Python from 3.11 to 3.13."
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "Python 3.11, 3.12 or 3.13 is needed and none is on PATH (python3 is $(python3 --version 2>&1 || true)).
Install one, or name it: make setup PYTHON=/path/to/python3.11"
}

python="$(choose_python)"
step 1 "Virtual environment .venv ($("$python" --version))"
rm -f .venv/.estudio-ready
if ! { [[ -x .venv/bin/python ]] && new_enough .venv/bin/python; }; then
  "$python" -c 'import ensurepip' 2>/dev/null ||
    fail "$python has no venv module. On Debian and Ubuntu: apt install $(basename "$python")-venv"
  rm -rf .venv
  "$python" -m venv .venv
fi
.venv/bin/python -c 'import uv' 2>/dev/null || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv

source scripts/python_packages.sh
# Another build of the same version would count as installed.
[[ -z "${TORCH_BACKEND:-}" ]] || torch_options+=(--reinstall-package torch)
uv=(.venv/bin/python -m uv)
locked="$(mktemp)"
trap 'rm -f "$locked"' EXIT
overrides=()
case ",${EXTRAS:-}," in
  # Both packages install the same module: the lock's one for the CPU stays out.
  *,gpu,*) grep -v '^onnxruntime==' requirements.lock >"$locked"
           overrides=(--override scripts/gpu.overrides.txt)
           "${uv[@]}" pip uninstall --quiet --python .venv/bin/python onnxruntime ;;
  *) cat requirements.lock >"$locked" ;;
esac

step 2 "$(wc -l <"$locked" | tr -d ' ') locked packages"
install() { "${uv[@]}" pip install --python .venv/bin/python "$@" -r "$locked"; }
if ! install ${torch_options[@]+"${torch_options[@]}"}; then
  ((${#torch_options[@]})) || fail "the packages above could not be installed. Check the network, then run it again."
  printf "\nTrying again with torch from the ordinary package index, a larger download (TORCH_BACKEND=pypi).\n"
  torch_options=()
  install || fail "the packages above could not be installed. Check the network, then run it again."
fi

step 3 "Estudio itself${EXTRAS:+ with $EXTRAS}"
if [[ -n "${EXTRAS:-}" ]]; then
  "${uv[@]}" pip install --python .venv/bin/python ${torch_options[@]+"${torch_options[@]}"} ${overrides[@]+"${overrides[@]}"} \
    -c "$locked" -e ".[$EXTRAS]"
else
  "${uv[@]}" pip install --quiet --python .venv/bin/python --no-deps -e .
fi
touch .venv/.estudio-ready
printf '\nReady after %d s.\n' "$((SECONDS - began))"
