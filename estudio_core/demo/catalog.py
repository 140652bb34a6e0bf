"""The demo's catalogue: 19,406 real products and 3,668 human ratings. Origin and licences: `data/ATTRIBUTION.md`."""

from __future__ import annotations

import json
import lzma
from collections.abc import Container, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from estudio_core.errors import SourceSchemaError
from estudio_core.evaluation.judgments import Judgments

if TYPE_CHECKING:
    import psycopg

TABLE = "products"
PRODUCTS = 19_406

_DATA = resources.files("estudio_core.demo") / "data"

_CREATE = """
CREATE TABLE IF NOT EXISTS products (
    id                 bigint PRIMARY KEY,
    name               text NOT NULL,
    title              text NOT NULL,
    short_description  text,
    supplier           text NOT NULL,
    price_cents        integer NOT NULL CHECK (price_cents >= 0),
    date_released      date NOT NULL,
    ean                text[] NOT NULL,
    attributes         jsonb NOT NULL,
    updated_at         timestamptz NOT NULL DEFAULT now()
)
"""
_COLUMNS = "id, name, title, short_description, supplier, price_cents, date_released, ean, attributes"


@dataclass(frozen=True)
class LoadedCatalog:
    """Rows of `products` now, and how many of them this call wrote."""

    total: int
    written: int


def products() -> Iterator[dict[str, Any]]:
    """Iterate over the products as shipped, by id: prices in cents, dates as ISO text."""
    with _DATA.joinpath("chorus_products.jsonl.xz").open("rb") as packed, lzma.open(packed) as lines:
        for line in lines:
            yield json.loads(line)


def load_catalog(connection: psycopg.Connection, only: Container[str] | None = None) -> LoadedCatalog:
    """Create the table `products` and fill in the rows that are missing; rows that are there stay as they are.

    Args:
        connection: Where the table is made, in the first schema of its search path. The caller commits.
        only: Ids of the products wanted, for a small cut; all where None.

    Raises:
        SourceSchemaError: a table `products` of another shape is in the way.
    """
    import psycopg
    from psycopg.types.json import Jsonb

    try:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(_CREATE)
            cursor.execute("CREATE TEMP TABLE loaded_products (LIKE products INCLUDING DEFAULTS) ON COMMIT DROP")
            with cursor.copy(f"COPY loaded_products ({_COLUMNS}) FROM STDIN") as copy:
                for row in products():
                    if only is None or row["id"] in only:
                        copy.write_row(
                            (
                                int(row["id"]),
                                row["name"],
                                row["title"],
                                row["short_description"],
                                row["supplier"],
                                row["price"],
                                row["date_released"],
                                row["ean"],
                                Jsonb(row["attributes"]),
                            )
                        )
            written = cursor.execute(
                "INSERT INTO products SELECT * FROM loaded_products ON CONFLICT (id) DO NOTHING"
            ).rowcount
            cursor.execute("DROP TABLE loaded_products")
            if written:
                cursor.execute("ANALYZE products")
            total = cursor.execute("SELECT count(*) FROM products").fetchone()
    except (psycopg.errors.UndefinedColumn, psycopg.errors.SyntaxError, psycopg.errors.DatatypeMismatch) as error:
        raise SourceSchemaError(
            f"The database has a table 'products' that is not the demo's: {str(error).strip()}. "
            "Use another database for the demo, or rename that table."
        ) from error
    assert total is not None
    return LoadedCatalog(total=int(total[0]), written=written)


def load_judgments() -> Judgments:
    """Return the human ratings: grades 0 to 3 by query and product id."""
    with resources.as_file(_DATA / "chorus_ratings.csv") as path:
        return Judgments.from_csv(path, object_id="docid", grade="rating")
