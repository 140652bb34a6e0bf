"""Triton's `onnxruntime` backend, in Python: runs in the server's environment, which has numpy 1 and no Estudio.

Each instance opens the model's graph, refuses a config that does not describe it, and computes joined requests at once.
"""

import json
import os
from typing import Any

_TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(double)": "TYPE_FP64",
    "tensor(int64)": "TYPE_INT64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(bool)": "TYPE_BOOL",
}


def config_faults(
    config: dict[str, Any], inputs: list[tuple[str, str, list[Any]]], outputs: list[tuple[str, str, list[Any]]]
) -> list[str]:
    """Return how a model config differs from its graph; empty where it does not.

    Args:
        config: `config.pbtxt` as JSON.
        inputs: Name, ONNX type and shape of each input; symbolic dimensions are text or None.
        outputs: The same of each output.

    >>> graph = [("x", "tensor(float)", ["batch", 384])]
    >>> tensor = {"name": "x", "data_type": "TYPE_FP32", "dims": ["384"]}
    >>> config_faults({"max_batch_size": 8, "input": [tensor], "output": [tensor]}, graph, graph)
    []
    >>> wrong = {**tensor, "dims": ["768"]}
    >>> config_faults({"max_batch_size": 8, "input": [tensor], "output": [wrong]}, graph, graph)
    ["output 'x' has dims [768] in config.pbtxt, [384] in the graph"]
    """
    batched = int(config.get("max_batch_size", 0)) > 0
    faults: list[str] = []
    for side, tensors in (("input", inputs), ("output", outputs)):
        configured = {tensor["name"]: tensor for tensor in config.get(side, [])}
        found = {name for name, _, _ in tensors}
        unknown = [name for name in configured if name not in found]
        faults += [f"{side} {name!r} is not in the graph, which has {sorted(found)}" for name in unknown]
        if side == "input":
            faults += [
                f"input {name!r} of the graph is not in config.pbtxt" for name in sorted(found - set(configured))
            ]
        for name, onnx_type, shape in tensors:
            if name not in configured:
                continue
            tensor = configured[name]
            if _TYPES.get(onnx_type) != tensor["data_type"]:
                faults.append(f"{side} {name!r} is {tensor['data_type']} in config.pbtxt, {onnx_type} in the graph")
            if batched and isinstance(shape[0], int):
                faults.append(f"{side} {name!r} has a fixed batch of {shape[0]} in the graph, max_batch_size is set")
            wanted = [int(dim) for dim in tensor["dims"]]
            real = [dim if isinstance(dim, int) else -1 for dim in (shape[1:] if batched else shape)]
            fits = len(wanted) == len(real) and all(r in (-1, w) for w, r in zip(wanted, real, strict=True))
            if not fits:
                faults.append(f"{side} {name!r} has dims {wanted} in config.pbtxt, {real} in the graph")
    return faults


class TritonPythonModel:
    """One instance of a model, as Triton's Python backend calls it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph and compare it with the config; what is raised is why the server does not load the model."""
        import numpy
        import onnxruntime
        import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists inside Triton only

        if int(numpy.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"numpy {numpy.__version__} returns empty tensors through this server; its environment needs numpy < 2"
            )
        config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or "model.onnx"
        path = os.path.join(args["model_repository"], args["model_version"], file)
        options = onnxruntime.SessionOptions()
        options.enable_mem_pattern = False  # it keeps one allocation plan per input shape
        options.intra_op_num_threads = _number(config, "intra_op_thread_count")
        options.inter_op_num_threads = _number(config, "inter_op_thread_count")
        on_gpu = args.get("model_instance_kind") == "GPU"
        providers = ["CUDAExecutionProvider"] if on_gpu else ["CPUExecutionProvider"]
        if not set(providers) <= set(onnxruntime.get_available_providers()):
            raise pb_utils.TritonModelException(f"{providers[0]} is asked for and not in this onnxruntime package")
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:
            raise pb_utils.TritonModelException(f"cannot load {path}: {error}") from error
        faults = config_faults(
            config,
            [(tensor.name, tensor.type, list(tensor.shape)) for tensor in self.session.get_inputs()],
            [(tensor.name, tensor.type, list(tensor.shape)) for tensor in self.session.get_outputs()],
        )
        if faults:
            raise pb_utils.TritonModelException(f"config.pbtxt does not describe {path}: " + "; ".join(faults))
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.batched = int(config.get("max_batch_size", 0)) > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request; requests of equal shape are computed together."""
        import numpy
        import triton_python_backend_utils as pb_utils

        # Without batches each request is a group of one, and concatenating one array leaves it as it is.
        given = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs]
            for request in requests
        ]
        groups: dict[Any, list[int]] = {}
        for index, tensors in enumerate(given):
            alone = () if self.batched else (index,)
            groups.setdefault((*alone, *(tensor.shape[1:] for tensor in tensors)), []).append(index)
        responses: list[Any] = [None] * len(requests)
        for members in groups.values():
            feed = {
                name: numpy.concatenate([given[index][position] for index in members])
                for position, name in enumerate(self.inputs)
            }
            try:
                computed = self.session.run(self.outputs, feed)
            except Exception as error:
                for index in members:
                    responses[index] = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
                continue
            start = 0
            for index in members:
                end = start + len(given[index][0])
                parts = [values[start:end] if self.batched else values for values in computed]
                # Through DLPack the values would be lost.
                tensors = [
                    pb_utils.Tensor(name, numpy.ascontiguousarray(part))
                    for name, part in zip(self.outputs, parts, strict=True)
                ]
                responses[index] = pb_utils.InferenceResponse(output_tensors=tensors)
                start = end
        return responses

    def finalize(self) -> None:
        """Free the graph's memory."""
        self.session = None


def _number(config: dict[str, Any], parameter: str) -> int:
    """Return a whole-number parameter of the config; 0, which means the default, where it is not given."""
    return int(config.get("parameters", {}).get(parameter, {}).get("string_value", 0))
