"""The points of a release at which something is killed, in the order in which a release comes by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tests.pipeline.run_step import Halt

Target = Literal["builder", "task", "server", "database", "session"]
"""`builder`: the process that loads or indexes; `task`: that of another step; `server`: Triton with its backends;
`database`: PostgreSQL's postmaster; `session`: the process with which PostgreSQL serves one client."""


@dataclass(frozen=True)
class Point:
    """One moment, and what is killed then.

    Attributes:
        name: What has just happened.
        step: The step that is at work.
        target: What is killed.
        halt: Where the step stands still meanwhile.
        embedded: The same place where no Triton serves; then the process of the step is killed in the server's stead.
        short: Whether the short form has it too.
    """

    name: str
    step: str
    target: Target
    halt: Halt
    short: bool = False
    embedded: Halt | None = None

    def without_triton(self) -> Point:
        """Return the point for a machine that has no Triton server."""
        if self.target != "server":
            return self
        return replace(self, target="task", halt=self.embedded or self.halt)


_PUBLISHING = "estudio_core.export"
_INDEX = "estudio_core.vectordb"

POINTS = (
    Point(
        "graph exported, nothing checked",
        "publish_model",
        "task",
        Halt(f"{_PUBLISHING}.triton_repository:check_parity"),
    ),
    Point("entry staged, half of it on disk", "publish_model", "task", Halt("estudio_core.durable:flush", "before", 3)),
    Point(
        "entry in the repository, not loaded",
        "publish_model",
        "task",
        Halt("estudio_core.inference.opening:ensure_served"),
    ),
    Point(
        "model told to load",
        "publish_model",
        "server",
        Halt("estudio_core.inference.triton_control:TritonControl._wait_until_ready"),
        embedded=Halt("estudio_core.inference.opening:open_query_embedder"),
    ),
    Point(
        "collection created, not committed",
        "start_collection",
        "database",
        Halt(f"{_INDEX}.releases:_emptied", "after"),
    ),
    Point(
        "collection created, items not divided",
        "start_collection",
        "task",
        Halt("estudio_core.sources.pgsql_data_loader:PgsqlDataLoader.key_ranges"),
    ),
    Point("objects copied, vectors not", "embed_shard", "builder", Halt(f"{_INDEX}.copying:_copy", call=2), short=True),
    Point("vectors copied, not committed", "embed_shard", "database", Halt(f"{_INDEX}.copying:_copy", "after", call=2)),
    Point(
        "one shard moved its mark, not committed",
        "embed_shard",
        "builder",
        Halt("estudio_core.pipeline.embed_shard:move_mark", "after"),
    ),
    Point(
        "items being encoded",
        "embed_shard",
        "server",
        Halt("estudio_core.pipeline.embed_shard:EncodedItems"),
    ),
    Point(
        "vector index built, not committed", "build_index", "builder", Halt(f"{_INDEX}.index_build:_create", "after")
    ),
    Point(
        "vector index committed, others not",
        "build_index",
        "builder",
        Halt(f"{_INDEX}.index_build:_create", "before", 2),
    ),
    Point(
        "indexes built, not committed",
        "build_index",
        "database",
        Halt(f"{_INDEX}.index_build:_has_foreign_key"),
        short=True,
    ),
    Point("index committed, not noted", "build_index", "builder", Halt(f"{_INDEX}.releases:mark_built")),
    Point(
        "golden texts not asked yet",
        "verify",
        "server",
        Halt("estudio_core.inference.golden:check_golden"),
        short=True,
    ),
    Point("writes applied, not noted", "verify", "task", Halt(f"{_INDEX}.catching_up:apply", "after")),
    Point("writes applied, not noted", "verify", "session", Halt(f"{_INDEX}.catching_up:apply", "after")),
    Point("recall measured", "verify", "task", Halt(f"{_INDEX}.verification:_breadth", "after")),
    Point(
        "pointer moved, not committed",
        "switch",
        "task",
        Halt(f"{_INDEX}.switching:_move_pointer", "after"),
        short=True,
    ),
    Point(
        "pointer moved, not committed",
        "switch",
        "database",
        Halt(f"{_INDEX}.switching:_move_pointer", "after"),
    ),
    Point("pointer committed, alias not moved", "switch", "task", Halt(f"{_INDEX}.releases:previous_release")),
    Point(
        "old collection dropped, not committed",
        "clean_up",
        "task",
        Halt(f"{_INDEX}.collection:Collection.drop", "after"),
    ),
    Point(
        "old model unloaded, not removed",
        "clean_up",
        "server",
        Halt(f"{_PUBLISHING}.triton_repository:remove_entry"),
    ),
    Point(
        "old entry out of the repository, not deleted",
        "clean_up",
        "task",
        Halt(f"{_PUBLISHING}.staging:flush"),
    ),
    Point(
        "pointer moved back, not committed",
        "rollback",
        "task",
        Halt(f"{_INDEX}.switching:_move_pointer", "after"),
    ),
    Point(
        "pointer moved back, alias not",
        "rollback",
        "database",
        Halt(f"{_INDEX}.releases:previous_release", "before", 2),
    ),
)

_CONCLUDING = "estudio_core.pipeline"

CONCLUDING_POINTS = (
    Point(
        "decided, nothing carried out",
        "conclude_experiment",
        "task",
        Halt(f"{_CONCLUDING}.conclude_experiment:carry_out"),
    ),
    Point(
        "pointer moved to the challenger, not committed",
        "conclude_experiment",
        "task",
        Halt(f"{_INDEX}.switching:_move_pointer", "after"),
    ),
    Point(
        "pointer moved to the challenger, not committed",
        "conclude_experiment",
        "database",
        Halt(f"{_INDEX}.switching:_move_pointer", "after"),
    ),
    Point(
        "challenger live, experiment not ended",
        "conclude_experiment",
        "task",
        Halt("estudio_core.comparing.ledger:end"),
        short=True,
    ),
)
"""Those of an experiment's end, in their order."""
