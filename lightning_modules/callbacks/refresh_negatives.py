"""Mines hard negatives anew before every epoch, from the ranking of the model as it is then."""

from __future__ import annotations

import lightning

from lightning_modules.batches import BatchBuilder
from lightning_modules.lexical_scores import LexicalScores
from lightning_modules.mining import mine_negatives
from lightning_modules.precision import LightningPrecision, autocast
from lightning_modules.ranking_module import RankingModule
from lightning_modules.text_bank import TextBank


class RefreshNegatives(lightning.Callback):
    """Hands mined negatives to the batch builder.

    Args:
        builder: Adds them to its batches.
        bank: Texts and objects to mine among.
        precision: Of forward passes.
        lexical: What words add to similarities; None: nothing.
    """

    def __init__(
        self,
        builder: BatchBuilder,
        bank: TextBank,
        precision: LightningPrecision,
        lexical: LexicalScores | None = None,
    ) -> None:
        self._builder = builder
        self._bank = bank
        self._precision = precision
        self._lexical = lexical

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Encode every text with the current weights and mine; with several ranks, the first does, for all."""
        assert isinstance(pl_module, RankingModule)
        mined = self._mine(pl_module) if trainer.is_global_zero else {}
        self._builder.mined = trainer.strategy.broadcast(mined) if trainer.world_size > 1 else mined

    def _mine(self, module: RankingModule) -> dict[str, list[str]]:
        config = module.config
        with autocast(self._precision, module.model.device):
            vectors = module.encoder.vectors(range(len(self._bank)))
        shown = self._builder.shown_for_query
        return mine_negatives(vectors, self._bank, shown, config.mined_negatives, config, self._lexical)
