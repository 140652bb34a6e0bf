"""The words of values: as people ask for them, and as the catalog tells of them, in other words (`words.toml`).

No told form shares a word with a form that the same value is asked by. Only the plain form stands on both sides, in the
share of texts that `texts.py` gives it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.quality.attributes.readers import metres
from benchmarks.quality.attributes.records import Value


@dataclass(frozen=True)
class Forms:
    """How a value is put into words.

    Attributes:
        asked: In queries, the plain form first.
        told: In texts.
    """

    asked: tuple[str, ...]
    told: tuple[str, ...]


WORDS: dict[Value, Forms] = {
    Value(attribute, key): Forms(tuple(words["asked"]), tuple(words["told"]))
    for attribute, of_keys in tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8")).items()
    for key, words in of_keys.items()
}

_BRANDS = {
    "HP": "hp|hewlett packard|hewlett-packard", "StarTech.com": "startech|startech.com|star tech",
    "Kingston Technology": "kingston|kingston technology", "TP-LINK": "tp-link|tplink|tp link",
    "D-Link": "d-link|dlink|d link", "Tripp Lite": "tripp lite|tripplite|tripp", "C2G": "c2g|cables to go",
    "Allied Telesis": "allied telesis|allied telesyn", "Case Logic": "case logic|caselogic",
    "Origin Storage": "origin storage|origin", "Newstar": "newstar|neomounts",
}  # fmt: skip
_UNITS = (
    *("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_COUNTS = {
    "outlets": (("{} outlet", "{} way", "{} socket", "{}-outlet"), "receptacles"),
    "ports": (("{} port", "{} ports", "{}port", "{}-port"), "jacks"),
    "pack": (("{} pack", "{}pk", "pack of {}"), "on a spindle"),
    "pieces": (("{} pcs", "{} pieces", "{}pcs"), "in the box"),
}
_PLUGS = {
    "lc": "small 1.25 mm push-pull plug",
    "sc": "square snap-in plug",
    "st": "bayonet plug",
    "mtrj": "two-strand RJ plug",
}


def spelt(number: int) -> str:
    """Return a number from 1 to 999,999 in words.

    >>> spelt(1248), spelt(50)
    ('one thousand two hundred forty eight', 'fifty')
    """
    if number >= 1_000:
        return f"{spelt(number // 1_000)} thousand {spelt(number % 1_000) if number % 1_000 else ''}".strip()
    if number >= 100:
        return f"{_UNITS[number // 100]} hundred {spelt(number % 100) if number % 100 else ''}".strip()
    return f"{_TENS[number // 10]} {_UNITS[number % 10]}".strip() if number >= 20 else _UNITS[number]


@cache
def forms(value: Value) -> Forms:
    """Return the forms of a value.

    >>> forms(Value("length", "6 ft")).asked[:2], forms(Value("length", "6 ft")).told[0]
    (('6ft', '6 ft'), '183 cm')
    >>> forms(Value("memory", "2")).told
    ('2048 MB', '2048 megabytes')
    """
    if value in WORDS:
        return WORDS[value]
    if value.attribute == "brand":
        return Forms(tuple(_BRANDS.get(value.key, value.key.lower()).split("|")), (value.key,))
    return _measured(value)


def _measured(value: Value) -> Forms:
    attribute, key = value
    if attribute == "length":
        number, unit = key.split()
        long = {"ft": ("foot", "feet"), "m": ("metre", "meter")}[unit]
        asked = [f"{number}{unit}", f"{number} {unit}", f"{number} {long[0]}", f"{number} {long[1]}"]
        told = [f"{metres(key) * 100:.0f} cm", f"{metres(key) * 1000:.0f} mm"]
    elif attribute == "screen":
        asked = [f"{key} inch", f"{key}in", f'{key}"', f"{key}-inch", *_USUAL_INCHES.get(key, ())]
        told = [
            f"{(int(key) + _usual(key)) * 2.54:.1f} cm diagonal",
            f"{(int(key) + _usual(key)) * 25.4:.0f} mm across",
        ]
    elif attribute in ("memory", "capacity", "ram"):
        asked, told = _storage(float(key))
    elif attribute == "clock":
        asked, told = [f"{key}ghz", f"{key} ghz", f"{key} gigahertz"], [f"{float(key) * 1000:.0f} MHz"]
    elif attribute == "power":
        asked = [f"{key}va", f"{key} va", f"{float(key) / 1000:g}kva"]
        told = [f"{float(key) / 1000:.2f} kilovolt-ampere"]
    elif attribute in _COUNTS:
        patterns, noun = _COUNTS[attribute]
        asked, told = [pattern.format(key) for pattern in patterns], [f"{spelt(int(key))} {noun}"]
    elif attribute == "labelsize":
        width, height = key.split("x")
        asked = [key, f"{width} x {height}", f"{key}mm", f"{width} by {height}"]
        told = [f"{float(width) / 10:g} cm wide, {float(height) / 10:g} cm high"]
    elif attribute == "connectors":
        first, second = key.split("-")
        asked = [f"{first} {second}", f"{first}-{second}", f"{first} to {second}"]
        told = [f"{_PLUGS[first]} and {_PLUGS[second]}" if first != second else f"{_PLUGS[first]} both ends"]
    else:
        asked, told = _device(key)
    return Forms(tuple(asked), tuple(told))


_USUAL_INCHES = {"11": ("11.6",), "12": ("12.1",), "13": ("13.3",), "15": ("15.6", '15.6"', "15.4"), "17": ("17.3",),
                 "21": ("21.5",), "23": ("23.8",)}  # fmt: skip


def _usual(key: str) -> float:
    return float(_USUAL_INCHES[key][0]) - int(key) if key in _USUAL_INCHES else 0.0


def _storage(gigabytes: float) -> tuple[list[str], list[str]]:
    if gigabytes >= 1000:
        number = f"{gigabytes / (1000 if gigabytes % 1000 == 0 else 1024):.3g}"
        return [f"{number}tb", f"{number} tb", f"{number} tera", f"{number} terabyte"], [f"{gigabytes:.0f} gigabytes"]
    if gigabytes < 1:
        number = f"{gigabytes * 1024:.0f}"
        return [f"{number}mb", f"{number} mb", f"{number} meg"], [f"{gigabytes:g} gigabytes"]
    megabytes, number = f"{gigabytes * 1024:.0f}", f"{gigabytes:g}"
    asked = [f"{number}gb", f"{number} gb", f"{number} gig", f"{number} gigs", f"{number}g", f"{number} gigabyte"]
    return asked, [f"{megabytes} MB", f"{megabytes} megabytes"]


_SHORT = {
    "laserjet": "lj",
    "officejet": "oj",
    "deskjet": "dj",
    "designjet": "dsj",
    "workcentre": "wc",
    "photosmart": "ps",
}


def _device(key: str) -> tuple[list[str], list[str]]:
    """Words of a printer: `laserjet 4000` is told as `LaserJet4000`, `mfc6490cw` as `MFC6490 CW`."""
    series, _, model = key.rpartition(" ")
    if series:
        short = [f"{_SHORT[series]} {model}", f"{_SHORT[series]}{model}"] if series in _SHORT else [f"{series}-{model}"]
        return [key, *short], [f"{series.title().replace(' ', '')}{model}"]
    parts = re.findall(r"[a-z]+|\d+", model)
    head = parts[:2] if len(parts) > 2 else parts[:1]
    hyphened = [f"{parts[0]}-{''.join(parts[1:])}"] if len(parts) > 2 else []
    return [model, *hyphened, f"{model} printer", f"{model} series"], [
        f"{''.join(head)} {''.join(parts[len(head) :])}".upper()
    ]
