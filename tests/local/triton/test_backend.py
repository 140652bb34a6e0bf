from __future__ import annotations

from typing import Any

import pytest

from estudio_core.local.triton.onnxruntime_backend.model import config_faults

INPUTS = [("ids", "tensor(int64)", ["batch", "sequence"])]
OUTPUTS = [("vector", "tensor(float)", ["batch", 4])]


def config(**changes: Any) -> dict[str, Any]:
    given = {
        "max_batch_size": 8,
        "input": [{"name": "ids", "data_type": "TYPE_INT64", "dims": ["-1"]}],
        "output": [{"name": "vector", "data_type": "TYPE_FP32", "dims": ["4"]}],
    }
    return {**given, **changes}


def test_a_fitting_config_has_no_faults():
    assert config_faults(config(), INPUTS, OUTPUTS) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"output": [{"name": "vector", "data_type": "TYPE_FP32", "dims": ["-1"]}]}, r"dims \[-1\].*\[4\]"),
        ({"output": [{"name": "vector", "data_type": "TYPE_FP32", "dims": ["4", "1"]}]}, r"dims \[4, 1\]"),
        ({"output": [{"name": "other", "data_type": "TYPE_FP32", "dims": ["4"]}]}, "'other' is not in the graph"),
        ({"input": []}, "input 'ids' of the graph is not in config"),
        ({"input": [{"name": "ids", "data_type": "TYPE_INT32", "dims": ["-1"]}]}, "is TYPE_INT32 in config.pbtxt"),
        ({"max_batch_size": 0}, r"dims \[-1\] in config.pbtxt, \[-1, -1\]"),
    ],
)
def test_each_difference_is_named(changes, fault):
    import re

    assert any(re.search(fault, found) for found in config_faults(config(**changes), INPUTS, OUTPUTS))


def test_a_graph_with_a_fixed_batch_cannot_be_batched():
    faults = config_faults(config(), [("ids", "tensor(int64)", [1, "sequence"])], OUTPUTS)
    assert faults == ["input 'ids' has a fixed batch of 1 in the graph, max_batch_size is set"]
