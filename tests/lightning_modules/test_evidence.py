from __future__ import annotations

import numpy as np
import pytest

from estudio_core.clickstream.examination_curve import PowerLaw
from estudio_core.errors import DataError
from lightning_modules.config import TrainingConfig
from lightning_modules.evidence import examination_for


def test_examination_is_what_the_configuration_says_and_even_without_a_correction() -> None:
    places = np.arange(3)
    given = (1.0, 0.5, 0.2)
    assert examination_for(TrainingConfig(examination=given), []).at(places).tolist() == list(given)
    assert examination_for(TrainingConfig(examination_exponent=2.0), []) == PowerLaw.given(2.0)
    assert "assumed" in str(examination_for(TrainingConfig(), []))
    assert examination_for(TrainingConfig(examination="em", position_bias="none"), []).is_even
    with pytest.raises(DataError, match="needed to tell position and attraction apart"):
        examination_for(TrainingConfig(examination="em"), [])
