"""Encodes in bulk with torch: on a GPU, or in bfloat16 on CPUs that multiply it in hardware."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import numpy as np

from estudio_core.errors import ModelError, RepositoryError
from estudio_core.inference.batching import padded
from estudio_core.inference.embedder import Vectors
from estudio_core.inference.entry_embedder import EntryEmbedder
from estudio_core.inference.golden import check_golden
from estudio_core.inference.host import inference_threads, multiplies_bfloat16
from estudio_core.inference.manifest import TOKENIZER_FILE, TORCH_FOLDER, EntryManifest, read_verified

if TYPE_CHECKING:
    import torch

CPU_MAX_ROWS, CPU_MAX_TOKENS = 32, 8192
GPU_MAX_ROWS, GPU_MAX_TOKENS = 1024, 131_072
"""Texts and tokens of one computation: enough to keep the device busy, bounded for memory."""
CPU_MAX_WORKERS = 4
"""Batches computed at once on a CPU, each on its share of the threads. A thread for each batch waits for no other: on
two cores that encoded 1.1 to 1.2 times what two threads on one batch do. More cores were not measured; the bound is
there because workers share Python's lock."""


class TorchEmbedder(EntryEmbedder):
    """An `Embedder` over an entry's torch weights, checked against the entry's golden vectors when opened.

    In lower precision where the hardware is fast at it, float16 on GPUs and bfloat16 on CPUs: the latter gave cosines
    of 0.9999 and better to fp32 and three times its speed on a CPU with AMX, and on one with AVX-512 BF16.

    Args:
        entry: Folder of the entry.
        manifest: Its manifest, where files were verified already; None: read and verify the torch files.
        model_folder: Folder of the weights; None: the entry's own.
        device: `cpu`, `cuda`, `cuda:1`…; None: a GPU where there is one.
        half: Whether to compute in 16 bits; None: on GPUs, and on CPUs that multiply bfloat16 in hardware.

    Raises:
        RepositoryError: the entry is damaged or has no torch weights.
        ModelError: the vectors differ from those of the published graph.
    """

    def __init__(
        self,
        entry: Path,
        *,
        manifest: EntryManifest | None = None,
        model_folder: Path | None = None,
        device: str | None = None,
        half: bool | None = None,
    ) -> None:
        import torch

        from estudio_core.models.storage import load_model

        entry = Path(entry)
        manifest = manifest or read_verified(entry)
        if model_folder is None and not has_torch_weights(manifest):
            raise RepositoryError(
                f"{entry} was published without torch weights. Give `model_folder`, or use the ONNX implementation."
            )
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_gpu = self.device.type == "cuda"
        if half is None:
            half = on_gpu or multiplies_bfloat16()
        # float16 has three more bits of mantissa, and every GPU is fast at it; CPUs are at bfloat16.
        self._autocast_type: torch.dtype | None = (torch.float16 if on_gpu else torch.bfloat16) if half else None
        self._workers = None if on_gpu else _start_workers(inference_threads())
        super().__init__(
            entry,
            manifest,
            max_rows=GPU_MAX_ROWS if on_gpu else CPU_MAX_ROWS,
            max_tokens=GPU_MAX_TOKENS if on_gpu else CPU_MAX_TOKENS,
            map_batches=map if self._workers is None else self._workers.map,
        )
        self._model: torch.nn.Module | None = load_model(model_folder or entry / TORCH_FOLDER).eval().to(self.device)
        precision = str(self._autocast_type or torch.float32).removeprefix("torch.")
        check_golden(self, self.manifest, where=f"torch in {precision} on {self.device}")

    def close(self) -> None:
        """Free the model's memory, and end the threads."""
        self._model = None
        if self._workers is not None:
            self._workers.shutdown()
            self._workers, self._map_batches = None, map

    def _compute(self, token_ids: list[list[int]]) -> Vectors:
        import torch

        if self._model is None:
            raise ModelError(f"The embedder of {self.manifest.name} is closed. Open a new one.")
        input_ids, attention_mask = padded(token_ids, length=len(token_ids[0]), pad_id=self.manifest.padding_id)
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, dtype=self._autocast_type, enabled=self._autocast_type is not None),
            ):
                computed = self._model(
                    torch.from_numpy(input_ids).to(self.device), torch.from_numpy(attention_mask).to(self.device)
                )
            vectors: Vectors = computed.float().cpu().numpy()
        except RuntimeError as error:
            raise ModelError(
                f"{self.manifest.name} cannot compute {input_ids.shape} tokens on {self.device}: {error}"
            ) from error
        # A norm taken in bfloat16 is off by up to 0.4 %.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        normalised: Vectors = vectors / np.maximum(lengths, np.float32(1e-12))
        return normalised


def _start_workers(threads: int) -> ThreadPoolExecutor | None:
    """Return threads that compute a batch each, `threads` cores among them; None where one is enough."""
    import torch

    torch.set_num_threads(threads)
    workers = min(threads, CPU_MAX_WORKERS)
    if workers == 1:
        return None

    shares = iter([threads // workers + (number < threads % workers) for number in range(workers)])

    def take_share() -> None:
        torch.get_num_threads()  # the first look takes the number that the process set last; the next line is to stay
        torch.set_num_threads(next(shares))

    pool = ThreadPoolExecutor(workers, "estudio-encode", take_share)
    all_started = Barrier(workers)
    list(pool.map(lambda _: all_started.wait(), range(workers)))
    # OpenMP keeps the number of each thread; this is for the one that opens the embedder, and those to come.
    torch.set_num_threads(threads)
    return pool


def has_torch_weights(manifest: EntryManifest) -> bool:
    """Return whether the entry carries weights for torch."""
    return any(path.startswith(f"{TORCH_FOLDER}/") for path in manifest.files) and TOKENIZER_FILE in manifest.files
