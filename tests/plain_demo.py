"""The shipped demo as it was before it was calibrated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mass_serve.server.startup import demo_store


def write_plain_demo(folder: Path) -> Path:
    """Copies the store of the demo to `folder`, without its calibration and what was measured with it."""
    shutil.copytree(demo_store(), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    calibration = manifest.pop("calibration", None)
    if calibration is not None:
        del manifest["files"][calibration["file"]]
        (folder / calibration["file"]).unlink()
    manifest["router"]["unrouted_below"] = 0.0
    for task in manifest["tasks"]:
        task.pop("exit_price", None)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
