"""Tokenizers in an application with threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OPEN_IN_MANY_THREADS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from estudio_core.preprocessing.splitters.tokenizers import LazyTokenizer

together = threading.Barrier(8)

def work(_):
    together.wait()
    return LazyTokenizer(sys.argv[1]).get()

with ThreadPoolExecutor(8) as pool:
    print(len(list(pool.map(work, range(8)))))
"""


def test_the_first_tokenizer_of_a_process_may_be_opened_by_many_threads_at_once(minilm_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_IN_MANY_THREADS, str(minilm_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "8\n", done.stderr
