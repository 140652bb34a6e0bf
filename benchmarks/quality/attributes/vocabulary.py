"""The words of values: as people ask for them, and as the catalog tells of them, in other words.

No told form shares a word with a form that the same value is asked by. Only the plain form stands on both sides, in the
share of texts that `texts.py` gives it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from benchmarks.quality.attributes.records import Value, metres


@dataclass(frozen=True)
class Forms:
    """How a value is put into words.

    Attributes:
        asked: In queries, the plain form first.
        told: In texts.
    """

    asked: tuple[str, ...]
    told: tuple[str, ...]


def _forms(asked: str, told: str) -> Forms:
    return Forms(tuple(asked.split("|")), tuple(told.split("|")))


WORDS: dict[Value, Forms] = {
    Value(attribute, key): _forms(asked, told)
    for attribute, of_keys in {
        "colour": {
            "black": ("black|blk|ebony|onyx|jet black", "BK|noir|schwarz|nero"),
            "white": ("white|wht|snow white|arctic", "WT|blanc|weiss|polar"),
            "grey": ("grey|gray|gry|charcoal|slate", "GY|gris|grau|anthracite"),
            "silver": ("silver|slvr|chrome", "argent|silber|brushed alloy"),
            "blue": ("blue|blu|navy|azure", "BU|bleu|blau|cobalt"),
            "red": ("red|crimson|scarlet", "RD|rouge|rot|rosso"),
            "green": ("green|grn|emerald", "GN|vert|gruen|verde"),
            "yellow": ("yellow|ylw|lemon", "YE|jaune|gelb|giallo"),
            "orange": ("orange|orng|tangerine", "OG|arancione|apricot"),
            "purple": ("purple|violet|lilac", "PU|mauve|aubergine"),
            "pink": ("pink|fuchsia|pnk", "PK|rosa|salmon"),
            "beige": ("beige|cream|tan", "BG|sand|ecru"),
            "brown": ("brown|brwn|chocolate", "BN|marron|braun"),
            "gold": ("gold|golden|gld", "GD|dore|oro"),
            "transparent": ("transparent|clear|see through", "TR|klar|crystal"),
            "turquoise": ("turquoise|aqua|teal", "TQ|tuerkis|lagoon"),
            "cyan": ("cyan|cyn|process cyan", "CN|ciano|zyan"),
            "magenta": ("magenta|mgnta|mag", "MG|purpur|pourpre"),
            "light cyan": ("light cyan|lt cyan|pale cyan", "LC|ciano chiaro|hellzyan"),
            "light magenta": ("light magenta|lt magenta|pale magenta", "LM|hellpurpur|pourpre clair"),
            "photo black": ("photo black|photo blk", "PBK|noir brillant|fotoschwarz"),
            "matte black": ("matte black|matt black|mat blk", "MBK|noir mate|mattschwarz"),
            "light black": ("light black|lt black", "LK|noir clair|hellschwarz"),
        },
        "kind": {
            "toner": ("toner|toner cartridge|laser cartridge|printer powder", "electrophotographic supply|dry developer refill"),
            "ink": ("ink|ink cartridge|inkjet refill|ink tank", "Tinte|encre for jet printing|drop-on-demand colorant"),
            "disc": ("blank discs|discs|recordable media|burnable disks", "120 mm optical Rohling|writable optical platter"),
            "label": ("labels|stickers|label sheets|sticky labels", "Etiketten|self-adhesive cut shapes"),
            "photo paper": ("photo paper|picture paper|photographic paper", "coated print stock|Fotopapier"),
            "kvm cable": ("kvm cable|kvm lead|kvm switch cable", "console cord set|keyboard-video-mouse loom"),
            "kvm switch": ("kvm switch|kvm|kvm switcher", "keyboard-video-mouse selector|console sharing unit"),
            "fibre cable": ("fiber cable|fibre optic cable|fiber patch cable|optical fiber lead", "LWL jumper|glass waveguide patchcord"),
            "network cable": ("ethernet cable|network cable|patch cable|lan cable|patch lead|internet cord", "twisted-pair assembly, 8P8C|RJ45 connection TP|Netzwerkkabel"),
            "hdmi cable": ("hdmi cable|hdmi lead|hdmi cord", "TMDS type A assembly|digital AV link 19-pin"),
            "displayport cable": ("displayport cable|display port cable|dp cable", "20-pin VESA link|DPort assembly"),
            "dvi cable": ("dvi cable|dvi lead|dvi cord", "24+1 digital visual assembly|DDWG link"),
            "vga cable": ("vga cable|vga lead|monitor cable|svga cable", "HD15 analogue RGB link|DE-15 assembly"),
            "usb cable": ("usb cable|usb lead|usb cord", "universal serial bus link|A/B plug serial-bus assembly"),
            "audio cable": ("audio cable|aux cable|speaker wire|sound lead", "line-level interconnect|Tonleitung"),
            "sata cable": ("sata cable|sata lead|hard drive cable", "serial ATA link|S-ATA assembly"),
            "serial cable": ("serial cable|rs232 cable|com port cable", "D-sub data link|EIA-232 assembly"),
            "power cord": ("power cord|power cable|mains lead|power lead", "IEC line set|Netzkabel"),
            "ups": ("ups|battery backup|uninterruptible power supply", "standby accumulator unit|USV|onduleur"),
            "pdu": ("pdu|power distribution unit|rack power strip", "Steckdosenleiste 19 Zoll|cabinet mains rail"),
            "surge protector": ("surge protector|power strip|surge suppressor", "overvoltage arrester|spike guard block"),
            "memory module": ("ram|memory|memory module|memory stick", "Arbeitsspeicher|SDR board DIMM type|Speicherriegel"),
            "usb stick": ("usb stick|flash drive|thumb drive|usb drive|pen drive", "Universal Serial Bus key storage|mobile NAND unit"),
            "memory card": ("memory card|sd card|flash card|camera card", "Speicherkarte|solid-state cartridge for photo gear"),
            "notebook case": ("laptop bag|laptop case|notebook case|computer bag", "Tasche|carry solution for portable PCs|housse"),
            "screen mount": ("tv mount|monitor arm|screen bracket|monitor mount", "flat panel suspension|VESA Halterung"),
            "notebook": ("laptop|notebook|laptop computer", "mobile workplace, clamshell|portable PC|Klapprechner"),
            "desktop": ("desktop pc|desktop computer|tower pc", "Standrechner|stationary system unit"),
            "processor": ("processor|cpu|chip", "microprocessing part, socketed|Prozessor"),
            "motherboard": ("motherboard|mainboard|mobo", "Hauptplatine|system planar PCB"),
            "smartphone": ("smartphone|mobile phone|cell phone|phone", "handset GSM/LTE|Telefonino"),
            "television": ("tv|television|telly", "Fernseher|home cinema flat set"),
            "monitor": ("monitor|computer screen|display|lcd screen", "Bildschirm|TFT visual unit"),
            "large format printer": ("large format printer|plotter|wide format printer", "roll-fed imaging device|Grossformatdrucker"),
            "printer": ("printer|printing machine", "Drucker|imprimante|page output device"),
            "mouse": ("mouse|mice|computer mouse", "pointing device|souris"),
            "keyboard": ("keyboard|kbd|key board", "Tastatur|text input device"),
            "headphones": ("headphones|headset|earphones|cans", "Kopfhoerer|personal listening device"),
            "network switch": ("network switch|ethernet switch|lan switch", "layer 2 bridge|RJ45 distribution node"),
        },
        "network": {
            "cat5e": ("cat5e|cat 5e|category 5e|cat5", "enhanced class D channel|100 MHz TIA-568"),
            "cat6": ("cat6|cat 6|category 6", "class E channel|250 MHz TIA-568"),
            "cat6a": ("cat6a|cat 6a|category 6a|10 gigabit", "class EA channel|augmented 500 MHz"),
        },
        "wiring": {"crossover": ("crossover|cross over|xover", "TX/RX swapped|gekreuzt")},
        "shield": {"shielded": ("shielded|stp|screened", "with foil and braid|geschirmt")},
        "mode": {
            "multi": ("multimode|multi mode|mmf", "62.5 or 50 micron core|OM graded index"),
            "single": ("singlemode|single mode|smf", "9 micron core|OS monomode"),
        },
        "ddr": {
            "ddr": ("ddr|ddr1", "PC1 generation SDRAM|184-contact SDRAM"),
            "ddr2": ("ddr2|ddr 2", "PC2 generation SDRAM|1.8 V SDRAM"),
            "ddr3": ("ddr3|ddr 3", "PC3 generation SDRAM|1.5 V SDRAM"),
            "ddr4": ("ddr4|ddr 4", "PC4 generation SDRAM|1.2 V SDRAM"),
        },
        "dimm": {
            "dimm": ("dimm|desktop memory", "full-length board"),
            "sodimm": ("sodimm|so dimm|laptop memory", "small-outline board|half-length board"),
        },
        "family": {
            "xeon": ("xeon|intel xeon", "Nocona to Gainestown line"),
            "core 2 duo": ("core 2 duo|c2d|core2duo", "Conroe to Wolfdale two-way line"),
            "core 2 quad": ("core 2 quad|c2q|core2quad", "Kentsfield to Yorkfield four-way line"),
            "pentium 4": ("pentium 4|p4|pentium iv", "NetBurst single line"),
            "pentium d": ("pentium d|pentium dual", "NetBurst twin line"),
            "celeron": ("celeron|budget intel", "entry-level value line"),
            "atom": ("atom|intel atom", "Silverthorne to Pineview low-watt line"),
            "core i3": ("core i3|i3", "three-series mainstream line"),
            "core i5": ("core i5|i5", "five-series mainstream line"),
            "core i7": ("core i7|i7", "seven-series performance line"),
            "core i9": ("core i9|i9", "nine-series enthusiast line"),
            "ryzen": ("ryzen|amd ryzen", "Zen architecture line"),
        },
        "socket": {
            "775": ("lga 775|socket 775|lga775", "Socket T"),
            "771": ("lga 771|socket 771|lga771", "Socket J"),
            "1366": ("lga 1366|socket 1366|lga1366", "Socket B"),
            "1156": ("lga 1156|socket 1156|lga1156", "Socket H"),
            "478": ("socket 478|s478|478 pin", "mPGA-N"),
            "604": ("socket 604|s604|604 pin", "Socket XP"),
            "479": ("socket 479|s479|479 pin", "mFCPGA"),
            "370": ("socket 370|s370|370 pin", "PGA-370ZIF"),
        },
        "radio": {"wireless": ("wireless|cordless|bluetooth", "2.4 GHz RF link|Funk")},
        "keys": {
            "qwerty": ("qwerty|us layout|english layout", "US-ASCII legends|UK/US keycaps"),
            "qwertz": ("qwertz|german layout", "DE legends|Umlaut keycaps"),
            "azerty": ("azerty|french layout", "FR legends|Belgian keycaps"),
        },
        "wearing": {
            "in-ear": ("in ear|earbuds|in-ear", "intraaural fit"),
            "over-ear": ("over ear|headband|over the head", "circumaural bow"),
        },
        "yield": {"high": ("high yield|xl|high capacity", "extended page count|grande autonomie")},
        "sheet": {"a4": ("a4|a4 size", "210 x 297 mm"), "a3": ("a3|a3 size", "297 x 420 mm")},
        "technology": {
            "laser": ("laser|laserprinter", "electrophotographic engine"),
            "inkjet": ("inkjet|ink jet|bubble jet", "liquid drop engine"),
        },
        "print": {
            "mono": ("mono|black and white|b&w", "single-tone output"),
            "colour": ("colour|color|full colour", "CMYK output"),
        },
        "finish": {
            "gloss": ("glossy|gloss|shiny", "brillant surface"),
            "matt": ("matte|matt|non shiny", "dull surface"),
            "satin": ("satin|semi gloss|lustre", "pearl surface"),
        },
        "bag": {
            "sleeve": ("sleeve|slip cover", "neoprene pouch"),
            "backpack": ("backpack|rucksack|back pack", "Rucksackform, two straps"),
            "briefcase": ("briefcase|attache|top loader", "Aktentasche with handle"),
            "trolley": ("trolley|rolling|wheeled", "with castors and telescopic pole"),
            "messenger": ("messenger|shoulder bag|courier", "Umhaengetasche"),
        },
        "disc": {
            "cd-r": ("cd-r|cdr|cd r", "700 MB write-once"),
            "cd-rw": ("cd-rw|cdrw|rewritable cd", "700 MB erasable"),
            "dvd-r": ("dvd-r|dvdr|dvd minus r", "4.7 GB write-once, dash type"),
            "dvd+r": ("dvd+r|dvd plus r", "4.7 GB write-once, alliance type"),
            "dvd-rw": ("dvd-rw|rewritable dvd", "4.7 GB erasable, dash type"),
            "dvd+rw": ("dvd+rw|dvd plus rw", "4.7 GB erasable, alliance type"),
            "bd-r": ("blu-ray|bluray|bd-r", "25 GB blue-violet write-once"),
        },
        "fixing": {
            "ceiling": ("ceiling|roof", "overhead fitting"),
            "wall": ("wall|on the wall", "brickwork plate"),
            "desk": ("desk|table top|desktop", "clamp or grommet base"),
        },
    }.items()
    for key, (asked, told) in of_keys.items()
}  # fmt: skip

_BRANDS = {
    "HP": "hp|hewlett packard|hewlett-packard", "StarTech.com": "startech|startech.com|star tech",
    "Kingston Technology": "kingston|kingston technology", "TP-LINK": "tp-link|tplink|tp link",
    "D-Link": "d-link|dlink|d link", "Tripp Lite": "tripp lite|tripplite|tripp", "C2G": "c2g|cables to go",
    "Allied Telesis": "allied telesis|allied telesyn", "Case Logic": "case logic|caselogic",
    "Origin Storage": "origin storage|origin", "Newstar": "newstar|neomounts",
}  # fmt: skip
_NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty").split()  # fmt: skip


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
        asked = _BRANDS.get(value.key, value.key.lower())
        return _forms(asked, value.key)
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
        told = [f"{(int(key) + _usual(key)) * 2.54:.1f} cm diagonal", f"{(int(key) + _usual(key)) * 25.4:.0f} mm across"]
    elif attribute in ("memory", "capacity", "ram"):
        asked, told = _storage(float(key))
    elif attribute == "clock":
        asked, told = [f"{key}ghz", f"{key} ghz", f"{key} gigahertz"], [f"{float(key) * 1000:.0f} MHz"]
    elif attribute == "power":
        asked = [f"{key}va", f"{key} va", f"{float(key) / 1000:g}kva"]
        told = [f"{float(key) / 1000:.2f} kilovolt-ampere"]
    elif attribute in ("outlets", "ports"):
        number = _NUMBERS[int(key)] if int(key) <= 20 else f"{key}x"
        nouns = ("outlet", "way", "socket") if attribute == "outlets" else ("port", "ports")
        asked = [*(f"{key} {noun}" for noun in nouns), f"{key}{nouns[0]}", f"{key}-{nouns[0]}"]
        told = [f"{number} receptacles"] if attribute == "outlets" else [f"{number} jacks"]
    elif attribute in ("pack", "pieces"):
        asked = [f"{key} pack", f"{key}pk", f"pack of {key}"] if attribute == "pack" else [f"{key} pcs", f"{key} pieces"]
        told = [f"{int(key)}er Spindel", f"spool with {key}"] if attribute == "pack" else [f"Inhalt {key}", f"qty {key}"]
    elif attribute == "labelsize":
        width, height = key.split("x")
        asked = [key, f"{width} x {height}", f"{key}mm", f"{width} by {height}"]
        told = [f"{float(width) / 10:g} cm wide, {float(height) / 10:g} cm high"]
    elif attribute == "connectors":
        first, second = key.split("-")
        asked, told = [f"{first} {second}", f"{first}-{second}", f"{first} to {second}"], [f"{first}/{second}".upper()]
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


_SHORT = {"laserjet": "lj", "officejet": "oj", "deskjet": "dj", "designjet": "dsj", "workcentre": "wc", "photosmart": "ps"}


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
        f"{''.join(head)} {''.join(parts[len(head):])}".upper()
    ]
