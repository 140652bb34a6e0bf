"""The same entries on a CPU with AVX2 only, which adds products of 8 bits in 16."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estudio_core.export import onnx_export
from estudio_core.export.onnx_export import quantise_onnx
from estudio_core.export.triton_repository import ExportOptions, publish_entry
from estudio_core.inference.onnx_embedder import OnnxEmbedder
from tests.cpu.avx2_only import NotPossibleError, avx2_only_environment
from tests.export.saturation import (
    extremes,
    products,
    quantise_in_full_range,
    saturating_products,
    weights_of,
    write_product,
)

PROJECT = Path(__file__).parents[2]
INT8 = ExportOptions(precision="int8")

has_vnni = pytest.mark.skipif(
    "vnni" not in Path("/proc/cpuinfo").read_text(), reason="this CPU has no VNNI: it is as the one that is imitated"
)


@pytest.fixture(scope="session")
def avx2_only() -> dict[str, str]:
    try:
        return os.environ | avx2_only_environment()
    except NotPossibleError as error:
        pytest.skip(str(error))


def run(code: str, environment: dict[str, str], *arguments: Any) -> str:
    """Run Python with `arguments` in `sys.argv[1:]`; return what it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_and_its_children_find_no_more_than_avx2(avx2_only: dict[str, str]) -> None:
    child = "import torch; print(torch.backends.cpu.get_cpu_capability(), open('/proc/cpuinfo').read().count('avx512'))"
    code = "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', sys.argv[1]], text=True))"
    assert run(child, avx2_only) == "AVX2 0"
    assert run(code, avx2_only, child) == "AVX2 0"


def test_faults_of_a_program_stay_faults(avx2_only: dict[str, str]) -> None:
    code = "import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(8)"
    done = subprocess.run([sys.executable, "-c", code], env=avx2_only, capture_output=True, text=True)
    assert done.returncode == -11
    assert "Segmentation fault" in done.stderr


@pytest.mark.parametrize(
    ("quantise", "computed"), [(quantise_onnx, products), (quantise_in_full_range, saturating_products)]
)
def test_sums_in_16_bits_saturate_in_full_range_only(
    quantise: Any, computed: Any, avx2_only: dict[str, str], tmp_path: Path
) -> None:
    quantise(write_product(tmp_path / "fp32.onnx"), tmp_path / "int8.onnx")
    np.save(tmp_path / "x.npy", extremes(40))
    code = (
        "import sys, numpy as np; from pathlib import Path;"
        "from estudio_core.inference.onnx_session import open_session;"
        "folder = Path(sys.argv[1]); x = np.load(folder / 'x.npy');"
        "np.save(folder / 'y.npy', open_session(folder / 'int8.onnx').run(None, {'x': x})[0])"
    )
    run(code, avx2_only, tmp_path)
    weights = weights_of(tmp_path / "int8.onnx")
    wanted = computed((255 * extremes(40)).astype(np.uint8), weights) / 255 / weights.max()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted, rtol=1e-5, atol=1e-4)


OPEN = """
import sys; from pathlib import Path; from estudio_core.errors import ModelError
from estudio_core.inference.opening import open_query_embedder
try:
    print(open_query_embedder("shop_v1", repository=Path(sys.argv[1])).check())
except ModelError as error:
    print(error)
"""


def test_an_int8_entry_gives_its_golden_vectors(small_model: Any, avx2_only: dict[str, str], tmp_path: Path) -> None:
    publish_entry(tmp_path, "shop_v1", small_model(seed=1), options=INT8)
    assert float(run(OPEN, avx2_only, tmp_path)) > 0.9999


@has_vnni
def test_an_entry_of_an_earlier_version_is_refused_until_its_release_is_run_again(
    small_model: Any, avx2_only: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(onnx_export, "quantise_onnx", quantise_in_full_range)
        before = publish_entry(tmp_path, "shop_v1", small_model(seed=1), options=INT8)
    assert float(run(OPEN, dict(os.environ), tmp_path)) > 0.9999, "it goes on where it gives its vectors"
    assert publish_entry(tmp_path, "shop_v1", small_model(seed=1), options=INT8) == before
    refusal = run(OPEN, avx2_only, tmp_path)
    assert "lowest cosine 0.9" in refusal
    assert "at least 0.99 is asked" in refusal
    assert "run the release of this version again on this host" in refusal
    assert "\n" not in refusal
    publish = (
        "import sys; from pathlib import Path; from tests.small_model import build_small_model;"
        "from estudio_core.export.triton_repository import ExportOptions, publish_entry;"
        "options = ExportOptions(precision='int8');"
        "publish_entry(Path(sys.argv[1]), 'shop_v1', build_small_model(seed=1), options=options)"
    )
    run(publish, avx2_only, tmp_path)
    assert OnnxEmbedder(tmp_path / "shop_v1").check() > 0.9999, "published there, it is right here too"
    assert float(run(OPEN, avx2_only, tmp_path)) > 0.9999


@pytest.mark.e2e
def test_models_are_published_in_int8_and_measured(avx2_only: dict[str, str]) -> None:
    tests = [
        "tests/export/test_onnx_export.py::test_int8_is_a_quarter_of_the_size_and_close",
        "tests/pipeline/test_export_quality.py::test_what_int8_loses_is_in_the_manifest",
        "tests/pipeline/test_export_quality.py::test_a_loss_above_the_bound_is_refused",
        "tests/pipeline/test_export_quality.py::test_held_out_clicks_measure_where_there_are_no_judgments",
        "tests/benchmarks/test_index.py::test_encoders_take_turns_over_the_same_texts",
    ]
    environment = {name: value for name, value in avx2_only.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
