"""What is copied into the local Triton server as its `onnxruntime` backend."""
