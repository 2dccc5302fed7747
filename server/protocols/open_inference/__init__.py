"""The Open Inference Protocol v2, as KServe and Triton clients speak it, with Triton's binary extension."""
