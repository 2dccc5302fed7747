"""Fine-tuned models at rest: checkpoints in, a store of task singular vectors out.

`readers` take checkpoints, `format` says what the bytes of a store mean, `storage` where they are.
"""
