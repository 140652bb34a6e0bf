"""From the start of an experiment to its verdict: searches and clicks over HTTP, a real database, two real models."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from typer.testing import CliRunner

from estudio_core import database
from estudio_core.cli_experiments import experiments_app
from estudio_core.comparing import ledger
from estudio_core.comparing.ledger import Experiment
from estudio_core.errors import ConfigurationError, ExperimentEndedError, ReleaseError
from estudio_core.pipeline.challenging.building import build_challenger
from estudio_core.pipeline.challenging.concluding import VERDICT_TAG
from estudio_core.pipeline.challenging.starting import name_of, start
from estudio_core.pipeline.check_experiment import check_experiment
from estudio_core.pipeline.clean_up import clean_up
from estudio_core.pipeline.conclude_experiment import conclude_experiment
from estudio_core.pipeline.rollback import rollback
from estudio_core.pipeline.sync import sync
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.run_params import ExperimentParams
from estudio_core.promotion import ledger as promotions
from estudio_core.promotion.ledger import history
from estudio_core.service.watching import look_at_all
from estudio_core.vectordb.releases import get_release, list_releases, live_release, previous_release
from tests.pipeline.steps import release

if TYPE_CHECKING:
    from tests.comparing.conftest import Two

QUERIES = ("lamp for a desk", "old chair", "red kettle", "small radio", "camera", "a tent for two")


def ask(client: httpx.Client, query_id: str, text: str, who: str | None = None, **body: Any) -> dict[str, Any]:
    """Search; return the answer."""
    ubi = {"query_id": query_id, "client_id": who or f"client of {query_id}"}
    found = client.post("/shop/_search", json={"query": text, "ext": {"ubi": ubi}, **body})
    assert found.status_code == 200, found.text
    return dict(found.json())


def part(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what an answer has of an experiment."""
    return dict(answer["ext"]["estudio"].get("experiment", {}))


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def search_and_click(client: httpx.Client, team: str, searches: int, prefix: str = "q") -> int:
    """Ask so often, each as somebody else, and click on the first result of a team; return how often there was one."""
    clicked = 0
    for number in range(searches):
        query_id = f"{prefix}{number}"
        answer = ask(client, query_id, QUERIES[number % len(QUERIES)])
        teams = part(answer)["teams"]
        wanted = [result for result in ids(answer) if teams[result] == team]
        if wanted:
            clicked += 1
            event = {
                "action_name": "click", "query_id": query_id, "client_id": f"client of {query_id}",
                "event_attributes": {"object": {"object_id": wanted[0]}}, "application": "shop",
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event_id": f"e-{query_id}",
            }  # fmt: skip
            stored = client.post("/ubi_events", json=event)
            assert stored.status_code == 200, stored.text
    return clicked


def let_hours_pass(two: Two, hours: float = 3) -> None:
    """Put all that was logged, and the start of the experiment, back in time: clicks have settled then."""
    for statement in (
        'UPDATE estudio.ubi_queries SET "timestamp" = "timestamp" - make_interval(secs => %s)',
        'UPDATE estudio.ubi_events SET "timestamp" = "timestamp" - make_interval(secs => %s)',
        "UPDATE estudio.experiments SET started_at = started_at - make_interval(secs => %s)",
    ):
        two.shop.sql(statement, hours * 3600)


def begin(two: Two, client: httpx.Client, name: str = "first", **settings: Any) -> Experiment:
    """Start an experiment over HTTP, and wait until the service knows of it."""
    body = {"plugin": "shop", "release": two.challenger, "settings": settings}
    answer = client.put(f"/_experiments/{name}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "running"
    time.sleep(1.1)
    with database.connect() as connection:
        return ledger.get(connection, name)


def test_a_challenger_that_users_choose_goes_live_by_the_trail_of_all_promotions(
    two: Two, client: httpx.Client
) -> None:
    alone = ask(client, "before", QUERIES[0])
    assert part(alone) == {}
    assert alone["ext"]["estudio"]["release"] == two.champion
    begin(two, client)
    clicked = search_and_click(client, "challenger", 40)
    assert clicked >= 30
    assert conclude_experiment("shop").state == "running"  # type: ignore[union-attr]  # nothing has settled
    let_hours_pass(two)
    found = conclude_experiment("shop")
    assert found is not None
    assert (found.state, found.verdict) == ("ended", "better")
    assert found.standing is not None
    assert (found.standing.searches, found.standing.wins, found.standing.losses) == (40, clicked, 0)
    assert found.standing.low > 0
    assert found.standing.sessions_needed is None
    with database.connect() as connection:
        live, before = live_release(connection, "shop"), previous_release(connection, "shop")
        [trail, *_] = history(connection, "shop", 10)
    assert live is not None
    assert before is not None
    assert (live.release_id, before.release_id) == (two.challenger, two.champion)
    assert (trail.way, trail.outcome, trail.to_version) == ("experiment", "live", "2")
    assert (trail.actor, trail.release_id) == ("experiment first", two.challenger)
    assert trail.numbers["experiment_low"] == pytest.approx(found.standing.low)
    registry = open_plugin("shop").experiments.registry
    assert registry.aliases()["champion"] == 2
    assert registry.versions()[2].tags[VERDICT_TAG].startswith("better. Users choose the challenger's results")
    time.sleep(1.1)
    after = ask(client, "after", QUERIES[0])
    assert (after["ext"]["estudio"]["release"], part(after)) == (two.challenger, {})
    assert conclude_experiment("shop") is None
    assert rollback("shop", {}, "back", "somebody").release_id == two.champion


def test_a_challenger_that_harms_answers_nobody_any_more_and_is_dropped(two: Two, client: httpx.Client) -> None:
    begin(two, client)
    assert search_and_click(client, "champion", 40) >= 30
    until = time.monotonic() + 60
    while (answer := client.get("/_experiments/first").json())["state"] == "running" and time.monotonic() < until:
        look_at_all()  # or the service itself, which does every ten seconds; clicks have not settled
    assert (answer["state"], answer["verdict"]) == ("decided", "harm")
    assert answer["standing"]["visits"] == 0
    time.sleep(1.1)
    alone = ask(client, "after", QUERIES[0])
    assert (alone["ext"]["estudio"]["release"], part(alone)) == (two.champion, {})
    found = conclude_experiment("shop")
    assert found is not None
    assert (found.state, found.verdict) == ("ended", "harm")
    with database.connect() as connection:
        challenger = get_release(connection, two.challenger)
        live = live_release(connection, "shop")
        [trail, *_] = history(connection, "shop", 10)
        assert not challenger.collection.exists(connection)
    assert challenger.state == "retired"
    assert live is not None
    assert live.release_id == two.champion
    assert (trail.way, trail.outcome, trail.to_version) == ("experiment", "refused", "2")
    assert open_plugin("shop").experiments.registry.versions()[2].tags[VERDICT_TAG].startswith("harm. ")


def test_a_page_after_the_other_is_one_list_and_the_same_search_has_the_same_teams(
    two: Two, client: httpx.Client
) -> None:
    begin(two, client)
    whole = ask(client, "one", QUERIES[0], size=60)
    assert sorted(ids(whole), key=int) == [str(number) for number in range(60)]
    teams = part(whole)["teams"]
    assert list(teams) == ids(whole)[: len(teams)]
    assert 48 <= len(teams) <= 50
    assert {"champion", "challenger"} <= set(teams.values()) <= {"champion", "challenger", "both"}
    pages: list[str] = []
    of_pages: dict[str, str] = {}
    for start_at in range(0, 60, 20):
        page = ask(client, "one", QUERIES[0], size=20, **{"from": start_at})
        pages += ids(page)
        of_pages |= part(page)["teams"]
    assert pages == ids(whole)
    assert of_pages == teams
    with database.connect() as connection:
        [(hits, scores, said)] = connection.execute(
            "SELECT query_response_hit_ids, query_response_scores, query_attributes FROM estudio.ubi_queries"
            " WHERE query_id = 'one'"
        ).fetchall()
    for side in ("champion", "challenger"):
        assert set(said["experiment"]["teams"][side]) == {each for each, team in teams.items() if team == side}
        assert all(0 < worth <= 1 for worth in said["experiment"]["teams"][side].values())
    assert "release" not in said
    assert scores is None
    assert set(hits) == set(ids(whole))
    lists = {tuple(ids(ask(client, f"other {number}", QUERIES[0], size=10))) for number in range(8)}
    assert len(lists) > 1  # coins differ from search to search
    further = client.post("/shop/_search", json={"query": QUERIES[0], "from": 10}).json()
    assert part(further) == {}  # a page that does not say of which search is the champion's


def test_what_was_deleted_or_changed_since_is_nowhere_in_a_mixed_answer(two: Two, client: httpx.Client) -> None:
    begin(two, client)
    whole = ask(client, "one", QUERIES[0], size=20)
    gone = next(result for result in ids(whole) if part(whole)["teams"][result] == "challenger")
    assert client.delete(f"/shop/_doc/{gone}").status_code == 200
    for number in range(8):
        assert gone not in ids(ask(client, f"q{number}", QUERIES[0], size=60))
    with database.connect() as connection:
        challenger = get_release(connection, two.challenger)
        assert challenger.collection.stats(connection).objects == 60
    two.shop.sql("DELETE FROM products WHERE id = %s", int(gone))
    sync("shop", {})  # which brings the challenger up to date too
    with database.connect() as connection:
        assert get_release(connection, two.challenger).collection.stats(connection).objects == 59


def test_a_challenger_is_kept_by_clean_up_and_by_the_builds_of_others(two: Two, client: httpx.Client) -> None:
    begin(two, client)
    assert clean_up("shop", {}).retired_releases == []
    with database.connect() as connection:
        assert get_release(connection, two.challenger).state == "challenger"
    assert part(ask(client, "q", QUERIES[0]))["id"] == "first"
    for command in (["list", "--plugin", "shop"], ["show", "first"], ["stop", "first", "--reason", "Enough."]):
        done = CliRunner().invoke(experiments_app, [*command, *([] if command[0] == "stop" else ["--json"])])
        assert done.exit_code == 0, done.output
        if command[0] != "stop":
            [row] = json.loads(done.stdout)
            assert (row["experiment"], row["state"], row["challenger"]) == ("first", "running", two.challenger)
    with database.connect() as connection:
        assert get_release(connection, two.challenger).state == "retired"
        assert ledger.get(connection, "first").reason == "Enough."


def test_each_client_of_an_ab_test_is_served_by_one_side(two: Two, client: httpx.Client) -> None:
    body = {"plugin": "shop", "release": two.challenger, "form": "ab"}
    assert client.put("/_experiments/sides", json=body).status_code == 200
    time.sleep(1.1)
    sides: dict[str, set[str]] = {}
    for number in range(24):
        who = f"client {number % 8}"
        answer = ask(client, f"q{number}", QUERIES[number % 6], who)
        side = part(answer)["arm"]
        sides.setdefault(who, set()).add(side)
        served = two.challenger if side == "challenger" else two.champion
        assert answer["ext"]["estudio"]["release"] == served
    assert all(len(each) == 1 for each in sides.values())
    assert {side for each in sides.values() for side in each} == {"champion", "challenger"}
    nobody = client.post("/shop/_search", json={"query": QUERIES[0]}).json()
    assert part(nobody) == {}


def test_an_experiment_is_over_once_something_else_goes_live(two: Two, client: httpx.Client) -> None:
    first = begin(two, client)
    other = release("shop", "1", "again")
    mixed = ask(client, "q", QUERIES[0])
    assert (mixed["ext"]["estudio"]["release"], part(mixed)) == (other.release_id, {})
    found = conclude_experiment("shop")
    assert found is not None
    assert (found.experiment_id, found.verdict) == (first.experiment_id, "stopped")
    assert f"release {other.release_id} went live" in found.reason


def test_stopping_and_wrong_requests_are_told(two: Two, client: httpx.Client) -> None:
    begin(two, client)
    again = {"plugin": "shop", "release": two.challenger}
    assert client.put("/_experiments/first", json=again).json()["id"] == "first"
    second = client.put("/_experiments/second", json=again)
    assert (second.status_code, "one at a time" in second.text) == (409, True)
    assert client.put("/_experiments/first", json={**again, "form": "ab"}).status_code == 409
    assert client.put("/_experiments/first", json={**again, "settings": {"confidence": 2}}).status_code == 400
    assert client.put("/_experiments/first", json={**again, "form": "dice"}).status_code == 400
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO estudio.experiments (experiment_id, plugin, form, champion, challenger, settings, started_by)"
            " SELECT 'theirs', 'secret', form, champion, challenger, settings, 'x' FROM estudio.experiments"
        )
    taken = client.put("/_experiments/theirs", json=again)
    with database.connect() as connection:
        connection.execute("DELETE FROM estudio.experiments WHERE plugin = 'secret'")
    assert (taken.status_code, "'theirs' already." in taken.text, "secret" in taken.text) == (409, True, False)
    assert client.put("/_experiments/a%20b", json=again).status_code == 400
    assert client.put("/_experiments/x", json={"plugin": "other", "release": 1}).status_code == 403
    assert client.get("/_experiments/none").status_code == 404
    assert [each["id"] for each in client.get("/_experiments").json()["experiments"]] == ["first"]
    stopped = client.delete("/_experiments/first").json()
    assert (stopped["state"], stopped["verdict"]) == ("decided", "stopped")
    time.sleep(1.1)
    assert part(ask(client, "q", QUERIES[0])) == {}
    with pytest.raises(ReleaseError, match="under way"):
        start("shop", two.challenger, {}, "third", "somebody")
    ended = conclude_experiment("shop")
    assert ended is not None
    assert ended.state == "ended"
    with pytest.raises(ReleaseError, match="is live"):
        start("shop", two.champion, {}, "third", "somebody")
    with pytest.raises(ReleaseError, match="retired"):
        start("shop", two.challenger, {}, "third", "somebody")
    with pytest.raises(ConfigurationError, match=r"name = 'aaa.* at most 200"):
        start("shop", two.challenger, {"name": "a" * 201}, "third", "somebody")


def releases_of_shop() -> int:
    with database.connect() as connection:
        return len(list_releases(connection, "shop"))


def test_what_cannot_start_is_refused_before_its_release_is_built(two: Two, client: httpx.Client) -> None:
    built = releases_of_shop()
    for wrong, told in (
        (["--confidence", "2"], "confidence = 2.0: Input should be less than or equal to 0.999"),
        (["--share", "nan"], "share = nan"),
        (["--name", "a b"], "name = 'a b'"),
        (["--plugin", "shopp"], "Did you mean 'shop'?"),
    ):
        done = CliRunner().invoke(experiments_app, ["start", "--plugin", "shop", "--version", "1", *wrong])
        assert (done.exit_code, told in done.output) == (1, True), done.output
    begin(two, client)
    with pytest.raises(ReleaseError, match="'first' of 'shop' is under way"):
        check_experiment("shop", {"version": "2"}, "second")
    with pytest.raises(ConfigurationError, match="'first' already, of release"):
        check_experiment("shop", {"version": "2", "name": "first"}, "another run")
    assert check_experiment("shop", {"version": "challenger", "name": "first"}, "second") == "2", "the run goes on"
    answer = client.put("/_experiments/second", json={"plugin": "shop", "version": "2"})
    assert (answer.status_code, "'first' of 'shop' is under way" in answer.text) == (409, True)
    assert releases_of_shop() == built


def test_a_run_that_is_run_again_goes_on_with_its_version_and_after_the_end_starts_nothing(
    two: Two, client: httpx.Client
) -> None:
    begin(two, client)
    registry = open_plugin("shop").experiments.registry
    registry.delete_alias("challenger", reason="another training", actor="test")
    assert check_experiment("shop", {"version": "challenger", "name": "first"}, "second") == "2"
    assert CliRunner().invoke(experiments_app, ["stop", "first"]).exit_code == 0
    built = releases_of_shop()
    with pytest.raises(ExperimentEndedError, match=r"'first' of 'shop' has ended \(stopped\)\. Choose another name"):
        check_experiment("shop", {"version": "challenger", "name": "first"}, "second")
    with database.connect() as connection:  # as the service's own run builds it
        connection.execute("UPDATE estudio.deployments SET run_id = 'service__first' WHERE run_id = 'second'")
    answer = client.put("/_experiments/first", json={"plugin": "shop", "version": "2"})
    assert (answer.status_code, "has ended (stopped)" in answer.json()["error"]["reason"]) == (409, True)
    with database.connect() as connection:
        connection.execute("UPDATE estudio.deployments SET run_id = 'experiment first' WHERE run_id = 'service__first'")
    done = CliRunner().invoke(experiments_app, ["start", "-p", "shop", "--version", "2", "--name", "first"])
    assert (done.exit_code, "has ended (stopped)" in done.output.replace("\n", " ")) == (1, True), done.output
    assert releases_of_shop() == built


def test_nothing_of_an_experiment_s_body_is_swallowed(client: httpx.Client) -> None:
    for wrong, told in (
        ({"words_wieght": 3}, "[words_wieght] is not supported. Did you mean 'words_weight'?"),
        ({"settings": {"confidance": 0.9}}, "unknown name 'confidance'. Did you mean 'confidence'?"),
        ({"settings": {"event_weights": {"click": 2}}}, "[settings.event_weights] are those of the plugin's converter"),
        ({"settings": {"share": True}}, "share = True: Input should be a number"),
        ({"settings": {"minimum_visits": "many"}}, "minimum_visits"),
        ({"words_weight": {"of": 3}}, "[words_weight] input should be a valid number"),
        ({"keep_releases": 3}, "[keep_releases] is not supported."),
    ):
        answer = client.put("/_experiments/x", json={"plugin": "shop", **wrong})
        assert (answer.status_code, told in answer.json()["error"]["reason"]) == (400, True), answer.text
    answer = client.post("/api/v1/embeddings/", json={"name": "x", "plugin_nane": "shop"})
    assert "[plugin_nane] is not supported. Did you mean 'plugin_name'?" in answer.json()["error"]["reason"]


def test_a_run_s_id_names_its_experiment_whatever_its_letters(two: Two) -> None:
    found = start("shop", two.challenger, {}, "~mine " + "x" * 240, "somebody")
    assert found.experiment_id.startswith("mine-xxx")
    assert start("shop", two.challenger, {}, "~mine " + "x" * 240, "somebody").experiment_id == found.experiment_id
    assert name_of(ExperimentParams(), "~mine " + "x" * 239 + "y") != found.experiment_id


def test_another_weight_of_words_is_compared_over_the_same_vectors_and_promoted_as_any_other(
    two: Two, client: httpx.Client
) -> None:
    arguments = ["start", "--plugin", "shop", "--version", "champion", "--words-weight", "40", "--name", "words"]
    done = CliRunner().invoke(experiments_app, arguments)
    assert done.exit_code == 0, done.output
    with database.connect() as connection:
        experiment = ledger.get(connection, "words")
        champion, challenger = (get_release(connection, each) for each in (two.champion, experiment.challenger))
    assert experiment.champion == two.champion
    assert (challenger.model_version, challenger.collection_id) == (champion.model_version, champion.collection_id)
    assert (challenger.ranking.weight, champion.ranking.weight != 40) == (40, True)
    time.sleep(1.1)
    assert search_and_click(client, "challenger", 60) >= 30
    let_hours_pass(two)
    found = conclude_experiment("shop")
    assert found is not None
    assert (found.state, found.verdict) == ("ended", "better")
    with database.connect() as connection:
        live = live_release(connection, "shop")
        [trail, *_] = history(connection, "shop", 10)
    assert live is not None
    assert (live.release_id, live.ranking.weight) == (challenger.release_id, 40)
    assert live.collection_id == champion.collection_id
    assert (trail.way, trail.outcome, trail.numbers["words_weight"]) == ("experiment", "live", 40)
    registry = open_plugin("shop").experiments.registry
    assert registry.aliases()["champion"] == 1
    assert registry.versions()[1].tags[VERDICT_TAG].startswith("better with the weight 40 of words. ")
    time.sleep(1.1)
    [first, *_] = ask(client, "after", QUERIES[0])["hits"]["hits"]
    why = first["ext"]["estudio"]
    assert first["_score"] == pytest.approx(why["similarity"] + 40 * why["words"])
    assert rollback("shop", {}, "back", "somebody").release_id == two.champion


def test_a_weight_that_cannot_be_compared_is_refused(two: Two, client: httpx.Client) -> None:
    with database.connect() as connection:
        weight = get_release(connection, two.champion).ranking.weight
    with pytest.raises(ReleaseError, match="already"):
        build_challenger("shop", "champion", "same", words_weight=weight)
    given = {"plugin": "shop", "release": two.challenger, "words_weight": 3}
    assert "words_weight" in client.put("/_experiments/x", json=given).json()["error"]["reason"]
    wrong = client.put("/_experiments/x", json={"plugin": "shop", "version": "champion", "words_weight": -1})
    assert (wrong.status_code, "words_weight" in wrong.text) == (400, True)
    done = CliRunner().invoke(experiments_app, ["start", "-p", "shop", "--release", "1", "--words-weight", "2"])
    assert (done.exit_code, "--release" in done.output) == (1, True)


def test_a_promotion_that_was_superseded_and_then_failed_ends_the_experiment(two: Two, client: httpx.Client) -> None:
    experiment = begin(two, client)
    with database.connect(autocommit=True) as connection:
        ledger.decide(connection, experiment, "better", "Users choose it.", "test")
        mine = {"run_id": "experiment first", "release_id": two.challenger}
        promotions.request(connection, "shop", "experiment", "experiment first", "2", **mine)
        newer = promotions.request(connection, "shop", "manual", "ben", "1", run_id="newer")
        promotions.end(connection, newer, "failed")
    found = conclude_experiment("shop")
    assert found is not None
    assert (found.state, found.verdict) == ("ended", "stopped")
    assert "Users choose it. Not promoted: Version 2 of 'shop' does not go live any more." in found.reason
    with database.connect() as connection:
        live = live_release(connection, "shop")
        assert get_release(connection, two.challenger).state == "retired"
    assert live is not None
    assert live.release_id == two.champion
    assert conclude_experiment("shop") is None
