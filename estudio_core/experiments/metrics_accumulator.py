"""Running statistics of a training metric: mean, sliding mean, minimum and maximum."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from estudio_core.errors import ConfigurationError


@dataclass(frozen=True)
class MetricValue:
    """One value of a named metric."""

    name: str
    value: float

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("A metric needs a name; an empty one was given.")


class MetricsAccumulator:
    """Turns each value of one metric into the value and its running statistics.

    Emitted names are the metric's own, then `mean_<name>`, `sliding_<name>` (mean of the last `window_size`
    values), `min_<name>` and `max_<name>`, as far as asked for. A value that is not finite is passed on and
    kept out of the statistics.

    >>> accumulator = MetricsAccumulator("train_loss", calc_mean=True, calc_min=True)
    >>> accumulator.accumulate(3.0)
    [MetricValue(name='train_loss', value=3.0), MetricValue(name='mean_train_loss', value=3.0), \
MetricValue(name='min_train_loss', value=3.0)]
    >>> accumulator.accumulate(1.0)[1:]
    [MetricValue(name='mean_train_loss', value=2.0), MetricValue(name='min_train_loss', value=1.0)]
    """

    def __init__(
        self,
        name: str,
        calc_mean: bool = False,
        calc_sliding: bool = False,
        calc_min: bool = False,
        calc_max: bool = False,
        window_size: int = 10,
    ) -> None:
        if not name:
            raise ConfigurationError("MetricsAccumulator: name is empty; give the name of a logged metric.")
        if window_size < 2:
            raise ConfigurationError(f"MetricsAccumulator: window_size = {window_size}; it has to be 2 or more.")
        self.name = name
        self.calc_mean = calc_mean
        self.calc_sliding = calc_sliding
        self.calc_min = calc_min
        self.calc_max = calc_max
        self.window_size = window_size
        self.clear()

    def clear(self) -> None:
        """Forget all values."""
        self._count = 0
        self._sum = 0.0
        self._min = math.inf
        self._max = -math.inf
        self._window: deque[float] = deque(maxlen=self.window_size)

    def fresh(self) -> MetricsAccumulator:
        """Return an empty accumulator of the same kind."""
        return MetricsAccumulator(
            self.name, self.calc_mean, self.calc_sliding, self.calc_min, self.calc_max, self.window_size
        )

    def accumulate(self, value: float | MetricValue) -> list[MetricValue]:
        """Take in a value and return what is to be logged; a `MetricValue` of another name gives nothing."""
        if isinstance(value, MetricValue):
            if value.name != self.name:
                return []
            value = value.value
        emitted = [MetricValue(self.name, value)]
        if math.isfinite(value):
            self._count += 1
            self._sum += value
            self._min = min(self._min, value)
            self._max = max(self._max, value)
            self._window.append(value)
        if self._count == 0:
            return emitted
        if self.calc_mean:
            emitted.append(MetricValue(f"mean_{self.name}", self._sum / self._count))
        if self.calc_sliding:
            emitted.append(MetricValue(f"sliding_{self.name}", sum(self._window) / len(self._window)))
        if self.calc_min:
            emitted.append(MetricValue(f"min_{self.name}", self._min))
        if self.calc_max:
            emitted.append(MetricValue(f"max_{self.name}", self._max))
        return emitted
