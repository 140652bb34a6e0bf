"""What the Estudio page shows, made of a filled database; nothing heavy is imported to make it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from estudio_core import database
from estudio_core.airflow_ui import content, glance, pages
from estudio_core.airflow_ui.glance import Glance
from estudio_core.airflow_ui.next_step import KINDS, NextStep
from estudio_core.airflow_ui.pages import Allowed
from estudio_core.airflow_ui.runs import FailedRun, Runs
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.promotion import ledger
from estudio_core.promotion.trainings import note_training
from estudio_core.settings import get_settings
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.releases import fail_release, start_release
from tests.airflow_ui.conftest import MARKUP

EVERYTHING = Allowed(step=True, rollback=True)
DAGS = dict.fromkeys(KINDS, False)


def shop(runs: Runs | None = None) -> Glance:
    [found] = glance.glances({"shop": runs or Runs(dags=DAGS)})  # type: ignore[arg-type]
    return found


def plugin_page(found: Glance, allowed: Allowed = EVERYTHING) -> str:
    return pages.plugin_page(found, allowed, content.plugin_content("shop"))


def search(sessions: int) -> None:
    """Log searches with a click each."""
    now = datetime.now(UTC)
    with database.connect() as connection:
        store = ClickstreamStore(connection)
        store.log_queries(
            UbiQuery(f"q{n}", "lamp", now, "shop", query_response_hit_ids=("1",)) for n in range(sessions)
        )
        store.log_events(UbiEvent(f"e{n}", "click", f"q{n}", now, "shop", object_id="1") for n in range(sessions))


@pytest.mark.usefixtures("filled")
def test_the_page_shows_what_people_ask_for() -> None:
    assert "What people ask for" not in plugin_page(shop())
    search(3)
    with database.connect() as connection:
        found_nothing = UbiQuery("none", f"sofa {MARKUP}", datetime.now(UTC), "shop", client_id="c")
        ClickstreamStore(connection).log_queries([found_nothing])
    page = plugin_page(shop())
    assert MARKUP not in page
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    assert ["Popular", "lamp", "3", "0", "3", "0", "0"] in rows
    assert [row[0] for row in rows if len(row) == 7 and row[1].startswith("sofa")] == ["", "Found nothing"]


@pytest.mark.usefixtures("filled")
def test_the_page_shows_releases_pointer_promotions_plot_report_and_improvements() -> None:
    page = plugin_page(shop())
    assert '<span class="live">Release 2</span> serves <span class="whole">model version 2</span>' in page
    nothing = replace(shop(), live=None, previous=None)
    assert "Nothing is live." in plugin_page(nothing, Allowed(step=True, rollback=False))
    assert '<td class="live">live</td><td>live</td>' in page
    assert '<td class="previous">previous</td><td>previous</td>' in page
    assert "Roll back to release 1" in page
    scripts = "".join(re.findall(r"<script>(.*?)</script>", page, re.DOTALL))
    assert not re.search(r"\b(confirm|alert|prompt)\(", scripts)  # Airflow's frame forbids dialogs
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
    assert '<a href="plugins/shop">' in pages.overview([(shop(), EVERYTHING)])


@pytest.mark.usefixtures("filled")
def test_an_experiment_is_shown_with_its_band_and_what_is_still_needed() -> None:
    assert "<h2>Experiments</h2>" not in plugin_page(shop())
    standing = {
        "searches": 200, "visits": 90, "wins": 31, "losses": 22, "ties": 7, "credit": 0.0514, "low": -0.021,
        "high": 0.1239, "sessions_needed": 640, "left_out": "", "finding": None, "reason": "So far: nothing.",
    }  # fmt: skip
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO estudio.experiments (experiment_id, plugin, form, champion, challenger, settings, standing,"
            " started_by) VALUES ('of-june', 'shop', 'interleaving', 2, 1, '{}', %s, 'ana')",
            (Jsonb(standing),),
        )
    page = plugin_page(shop())
    for told in ("of-june", "31, 7, 22", "+0.051 [-0.021, +0.124]", '<td class="n">640</td>', "So far: nothing."):
        assert told in page


@pytest.mark.usefixtures("filled")
def test_both_towers_are_shown_where_they_differ() -> None:
    assert "over items of version" not in plugin_page(shop())
    with database.connect(autocommit=True) as connection:
        connection.execute(
            "UPDATE estudio.deployments SET item_model_name = 'shop_v1', item_model_version = '1' WHERE state = 'live'"
        )
    page = plugin_page(shop())
    assert 'model version 2</span> <span class="whole">over items of version 1</span>' in page
    assert '<td class="n">2, items 1</td>' in page


@pytest.mark.usefixtures("filled")
def test_a_glance_tells_what_is_live_how_good_how_many_sessions_and_what_drifted() -> None:
    found = shop()
    assert found.quality is not None
    assert found.quality.points == ((1, pytest.approx(0.3)), (2, pytest.approx(0.4)))
    assert found.watch is not None
    assert (found.watch.drift, found.wanted_sessions, found.new_sessions) == (["click_drop"], 50, 0)
    page = pages.overview([(found, EVERYTHING)])
    assert 'aria-label="nDCG@10 on queries never seen in training, by release: 1: 0.300, 2: 0.400"' in page
    assert "50 more for the next training" in page
    assert '<p class="warn strong">click_drop</p>' in page
    assert "50 more clicked sessions are wanted" in page
    search(60)
    assert shop().new_sessions == 60
    assert "Start fine-tuning</button>" in pages.overview([(shop(), EVERYTHING)])
    assert "Start fine-tuning" not in pages.overview([(shop(), Allowed(step=False, rollback=False))])
    assert "You may not do that here" in pages.overview([(shop(), Allowed(step=False, rollback=False))])


@pytest.mark.usefixtures("filled")
def test_counting_ends_where_more_would_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "MOST_COUNTED", 10)
    search(60)
    assert (shop().new_sessions, shop().counted_all) == (50, False)  # as many as the next training wants
    assert "50 or more" in pages.overview([(shop(), EVERYTHING)])


@pytest.mark.usefixtures("filled")
def test_the_schedule_says_how_many_sessions_are_wanted_and_a_broken_plugin_says_nothing() -> None:
    file = get_settings().plugins_path / "scheduled.py"
    file.write_text(
        "from estudio_core import DagSettings, PostgresItems, create_text_plugin\n"
        "plugin = create_text_plugin('scheduled', items=PostgresItems(table='products', text='title'), model='none',\n"
        "    dag=DagSettings(schedule='every 20 new sessions'))\n"
    )
    [found] = glance.glances({"scheduled": Runs(dags=DAGS)})  # type: ignore[arg-type]
    assert found.wanted_sessions == 50  # the first training needs its fewest sessions all the same
    with database.connect() as connection:
        now = datetime.now(UTC)
        note_training(
            connection, "scheduled", "t", until=now, version="1", promoted=False, reason="", report_uri="", numbers={}
        )
    [found] = glance.glances({"scheduled": Runs(dags=DAGS)})  # type: ignore[arg-type]
    assert found.wanted_sessions == 20
    (get_settings().plugins_path / "broken.py").write_text("x = (")
    [found] = glance.glances({"broken": Runs(dags=DAGS)})  # type: ignore[arg-type]
    assert (found.wanted_sessions, found.step.does) == (None, "start")  # nothing is live
    assert "<progress" not in pages.overview([(found, EVERYTHING)])


@pytest.mark.usefixtures("filled")
def test_a_version_that_passed_the_gate_waits_until_somebody_asks_for_it_or_refuses_it() -> None:
    def train(version: str, promoted: bool) -> None:
        with database.connect() as connection:
            now = datetime.now(UTC)
            note_training(
                connection,
                "shop",
                f"tune {version}",
                until=now,
                version=version,
                promoted=promoted,
                reason="",
                report_uri="",
                numbers={},
            )

    assert shop().step.does is None
    train("3", promoted=True)
    assert shop().step.conf == {"version": "3"}
    train("4", promoted=False)
    assert shop().step.does is None  # the newest was refused by the gate, and is the challenger now
    train("5", promoted=True)
    assert "Release version 5" in plugin_page(shop())
    with database.connect() as connection:
        ledger.refuse(connection, "shop", "ann", "5", run_id="tune 5__release", reason="no")
    assert shop().step.does is None


@pytest.mark.usefixtures("filled")
def test_the_last_failure_is_shown_with_its_reason_and_with_its_run_where_airflow_has_one() -> None:
    assert shop().failure is None
    now = datetime.now(UTC)
    run = FailedRun("shop__sync", "by hand", now - timedelta(hours=2), over=False, task_id="sync")
    failure = shop(Runs(dags=DAGS, failed=run)).failure  # type: ignore[arg-type]
    assert failure is not None
    assert (failure.what, failure.reason) == ("Run of sync", "task sync failed: its log says why")
    assert failure.link == "dags/shop__sync/runs/by%20hand/tasks/sync"
    with database.connect() as connection:
        release = start_release(connection, "shop", "shop_v3", "3", SearchIndexInfo(dimensions=2), "run-3")
        fail_release(connection, release, MARKUP)
    failure = shop(Runs(dags=DAGS, failed=run)).failure  # type: ignore[arg-type]
    assert failure is not None
    assert (failure.what, failure.reason, failure.link) == ("Release of version 3", MARKUP, None)
    run = FailedRun("shop__release", "run-3", now, over=True, task_id="verify")
    found = shop(Runs(dags=DAGS, failed=run))  # type: ignore[arg-type]
    assert found.failure is not None
    assert (found.failure.reason, found.failure.link) == (MARKUP, "dags/shop__release/runs/run-3/tasks/verify")
    assert MARKUP not in plugin_page(found)


@pytest.mark.usefixtures("filled")
def test_who_may_not_roll_back_sees_no_button_and_texts_from_outside_are_escaped() -> None:
    page = plugin_page(shop(), Allowed(step=False, rollback=False))
    assert "<button" not in page
    page = pages.overview([(shop(), EVERYTHING)])
    assert MARKUP not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.usefixtures("filled")
def test_what_waits_in_airflow_is_a_link_to_its_page_there() -> None:
    page = plugin_page(shop(Runs(dags=DAGS, question="run 1")))  # type: ignore[arg-type]
    assert 'href="../../dags/shop__fine_tune/runs/run%201/tasks/approve/required_actions"' in page
    page = pages.overview([(shop(Runs(dags=DAGS, running={"release": "run 2"})), EVERYTHING)])  # type: ignore[arg-type]
    assert 'href="../dags/shop__release/runs/run%202" data-airflow' in page
    step = NextStep("Go.", "start", "release", "Release", {"version": """'"<&"""})
    page = plugin_page(replace(shop(), step=step))
    assert 'data-conf="{&#34;version&#34;: &#34;\\u0027\\&#34;\\u003c\\u0026&#34;}"' in page


@pytest.mark.usefixtures("filled")
def test_a_page_needs_nothing_heavy() -> None:
    code = (
        "import sys\nfrom estudio_core.airflow_ui import content, glance, pages, runs\n"
        "[found] = glance.glances({'shop': runs.Runs()})\n"
        "pages.plugin_page(found, pages.Allowed(True, True), content.plugin_content('shop'))\n"
        "print([m for m in ('torch', 'mlflow', 'onnxruntime', 'pandas', 'pyarrow', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_colour_of_text_stands_out_from_what_it_is_written_on(theme: int) -> None:
    style = (Path(pages.__file__).parent / "templates" / "base.html.j2").read_text()
    colours = {
        name: pair[theme]
        for name, *pair in re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    }

    def contrast(one: str, other: str) -> float:
        lighter, darker = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        return (lighter + 0.05) / (darker + 0.05)

    for ground in ("page", "card", "tint"):
        for ink in ("text", "quiet", "link", "good", "warn", "bad"):
            assert contrast(ink, ground) >= 4.5, (ink, ground)
        for mark in ("edge", "c0", "c1", "c2"):  # borders of buttons, and curves
            assert contrast(mark, ground) >= 3, (mark, ground)
    assert contrast("on-solid", "solid") >= 4.5
    assert contrast("solid", "tint") >= 3


def test_an_error_of_ours_is_a_page_that_says_what_to_do() -> None:
    from fastapi.testclient import TestClient

    from estudio_core.airflow_ui.app import app
    from estudio_core.errors import SchemaVersionError

    message = "Estudio's tables <b>are</b> missing. Run: estudio migrate"

    @app.get("/broken")
    def broken() -> None:
        raise SchemaVersionError(message)

    try:
        answer = TestClient(app).get("/broken")
    finally:
        app.router.routes.pop()
    assert answer.status_code == 503
    assert "Run: estudio migrate" in answer.text
    assert "<b>are</b>" not in answer.text
