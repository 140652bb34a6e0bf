"""sentence-transformers' own trainer with its losses, on the same clicks."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses

from benchmarks.quality.task import Outcome, Task, base_model, lengths
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.precision import choose_precision

LossName = Literal["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss", "CoSENTLoss"]
LEARNING_RATE = 1e-4
"""Peak, with linear decay and a tenth of the steps as warm-up. On two development partitions of the Chorus queries
MultipleNegativesRankingLoss gained, on queries asked and never asked, +0.187 and +0.077 at this rate and +0.194 and
+0.052 at twice it; with batches that hold no text twice, which the library recommends, +0.176 and +0.061 at this rate
and +0.187 and +0.051 at twice it (simulated clicks, one seed). Hence the sampler that the trainer has by default."""
BATCH_SIZE = {"MultipleNegativesRankingLoss": 64, "CachedMultipleNegativesRankingLoss": 256, "CoSENTLoss": 64}
"""Most rows per step; more in-batch negatives are what caching is for."""
_CACHED_CHUNK = 32
_DEFAULT_EPOCHS = 3.0


def clicked_rows(task: Task, loss: LossName) -> list[tuple[Any, ...]]:
    """Return training rows of the log, in random order.

    Ranking losses get (query, clicked, skipped): every click with one result that the same session skipped, drawn
    at random. CoSENT gets (query, item, label): every click with label 1, and as many skipped results with 0.
    """
    rng = np.random.default_rng(task.seed)
    texts = task.corpus.items
    rows: list[tuple[Any, ...]] = []
    for session in task.data.splits["train"]:
        skipped = session.not_events
        for object_id in session.events if skipped else ():
            negative = texts[skipped[int(rng.integers(len(skipped)))]]
            if loss == "CoSENTLoss":
                rows += [(session.query, texts[object_id], 1.0), (session.query, negative, 0.0)]
            else:
                rows.append((session.query, texts[object_id], negative))
    return [rows[i] for i in rng.permutation(len(rows))]


def on_clicks(task: Task, loss: LossName) -> Outcome:
    """Train on the clicks."""
    return train(task, clicked_rows(task, loss), loss)


def train(task: Task, rows: list[tuple[Any, ...]], loss: LossName, learning_rate: float = LEARNING_RATE) -> Outcome:
    """Train on `rows`: (query, item), (query, item, negative) or (query, item, label), until the budget is spent."""
    ours = base_model(task)
    names = ["anchor", "positive", "negative"][: len(rows[0])] if loss != "CoSENTLoss" else ["anchor", "item", "label"]
    data = Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(names)})
    batch_size = min(BATCH_SIZE[loss], len(rows))
    tokens_per_row = _tokens_per_row(ours, rows)
    budget = task.budget_tokens or _DEFAULT_EPOCHS * len(rows) * tokens_per_row
    spent = _Spent()
    with tempfile.TemporaryDirectory(prefix="estudio-bench-") as folder, quiet():
        model = same_model(ours, Path(folder) / "model")
        objective = (
            losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=_CACHED_CHUNK)
            if loss == "CachedMultipleNegativesRankingLoss"
            else getattr(losses, loss)(model)
        )
        objective.register_forward_pre_hook(spent.count)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=max(1, round(budget / (tokens_per_row * batch_size))),
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            warmup_steps=0.1,
            lr_scheduler_type="linear",
            seed=task.seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=choose_precision("auto") == "bf16-mixed",  # as ours does
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_drop_last=len(rows) > batch_size,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            loss=objective,
        )
        began = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - began
    return Outcome(
        _taken_back(ours, model),
        tokens=spent.tokens,
        sessions=spent.rows,
        seconds=seconds,
    )


class _Spent:
    """Counts the rows and real tokens that a loss is given."""

    def __init__(self) -> None:
        self.tokens = self.rows = 0

    def count(self, _: torch.nn.Module, given: tuple[Any, ...]) -> None:
        features = list(given[0])
        self.tokens += sum(int(column["attention_mask"].sum()) for column in features)
        self.rows += len(features[0]["attention_mask"])


def _tokens_per_row(model: EmbeddingModel, rows: list[tuple[Any, ...]]) -> float:
    texts = [part for row in rows for part in row if isinstance(part, str)]
    known = lengths(model, texts)
    return sum(known[text] for text in texts) / len(rows)


def same_model(ours: EmbeddingModel, folder: Path) -> SentenceTransformer:
    """Return the base model as a SentenceTransformer with the same frozen layers and length."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    ours.backbone.save_pretrained(folder)
    ours.tokenizer.save_pretrained(folder)
    transformer = Transformer(str(folder))
    transformer.max_seq_length = ours.max_length
    model = SentenceTransformer(
        modules=[transformer, Pooling(ours.dimensions, pooling_mode="mean"), Normalize()], device=str(ours.device)
    )
    trained = {name for name, parameter in ours.backbone.named_parameters() if parameter.requires_grad}
    for name, parameter in transformer.model.named_parameters():
        parameter.requires_grad_(name in trained)
    return model


def _taken_back(ours: EmbeddingModel, model: SentenceTransformer) -> EmbeddingModel:
    """Put the trained weights into our wrapper, so that all contenders are evaluated by the same code."""
    weights = {name: value.cpu() for name, value in model[0].model.state_dict().items() if "pooler" not in name}
    missing, unexpected = ours.backbone.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise RuntimeError(f"The trained weights do not fit: missing {missing}, unexpected {unexpected}.")
    return ours


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the trainer's notes out of the table."""
    loggers = [logging.getLogger(name) for name in ("sentence_transformers", "transformers", "datasets", "accelerate")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
