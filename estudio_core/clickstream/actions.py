"""What users do, under the names that logs give it: clicks and their worth, impressions."""

from __future__ import annotations

import re
from collections.abc import Mapping

CLICK_IMPORTANCE: Mapping[str, float] = {
    "click": 1.0,
    "click_through": 1.0,
    "item_click": 1.0,
    "product_click": 1.0,
    "result_click": 1.0,
    "add_to_cart": 2.0,
    "conversion": 2.0,
    "purchase": 3.0,
}
"""Actions that count as interest in a result, and how much a plain click they are worth.

A convention, not a measurement: an order is rarer and more deliberate than a click. An event's own
`importance` in its attributes goes before it. Every other action (impressions, hovers, filters) is no click.
"""

IMPRESSION = "impression"
IMPRESSION_ACTIONS: frozenset[str] = frozenset({IMPRESSION})
"""Actions that say a result was shown; they stand in where a query logged no hit ids."""

IRRELEVANT_ACTION = "mark_irrelevant"
"""Action that says none of a session's results was of use."""

DWELL_ACTION = "dwell"
"""Action that says how long a result was looked at (`dwell_s` in its attributes, which a click may have as well)."""
SATISFIED_DWELL_S = 30.0
"""Seconds from which on a click is taken for a satisfied one (Fox et al., "Evaluating Implicit Measures to Improve Web
Search", TOIS 2005)."""
SATISFIED_IMPORTANCE = 1.5
"""Of a click that was satisfied: a convention, between a click and a result put into the cart."""

KNOWN_ACTIONS = frozenset({*CLICK_IMPORTANCE, *IMPRESSION_ACTIONS, IRRELEVANT_ACTION, DWELL_ACTION})
_OTHER_NAMES = {
    "clicked": "click",
    "clickthrough": "click_through",
    "itemclick": "item_click",
    "productclick": "product_click",
    "addtocart": "add_to_cart",
    "add_to_basket": "add_to_cart",
    "addtobasket": "add_to_cart",
    "cart_add": "add_to_cart",
    "purchased": "purchase",
    "order": "purchase",
    "buy": "purchase",
    "impressions": "impression",
    "impressed": "impression",
}
_BETWEEN = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\s-]+")


def known_action(name: str) -> str | None:
    """Return an action under the name that Estudio knows it by, None where it knows none.

    >>> known_action("Add To Cart"), known_action("click-through"), known_action("hover")
    ('add_to_cart', 'click_through', None)
    """
    key = _BETWEEN.sub("_", name.strip()).lower()
    key = _OTHER_NAMES.get(key, key)
    return key if key in KNOWN_ACTIONS else None
