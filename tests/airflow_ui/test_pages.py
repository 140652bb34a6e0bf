"""What the Estudio page shows, made of a filled database; nothing heavy is imported to make it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from estudio_core import database
from estudio_core.airflow_ui import content, pages
from estudio_core.artifacts import ArtifactStore
from estudio_core.improvement import ledger as improvements
from estudio_core.monitoring import ledger as monitoring
from estudio_core.promotion import ledger
from estudio_core.promotion.trainings import note_training
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.releases import start_release

MARKUP = "<script>alert('x')</script>"


@pytest.fixture
def filled(estudio_home: Path) -> None:
    """Two releases of `shop`, of which the second serves, with all that led there."""
    now = datetime.now(UTC)
    with database.connect() as connection:
        made = []
        for number, state in ((1, "previous"), (2, "live")):
            run = f"run-{number}"
            release = start_release(
                connection, "shop", f"shop_v{number}", str(number), SearchIndexInfo(dimensions=2), run
            )
            connection.execute(
                "UPDATE estudio.deployments SET state = %s, reason = %s WHERE release_id = %s",
                (state, MARKUP, release.release_id),
            )
            made.append(release)
            numbers = {"unseen_ndcg_at_10_after": 0.2 + number / 10}
            promotion = ledger.request(connection, "shop", "gate", MARKUP, str(number), run_id=run, numbers=numbers)
            ledger.end(connection, promotion, "live", release_id=release.release_id)
        connection.execute(
            "INSERT INTO estudio.pointers (plugin, release_id, previous_release_id, switched_by)"
            " VALUES ('shop', %s, %s, 'test')",
            (made[1].release_id, made[0].release_id),
        )
        store = ArtifactStore()
        with store.publish("shop", "tune 1", "evaluation") as folder:
            (folder / "report.html").write_text("the report")
        note_training(
            connection,
            "shop",
            "tune 1",
            until=now,
            version="2",
            promoted=True,
            reason="better",
            report_uri=store.uri("shop", "tune 1", "evaluation"),
            numbers={},
        )
        improvements.record(connection, made[1], "improve 1", "applied", now, 7, {"gain": 0.0123}, "it helps")
        improvements.record(connection, made[1], "back", "reverted", now, 7, {}, "taken back")
        with store.publish("shop", "improve 1", "improvement") as folder:
            (folder / "report.html").write_text("what moved")
        for number, ndcg in enumerate((0.61, 0.64)):
            monitoring.record(
                connection,
                made[1],
                f"watch-{number}",
                since=now,
                until=now,
                trained_until=now,
                sessions=120,
                numbers={"ndcg_at_10": ndcg, "click_rate_3": 0.125, "index_rows": 60, "index_bytes": 262_144},
                drift=["click_drop"] if number else [],
                wanted="notify" if number else "none",
                summary=MARKUP,
            )
        connection.commit()


@pytest.mark.usefixtures("filled")
def test_the_page_shows_releases_pointer_promotions_plot_report_and_improvements() -> None:
    page = pages.plugin_page(content.plugin_content("shop"), rollback=True)
    assert "Release <b>2</b> serves model version <b>2</b>" in page
    nothing = replace(content.plugin_content("shop"), live=None, previous=None)
    assert "Nothing is live.\n0 clicked sessions" in pages.plugin_page(nothing, rollback=True)
    assert "<td>live</td><td>live</td>" in page
    assert "<td>previous</td><td>previous</td>" in page
    assert "Roll back to release 1" in page
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert not re.search(r"\b(confirm|alert|prompt)\(", script)  # Airflow's frame forbids dialogs
    assert "unseen_ndcg_at_10_after 0.4" in page
    assert 'href="shop/report?run_id=tune%201"' in page
    assert "+0.0123" in page
    assert "Latest watch" in page
    assert '<td class="n">0.640</td>' in page
    assert '<td class="n">0.125</td>' in page
    assert "60 items, 262.1 kB" in page
    assert "ndcg_at_10 0.64" in page  # the trend
    assert content.report("shop", None) == content.report("shop", "tune 1") == "the report"
    assert content.report("shop", "another") is None
    assert content.report("books", "tune 1") is None
    assert 'href="shop/improvement?run_id=improve%201"' in page
    assert "improvement?run_id=back" not in page  # taking back measures nothing
    assert content.improvement_report("shop", "improve 1") == "what moved"
    assert content.improvement_report("shop", "../shop/improve 1") is None
    assert content.improvement_report("books", "improve 1") is None
    assert "<summary>1</summary>\nunseen_ndcg_at_10_after&nbsp;0.4<br>" in page  # numbers of a promotion
    assert '<a href="plugins/shop">' in pages.overview(content.overviews(content.plugin_names()))


@pytest.mark.usefixtures("filled")
def test_who_may_not_roll_back_sees_no_button_and_texts_from_outside_are_escaped() -> None:
    page = pages.plugin_page(content.plugin_content("shop"), rollback=False)
    assert "Roll back to release" not in page
    assert MARKUP not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.usefixtures("filled")
def test_a_page_needs_nothing_heavy() -> None:
    code = (
        "import sys\nfrom estudio_core.airflow_ui import content, pages\n"
        "pages.plugin_page(content.plugin_content('shop'), rollback=True)\n"
        "print([m for m in ('torch', 'mlflow', 'onnxruntime', 'pandas', 'pyarrow', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
