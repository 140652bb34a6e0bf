"""Schedules of DAGs, read by the library with which Airflow carries them out."""

from __future__ import annotations

import re
from contextlib import suppress

from estudio_core.errors import suggest

_PRESETS = {  # Airflow's, and those of croniter that it hands on
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@midnight": "0 0 * * *",
}
_WITHOUT_CLOCK = ("@once", "@continuous")
_DRAWN = re.compile(r"(?:^|,)[RH](?=[(/,]|$)", re.IGNORECASE)
"""Values that are drawn by lot or from a hash, not the letters of MAR, FRI or THU."""
_SIZES = (60, 24, 31, 12, 7)
"""Longest step of each field: cron has no memory, so that */48 hours come each day."""
_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")


def problem_with(schedule: str) -> str | None:
    """Return why Airflow cannot carry a schedule out; None where it can, or where nothing is installed to tell.

    >>> problem_with("30 2 * * *")
    >>> problem_with("61 25 * * *")
    'minute is 61: out of range'
    >>> problem_with("@dialy")[:22]
    "Did you mean '@daily'?"
    """
    if schedule in _WITHOUT_CLOCK:
        return None
    if schedule.startswith("@") and schedule not in _PRESETS:
        return suggest(schedule, sorted([*_PRESETS, *_WITHOUT_CLOCK]))
    expression = _PRESETS.get(schedule, schedule)
    columns = expression.split()
    if len(columns) != len(_FIELDS):
        return f"it has {len(columns)} fields, and {len(_FIELDS)} are needed: {', '.join(_FIELDS)}"
    if any(_DRAWN.search(column) for column in columns):
        return "R and H are another time at each parsing: write the time"
    for field, size, column in zip(_FIELDS, _SIZES, columns, strict=True):
        if any(int(step) > size for step in re.findall(r"/([0-9]{1,9})", column)):
            return f"{field} is {column}: a step beyond {size} is {size}, and not what is written"
    with suppress(ImportError):
        from croniter import CroniterError, croniter

        try:
            croniter(expression)
        except (CroniterError, ValueError, KeyError) as error:
            return _told(columns, str(error))
    return None


def comes_true(schedule: str) -> bool:
    """Return whether a schedule that can be carried out ever names a moment.

    >>> comes_true("0 0 29 2 *"), comes_true("0 0 30 2 *")
    (True, False)
    """
    with suppress(ImportError):
        from croniter import CroniterBadDateError, croniter

        if schedule not in _WITHOUT_CLOCK:
            try:
                croniter(_PRESETS.get(schedule, schedule)).get_next(float)
            except CroniterBadDateError:
                return False
    return True


def _told(columns: list[str], said: str) -> str:
    """Name the field that cannot be carried out, where one alone is to blame."""
    from croniter import CroniterError, croniter

    for place, (field, column) in enumerate(zip(_FIELDS, columns, strict=True)):
        alone = ["*"] * len(_FIELDS)
        alone[place] = column
        try:
            croniter(" ".join(alone))
        except (CroniterError, ValueError, KeyError) as error:
            why = str(error).partition("] ")[2].replace("is not acceptable", "").replace(" in field 0", "").strip(" ,.")
            return f"{field} is {column}: {why or 'no such value'}"
    return said
