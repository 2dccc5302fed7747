"""The messages of the protocol; their types are in the file beside this one, which protoc writes."""

from __future__ import annotations

from google.protobuf.message_factory import GetMessageClass

from mass_serve.server.rpc.schema import FILE

DESCRIPTOR = FILE
globals().update({name: GetMessageClass(message) for name, message in FILE.message_types_by_name.items()})
