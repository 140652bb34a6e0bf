"""How attributes are read from a product's fields, or from its title where the field is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.quality.attributes.kinds import Kind

Product = Mapping[str, Any]
Reader = Callable[[Product, Kind], set[str]]

_COLOURS = {
    "black": "black", "white": "white", "grey": "grey", "gray": "grey", "silver": "silver", "blue": "blue",
    "red": "red", "green": "green", "yellow": "yellow", "orange": "orange", "purple": "purple", "violet": "purple",
    "pink": "pink", "beige": "beige", "cyan": "cyan", "magenta": "magenta", "light cyan": "light cyan",
    "light magenta": "light magenta", "photo black": "photo black", "matte black": "matte black",
    "turquoise": "turquoise", "aqua": "turquoise", "gold": "gold", "brown": "brown", "transparent": "transparent",
    "light black": "light black", "vivid magenta": "magenta",
}  # fmt: skip
_COLOUR_IN_TITLE = re.compile(
    rf"\b({'|'.join(sorted(map(re.escape, _COLOURS), key=len, reverse=True))})\b", re.IGNORECASE
)
_FEET = 0.3048


def _colours(product: Product, kind: Kind) -> set[str]:
    attributes = product["attributes"]
    fields = ("t_printing_colours",) if kind.prints else ("t_product_colour", "t_cable_colour")
    named = [part.strip().lower() for field in fields for part in re.split("[,/]", attributes.get(field, ""))]
    if not any(named):
        named = [match.lower() for match in _COLOUR_IN_TITLE.findall(product["title"])]
    found = {_COLOURS[name] for name in named if name in _COLOURS}
    return found if len(found) <= 2 else set()  # an assortment is of no colour that one asks for


def _length(product: Product, kind: Kind) -> set[str]:
    """Metres, to whole feet where they are meant: catalogs round 6 ft to 1.8 or 1.83 m."""
    metres = product["attributes"].get("n_cable_length")
    if metres is None:
        match = re.search(r"(\d+(?:[.,]\d+)?)[ -]?(m|ft|feet|in|inch|cm)\b", product["title"].lower())
        if not match:
            return set()
        unit = {"m": 1.0, "ft": _FEET, "feet": _FEET, "in": 0.0254, "inch": 0.0254, "cm": 0.01}[match[2]]
        metres = float(match[1].replace(",", ".")) * unit
    feet = metres / _FEET
    if float(metres * 2).is_integer():
        return {f"{metres:g} m"}
    if abs(round(feet) / feet - 1) < 0.03:
        return {f"{round(feet)} ft"}
    return {f"{round(metres, 1):g} m"} if 0.05 < metres < 100 else set()


def metres(key: str) -> float:
    """Return the length of a value of the attribute `length`.

    >>> round(metres("6 ft"), 2), metres("2 m")
    (1.83, 2.0)
    """
    number, unit = key.split()
    return float(number) * (_FEET if unit == "ft" else 1.0)


def _screen(product: Product, kind: Kind) -> set[str]:
    """Whole inches: who asks for 15 means 15.4 and 15.6 too."""
    attributes = product["attributes"]
    field = "n_maximum_screen_size_compatibility" if kind.covers else "n_display_diagonal"
    inches = attributes.get(field)
    if inches is None:
        match = re.search(r"(\d\d(?:\.\d)?)(?:\"|''|”| ?-?inch)", product["title"].lower())
        inches = float(match[1]) if match else None
    return {str(int(inches))} if inches and 3 <= inches < 100 else set()


def _gigabytes(*fields: str) -> Reader:
    def read(product: Product, kind: Kind) -> set[str]:
        size = next((product["attributes"][field] for field in fields if field in product["attributes"]), None)
        in_title = re.search(r"\b(\d+(?:\.\d+)?) ?-?(mb|gb|tb)\b", product["title"].lower())
        if in_title and (size is None or len(fields) == 1):  # memory modules: the field is in MB or in GB
            size = float(in_title[1]) * {"mb": 1 / 1024, "gb": 1.0, "tb": 1000.0}[in_title[2]]
        if not size:
            return set()
        if fields[-1] == "n_internal_memory" and size >= 200:  # given in MB
            size /= 1024
        if size < 1:
            return {f"{2.0 ** round(math.log2(size)):g}"}
        return {f"{size:g}"} if float(size).is_integer() else set()

    return read


def _number(field: str, least: float, most: float) -> Reader:
    def read(product: Product, kind: Kind) -> set[str]:
        number = product["attributes"].get(field)
        return {f"{number:g}"} if number is not None and least <= number <= most else set()

    return read


def _said(patterns: Mapping[str, str], *fields: str) -> Reader:
    """Return a reader of the keys whose pattern is found in the fields, or in the title where they are absent."""
    compiled = {key: re.compile(pattern, re.IGNORECASE) for key, pattern in patterns.items()}

    def read(product: Product, kind: Kind) -> set[str]:
        of_fields = " | ".join(str(product["attributes"][field]) for field in fields if field in product["attributes"])
        text = of_fields or f"{product['title']} | {product['short_description'] or ''}"
        return {key for key, pattern in compiled.items() if pattern.search(text)}

    return read


_MODEL = re.compile(
    r"(?:.*?\b(laserjet|deskjet|officejet|designjet|photosmart|phaser|workcentre|stylus pro|stylus photo|stylus|"
    r"aculaser|pixma|optra|docuprint|inkjet)\b.*?)?\b([a-z]{0,4}-?\d{3,5}[a-z]{0,4})"
)
_PART_NUMBER = re.compile(r"[a-z]{1,2}\d{3,4}[a-z]")


def _devices(product: Product, kind: Kind) -> set[str]:
    """Printers it fits, as `laserjet 4000` or, where the model begins with letters, `mfc6490cw`."""
    found: set[str] = set()
    series = ""
    for part in re.split(r"[,;/\n]|\\n", str(product["attributes"].get("t_compatibility", "")).lower()):
        match = _MODEL.match(part.strip(" -"))
        if match:
            series = match[1] or series
            model = match[2].replace("-", "")
            if _PART_NUMBER.fullmatch(model):
                continue
            if model[0].isalpha():
                found.add(model)
            elif series:
                found.add(f"{series} {model}")
    return found


def _ports(product: Product, kind: Kind) -> set[str]:
    in_title = re.search(r"\b(\d+)[ -]?port\b", product["title"].lower())
    fields = ("n_basic_switching_rj_45_ethernet_ports_quantity", "n_number_of_computers_controlled")
    number = next((product["attributes"][field] for field in fields if field in product["attributes"]), None)
    number = float(in_title[1]) if in_title else number
    return {f"{number:g}"} if number and 2 <= number <= 64 else set()


def _label_size(product: Product, kind: Kind) -> set[str]:
    match = re.search(r"\b(\d+(?:\.\d+)?) ?x ?(\d+(?:\.\d+)?) ?mm", product["title"].lower())
    return {f"{float(match[1]):g}x{float(match[2]):g}"} if match else set()


def _connectors(product: Product, kind: Kind) -> set[str]:
    match = re.search(r"\b(lc|sc|st|mt-?rj)[/-](lc|sc|st|mt-?rj)\b", product["title"].lower())
    return {"-".join(sorted(name.replace("-", "") for name in match.groups()))} if match else set()


READERS: dict[str, Reader] = {
    "colour": _colours,
    "length": _length,
    "screen": _screen,
    "memory": _gigabytes("n_internal_memory"),
    "capacity": _gigabytes("n_capacity", "n_ssd_capacity", "n_hdd_capacity", "n_internal_storage_capacity",
                           "n_total_storage_capacity"),
    "ram": _gigabytes("n_ram_capacity", "n_internal_memory"),
    "clock": _number("n_processor_frequency", 1, 6),
    "power": _number("n_output_power_capacity", 200, 40_000),
    "outlets": _number("n_ac_outlets_quantity", 2, 48),
    "ports": _ports,
    "pack": _number("n_quantity_per_pack", 5, 200),
    "pieces": _number("n_labels_per_pack", 5, 100_000),
    "device": _devices,
    "labelsize": _label_size,
    "connectors": _connectors,
    "network": _said({"cat5e": r"cat(egory)?\.? ?5-?e", "cat6": r"cat(egory)?\.? ?6(?!\.?a|e/6a)\b",
                      "cat6a": r"cat(egory)?\.? ?6\.?a|10g\b"}),
    "wiring": _said({"crossover": r"cross-?(over|ed| wired)"}),
    "shield": _said({"shielded": r"\b(s|f|sf)/?[fu]?tp\b|\bstp\b|(?<!un)shielded|foiled"}),
    "technology": _said({"laser": r"laser|\bled\b|phaser", "inkjet": "ink ?jet|deskjet|officejet|stylus"},
                        "t_print_technology"),
    "mode": _said({"single": r"single-?mode|8\.3/125|9/125", "multi": r"multi-?mode|50/125|62\.5/125"}),
    "ddr": _said({"ddr4": "ddr4", "ddr3": "ddr3", "ddr2": r"ddr2|pc2-", "ddr": r"\bddr(?! ?\d)"},
                 "t_internal_memory_type"),
    "dimm": _said({"sodimm": "so-?dimm", "dimm": r"(?<!so-)(?<!so)dimm"}, "t_memory_form_factor"),
    "family": _said({"xeon": "xeon", "core 2 duo": "core ?2 duo", "core 2 quad": "core ?2 quad",
                     "pentium 4": "pentium 4", "pentium d": "pentium d", "celeron": "celeron", "atom": r"\batom",
                     "core i3": r"core i3|core. i3",
                     "core i5": r"core i5|core. i5", "core i7": r"core i7|core. i7", "core i9": r"core i9|core. i9",
                     "ryzen": "ryzen"}, "t_processor_family"),
    "socket": _said({"775": "775", "771": "771", "1366": "1366", "1156": "1156", "478": "478", "604": "604",
                     "479": "479", "370": r"socket 370"}, "t_processor_socket"),
    "radio": _said({"wireless": "wireless|bluetooth|cordless"}, "t_connectivity_technology", "t_device_interface"),
    "keys": _said({"qwerty": "qwerty", "qwertz": "qwertz", "azerty": "azerty"}, "t_keyboard_layout"),
    "wearing": _said({"in-ear": "in-?ear|intra", "over-ear": "head-?band|circum|supra"}, "t_wearing_style"),
    "yield": _said({"high": r"high[ -](yield|capacity)|\bhy\b|\d+xl?\b(?= original)"}),
    "sheet": _said({"a4": r"\ba4\b", "a3": r"\ba3\b"}),
    "print": _said({"mono": "mono", "colour": "colour"}, "t_printing"),
    "finish": _said({"gloss": r"gloss", "matt": r"\bmatte?\b", "satin": "satin|semi-?gloss|luster"}, "t_finish_type"),
    "bag": _said({"sleeve": "sleeve", "backpack": "backpack|rucksack", "briefcase": "briefcase|toploading",
                  "trolley": "trolley|roller|rolling", "messenger": "messenger"}, "t_case_type"),
    "disc": _said({"cd-r": r"cd-r\b", "cd-rw": r"cd-rw", "dvd-r": r"dvd-r\b", "dvd+r": r"dvd\+r(?! dl)\b(?!w)",
                   "dvd-rw": "dvd-rw", "dvd+rw": r"dvd\+rw", "bd-r": "bd-r|blu-?ray"}, "t_type"),
    "fixing": _said({"ceiling": "ceiling", "wall": "wall", "desk": "desk"}),
}  # fmt: skip
