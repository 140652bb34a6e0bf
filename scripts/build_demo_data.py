"""Build the demo's data from the files of github.com/querqy/chorus.

    python scripts/build_demo_data.py FOLDER

FOLDER holds `{1,2,3,4}.json.zip` (from `data-encoder/ecommerce/vectors/data/`) and `Broad_Query_Set_rated.csv`
(from `katas/`) of commit 96edf8b536e521be06cab910e0f6a9b25e3016fc. The same input gives the same bytes. Images are
left out (their files are not part of the data set); every other field is kept.
"""

from __future__ import annotations

import csv
import json
import lzma
import sys
import zipfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "estudio_core" / "demo" / "data"
FIELDS = ("id", "name", "title", "short_description", "supplier", "price", "ean")


def product(source: dict[str, Any]) -> dict[str, Any]:
    """Return one line of `chorus_products.jsonl.xz`: attributes without their prefix, the date without its time."""
    return {name: source.get(name) for name in FIELDS} | {
        "date_released": source["date_released"][:10],
        "attributes": {key.removeprefix("attr_"): value for key, value in source.items() if key.startswith("attr_")},
    }


def main(folder: Path) -> None:
    """Write products and ratings into the package."""
    products: list[dict[str, Any]] = []
    for number in range(1, 5):
        with zipfile.ZipFile(folder / f"{number}.json.zip") as archive:
            products += [product(source) for source in json.loads(archive.read(f"{number}.json"))]
    products.sort(key=lambda row: int(row["id"]))
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in products]
    packed = lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    (DATA / "chorus_products.jsonl.xz").write_bytes(packed)

    with (folder / "Broad_Query_Set_rated.csv").open(encoding="utf-8", newline="") as file:
        ratings = sorted((row["query"], int(row["docid"]), row["rating"]) for row in csv.DictReader(file))
    with (DATA / "chorus_ratings.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["query", "docid", "rating"])
        writer.writerows(ratings)
    print(f"{len(products)} products ({len(packed):,} bytes), {len(ratings)} ratings")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
