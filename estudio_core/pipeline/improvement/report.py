"""The report of one improvement, as a small page and as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, select_autoescape

from estudio_core.pipeline.manifests import ImprovementManifest

if TYPE_CHECKING:
    from estudio_core.evaluation.evaluate import QueryMetrics

IMPROVEMENT_STEP = "improvement"
"""Step under which the report and the moved vectors of a run are published."""

_MOST_QUERIES = 20
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Improvement of {{ plugin }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .8rem; text-align: left }
tr { border-bottom: 1px solid #d8dee4 } td.n { text-align: right; font-variant-numeric: tabular-nums }
</style>
<h1>Improvement of {{ plugin }}: {{ m.state }}</h1>
<p>{{ m.reason }}</p>
<table>
<tr><th>Release</th><td>{{ m.release_id }}</td></tr>
<tr><th>Sessions that moved vectors</th><td>{{ m.sessions }}, from {{ m.since }} to {{ m.until }}</td></tr>
<tr><th>Moved</th><td>{{ m.objects }} objects{% if m.users %} of {{ m.users }} users{% endif %}</td></tr>
<tr><th>Held-out queries</th><td>{{ m.held_out_queries }}, none of which moved anything</td></tr>
<tr><th>{{ m.metric }}, model's own vectors</th><td>{{ "%.4f"|format(m.base) }}</td></tr>
<tr><th>Gain of the moved ones</th><td>{{ "%+.4f [%+.4f, %+.4f]"|format(m.gain, m.gain_low, m.gain_high) }}</td></tr>
</table>
<p>Moved vectors belong to this release: the next one starts from what its model gives.</p>
<h2>Held-out queries that changed most</h2>
<table><tr><th>Query</th><th>Before</th><th>After</th></tr>
{% for query, before, after in changes -%}
<tr><td>{{ query }}</td><td class="n">{{ "%.3f"|format(before) }}</td><td class="n">{{ "%.3f"|format(after) }}</td></tr>
{% else -%}
<tr><td colspan="3">None.</td></tr>
{% endfor -%}
</table>
</html>
"""


def write_report(folder: Path, plugin: str, manifest: ImprovementManifest, results: Mapping[str, QueryMetrics]) -> None:
    """Write `report.html` and `report.json` into `folder`; `results` has the queries' metrics, `base` and `moved`."""
    base, moved = results["base"], results["moved"]
    before, after = base.values[manifest.metric].tolist(), moved.values[manifest.metric].tolist()
    rows = [row for row in zip(base.queries, before, after, strict=True) if row[1] != row[2]]
    rows.sort(key=lambda row: (-abs(row[2] - row[1]), row[0]))
    page = Environment(autoescape=select_autoescape(default_for_string=True)).from_string(_PAGE)
    html = page.render(plugin=plugin, m=manifest, changes=rows[:_MOST_QUERIES])
    (folder / "report.html").write_text(html, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(manifest.as_dict(), indent=1) + "\n", encoding="utf-8")
