"""The demo: eight classification tasks drawn or scanned here, and the checkpoints trained for them.

`python -m examples.demo_suite.train --out DIR` makes all of it from nothing.
"""
