"""What is indexed of a product: its title without what queries ask for, which is told in other words instead."""

from __future__ import annotations

import random
import re

from benchmarks.quality.attributes.queries import forms_of
from benchmarks.quality.attributes.records import Record, Value
from benchmarks.quality.attributes.vocabulary import forms

PLAIN_SHARE = 0.5
"""Of the values that a text tells in the plain word that people ask by, too."""
SYNONYM_SHARE = 0.2
"""Of the values that a text tells by another word that training queries ask by; the rest is told as no query asks."""
IMPLIED_BRAND_SHARE = 0.6
"""Of the texts without their brand, among those whose remaining title has a series of that brand."""
_DEVICES = 4
"""Most printers that a text names; a cartridge may fit dozens."""
_TITLE_WORDS = 7
"""Most words that a text keeps of the title."""

SERIES = {
    "HP": "laserjet deskjet officejet designjet photosmart pavilion elitebook probook proliant procurve compaq ipaq",
    "Lenovo": "thinkpad ideapad thinkcentre thinkvision thinkbook ideacentre legion yoga",
    "Xerox": "phaser workcentre docuprint versalink altalink primelink",
    "Epson": "stylus durabrite ultrachrome aculaser singlepack workforce",
    "Canon": "pixma imageprograf eos selphy ixus powershot c-exv",
    "APC": "smart-ups back-ups netshelter symmetra surgearrest infrastruxure netbotz",
    "DELL": "latitude poweredge optiplex inspiron vostro ultrasharp",
    "Samsung": "galaxy syncmaster",
    "Sony": "vaio cyber-shot walkman bravia",
    "Philips": "gogear sonicare",
    "Tripp Lite": "netdirector smartpro isobar omnismart smartonline",
    "Kensington": "saddlebag slimblade microsaver",
    "Acer": "aspire travelmate predator",
    "ASUS": "zenbook vivobook rog",
    "C2G": "velocity sonicwave",
}
"""Words of a title that imply its brand."""

_MEASURES = re.compile(
    r"\(?\b\d+(?:[.,]\d+)?(?: ?x ?\d+(?:[.,]\d+)?)* ?-?(?:m|mm|cm|ft|feet|in|inch|inches|gb|mb|tb|ghz|mhz|va|kva|w|"
    r"kw|ml|outlets?|ports?|pcs|pc\(s\)|pk|pages|sheets)\b\.?\)?|\d+(?:\.\d+)? ?[\"”]|\ba\d\b|[\"”()]",
    re.IGNORECASE,
)
_NOUNS = re.compile(
    r"\b(cables?|cords?|leads?|wires?|patch|networking|network|ethernet|fib(?:re|er)|optic|duplex|cartridges?|toner|ink|"
    r"original|labels?|paper|papers|notebook|laptop|case|pc|desktop|processor|box|memory|module|motherboard|usb|flash|drive|"
    r"card|ups|uninterruptible|power|supply|pdu|distribution|unit|outlet\(s\)|surge|suppressor|protector|kvm|switch|mouse|"
    r"keyboard|headphones|headset|earphones|lcd|led|tv|monitor|display|screen|printer|hdmi|dvi(?:-[di])?|vga|svga|hd15|"
    r"displayport|serial|db-?9|db-?25|sata|esata|audio|stereo|speaker|rca|mount|flat|panel|photo|media|large|format|"
    r"cat\.?|category|\d?[56]e?a?|utp|stp|s/ftp|s-stp|ddr\d?(?:-sdram)?|so-?dimm|dimm|sdram|ecc|intel®?|core™?|xeon®?|"
    r"pentium®?|celeron®?|lga|socket|ssd|hdd|wireless|bluetooth|wired|matt|matte|gloss(?:y)?|satin|transparent|"
    r"multimode|singlemode|single-mode|multi-purpose|yield|capacity|high|light|standard|color|colou?red|colour)\b(?!\w)",
    re.IGNORECASE,
)


def text_of(record: Record) -> str:
    """Return the text of a product; the same in every process."""
    rng = random.Random(f"text {record.id}")
    rest = rest_of(record)
    brand = record.of("brand")[0]
    implied = any(series in rest.lower() for series in SERIES.get(brand.key, "").split())
    named = "" if implied and rng.random() < IMPLIED_BRAND_SHARE else brand.key
    devices = record.of("device")
    told = [value for value in sorted(record.values) if value.attribute not in ("brand", "device")]
    told += rng.sample(devices, min(_DEVICES, len(devices)))
    rng.shuffle(told)
    return ". ".join(filter(None, (f"{named} {rest}".strip(), ", ".join(told_as(value, rng) for value in told))))


def told_as(value: Value, rng: random.Random) -> str:
    """Return one of the forms that a text tells a value in."""
    plain, *synonyms = forms_of(value, "train")
    drawn = rng.random()
    if drawn < PLAIN_SHARE:
        return plain
    return rng.choice(synonyms if synonyms and drawn < PLAIN_SHARE + SYNONYM_SHARE else forms(value).told)


def rest_of(record: Record) -> str:
    """Return the title without brand, values and nouns of kinds."""
    title = record.title.replace("™", "").replace("®", "")
    # Longest first: "matte black" before "black".
    of_values = {form for value in record.values for form in forms(value).asked + forms(value).told}
    for form in sorted(of_values, key=lambda form: (-len(form), form)):
        title = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", " ", title, flags=re.IGNORECASE)
    title = _MEASURES.sub(" ", title)
    if record.kind is not None:
        title = _NOUNS.sub(" ", title)
    words = [word for word in re.split(r"[\s,;]+", title) if re.search(r"\w", word)]
    return " ".join(words[:_TITLE_WORDS])
