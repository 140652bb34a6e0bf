"""The embedded database starts once, whoever asks for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from estudio_core import embedded_postgres


def test_threads_that_start_it_at_once_all_get_it(databases_folder: Path) -> None:
    folder = databases_folder / "at-once"
    try:
        with ThreadPoolExecutor(6) as threads:
            urls = {found.result() for found in [threads.submit(embedded_postgres.start, folder) for _ in range(6)]}
        assert len(urls) == 1
    finally:
        assert embedded_postgres.stop(folder)
