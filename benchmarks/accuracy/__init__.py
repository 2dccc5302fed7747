"""How right the answers are on every suite, in every mode: see `__main__`."""
