"""Suites to evaluate on: the demo's, harder ones that are drawn as it is, and real ones.

`python -m examples.suites NAME --out DIR` makes one. The drawn ones need fonts; the real ones fetch packages.
"""
