"""Losses over pairs of a clicked and a not clicked item."""

from lightning_modules.losses.annealing import Annealing
from lightning_modules.losses.cosine_prob_margin_ranking_loss import CosineProbMarginRankingLoss
from lightning_modules.losses.default_loss import default_loss
from lightning_modules.losses.margin_mse_loss import MarginMseLoss
from lightning_modules.losses.prob_margin_ranking_loss import ProbMarginRankingLoss
from lightning_modules.losses.softmax_ranking_loss import SoftmaxRankingLoss

__all__ = [
    "Annealing",
    "CosineProbMarginRankingLoss",
    "MarginMseLoss",
    "ProbMarginRankingLoss",
    "SoftmaxRankingLoss",
    "default_loss",
]
