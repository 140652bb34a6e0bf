"""What a forked process has of its parent and must not end: connections, and native objects without their threads."""

from __future__ import annotations

import ctypes


def keep_for_ever(inherited: object) -> None:
    """Have nothing of `inherited` closed or freed, not even at the end of the process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
