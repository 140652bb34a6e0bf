"""Kinds of products, by rules over titles and fields, and the attributes that are read of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """How a kind is recognised, and what is read of its products.

    Attributes:
        pattern: Found in title and short description, lower case.
        attributes: Read of its products.
        field: One that a product of this kind always has; accessories named alike do not.
        prints: Its colour is that of its ink.
        covers: Its size is that of the screen it is for.
    """

    pattern: str
    attributes: tuple[str, ...]
    field: str | None = None
    prints: bool = False
    covers: bool = False


_CABLE = ("length", "colour")
_LENGTH = "n_cable_length"
KINDS: dict[str, Kind] = {
    "toner": Kind(r"toner", ("colour", "device", "yield"), "t_printing_colours", prints=True),
    "ink": Kind(
        r"\bink\b|inkjet print cart|singlepack|\d+-ml|inkjet printing", ("colour", "device", "yield"),
        "t_printing_colours", prints=True,
    ),
    "disc": Kind(r"\b(cd|dvd|bd)[-+]rw?\b", ("disc", "pack")),
    "label": Kind(r"\blabels?\b", ("labelsize", "colour", "pieces", "sheet"), "n_labels_per_pack"),
    "photo paper": Kind(r"photo(graphic)? ?paper", ("sheet", "finish")),
    "kvm cable": Kind(r"\bkvm\b.*\bcable|cable.*\bkvm\b", _CABLE, _LENGTH),
    "kvm switch": Kind(r"\bkvm (console )?switch", ("ports", "colour")),
    "fibre cable": Kind(
        r"fib(er|re).*(cable|patch)|(lc|sc|st)/(lc|sc|st).*(multi|single)mode|(multi|single)mode.*(lc|sc|st)/(lc|sc|st)",
        ("length", "colour", "connectors", "mode"), _LENGTH,
    ),
    "network cable": Kind(
        r"networking cable|patch (cable|cord|lead)|ethernet cable|cat\.? ?[56].*cable|crossover cable",
        ("length", "colour", "network", "wiring", "shield"), _LENGTH,
    ),
    "hdmi cable": Kind(r"hdmi.*cable", _CABLE, _LENGTH),
    "displayport cable": Kind(r"displayport.*cable", _CABLE, _LENGTH),
    "dvi cable": Kind(r"\bdvi\b.*cable", _CABLE, _LENGTH),
    "vga cable": Kind(r"\b(vga|hd15|svga|uxga)\b.*cable", _CABLE, _LENGTH),
    "usb cable": Kind(r"\busb\b.*cable", _CABLE, _LENGTH),
    "audio cable": Kind(r"audio cable|stereo.*cable|rca.*cable|speaker (wire|cable)", _CABLE, _LENGTH),
    "sata cable": Kind(r"\b(e?sata|serial ata)\b.*cable", _CABLE, _LENGTH),
    "serial cable": Kind(r"serial.*cable|\bdb-?(9|25)\b.*cable|null modem", _CABLE, _LENGTH),
    "power cord": Kind(r"power (extension )?(cord|cable|lead)", _CABLE, _LENGTH),
    "ups": Kind(r"uninterruptible|\bups\b", ("power", "colour"), "n_output_power_capacity"),
    "pdu": Kind(r"\bpdu\b|power distribution unit", ("outlets", "colour"), "n_ac_outlets_quantity"),
    "surge protector": Kind(r"surge", ("outlets", "colour", "length"), "n_ac_outlets_quantity"),
    "memory module": Kind(r"memory|dimm", ("memory", "ddr", "dimm"), "t_internal_memory_type"),
    "usb stick": Kind(r"usb (flash )?drive|usb stick", ("capacity", "colour"), "n_capacity"),
    "memory card": Kind(
        r"memory card|compact ?flash|\bsd(hc|xc)?\b|micro ?sd", ("capacity", "colour"), "n_capacity"
    ),
    "notebook case": Kind(
        r"notebook (case|sleeve|backpack)|laptop (case|sleeve|backpack|bag)", ("screen", "colour", "bag"), covers=True
    ),
    "screen mount": Kind(
        r"mount", ("fixing", "screen", "colour"), "n_maximum_screen_size_compatibility", covers=True
    ),
    "notebook": Kind(r"notebook|hybrid \(2-in-1\)", ("screen", "ram", "family", "colour", "capacity"),
                     "n_display_diagonal"),
    "desktop": Kind(r"\bpc\b|workstation|tower", ("ram", "family", "colour", "capacity"), "t_internal_memory_type"),
    "processor": Kind(r"processor|cpu", ("family", "clock", "socket"), "n_processor_cache"),
    "motherboard": Kind(r"motherboard|lga \d+.*atx", ("socket", "ddr"), "t_processor_socket"),
    "smartphone": Kind(r"galaxy|smartphone|edge|iphone|dual sim|\b[45]g\b", ("capacity", "ram", "colour"),
                       "n_ram_capacity"),
    "television": Kind(r"\btv\b|television", ("screen", "colour"), "n_display_diagonal"),
    "monitor": Kind(r"monitor|\blcd\b.*(black|silver|white|gr[ae]y)|pixels.*\b(lcd|hd|led)\b", ("screen", "colour"),
                    "n_display_diagonal"),
    "large format printer": Kind(r"large format printer|designjet.*printer", ("print",), "t_maximum_resolution"),
    "printer": Kind(r"printer|laserjet|deskjet|officejet|phaser|stylus|\bdpi a[34]", ("technology", "print", "sheet"),
                    "t_maximum_resolution"),
    "mouse": Kind(r"\bmouse\b", ("radio", "colour"), "t_device_interface"),
    "keyboard": Kind(r"\bkeyboard\b", ("radio", "colour", "keys"), "t_device_interface"),
    "headphones": Kind(r"headset|headphones|earphones", ("radio", "colour", "wearing")),
    "network switch": Kind(r"switch", ("ports", "colour"), "n_basic_switching_rj_45_ethernet_ports_quantity"),
}  # fmt: skip
"""In order: the first whose pattern and field a product has."""

_PORTS = {
    f"{port} cable" for port in ("hdmi", "displayport", "dvi", "vga", "usb", "audio", "sata", "serial", "network")
}
_PATTERNS = {name: re.compile(kind.pattern) for name, kind in KINDS.items()}
_OTHER_THINGS = re.compile(
    r"warrant|support contract|care ?pack|onsite|on-site|licen[sc]e|\bservice\b|spare part|cable tie|cable lock|fuser|"
    r"\bdrum\b|waste|developer|print ?head|belt\b|maintenance|ribbon|filter\b|label-making|label(l)?ing tape|"
    r"label tape|power adapter|\bac adapter|cleaning|remote control|projector|scanner|camera lens|\blens\b|hard drive|"
    r"\bhdd?\b kit|printing film|large format media|printing paper|art paper|spindle|networking card|jigsaw|puzzle|"
    r"fire ?wire|1394|docking|port replicator|rack cabinet|rack accessory|rack rail|patch panel|"
    r"network media converter|thin client|"
    r"graphics card|optical disc drive|tape drive|data cartridge|tray/feeder|output stacker|phone line|battery charger|"
    r"(single-use|rechargeable|ups) battery|heat ?sink|computer cooling|security camera|digital camera|"
    r"compact camera|doll\b"
)
_DOUBTFUL_THINGS = re.compile(
    r"\bkit\b|adapter\b(?!.*cable)|stand\b|holder|splitter|extender|converter|transmitter|all-in-one|multi-?function|\bmfp\b"
)
_DOUBT = re.compile(
    r"cable|cord|\blead\b|wire|toner|cartridge|\bink\b|original|singlepack|\blabel|paper|media|\bfilm\b|notebook|laptop|"
    r"\bpc\b|processor|pentium|celeron|xeon|\bcore\b|memory|ram\b|dimm|board|\busb\b|disc\b|dvd|\bcd|\bups\b|pdu|outlet|"
    r"surge|switch|mouse|keyboard|head(set|phone)|earphone|monitor|lcd|screen|display|television|\btv\b|case\b|bag\b|"
    r"sleeve|mount|printer|jet\b|server|workstation|phone|tablet|flash|drive|\bsd\b|patch|\bcat|fib(er|re)|power|"
    r"socket|\blga\b|\batx\b|hdmi|\bdvi\b|\bvga\b|phaser|stylus|pixma|\blaser"
)


def kind_of(product: Mapping[str, Any]) -> str | None:
    """Return the kind; "" for what is surely of none; None where the rules are in doubt."""
    title = product["title"].lower()
    if _OTHER_THINGS.search(title):
        return ""
    text = f"{title} | {(product['short_description'] or '').lower()} | {_technology(product)}"
    if not _DOUBTFUL_THINGS.search(title):
        found = [name for name, kind in KINDS.items() if _PATTERNS[name].search(text) and _has(product, kind.field)]
        if found and not (_between(found) and found[0] != "kvm cable"):
            return found[0]
    return None if _DOUBT.search(text) else ""


def _has(product: Mapping[str, Any], field: str | None) -> bool:
    return field is None or field in product["attributes"]


def _between(found: list[str]) -> bool:
    """Whether it leads from one kind of port to another, and is of both kinds or of none."""
    return sum(KINDS[name].field == _LENGTH for name in found if name in _PORTS) > 1


def _technology(product: Mapping[str, Any]) -> str:
    """What a cartridge whose text says only "HP 80 Original Cyan" is for."""
    attributes = product["attributes"]
    if "t_printing_colours" not in attributes or "t_type" not in attributes:
        return ""
    technology = str(attributes.get("t_print_technology", "")).lower()
    return "toner" if "laser" in technology or "led" in technology else "inkjet printing" if "ink" in technology else ""
