"""What `docs/logs.md` shows is carried out: rows by SQL and from Python, and what becomes of them."""

from __future__ import annotations

import re
from pathlib import Path

from estudio_core import ClickstreamStore, database

PAGE = (Path(__file__).parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")


def test_the_statements_and_the_calls_log_a_search_and_its_click(estudio_home: Path) -> None:
    [statements] = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with database.connect() as connection:
        for _ in range(2):
            connection.execute(statements)
    exec(compile(code, "docs/logs.md", "exec"), {})
    with database.connect() as connection:
        first, second = ClickstreamStore(connection).sessions("books")
    assert [result.object_id for result in first.search_results] == ["31", "7", "12"]
    assert (first.release, [(e.object_id, e.importance) for e in first.events]) == ("4", [("7", 1.0)])
    assert [(e.object_id, e.importance) for e in second.events] == [("7", 2.0)]
