# Where uv takes packages from. Sourced by setup.sh and lock.sh.
#
# pip's settings of this machine are handed on to uv, which does not read them. torch comes in a build for the machine:
# from a folder of wheels where one is configured, else from PyTorch's index for the hardware found (TORCH_BACKEND=auto),
# for a named one (TORCH_BACKEND=cpu, cu128, …), or from the ordinary index (TORCH_BACKEND=pypi).

with_commas() { tr -s ' ' ',' <<<"$1" | sed 's/^,//; s/,$//'; }

if [[ -z "${UV_FIND_LINKS:-}" && -n "${PIP_FIND_LINKS:-}" ]]; then
  UV_FIND_LINKS="$(with_commas "$PIP_FIND_LINKS")"
  export UV_FIND_LINKS
fi
if [[ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" && -n "${PIP_INDEX_URL:-}" ]]; then
  export UV_DEFAULT_INDEX="$PIP_INDEX_URL"
fi
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"

torch_options=()
if [[ -z "${UV_FIND_LINKS:-}" && "${TORCH_BACKEND:-auto}" != pypi ]]; then
  torch_options=(--torch-backend "${TORCH_BACKEND:-auto}")
fi
