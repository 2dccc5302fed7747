"""A real encoder with real texts: all-MiniLM-L6-v2, fine-tuned for eight tasks and served from one store.

`make text-demo` runs all of it; `python -m examples.text_demo --help` has the settings. Texts and weights
come from packages that anyone can install; docs/accuracy.md names each with its licence, and its figures.
"""
