"""What the project promises, and whether a measurement keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.index.encoder import REFERENCE
from benchmarks.index.search import BARE, BOTH, OURS, WHOLE

ENCODER_AMX, ENCODER_OTHER = 2.8, 2.0
NDCG_LOSS = 0.005
REINDEX_SHARE = 0.85
COPY_SHARE = 0.80
SEARCH_P50, SEARCH_P99 = 1.3, 1.5
WORDS_P50, WORDS_P99 = 1.6, 2.0
"""Of words and vectors, by vectors alone."""
RECALL = 0.95
LOCK_MS, SWITCH_S = 100.0, 1.0
SYNC_SHARE = 0.02


@dataclass(frozen=True)
class Row:
    """One line of the table: what was compared, our figure, the other's, and the promise; `kept` None: there is none.

    Attributes:
        section: Heading it stands under.
        what: What was measured.
        ours: Our figure, with its unit.
        other: What it is compared with.
        ratio: The compared figure.
        bar: The promise.
        kept: Whether it is kept.
    """

    section: str
    what: str
    ours: str
    other: str
    ratio: str
    bar: str
    kept: bool | None


def encoder_rows(result: Mapping[str, Any]) -> list[Row]:
    """Speed and quality of bulk encoding against `SentenceTransformer.encode`."""
    least = ENCODER_AMX if "amx_bf16" in result["machine"] else ENCODER_OTHER
    reference = result["contenders"][REFERENCE]
    rows = []
    for name, found in result["contenders"].items():
        if name == REFERENCE:
            continue
        is_bulk = name == result["bulk"]
        ratio = found["texts_per_s"] / reference["texts_per_s"]
        loss = reference["ndcg_at_10"] - found["ndcg_at_10"]
        rows += [
            Row(
                "Encoding",
                f"{name}, {result['texts']:,} texts",
                f"{found['texts_per_s']:,.0f} texts/s",
                f"{REFERENCE}: {reference['texts_per_s']:,.0f} texts/s",
                f"{ratio:.2f} x",
                f"≥ {least} x" if is_bulk else "",
                ratio >= least if is_bulk else None,
            ),
            Row(
                "Encoding",
                f"{name}, {result['queries']} judged queries",
                f"nDCG@10 {found['ndcg_at_10']:.4f}",
                f"{REFERENCE}: {reference['ndcg_at_10']:.4f}",
                f"{loss:+.4f} lost",
                f"≤ {NDCG_LOSS}" if is_bulk else "",
                loss <= NDCG_LOSS if is_bulk else None,
            ),
        ]
    return rows


def reindex_rows(result: Mapping[str, Any]) -> list[Row]:
    """Speed of a whole re-index against that of the encoder alone, and what each stage took."""
    alone = result["encoder_items_per_s"]
    rows = []
    for what, speed, bar in (
        ("load and index build", result["items_per_s"], True),
        ("load: reading, tokenising, encoding, COPY", result["load_items_per_s"], False),
    ):
        share = speed / alone
        rows.append(
            Row(
                "Re-index",
                f"{result['items']:,} items, {what}",
                f"{speed:,.0f} items/s",
                f"encoder alone: {alone:,.0f} items/s",
                f"{share:.0%}",
                f"≥ {REINDEX_SHARE:.0%}" if bar else "",
                share >= REINDEX_SHARE if bar else None,
            )
        )
    for stage, seconds in result["stage_seconds"].items():
        rows.append(
            Row(
                "Re-index",
                f"stage: {stage}",
                f"{seconds:.2f} s busy",
                f"whole: {result['seconds']:.2f} s",
                f"{result['items'] / max(seconds, 1e-9):,.0f} items/s",
                "",
                None,
            )
        )
    return rows


def copy_rows(result: Mapping[str, Any]) -> list[Row]:
    """COPY against a bare one."""
    speeds = result["items_per_s"]
    return [
        Row(
            "COPY",
            f"{result['items']:,} items, {result['bytes'] / 1e6:,.0f} MB",
            f"{speeds['Estudio']:,.0f} items/s",
            f"bare COPY: {speeds['bare COPY']:,.0f} items/s",
            f"{result['ratio']:.0%}",
            f"≥ {COPY_SHARE:.0%}",
            result["ratio"] >= COPY_SHARE,
        )
    ]


def search_rows(result: Mapping[str, Any]) -> list[Row]:
    """Latencies and throughput against the bare statement at the same breadth."""
    bare = result["contenders"][BARE]
    section = f"Search, {result['size']:,} vectors"
    rows = []
    if both := result["contenders"].get(BOTH):
        rows += _words_rows(section, result["clients"], both, result["contenders"][OURS])
    for name in (OURS, WHOLE):
        found = result["contenders"][name]
        for key, most in (("p50_ms", SEARCH_P50), ("p99_ms", SEARCH_P99)):
            ratio = found[key] / bare[key]
            rows.append(
                Row(
                    section,
                    f"{name}, {result['clients']} clients, {key[:3]}",
                    f"{found[key]:.2f} ms",
                    f"{BARE}: {bare[key]:.2f} ms",
                    f"{ratio:.2f} x",
                    f"≤ {most} x",
                    ratio <= most,
                )
            )
        rows += [
            Row(
                section,
                f"{name}, {result['clients']} clients, throughput",
                f"{found['queries_per_s']:,.0f} queries/s",
                f"{BARE}: {bare['queries_per_s']:,.0f} queries/s",
                f"{found['queries_per_s'] / bare['queries_per_s']:.2f} x",
                "",
                None,
            ),
            Row(
                section,
                f"{name}, recall@10 at ef_search {result['ef_search']}",
                f"{found['recall_at_10']:.3f}",
                f"{BARE}: {bare['recall_at_10']:.3f}",
                "",
                f"≥ {RECALL}",
                found["recall_at_10"] >= RECALL,
            ),
        ]
    return rows


def _words_rows(section: str, clients: int, both: Mapping[str, Any], vectors: Mapping[str, Any]) -> list[Row]:
    """Words and vectors against our own page of vectors alone."""
    rows = [
        Row(
            section,
            f"{BOTH}, {clients} clients, {key[:3]}",
            f"{both[key]:.2f} ms",
            f"{OURS}: {vectors[key]:.2f} ms",
            f"{both[key] / vectors[key]:.2f} x",
            f"≤ {most} x",
            both[key] <= most * vectors[key],
        )
        for key, most in (("p50_ms", WORDS_P50), ("p99_ms", WORDS_P99))
    ]
    found = f"{both['recall_at_10']:.3f}"
    return [*rows, Row(section, f"{BOTH}, share of the ten best by the sum", found, "comparing all", "", "", None)]


def triton_rows(result: Mapping[str, Any]) -> list[Row]:
    """The product's Triton client against the bare one."""
    bare, ours = (result["contenders"][name] for name in ("bare tritonclient", "Estudio"))
    return [
        Row(
            "Triton client",
            f"{result['clients']} clients, {label}",
            f"{ours[key]:,.{digits}f} {unit}",
            f"bare tritonclient: {bare[key]:,.{digits}f} {unit}",
            f"{ours[key] / bare[key]:.2f} x",
            "",
            None,
        )
        for key, label, unit, digits in (
            ("p50_ms", "p50", "ms", 2),
            ("p99_ms", "p99", "ms", 2),
            ("queries_per_s", "throughput", "queries/s", 0),
        )
    ]


def switch_rows(result: Mapping[str, Any]) -> list[Row]:
    """Seconds of switch and rollback, and how long writers wait."""
    rows = []
    for name in ("switch", "rollback"):
        found = result[name]
        section, what = "Switch and rollback", f"{name}, {result['objects']:,} objects"
        rows += [
            Row(
                section,
                f"{what}, in all",
                f"{found['seconds']:.3f} s",
                "",
                "",
                f"< {SWITCH_S:g} s",
                found["seconds"] < SWITCH_S,
            ),
            Row(
                section,
                f"{what}, lock",
                f"{found['lock_ms']:.1f} ms",
                f"longest wait of a writer: {found['longest_wait_ms']:.1f} ms",
                "",
                f"< {LOCK_MS:g} ms",
                found["lock_ms"] < LOCK_MS,
            ),
        ]
    return rows


def sync_rows(result: Mapping[str, Any], reindex: Mapping[str, Any] | None) -> list[Row]:
    """Cost of a sync against that of a full re-index of the same items."""
    how = {"updated_at": "by time of change", "everything": "by hashes of all rows"}[result["method"]]
    what = f"{result['items']:,} items, {result['changed_share']:.0%} changed, {how}"
    if reindex is None or reindex["items"] != result["items"]:
        return [Row("Sync", what, f"{result['seconds']:.2f} s, {result['cpu_seconds']:.2f} CPU s", "", "", "", None)]
    share = result["cpu_seconds"] / reindex["cpu_seconds"]
    bar = result["changed_share"] == 0
    return [
        Row(
            "Sync",
            what,
            f"{result['seconds']:.2f} s, {result['cpu_seconds']:.2f} CPU s",
            f"re-index: {reindex['seconds']:.1f} s, {reindex['cpu_seconds']:.1f} CPU s",
            f"{share:.1%} of its CPU, {result['seconds'] / reindex['seconds']:.1%} of its time",
            f"< {SYNC_SHARE:.0%}" if bar else "",
            max(share, result["seconds"] / reindex["seconds"]) < SYNC_SHARE if bar else None,
        )
    ]
