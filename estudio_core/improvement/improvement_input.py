"""What a vector adjuster gets: a session's query and shown objects, with their vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from estudio_core.errors import DataError, DimensionError

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class ImprovementElement:
    """A query or an object with its vectors; an adjuster replaces `vector`.

    Attributes:
        id: The object's id, or the query's.
        vector: Part vectors, [parts, dim]; one row for a query or an average.
        is_average: Whether the row is the average of the object's parts.
        user_id: Whose personal vectors these are; None for everybody's.

    Raises:
        DimensionError: `vector` is not a matrix with at least one row.
    """

    id: str
    vector: torch.Tensor
    is_average: bool = False
    user_id: str | None = None

    def __post_init__(self) -> None:
        if self.vector.ndim != 2 or self.vector.shape[0] == 0:
            raise DimensionError(
                f"The vectors of {self.id!r} have shape {tuple(self.vector.shape)}; a matrix [parts, dim] is wanted. "
                "Use vector[None, :] for one vector."
            )


@dataclass(eq=False)
class ImprovementInput:
    """A session to learn from.

    Attributes:
        session_id: Its id.
        query: The query; its vector is [1, dim], so that it meets every part of an element by broadcasting.
        clicked_elements: Objects that were clicked.
        non_clicked_elements: Objects that were shown, examined and not clicked.
        weight: How much the session counts against others, e.g. less for an old one; positive.

    Raises:
        DataError: the weight is not positive and finite.
    """

    session_id: str
    query: ImprovementElement
    clicked_elements: list[ImprovementElement] = field(default_factory=list)
    non_clicked_elements: list[ImprovementElement] = field(default_factory=list)
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise DataError(f"Session {self.session_id!r} has weight {self.weight}; weights are positive numbers.")
