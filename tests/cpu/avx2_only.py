"""A process that believes to be on a CPU with AVX2 only: without AVX-512, VNNI, AMX, BF16 and FP16.

    .venv/bin/python -m tests.cpu -- .venv/bin/python -m pytest tests/export

What it starts believes it too. It is for the arithmetic: the clock rate and the caches stay those of the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("avx2_only.c")
HIDDEN = re.compile(r" (avx512\w*|avx_vnni\w*|avx_ifma|avx_ne_convert|avx10\w*|amx_\w*)")
"""What the C source hides, by the names in /proc/cpuinfo."""


class NotPossibleError(Exception):
    """This machine cannot hide instruction sets; the message says why."""


@cache
def _folder() -> Path:
    """Build the preloaded library in a folder that every user can read, as PostgreSQL's: it is kept, 20 kB."""
    gcc = shutil.which("gcc")
    if gcc is None:
        raise NotPossibleError("instruction sets are hidden by a library in C, and there is no gcc")
    folder = Path(tempfile.gettempdir()) / f"estudio-avx2-only-{os.getuid()}-{SOURCE.stat().st_mtime_ns}"
    if not folder.is_dir() or folder.stat().st_uid != os.getuid():
        work = Path(tempfile.mkdtemp(prefix=f"{folder.name}."))
        build = [
            gcc,
            "-O1",
            "-Wall",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
            str(work / "avx2_only.so"),
            str(SOURCE),
            "-ldl",
        ]
        done = subprocess.run(build, capture_output=True, text=True)
        if done.returncode:
            raise NotPossibleError(f"{SOURCE.name} cannot be built on this machine: {done.stderr.strip()[:300]}")
        (work / "cpuinfo").write_text(HIDDEN.sub("", Path("/proc/cpuinfo").read_text()))
        work.chmod(0o755)
        try:
            work.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(work)
    return folder


@cache
def avx2_only_environment() -> dict[str, str]:
    """Return the environment variables, beside a process's own, that hide what is beyond AVX2 from it.

    Raises:
        NotPossibleError: there is no gcc, or neither kernel nor CPU lets CPUID fault.
    """
    folder = _folder()
    added = {"LD_PRELOAD": str(folder / "avx2_only.so"), "ESTUDIO_TEST_CPUINFO": str(folder / "cpuinfo")}
    tried = subprocess.run([sys.executable, "-c", ""], env=os.environ | added, capture_output=True, text=True)
    if tried.returncode:
        raise NotPossibleError(
            tried.stderr.strip() or f"a process with hidden instruction sets ends: {tried.returncode}"
        )
    return added
