"""The learning curve: what its points pool, what it says of itself, and what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning_curve.__main__ import _known, _sizes
from benchmarks.learning_curve.table import NEVER, curve, verdicts, write
from benchmarks.quality.corpora import Corpus
from estudio_core.errors import ConfigurationError
from estudio_core.evaluation.judgments import Judgments

GRADES = {"item": 3.0}


@pytest.fixture
def corpus() -> Corpus:
    held_out = Judgments(dict.fromkeys(("new word", "new brand", "newer brand"), GRADES))
    return Corpus(
        "toy",
        {"item": "text"},
        Judgments({"asked": GRADES}),
        ("asked",),
        tuple(held_out),
        held_out,
        16,
        shown_judged_only=False,
        groups={"words": ("new word",), "brands": ("new brand", "newer brand")},
    )


def result(asked: float, word: float, *brands: float) -> dict[str, object]:
    """A result whose vectors alone would tell another story."""
    fused = {"seen": [asked], "words": [word], "brands": list(brands)}
    alone = {"seen": [0.0], "words": [0.0], "brands": [0.0, 0.0]}
    return {"ndcg": alone, "fused_ndcg": fused, "tokens": 10, "seconds": 1.0}


def test_a_point_is_the_mean_of_all_queries_never_asked_ranked_by_words_and_vectors(corpus: Corpus) -> None:
    base = result(0.5, 0.1, 0.1, 0.1)
    results = {"ours": {0: result(0.7, 0.1, 0.4, 0.4)}, "other": {0: result(0.9, 0.2, 0.1, 0.3)}, "absent": {}}
    found = curve(corpus, base, results)
    assert list(found) == ["ours", "other"]
    assert found["ours"].gains[NEVER].mean == pytest.approx(0.2)
    assert found["ours"].gains["asked"].mean == pytest.approx(0.2)
    assert found["other"].against_ours[NEVER].mean == pytest.approx(0.1)
    old = {key: value for key, value in base.items() if key != "fused_ndcg"}
    assert curve(corpus, old, results) == {}


def test_the_table_says_where_the_curve_falls_and_where_it_is_below_the_best_contender(
    corpus: Corpus, tmp_path: Path
) -> None:
    base = result(0.5, 0.1, 0.1, 0.1)

    def point(ours: float, *others: float) -> dict[str, object]:
        of_all = {name: {0: result(0.5, value, value, value)} for name, value in zip("ab", others, strict=False)}
        return curve(corpus, base, {"ours": {0: result(0.5, ours, ours, ours)}, **of_all})  # type: ignore[arg-type]

    curves = {3_000: point(0.25, 0.2, 0.3), 1_000: point(0.3, 0.2)}
    said = [
        "1,000 to 3,000 sessions: -0.050, a fall.",
        "1,000 sessions: ours minus a +0.100 [+0.100, +0.100], beyond the interval.",
        "3,000 sessions: ours minus b -0.050 [-0.050, -0.050], below it.",
    ]
    assert verdicts(curves) == said  # type: ignore[arg-type]
    path = write(tmp_path / "curve", "learning-curve", "About.", curves)  # type: ignore[arg-type]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[:2] for line in lines if line.startswith("| ")][2:] == [
        ["| 1,000", "ours"],
        ["| 1,000", "a"],
        ["| 3,000", "ours"],
        ["| 3,000", "a"],
        ["| 3,000", "b"],
    ]
    assert set(lines) >= {f"- {each}" for each in said}
    assert path.with_suffix(".svg").stat().st_size > 1_000


def test_sizes_and_contenders_that_cannot_be_are_refused() -> None:
    assert _sizes("3000, 1000,") == (1_000, 3_000)
    for text, match in (("1000;3000", "whole numbers"), ("0", "one session")):
        with pytest.raises(ConfigurationError, match=match):
            _sizes(text)
    assert _known(["CoSENTLoss"]) == ["ours", "CoSENTLoss"]
    with pytest.raises(ConfigurationError, match="No contender is called 'mnrl'"):
        _known(["mnrl"])
