"""`python -m tests.cpu -- COMMAND...` runs a command as on a CPU with AVX2 only."""

from __future__ import annotations

import os
import sys

from tests.cpu.avx2_only import NotPossibleError, avx2_only_environment

command = sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]
if not command:
    sys.exit("Usage: python -m tests.cpu -- COMMAND...")
try:
    added = avx2_only_environment()
except NotPossibleError as error:
    sys.exit(f"tests.cpu: {error}")
os.execvpe(command[0], command, os.environ | added)
