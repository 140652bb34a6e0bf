"""Python's garbage collector, kept from going through everything that was ever imported."""

from __future__ import annotations

import gc
from functools import cache


@cache
def spare_what_is_loaded() -> None:
    """Leave all objects that exist now, once in a process, out of later collections.

    Reading rows makes many small objects, which sets off full collections. With a model and its libraries loaded,
    half a million objects are gone through each time and none of them ever goes: nearly half of the time of a sync that
    finds nothing to do was spent on that. What is rubbish at this moment stays until the process ends.
    """
    gc.freeze()
