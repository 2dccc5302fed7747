"""Speed and memory of the engine on a CPU, beside other libraries, as ratios within one run.

`stores` builds and weighs stores, `dense` and `many_models` are what others could serve, `times` has them
take turns with every way to ask the engine, and `rebuilding` is the paper's own way to serve.
"""
