"""Whether the gate was right, by the ratings that did not decide."""

from __future__ import annotations

import pytest

from estudio_core.demo.truth import truth_beside
from estudio_core.evaluation.bootstrap import Estimate
from estudio_core.evaluation.click_verdict import ClickVerdict
from estudio_core.evaluation.comparison import GroupComparison, MetricComparison
from estudio_core.evaluation.gate import GateDecision
from estudio_core.evaluation.gate_settings import GateSettings


def decision(verdict: str | None, true_gain: float) -> GateDecision:
    def estimate(mean: float) -> Estimate:
        return Estimate(mean=mean, low=mean - 0.01, high=mean + 0.01, n=40)

    clicks = None
    if verdict is not None:
        clicks = ClickVerdict(
            verdict=verdict,  # type: ignore[arg-type]
            reason="Because.",
            least=estimate(0.02),
            most=estimate(0.02),
            attention="given",
            attention_after_click=1.0,
            sessions=500,
            clicked_queries=40,
            unshown=0.0,
            modelled=0.1,
            sessions_needed=900,
        )
    compared = MetricComparison(
        metric="ndcg@10", before=estimate(0.7), after=estimate(0.7 + true_gain), gain=estimate(true_gain)
    )
    return GateDecision(
        promoted=verdict == "better",
        reason="Because.",
        settings=GateSettings(worthwhile_gain=0.01),
        groups=(GroupComparison(group="unseen", queries=40, metrics=(compared,)),),
        clicks=clicks,
    )


@pytest.mark.parametrize(
    ("verdict", "true_gain", "right"),
    [
        ("better", 0.02, True),
        ("better", -0.001, False),
        ("not better", 0.005, True),  # less than what would be worthwhile
        ("not better", 0.02, False),
        ("cannot tell", 0.02, None),
        (None, 0.02, None),
    ],
)
def test_a_verdict_of_clicks_is_compared_with_the_gain_by_ratings(
    verdict: str | None, true_gain: float, right: bool | None
) -> None:
    truth = truth_beside(decision(verdict, true_gain))
    assert truth.right is right
    if verdict is not None:
        assert f"{true_gain:+.3f} [{true_gain - 0.01:+.3f}, {true_gain + 0.01:+.3f}]" in truth.says
    assert ("and that was right" in truth.says) is (right is True)
    assert ("and that was wrong" in truth.says) is (right is False)
