"""`python -m benchmarks.position_bias`: attention and weights of clicks, from logs whose truth is known.

Examination curves are recovered from replayed logs of Chorus; weights are compared with raw clicks in simulated logs of
three click models (`weights`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.position_bias.weights import logs, weighed, weights_table
from benchmarks.quality.corpora import Corpus, chorus
from benchmarks.quality.evaluation import shown_rankings
from benchmarks.quality.logs import SHOWN, Condition, replay
from benchmarks.units import RESULTS
from estudio_core.clickstream.examination import estimate_examination
from estudio_core.clickstream.examination_curve import PowerLaw
from estudio_core.clickstream.position_bias import Impressions, em_propensities, harvested_propensities
from estudio_core.clickstream.replay import ClickModel, Ranking

ETAS = (0.0, 0.5, 1.0, 2.0)
SHUFFLED = 0.3
"""Share of searches whose results are shown in random order, in the logs where rankings differ."""
Curve = NDArray[np.float64]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Recovery:
    """What the estimators make of logs of one exponent; `fixed` and `differing` as training estimates."""

    eta: float
    fixed: PowerLaw
    differing: PowerLaw
    em: Curve
    harvested: Curve

    @property
    def truth(self) -> Curve:
        """The examination by position."""
        return ClickModel(eta=self.eta).examination(np.arange(SHOWN))


@app.command()
def main(
    sessions: Annotated[int, typer.Option(min=100, help="Searches of each log of Chorus.")] = 5_000,
    quick: Annotated[bool, typer.Option("--quick", help="Weights of logs with two sessions a query alone.")] = False,
) -> None:
    """Replay clicks with known examination curves, estimate the curves, and see what weights make of such clicks."""
    from benchmarks.quality.__main__ import MODEL
    from estudio_core.context import context
    from estudio_core.models.embedding_model import EmbeddingModel

    logging.disable(logging.WARNING)
    corpus = chorus(0, development=True)
    model = EmbeddingModel(str(context.model_downloader.resolve(MODEL)), max_length=corpus.max_tokens)
    shown = shown_rankings(model, corpus)
    recoveries = [_recovery(corpus, shown, eta, sessions) for eta in ETAS]
    folder = RESULTS / "position_bias"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "position_bias.md").write_text(_table(recoveries, sessions), encoding="utf-8")
    _plot(recoveries, folder / "position_bias.svg")
    typer.echo(f"Table: {folder / 'position_bias.md'}")
    cells = []
    for number, log in enumerate(found := list(logs(quick)), start=1):
        cells.append(weighed(log))
        typer.echo(f"{number} of {len(found)}: {cells[-1]}")
    (folder / "weights.md").write_text(weights_table(cells), encoding="utf-8")
    typer.echo(f"Table: {folder / 'weights.md'}")
    if worse := [cell for cell in cells if cell.weighted > cell.raw]:
        typer.echo(f"Weights are worse than raw clicks in {len(worse)} of {len(cells)} cells.", err=True)
        raise typer.Exit(1)


def _recovery(corpus: Corpus, shown: dict[str, Ranking], eta: float, sessions: int) -> Recovery:
    logs = (Condition("recovery", sessions, eta=eta, shuffled_share=share) for share in (0.0, SHUFFLED))
    fixed, differing = (replay(corpus, shown, log, seed=0) for log in logs)
    flat = Impressions.of(differing)
    return Recovery(
        eta,
        estimate_examination(fixed),
        estimate_examination(differing),
        em_propensities(flat.positions, flat.clicks, flat.pairs),
        harvested_propensities(flat.positions, flat.clicks, flat.pairs),
    )


def _table(recoveries: list[Recovery], sessions: int) -> str:
    lines = [
        "# Recovery of position bias",
        "",
        f"Simulated clicks on human-rated products (Chorus), {sessions:,} searches a log, examination "
        f"(position + 1)^-e. Fixed rankings: each query always shows the same list. Differing: {SHUFFLED:.0%} of the "
        "searches show it in random order. Largest error: of the examination of any of the 20 positions.",
        "",
        f"Machine: {describe()}. Command: `python -m benchmarks.position_bias`.",
        "",
        "| true e | fixed rankings: e | between | differing rankings: e | largest error of EM | of harvesting |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in recoveries:
        low, high = sorted(r.fixed.bounds)
        em, harvested = (float(np.nanmax(np.abs(curve - r.truth))) for curve in (r.em, r.harvested))
        lines.append(
            f"| {r.eta:g} | {r.fixed.exponent:.2f} | {low:.2f} and {high:.2f} | "
            f"{r.differing.exponent:.2f} ± {r.differing.standard_error:.2f} | {em:.3f} | {harvested:.3f} |"
        )
    return "\n".join([*lines, "", "![examination by position](position_bias.svg)", ""])


def _plot(recoveries: list[Recovery], path: Any) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "estudio"
    figure, axes = plt.subplots(1, len(recoveries), figsize=(12, 3), sharey=True)
    places = np.arange(SHOWN) + 1
    for axis, r in zip(axes, recoveries, strict=True):
        axis.plot(places, r.truth, color="black", label="truth")
        axis.plot(places, places**-r.fixed.exponent, "--", label="exponent, fixed rankings")
        axis.plot(places, r.em, ".", label="EM, differing rankings")
        axis.plot(places, r.harvested, "x", label="harvested, differing rankings")
        axis.set_title(f"e = {r.eta:g}", fontsize=10)
        axis.set_xlabel("position")
    axes[0].set_ylabel("examination")
    axes[-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    app()
