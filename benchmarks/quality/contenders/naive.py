"""A loop over sessions, one step each, with the formula that the original tutorial intended."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.quality.task import Outcome, Task, base_model
from lightning_modules.losses.prob_margin_ranking_loss import pair_losses
from lightning_modules.precision import autocast, choose_precision

SCALE, SHIFT, MARGIN = 400.0, 6.0, 0.05
LEARNING_RATE = 1e-3
"""Of plain SGD; not searched."""
_DEFAULT_EPOCHS = 1


def naive(task: Task) -> Outcome:
    """Encode each session on its own, compare each clicked with each skipped result, and step with SGD."""
    torch.manual_seed(task.seed)
    model = base_model(task)
    optimizer = torch.optim.SGD(model.trainable_parameters(), lr=LEARNING_RATE)
    sessions = [s for s in task.data.splits["train"] if s.events and s.not_events]
    texts = task.corpus.items
    rng = np.random.default_rng(task.seed)
    budget = task.budget_tokens
    tokens = done = 0
    precision = choose_precision("auto")
    began = time.monotonic()
    model.train()
    while done < _DEFAULT_EPOCHS * len(sessions) if budget is None else tokens < budget:
        for i in rng.permutation(len(sessions)):
            session = sessions[i]
            ids = [*model.tokenize_queries([session.query]), *model.tokenize_items([texts[r] for r in session.results])]
            longest = max(map(len, ids))
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
            padded = torch.tensor([row + [model.padding_id] * (longest - len(row)) for row in ids])
            with autocast(precision, model.device):
                vectors = model(padded.to(model.device), mask.to(model.device)).float()
            similarity = vectors[1:] @ vectors[0]
            clicked = torch.tensor([weight > 0 for weight in session.click_weights], device=similarity.device)
            difference = similarity[clicked][:, None] - similarity[~clicked][None, :]
            loss = pair_losses(difference, margin=MARGIN, scale=SCALE, shift=SHIFT, form="sigmoid").mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            tokens += int(mask.sum())
            done += 1
            if tokens >= budget if budget is not None else done >= _DEFAULT_EPOCHS * len(sessions):
                break
    return Outcome(model.eval(), tokens=tokens, sessions=done, seconds=time.monotonic() - began)
