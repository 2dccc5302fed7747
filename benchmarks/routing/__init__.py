"""The router's constants chosen on all suites but one and reported on that one: see `__main__`."""
