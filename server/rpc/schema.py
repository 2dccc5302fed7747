"""The compiled schema of the protocol, in a pool of its own.

In the one pool that a process has by default it could not be beside that of another package with the same
names, such as Triton's client. Nor is it bound to a few versions of protobuf, as generated code is.
"""

from __future__ import annotations

from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

COMPILED = files("mass_serve.server.rpc").joinpath("open_inference.binpb").read_bytes()

(_file,) = FileDescriptorSet.FromString(COMPILED).file
FILE = DescriptorPool().AddSerializedFile(_file.SerializeToString())
SERVICE = FILE.services_by_name["GRPCInferenceService"]
