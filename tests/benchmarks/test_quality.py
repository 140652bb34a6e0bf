"""The quality benchmark: who sees which judgments, what a log holds, and what a finished unit costs again."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import units
from benchmarks.quality import corpora, measure
from benchmarks.quality.contenders import oracle
from benchmarks.quality.contenders.mined_negatives import mined_rows
from benchmarks.quality.contenders.naive import naive
from benchmarks.quality.contenders.ours import longer_training
from benchmarks.quality.contenders.sentence_transformers_trainer import clicked_rows
from benchmarks.quality.corpora import Corpus, chorus, nfcorpus
from benchmarks.quality.evaluation import figures
from benchmarks.quality.logs import Condition, conditions, replay
from benchmarks.quality.measure import CONTENDERS, STORE, Unit
from benchmarks.quality.table import markdown, of_lane, row, unlearned
from benchmarks.quality.task import Outcome, Task, base_model
from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from estudio_core.errors import ConfigurationError
from estudio_core.evaluation.judgments import Judgments
from estudio_core.lexical.settings import Fusion
from lightning_modules.config import TrainingConfig

COLOURS = ("red", "blue", "green", "black")
THINGS = ("lamp", "chair", "table", "kettle", "bicycle")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Twenty things and a query for each, whose users want the next colour; four queries are held out."""
    items = {f"{c}-{t}": f"{t} in {c}, new and shiny" for c in COLOURS for t in THINGS}
    wanted = dict(zip(COLOURS, (*COLOURS[1:], COLOURS[0]), strict=True))
    grades = {
        f"{c} {t}": {f"{x}-{t}": 3.0 if x == wanted[c] else 0.0 for x in COLOURS} for c in COLOURS for t in THINGS
    }
    held_out = {query: grades.pop(query) for query in ("red lamp", "blue chair", "green table", "black kettle")}
    return Corpus(
        name="toy",
        items=items,
        judgments=Judgments(grades),
        seen=tuple(grades),
        unseen=tuple(held_out),
        held_out=Judgments(held_out),
        max_tokens=16,
        shown_judged_only=True,
    )


def test_the_unseen_queries_of_the_first_partition_are_in_no_development_partition() -> None:
    reserved = set(chorus(0, development=False).unseen)
    for partition in range(3):
        development = chorus(partition, development=True)
        assert not {*development.seen, *development.unseen} & reserved
        assert len(development.unseen) == 24
        test = chorus(partition, development=False)
        assert len(test.unseen) == (20 if partition else 40)
        assert set(test.unseen) <= reserved
        assert not set(test.unseen) & set(test.seen)
        assert len(test.unseen) + len(test.seen) == 116
        assert not set(test.held_out) & set(test.judgments)
    halves = [set(chorus(partition, development=False).unseen) for partition in (1, 2)]
    assert halves[0] | halves[1] == reserved


def test_a_corpus_that_may_not_be_shipped_says_where_it_is_missed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="academic use"):
        nfcorpus(development=False, folder=tmp_path)


@pytest.mark.skipif(not corpora.NFCORPUS_FOLDER.is_dir(), reason=f"NFCorpus is not in {corpora.NFCORPUS_FOLDER}")
def test_nfcorpus_keeps_its_own_division_of_queries() -> None:
    test, development = nfcorpus(development=False), nfcorpus(development=True)
    assert len(test.items) == len(development.items) == 3_395
    assert not set(test.unseen) & {*development.unseen, *development.judgments, *test.judgments}
    assert not set(development.unseen) & set(test.judgments)
    assert 300 < len(test.unseen) <= 325


@pytest.mark.parametrize("contender", [name for name in CONTENDERS if name not in measure.ORACLES])
def test_no_contender_can_reach_the_unseen_queries_or_their_grades(
    corpus: Corpus,
    minilm_path: Path,
    estudio_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    contender: str,
) -> None:
    given: list[Task] = []

    def spy(task: Task) -> object:
        given.append(task)
        return naive(replace(task, budget_tokens=200))

    monkeypatch.setattr(units, "RESULTS", tmp_path)
    for name in {"ours", contender}:  # whose tokens are the others' budget
        monkeypatch.setitem(measure.CONTENDERS, name, spy)
    result = measure.measure(Unit(corpus, Condition("clean", 40), contender, seed=0), str(minilm_path))
    assert len(given) == len({"ours", contender} - ({"ours"} if contender in measure.OWN_BUDGET[1:] else set()))
    for task in given:
        assert task.corpus.unseen == ()
        assert len(task.corpus.held_out) == 0
        assert not {*task.data.queries("train"), *task.data.queries("dev")} & set(corpus.unseen)
        assert len(task.corpus.judgments) == 0, "grades of the queries asked are judged by as well"
        assert task.data.words is not None
        assert set(task.data.words.queries) == {*task.data.queries("train"), *task.data.queries("dev")}
        assert set(task.data.words.items) == set(task.data.items)
    assert len(result["ndcg"]["unseen"]) == 4


def test_a_contender_spends_the_budget_of_ours_which_learns_something(
    corpus: Corpus, minilm_path: Path, estudio_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "RESULTS", tmp_path)
    clean = Condition("clean", 60)
    before = measure.measure_base(corpus, str(minilm_path))
    ours = measure.measure(Unit(corpus, clean, "ours", seed=0), str(minilm_path))
    other = measure.measure(Unit(corpus, clean, "MultipleNegativesRankingLoss", seed=0), str(minilm_path))
    assert other["tokens"] == pytest.approx(ours["tokens"], rel=0.5)  # whole steps of a small log
    assert ours["ndcg"]["seen"] != before["ndcg"]["seen"]
    assert other["seconds"] > 0
    for found in (before, ours):
        full, judged, share = (np.array(found[name]["seen"]) for name in ("ndcg", "judged_ndcg", "judged_share"))
        assert 0 < share.min() <= share.max() <= 0.4, "four of twenty are rated"
        assert (judged >= full).all()
    queries = [{"seen": corpus.seen, "unseen": corpus.unseen}]
    rows = [
        row("ours", [{0: ours}], [before], [], queries),
        row("other", [{0: other}], [before], [{0: ours}], queries),
    ]
    table = markdown("toy", [before], queries, rows)
    assert table.count("\n| ") == 10
    assert "| - |" not in table


def test_contenders_are_compared_on_what_both_have_measured() -> None:
    def result(value: float) -> dict[str, object]:
        return {"ndcg": {"unseen": [value, value]}, "tokens": 10, "seconds": 1.0}

    queries = [{"unseen": ("a", "b")}, {"unseen": ("c", "d")}]
    bases = [result(0.5), result(0.6)]
    ours = [{0: result(0.7), 1: result(0.9)}, {}]
    other = row("other", [{0: result(0.6)}, {0: result(0.8)}], bases, ours, queries)
    assert other.runs == 2
    assert other.gains["unseen"].mean == pytest.approx(0.15)
    assert other.against_ours["unseen"].mean == pytest.approx(0.1)  # the first corpus, seed 0
    assert math.isnan(row("ours", ours, bases, ours, queries).worst_seed["unseen"]), "no seed is whole"
    whole = row("ours", [{0: result(0.7), 1: result(0.9)}, {1: result(0.7)}], bases, ours, queries)
    assert (whole.seeds, whole.worst_seed["unseen"]) == (1, pytest.approx((0.4 + 0.1) / 2))


def test_a_query_that_two_partitions_judge_counts_once() -> None:
    def result(*values: float) -> dict[str, object]:
        return {"ndcg": {"seen": list(values)}, "tokens": 10, "seconds": 1.0}

    bases = [result(0.0, 0.0), result(0.0, 0.0)]
    measured = [{0: result(0.2, 0.6)}, {0: result(0.4, 0.9)}]
    other = row("other", measured, bases, [], [{"seen": ("a", "b")}, {"seen": ("a", "c")}])
    gain, worst = other.gains["seen"], other.worst_seed["seen"]
    assert (gain.n, gain.mean) == (3, pytest.approx((0.3 + 0.6 + 0.9) / 3))
    assert worst == pytest.approx(gain.mean), "with one seed, the worst is the mean"


def test_results_from_before_the_judged_figure_stand_in_the_table_with_a_dash() -> None:
    old = {"ndcg": {"unseen": [0.5, 0.5]}, "tokens": 10, "seconds": 1.0}
    new = {
        "ndcg": {"unseen": [0.6, 0.25]},
        "judged_ndcg": {"unseen": [0.9, 0.7]},
        "judged_share": {"unseen": [0.5, 0.3]},
        "tokens": 10,
        "seconds": 1.0,
    }
    base = old | {"judged_ndcg": {"unseen": [0.8, 0.8]}, "judged_share": {"unseen": [0.4, 0.4]}}
    queries = [{"unseen": ("lamp", "chair")}]

    def line(result: dict[str, object], before: dict[str, object]) -> str:
        other = row("other", [{0: result}], [before], [{0: base}], queries)
        return markdown("toy", [before], queries, [other]).splitlines()[-1]

    assert of_lane([{0: old}, {0: new, 1: old | {"fused_ndcg": {"unseen": [0.1, 0.2]}}}], "fused_") == [
        {},
        {1: {"ndcg": {"unseen": [0.1, 0.2]}, "tokens": 10, "seconds": 1.0}},
    ]
    table = markdown("toy", [base], queries, [], base="base + BM25", absent=["other"])
    assert table.splitlines()[-3:-1] == [
        "| base + BM25 |  |  | (0.500) |  |  |  |  |",
        "| other | - | - | - | - | - | - | - |",
    ]
    both = line(new, base)
    assert both.startswith("| other | +0.000 [-0.100, +0.100] | +0.000 [-0.100, +0.100] | 0.40 | ")
    assert both.endswith(" | -0.250 (1 of 2) | 1 | chair -0.250 |")
    assert line(old, base) == "| other | - | - | - | +0.000 (0 of 2) | 0 | chair +0.000 |"
    assert line(new, old).startswith("| other | - | +0.000 [")


def test_what_learns_nothing_stands_in_one_table_by_its_own_figures() -> None:
    words = {
        "ndcg": {"unseen": [0.5, 1.0]},
        "judged_ndcg": {"unseen": [1.0, 1.0]},
        "judged_share": {"unseen": [0.5, 0]},
    }
    table = unlearned({"base model": [{"ndcg": {"unseen": [0.25, 0.5]}}], "BM25": [words]}, [{"unseen": ("a", "b")}])
    assert table.splitlines()[-2:] == ["| base model | 0.375 | - | - |", "| BM25 | 0.750 | 1.000 | 0.25 |"]


def test_a_base_from_before_the_judged_figure_is_measured_again_where_units_are(
    corpus: Corpus, minilm_path: Path, estudio_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "RESULTS", tmp_path)
    old = STORE.measured(f"{corpus.name}/base", lambda: {"ndcg": {"unseen": [0.1]}})
    assert measure.measure_base(corpus, str(minilm_path)) == old
    complete = measure.measure_base(corpus, str(minilm_path), complete=True)
    assert set(complete["judged_ndcg"]) == set(complete["fused_judged_ndcg"]) == {"seen", "unseen"}
    assert measure.measure_base(corpus, str(minilm_path)) == complete


def test_a_stored_unit_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "RESULTS", tmp_path)
    first = STORE.measured("a/b", lambda: {"value": 1})
    assert STORE.measured("a/b", lambda: {"value": 2}) == first
    assert first["value"] == 1
    assert "cores" in first["machine"]


def test_a_unit_of_another_budget_than_ours_is_measured_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "RESULTS", tmp_path)
    ours, other, uncorrected = (
        Unit(corpus, Condition("clean", 40), name, seed=0) for name in ("ours", "CoSENTLoss", "ours, uncorrected")
    )
    STORE.measured(other.key, lambda: {"tokens": 100})
    STORE.measured(uncorrected.key, lambda: {"tokens": 10})
    assert measure.stored(other) is None, "ours is not known"
    STORE.measured(ours.key, lambda: {"tokens": 104})
    assert (measure.stored(other) or {})["tokens"] == 100
    STORE.measured(ours.key, lambda: {"tokens": 110}, fresh=True)
    assert measure.stored(other) is None
    assert measure.stored(uncorrected) is not None, "it ends where its own dev queries say"


@pytest.mark.parametrize(("weight", "kept"), [(None, Fusion().weight), (0.0, 0.0)])
def test_words_weigh_what_training_chose_or_the_default(
    corpus: Corpus,
    minilm_path: Path,
    estudio_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weight: float | None,
    kept: float,
) -> None:
    def untrained(task: Task) -> Outcome:
        return Outcome(base_model(task).eval(), 100, 1, 0.0, weight=weight, stated={"rate": 3})

    monkeypatch.setattr(units, "RESULTS", tmp_path)
    monkeypatch.setitem(measure.CONTENDERS, "ours", untrained)
    # Queries and what they want share a number that says nothing to the model.
    wanted = {query: max(grades, key=lambda item: grades[item]) for query, grades in corpus.judgments.items()}
    number = {query: f"q{place}z" for place, query in enumerate(wanted)}
    judgments = Judgments({f"{query} {number[query]}": grades for query, grades in corpus.judgments.items()})
    numbered = replace(
        corpus,
        name="numbered",
        items=corpus.items | {item: f"{corpus.items[item]}, {number[query]}" for query, item in wanted.items()},
        judgments=judgments,
        seen=tuple(judgments),
    )
    result = measure.measure(Unit(numbered, Condition("clean", 40), "ours", seed=0), str(minilm_path))
    assert (result["weight"], result["rate"]) == (kept, 3)
    gain = np.mean(result["fused_ndcg"]["seen"]) - np.mean(result["ndcg"]["seen"])
    assert gain > 0.05 if kept else gain == 0


def test_at_ten_times_the_tokens_ours_trains_longer_and_the_others_spend_what_it_spent(
    corpus: Corpus, minilm_path: Path, estudio_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Task] = []

    def spy(task: Task) -> Outcome:
        given.append(task)
        return Outcome(base_model(task).eval(), task.budget_tokens or 1_000 * task.times, 1, 0.0)

    monkeypatch.setattr(units, "RESULTS", tmp_path)
    for name in ("ours", "CoSENTLoss"):
        monkeypatch.setitem(measure.CONTENDERS, name, spy)
    unit = Unit(corpus, Condition("clean", 40), "CoSENTLoss", seed=0, times=10)
    measure.measure(unit, str(minilm_path))
    assert [(task.times, task.budget_tokens) for task in given] == [(10, None), (10, 10_000)]
    assert unit.key == "toy/clean-40-x10/CoSENTLoss-0"
    assert measure.stored(replace(unit, times=1)) is None
    longer, usual = TrainingConfig(**longer_training(10)), TrainingConfig(**longer_training(1))
    assert (longer.num_epochs, longer.max_steps) == (10 * usual.num_epochs, 10 * (usual.max_steps or 0))
    assert longer.query_passes == 10 * (usual.query_passes or 0)


def test_the_oracle_keeps_the_rate_that_ranks_development_queries_best(
    corpus: Corpus, minilm_path: Path, estudio_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "RATES", (1e-9, 2e-3))
    sessions = [
        FineTuningInput(query, query, tuple(grades), (0, 1, 2, 3), (None,) * 4, (1.0, 0.0, 0.0, 0.0))
        for query, grades in corpus.judgments.items()
    ]
    data = RankingData(
        {"train": sessions[:10], "dev": sessions[10:], "holdout": []},
        ItemsSet({key: (text,) for key, text in corpus.items.items()}),
    )
    task = Task(measure.sealed(corpus, corpus.judgments), str(minilm_path), data, seed=0, budget_tokens=8_000)
    best = oracle.oracle_searched(task)
    reached = best.stated["development"]
    assert len(set(reached.values())) == 2, "the rates rank alike: there is nothing to choose"
    development = replace(task.corpus, seen=tuple(s.query for s in sessions[10:]), unseen=())
    found = figures(best.model, development, Fusion())["fused_ndcg"]["seen"]
    assert np.mean(found) == pytest.approx(max(reached.values()), abs=1e-6)


def test_mined_negatives_are_near_the_query_and_further_than_the_clicked_item(
    corpus: Corpus, minilm_path: Path
) -> None:
    clicked = [("red chair", corpus.items["blue-chair"], "skipped")] * 2
    task = Task(measure.sealed(corpus), str(minilm_path), measure._NO_CLICKS, seed=0, budget_tokens=None)
    rows, tokens = mined_rows(task, clicked)
    assert [row[:2] for row in rows] == [row[:2] for row in clicked]
    negatives = [row[2] for row in rows]
    assert len(set(negatives)) == 2, "a pair takes its negatives in turn"
    model = base_model(task)
    query = model.encode_queries(["red chair"]).numpy()[0]
    texts = list(corpus.items.values())
    near = dict(zip(texts, model.encode_items(texts).numpy() @ query, strict=True))
    limit = 0.95 * near[corpus.items["blue-chair"]]
    best = sorted((text for text in texts if near[text] < limit), key=lambda text: -near[text])[:3]
    assert set(negatives) <= set(best)
    assert tokens == sum(map(len, model.tokenize_items([*texts, "red chair"])))


def test_a_share_of_the_clicks_falls_at_random(corpus: Corpus) -> None:
    rankings = {query: [(key, 0.5) for key in corpus.items] for query in corpus.judgments}
    calm = conditions(400)["clean"]
    assert conditions(400)["random-clicks"] == replace(calm, name="random-clicks", random_share=0.2)
    before, after = (
        np.array([s.click_weights for s in replay(corpus, rankings, condition, seed=1)])
        for condition in (calm, replace(calm, random_share=0.5))
    )
    assert before.sum(axis=1).tolist() == after.sum(axis=1).tolist(), "clicks are moved, none is made"
    moved = ((before > 0) & (after == 0)).sum() / (before > 0).sum()
    results = before.shape[1]
    assert 0.5 * (1 - 2 / results) < moved < 0.55
    assert after.mean(axis=0)[-1] > before.mean(axis=0)[-1]


def test_without_noise_nothing_irrelevant_is_clicked(corpus: Corpus) -> None:
    rankings = {query: [(key, 0.5) for key in corpus.items] for query in corpus.judgments}

    def irrelevant_clicks(condition: str) -> int:
        return sum(
            weight > 0 and not corpus.judgments[session.query].get(result)
            for session in replay(corpus, rankings, conditions(400)[condition], seed=1)
            for result, weight in zip(session.results, session.click_weights, strict=True)
        )

    assert irrelevant_clicks("clean") > 0
    assert irrelevant_clicks("no-noise") == 0


@pytest.mark.parametrize(("name", "share"), [("sparse-third-wrong", 1 / 3), ("sparse-two-thirds-wrong", 2 / 3)])
def test_a_sparse_log_asks_every_query_twice_and_a_share_of_its_clicks_is_wrong(
    corpus: Corpus, name: str, share: float
) -> None:
    rankings = {query: [(key, 0.5) for key in corpus.items] for query in corpus.judgments}
    condition = conditions(400, queries=len(corpus.judgments))[name]
    logs = [replay(corpus, rankings, condition, seed) for seed in range(40)]
    for log in logs:
        assert sorted(session.query for session in log) == sorted([*corpus.judgments] * 2)
        assert len({session.session_id for session in log}) == condition.sessions
    wrong = [
        not corpus.judgments[session.query].get(result)
        for log in logs
        for session in log
        for result, weight in zip(session.results, session.click_weights, strict=True)
        if weight > 0
    ]
    assert np.mean(wrong) == pytest.approx(share, abs=0.06)
    places = [
        place
        for log in logs
        for session in log
        for place, (result, weight) in enumerate(zip(session.results, session.click_weights, strict=True))
        if weight > 0 and not corpus.judgments[session.query].get(result)
    ]
    assert np.mean(np.array(places) < 5) > 0.5, "wrong clicks fall where people look"
    fewer = replay(corpus, rankings, replace(condition, sessions=10), seed=0)
    assert len({session.query for session in fewer}) == 5


def test_wrong_clicks_beside_noise_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="noise"):
        Condition("noisy", 10, wrong_share=0.5)


def test_training_rows_pair_every_click_with_a_result_its_session_skipped(corpus: Corpus) -> None:
    session = FineTuningInput(
        "s", "red chair", ("red-chair", "blue-chair"), (0, 1), (None, None), click_weights=(1.0, 0.0)
    )
    data = RankingData(
        {"train": [session], "dev": [], "holdout": []}, ItemsSet({k: (t,) for k, t in corpus.items.items()})
    )
    task = Task(corpus, "", data, seed=0, budget_tokens=None)
    clicked, skipped = corpus.items["red-chair"], corpus.items["blue-chair"]
    assert clicked_rows(task, "MultipleNegativesRankingLoss") == [("red chair", clicked, skipped)]
    assert sorted(clicked_rows(task, "CoSENTLoss")) == [("red chair", skipped, 0.0), ("red chair", clicked, 1.0)]
