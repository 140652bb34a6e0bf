"""What a person does next with a plugin: one thing at most, decided from what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["initialize", "fine_tune", "release", "rollback"]
"""What comes after `<plugin>__` in the id of a DAG that moves a plugin on, or back."""
KINDS: tuple[Kind, ...] = ("initialize", "fine_tune", "release", "rollback")


@dataclass(frozen=True)
class Situation:
    """What the decision is made of.

    Attributes:
        live: Number of the release that serves; None before the first.
        dags: DAGs of the plugin that Airflow knows, with whether each is paused.
        running: Runs under way, by the kind of their DAG.
        question: The run of `fine_tune` whose question, whether to promote, waits for an answer.
        challenger: Version that passed the gate and that nobody has asked to release or refused.
        new_sessions: Clicked sessions since the last training.
        wanted_sessions: How many of them the next training wants; None where the plugin's settings cannot be read.
        starts_itself: Whether `fine_tune` has a schedule.
    """

    live: int | None
    dags: Mapping[Kind, bool]
    new_sessions: int
    wanted_sessions: int | None
    running: Mapping[Kind, str] = field(default_factory=dict)
    question: str | None = None
    challenger: str | None = None
    starts_itself: bool = False


@dataclass(frozen=True)
class NextStep:
    """The step, in a sentence, and what its button does.

    Attributes:
        sentence: What is next, and why.
        does: `start` a run of the DAG, `review` a question in Airflow, or None: nothing is to be done.
        kind: Whose DAG `does` is about, or whose run the sentence is about.
        label: Text of the button.
        conf: Parameters of the run to start.
        run_id: The run that waits or is under way.
    """

    sentence: str
    does: Literal["start", "review"] | None = None
    kind: Kind | None = None
    label: str = ""
    conf: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None


def next_step(now: Situation) -> NextStep:
    """Return what comes next. Whoever waits for a person goes first, then what is under way, then what could begin.

    >>> next_step(Situation(live=1, dags={"fine_tune": False}, new_sessions=20, wanted_sessions=50)).sentence
    'Nothing to do: 30 more clicked sessions are wanted for the next training.'
    """
    if now.question is not None:
        sentence = "A challenger waits for an answer: look at its numbers, then promote it or keep the champion."
        return NextStep(sentence, "review", "fine_tune", "Review the challenger", run_id=now.question)
    for kind in KINDS:
        if kind in now.running:
            return NextStep(f"Nothing to do: {kind} is under way.", kind=kind, run_id=now.running[kind])
    if not now.dags and now.wanted_sessions is None:
        return NextStep(
            "Orphaned: neither a file nor DAGs define this plugin any more, and releases or requests of it are kept. "
            "Put its files back, or take those away: estudio plugins remove."
        )
    if now.live is None:
        sentence = "Nothing is live yet: index the items with the base model."
        return _start(now, NextStep(sentence, "start", "initialize", "Initialize"))
    if now.challenger is not None:
        sentence = f"Version {now.challenger} passed the gate and waits for somebody to release it."
        label, conf = f"Release version {now.challenger}", {"version": now.challenger}
        return _start(now, NextStep(sentence, "start", "release", label, conf))
    if now.wanted_sessions is None:
        return NextStep("The plugin's settings cannot be read, so nobody can say when it should learn again.")
    missing = now.wanted_sessions - now.new_sessions
    if missing > 0:
        sessions = "1 more clicked session is" if missing == 1 else f"{missing:,} more clicked sessions are"
        return NextStep(f"Nothing to do: {sessions} wanted for the next training.")
    sentence = "Enough new sessions to learn from."
    if now.starts_itself:
        sentence += " Training starts by its schedule, or now."
    return _start(now, NextStep(sentence, "start", "fine_tune", "Start fine-tuning"))


def _start(now: Situation, step: NextStep) -> NextStep:
    """Return the step, or why it cannot be taken: a run of a paused DAG would wait for ever."""
    assert step.kind is not None
    if step.kind not in now.dags:
        return NextStep(f"{step.sentence} Airflow does not know the DAG for it: is the plugin's stub in dags/?")
    if now.dags[step.kind]:
        return NextStep(f"{step.sentence} The DAG {step.kind} is paused: unpause it in Airflow first.", kind=step.kind)
    return step
