"""Further suites to evaluate on: near-duplicate domains, twenty tasks, and a weak encoder.

`python -m examples.suites NAME --out DIR` makes one from nothing but what ships with the repository.
"""
