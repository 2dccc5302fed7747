"""Many classifiers fine-tuned from one encoder, served with one copy of the encoder.

The folders of the repository are the subpackages, each a link here. A checkout, an editable install and a
wheel so have one import package, and `kernels` or `server` are never top-level names of an environment.
"""

# Read from here by the wheel, the command line and the protocols: a plain checkout has no installed version.
__version__ = "0.1.0"
