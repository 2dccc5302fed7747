"""The store's file format: what its bytes mean.

The manifest and its parts, tensor files, experts, heads, a calibration, and the journal of a build.
"""
