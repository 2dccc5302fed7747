"""Several processes that speak HTTP before one that has the store and the device (`front_ends`).

Each front end is the whole server, with an engine of the protocol (`engine.protocol`) that hands its batches
to the device's process: `device` and `supervisor` are of that one, `front_end`, `link` and `remote_engine`
of the others. What front ends send is data and read as such; what the device's process sends its own children
is pickled.
"""
