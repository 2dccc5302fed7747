"""What routing could know at best, on some of the demo's images."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import separability
from tests.examples.test_demo_store import DEMO_STORE, ROOT

IMAGES_OF_A_LABEL = 3


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Of three tasks, and some Hebrew letters among the Greek ones, so that these two are confused."""
    for task in ("greek", "hebrew", "aerial"):
        for label in sorted((ROOT / "examples" / "evaluation" / task).iterdir()):
            (tmp_path / task / label.name).mkdir(parents=True)
            for path in sorted(label.iterdir())[:IMAGES_OF_A_LABEL]:
                shutil.copy(path, tmp_path / task / label.name)
    for path in sorted((tmp_path / "hebrew" / "alef").iterdir()):
        shutil.copy(path, tmp_path / "greek" / "alpha" / f"hebrew_{path.name}")
    return tmp_path


def test_the_command_reports_all_tasks_and_the_most_confused_pairs(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = images.parent / "separability.json"
    monkeypatch.setattr(
        sys, "argv", ["separability", str(DEMO_STORE), str(images), "--pairs", "1", "--json", str(written)]
    )
    separability.main()
    whole, pair = json.loads(written.read_text())
    assert whole["images"] == len(list(images.rglob("*.png")))
    assert whole["routed"]["exact"] > 0.9
    assert whole["trained"] > 0.9
    assert pair["tasks"] == ["greek", "hebrew"]
    assert pair["images"] == len(list((images / "greek").rglob("*.png"))) * 2 - IMAGES_OF_A_LABEL
    wrong = IMAGES_OF_A_LABEL / len(list((images / "greek").rglob("*.png")))
    assert pair["routed"]["exact"] == pytest.approx(1 - wrong / 2, abs=0.02)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"all 3 tasks: {whole['images']} images, balanced 0.9")
    assert second.startswith(f"greek and hebrew: {pair['images']} images, balanced 0.9")


def test_labels_help_where_the_evidence_differs_and_not_where_it_does_not() -> None:
    tasks = np.array(["a", "b"] * 60)
    shares = 0.2 + 0.3 * torch.rand(120, 2, 3, generator=torch.Generator().manual_seed(0))
    assert 0.3 < separability.trained(shares, tasks) < 0.7
    shares[::2, 1, 2] += 0.3
    assert separability.trained(shares, tasks) > 0.8
