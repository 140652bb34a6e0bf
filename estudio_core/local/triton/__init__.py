"""A real Triton server on this machine, without Docker, GPU or system packages: for laptops and tests.

The server is the one of the `nvidia-pytriton` package: its config parser, scheduler, dynamic batcher, repository API,
metrics, gRPC and HTTP. Tensors are computed by a backend of ours over the `onnxruntime` package, under the name that
production's own backend has, so that the repository is the same in both. Production uses the official Triton image.
"""
