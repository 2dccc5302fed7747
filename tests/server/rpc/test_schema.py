"""The schema is the protocol's, and what is compiled of it is current."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from tritonclient.grpc import service_pb2

from mass_serve.server.rpc.schema import FILE
from tests.server.rpc.compile_schema import COMPILED, FOLDER, TYPES, compile_schema


def fields(messages: list[DescriptorProto], within: str = "") -> dict[str, tuple[int, int, int, str]]:
    """Number, type, label and type's name of each field of some messages and those in them."""
    found: dict[str, tuple[int, int, int, str]] = {}
    for message in messages:
        name = f"{within}{message.name}."
        found |= {f"{name}{f.name}": (f.number, f.type, f.label, f.type_name) for f in message.field}
        found |= fields(list(message.nested_type), name)
    return found


def test_every_message_and_method_is_as_tritons_client_has_it() -> None:
    ours = FileDescriptorProto.FromString(FILE.serialized_pb)
    theirs = FileDescriptorProto.FromString(service_pb2.DESCRIPTOR.serialized_pb)
    own_fields = fields(list(ours.message_type))
    assert "ModelInferRequest.raw_input_contents" in own_fields
    assert own_fields.items() <= fields(list(theirs.message_type)).items()
    own_methods, their_methods = (
        {method.name: (method.input_type, method.output_type) for method in file.service[0].method}
        for file in (ours, theirs)
    )
    assert own_methods.items() <= their_methods.items()
    assert ours.package == theirs.package
    assert ours.service[0].name == theirs.service[0].name


def test_what_is_compiled_is_current(tmp_path: Path) -> None:
    compile_schema(tmp_path)
    for name in (COMPILED, TYPES):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), "run `make schema`"
