"""What is measured on suites, on a few of the demo's images."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import few_labels, late_token, thin_first_pass
from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import curves, unfamiliar
from examples.suites.unseen import unseen
from tests.examples.test_demo_store import DEMO_STORE, ROOT

pytestmark = pytest.mark.slow

LABELS = 3
EXAMPLES = ROOT / "examples"


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    """A folder of one suite: the demo's store, some of its images, and one that no task covers."""
    suite = tmp_path / "suites" / "demo"
    for part, folder in {"evaluation": "evaluation", "tuning": "images"}.items():
        for task in (EXAMPLES / folder).iterdir():
            for label in sorted(task.iterdir())[:LABELS]:
                copied = suite / part / task.name / label.name
                copied.mkdir(parents=True)
                for picture in sorted(label.iterdir())[:2]:
                    shutil.copy(picture, copied)
    (suite / "ood" / "noise").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(unseen("noise", number)).save(suite / "ood" / "noise" / f"{number}.png")
    shutil.copytree(DEMO_STORE, suite / "store")
    return suite.parent


def test_accuracy_is_measured_in_every_mode_and_other_suites_stay_in_the_file(
    suites: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = suites.parent / "accuracy.json"
    written.write_text(json.dumps({"other": {"tasks": 2}}))
    monkeypatch.setattr(sys, "argv", ["accuracy", str(suites), "--json", str(written)])
    accuracy.main()
    found = json.loads(written.read_text())
    assert found["other"] == {"tasks": 2}
    demo = found["demo"]
    assert (demo["tasks"], demo["inputs"]) == (8, 8 * LABELS * 2)
    assert list(demo["plain"]) == ["exact", "balanced", "fast", "one_pass", "paper"]
    exact = demo["plain"]["exact"]
    assert exact["average"]["accuracy"] > 0.9
    low, high = exact["average"]["interval"]
    assert low < exact["average"]["accuracy"] <= high
    assert exact["tasks"].keys() == demo["by_task"].keys()
    assert demo["baselines"]["tsv_c"] > 0.9
    assert demo["head_choices"].keys() == {"router", "mean"}
    assert demo["calibrated_by"] == 1032, "the demo is measured with the calibration that it has"
    assert list(demo["calibrated"]) == ["exact", "balanced", "fast"]
    assert "demo, plain, exact: " in capsys.readouterr().out


def test_what_no_task_covers_is_measured_by_kind(
    suites: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = suites.parent / "unfamiliar.json"
    monkeypatch.setattr(sys, "argv", ["unfamiliar", str(suites), "--json", str(written)])
    unfamiliar.main()
    demo = json.loads(written.read_text())["demo"]
    for figures in (demo["plain"], demo["calibrated"]):
        assert list(figures) == ["all", "noise"]
        assert figures["noise"]["auroc"] > 0.7
    assert demo["plain"]["noise"]["unrouted"] == 0, "a store that is not calibrated routes all"
    assert "demo: AUROC 0." in capsys.readouterr().out


def test_few_labels_are_drawn_of_every_task(
    suites: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written, records = suites.parent / "few.json", suites.parent / "records"
    monkeypatch.setattr(few_labels, "DRAWS", 2)
    asked = [str(suites), "--records", str(records), "--json", str(written)]
    monkeypatch.setattr(sys, "argv", ["few_labels", *asked])
    few_labels.main()
    demo = json.loads(written.read_text())["demo"]
    assert demo["plain"]["exact"]["normalised_accuracy"] > 0.9
    for size in ("8", "32"):
        after = demo[size]["exact"]
        assert after["least"] <= after["normalised_accuracy"]
        assert after["normalised_accuracy"] > 0.9
    first = capsys.readouterr().out
    assert "demo, exact: " in first
    few_labels.main()
    assert capsys.readouterr().out == first, "what was recorded is used again, and draws are the same"


def test_curves_have_a_point_for_every_number_of_tasks(
    suites: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, written = suites / "demo" / "evaluation", suites.parent / "curves.json"
    monkeypatch.setattr(sys, "argv", ["curves", str(DEMO_STORE), str(data), "--json", str(written)])
    curves.main()
    found = json.loads(written.read_text())
    assert [point["tasks"] for point in found["tasks"]] == list(range(1, 9))
    assert found["rank"][-1]["mass"] == found["tasks"][-1]["mass"]
    assert "8 tasks: " in capsys.readouterr().out


def test_the_late_token_that_varies_more_is_chosen(suites: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = suites.parent / "late_token.json"
    written.write_text(json.dumps({"other": {}}))
    monkeypatch.setattr(sys, "argv", ["late_token", str(suites), "--json", str(written)])
    late_token.main()
    found = json.loads(written.read_text())
    assert found["other"] == {}, "other suites stay in the file"
    demo = found["demo"]
    assert len(demo["tasks"]) == 8
    assert demo["chosen"] == max(demo["variation"], key=demo["variation"].__getitem__)
    assert all(right > 0.5 for right in demo["right"].values())


def test_first_passes_that_compute_less_are_measured_beside_whole_ones(
    suites: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = suites.parent / "thin.json"
    monkeypatch.setattr(sys, "argv", ["thin_first_pass", str(suites), "--json", str(written)])
    thin_first_pass.main()
    demo = json.loads(written.read_text())["demo"]
    assert demo["inputs"] == 8 * LABELS * 2
    found = demo["variants"]
    assert (found["all"]["products"], found["all"]["seconds"]) == (1, 1)
    # Of six blocks two are as ever, and the last has every MLP; of 16 patches a checkerboard has 8.
    assert found["own MLPs 1/2"]["products"] == round(1 - 3 / 6 * 8 / 12 / 2, 4)
    assert found["every second"]["products"] == round(1 - 4 / 6 * 8 / 17, 4)
    assert found["every second, from the start"]["products"] == round(9 / 17, 4)
    # Two by two of four by four.
    smaller = found.pop("half resolution")
    assert smaller["products"] == round(5 / 17, 4)
    assert smaller["exact"] > 0.4
    assert found["int8"]["products"] == 1
    assert all(own["exact"] > 0.7 for own in found.values())
    assert found["own MLPs 3/4"]["exact"] > 0.9
    assert found["int8"]["exact"] > 0.9
