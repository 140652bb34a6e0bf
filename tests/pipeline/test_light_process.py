"""What a web process has installed: the core, and nothing that only tasks, Airflow or the command line need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import estudio_core
from tests.pipeline.conftest import Shop

ROOT = Path(estudio_core.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

PROCESS = """
import json, sys

blocked = set(json.loads(sys.argv[1]))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from estudio_core import ItemWrite, delete, search, upsert

found = {}
found["hybrid"] = [hit.object_id for hit in search("shop", "red lamp number", limit=5).hits]
found["words"] = [hit.object_id for hit in search("shop", "number", limit=5, mode="words").hits]
lamps = {"all": {"kind": ["lamp"]}}
found["filter"] = [hit.payload["kind"] for hit in search("shop", "lamp", filter={"term": {"kind": "lamp"}}).hits]
wrote = upsert("shop", [ItemWrite("1001", "zebra crossing " * 40, {"kind": "zebra"})])
found["wrote"] = [wrote.upserted, wrote.kept]
found["found"] = search("shop", "zebra crossing", limit=1).hits[0].object_id
found["kept"] = upsert("shop", [ItemWrite("1001", "zebra crossing " * 40, {"kind": "road"})]).kept
found["payload"] = search("shop", "zebra crossing", limit=1).hits[0].payload
found["deleted"] = delete("shop", ["1001"]).deleted
found["left"] = [hit.object_id for hit in search("shop", "zebra crossing", limit=3).hits]
print(json.dumps(found))
"""


def closure(requirements: list[str]) -> set[str]:
    """Return the names of all distributions that these requirements bring along."""
    found: set[str] = set()
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        needed, extra = waiting.pop()
        if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", needed.name).lower()
        new = name not in found
        found.add(name)
        try:
            own = [Requirement(each) for each in requires(needed.name) or []]
        except PackageNotFoundError:
            continue
        if new:
            waiting += [(each, "") for each in own]
        waiting += [(each, extra) for extra in needed.extras for each in own if each.marker is not None]
    return found


def test_searching_and_writing_need_the_core_alone(indexed_shop: Shop, tmp_path: Path) -> None:
    core = closure(PROJECT["dependencies"])
    installed = packages_distributions()
    blocked = sorted(
        module
        for module, owners in installed.items()
        if not any(re.sub(r"[-_.]+", "-", owner).lower() in {*core, "estudio"} for owner in owners)
    )
    assert {"torch", "airflow", "mlflow", "transformers", "sqlalchemy", "typer", "rich", "scipy"} <= set(blocked)
    assert not {"numpy", "psycopg", "onnxruntime", "tokenizers"} & set(blocked)
    indexed_shop.plugin_file.rename(tmp_path / "away.py")  # a web process has no plugins
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, json.dumps(blocked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["hybrid"]) == len(found["words"]) == 5
    assert set(found["filter"]) == {"lamp"}
    assert (found["wrote"], found["found"], found["kept"]) == ([1, 0], "1001", 1)
    assert found["payload"] == {"kind": "road"}
    assert found["deleted"] == 1
    assert "1001" not in found["left"]


def test_an_item_gets_the_vectors_that_its_plugin_would_have_given_it(indexed_shop: Shop) -> None:
    from estudio_core import database
    from estudio_core.pipeline.items.embed_writes import embed_writes
    from estudio_core.pipeline.items.parts import ItemParts
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.vectordb.change_log import ItemWrite
    from estudio_core.vectordb.releases import require_live

    item = ItemWrite("7", "A lamp. " + "Bright and tall, of brass and glass. " * 30, {})
    with database.connect(autocommit=True) as connection:
        live = require_live(connection, "shop")
    assert live.item_texts is not None
    (made,) = embed_writes("shop")(live, [item], {})
    by_plugin = ItemParts(open_plugin("shop")).split(item).parts
    assert len(by_plugin) > 2
    assert len(made.vectors) == len(by_plugin)  # type: ignore[union-attr]


def test_parts_of_a_plugins_own_are_asked_of_the_plugin(indexed_shop: Shop) -> None:
    from estudio_core.inference.model_store import entry_of
    from estudio_core.pipeline.items.recipe import ItemTexts
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.preprocessing.preprocessor import ItemPreprocessor
    from estudio_core.preprocessing.splitters import NoSplitter
    from estudio_core.settings import get_settings

    texts = open_plugin("shop").item_texts
    entry = get_settings().triton_repository / entry_of("shop_v1").name
    assert ItemTexts.of(texts, entry) is not None
    assert ItemTexts.of(texts, entry.parent / "another_v1") is None, "whose tokenizer is not known"
    for own in (ItemPreprocessor(transform=str.upper), type("Own", (ItemPreprocessor,), {})()):
        texts.preprocessor = own
        assert ItemTexts.of(texts, entry) is None
    texts.preprocessor = ItemPreprocessor()
    texts.items_set_splitter.item_splitter = type("Own", (NoSplitter,), {})()
    assert ItemTexts.of(texts, entry) is None


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_command_line_the_command_says_what_to_install(missing: str) -> None:
    blocker = f"import sys; sys.modules[{missing!r}] = None; from estudio_core.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", blocker], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'estudio[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
