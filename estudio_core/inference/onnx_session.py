"""Opens ONNX Runtime sessions: threads of this machine, errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from estudio_core.errors import MissingDependencyError, ModelError
from estudio_core.inference.host import inference_threads


def open_session(path: Path, *, threads: int | None = None, providers: list[str] | None = None) -> Any:
    """Return an `onnxruntime.InferenceSession` of the graph at `path`.

    Args:
        path: The `.onnx` file.
        threads: Threads of one computation; None: what `inference_threads()` says.
        providers: ONNX Runtime execution providers; None: CUDA where the package has it, else CPU.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        ModelError: the file is missing or no graph that ONNX Runtime can run.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "ONNX Runtime is not installed. Run: pip install estudio (or, for a GPU: pip install onnxruntime-gpu)"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or inference_threads()
    options.inter_op_num_threads = 1
    # Threads that wait for work would burn the cores that the database and the callers need. Measured with
    # all-MiniLM-L6-v2 and two threads, a query of 8 tokens and a pause of 10 ms in turns, other work beside it (2 cores
    # AMD EPYC, AVX2 only): 7.6 ms of processor time in place of 19.6, median 6.0 in place of 5.8, p95 9.9 in place of
    # 13.2; batches of 32 texts of 64 tokens: 580 in place of 621.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # it keeps one allocation plan per input shape, and shapes here are many
    options.log_severity_level = 3
    if providers is None:
        available = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime raises classes of its own, all below Exception
        raise ModelError(
            f"ONNX Runtime cannot load {path}: {error}. If the file is damaged, run the release of its model again."
        ) from error
