"""Compiles the schema of gRPC: `python -m tests.server.rpc.compile_schema`, after a change to it.

What comes out is kept in the repository, so that who installs MASS Serve needs no compiler.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "server" / "rpc"
COMPILED, TYPES = "open_inference.binpb", "open_inference_pb2.pyi"


def compile_schema(out: Path) -> None:
    """Writes the compiled schema, and the types of its messages, into a folder."""
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={FOLDER}"]
    outputs = [f"--descriptor_set_out={out / COMPILED}", f"--pyi_out={out}"]
    subprocess.run([*protoc, *outputs, "open_inference.proto"], check=True)


if __name__ == "__main__":
    compile_schema(FOLDER)
