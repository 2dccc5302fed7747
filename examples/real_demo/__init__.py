"""A real encoder with real pictures: DINOv2 ViT-S/14, fine-tuned for eight tasks and served from one store.

`make real-demo` runs all of it; `python -m examples.real_demo --help` has the settings. Pictures and weights
come from packages that anyone can install; docs/accuracy.md names each with its licence, and its figures.
"""
