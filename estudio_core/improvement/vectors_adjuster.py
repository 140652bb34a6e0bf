"""How vectors move between two trainings: the strategy a plugin chooses."""

from __future__ import annotations

from abc import ABC, abstractmethod

from estudio_core.improvement.improvement_input import ImprovementInput


class VectorsAdjuster(ABC):
    """Moves vectors of shown objects by what was clicked. Subclass it for another rule."""

    @abstractmethod
    def adjust_vectors(self, data_for_improvement: list[ImprovementInput]) -> list[ImprovementInput]:
        """Return the inputs with the `vector` of their elements replaced; queries stay as they are."""
