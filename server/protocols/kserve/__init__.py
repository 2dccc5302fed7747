"""KServe's older protocol, v1: `/v1/models/{model}:predict`, as TensorFlow Serving has it."""
