"""What the page is made of, over HTTP: its files, its policy, its samples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from examples.page_samples import FOLDER, UNCOVERED, sources
from mass_serve.server.operation.page.samples import MOST_SAMPLES, read_samples
from mass_serve.server.settings import SettingsError
from tests.server_processes import RunningServer, running


def test_a_browser_may_load_from_the_server_alone_and_make_no_html(server: RunningServer) -> None:
    response = server.client.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"


def test_all_files_that_it_names_are_there(server: RunningServer) -> None:
    named = set(re.findall(r'(?:href|src)="(page/[^"]+)"', server.client.get("/").text))
    assert {"page/page.js", "page/page.css"} <= named
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    while named:
        path = named.pop()
        response = server.client.get(f"/{path}")
        assert response.status_code == 200
        assert response.headers["Content-Type"].partition(";")[0] == kinds[path.rpartition(".")[2]]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "://" not in response.text.replace("http://www.w3.org/", "")
        named |= {f"page/{name}" for name in re.findall(r'from "\./([^"]+)"', response.text)}


@pytest.mark.parametrize(
    "name", ["routes.py", "page.html", "nothing.js", "..%2Froutes.py", "samples/none.png"]
)
def test_other_files_are_not(server: RunningServer, name: str) -> None:
    response = server.client.get(f"/page/{name}")
    assert response.status_code == 404
    assert response.json()["error"]


def test_the_demo_brings_a_sample_of_each_task(server: RunningServer) -> None:
    """The fake server has no store either."""
    names = server.client.get("/page/samples").json()["images"]
    assert names == sorted({*sources(), *(f"{name}.png" for name in UNCOVERED)})
    for name, source in sources().items():
        assert server.client.get(f"/page/samples/{name}").content == source.read_bytes(), "as it is made"
    assert {file.name for file in FOLDER.iterdir()} == set(names)


def test_samples_need_the_key_that_answers_need(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    with running(0, {"inference_keys_file": keys}) as server:
        server.wait_until_ready()
        assert server.client.get("/").status_code == 200
        for path in ("/page/samples", "/page/samples/street.png"):
            assert server.client.get(path).status_code == 401
            assert server.client.get(path, headers={"X-API-Key": "secret"}).status_code == 200


def test_samples_are_images_of_a_folder_or_lines_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "b.PNG").write_bytes(b"b")
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "notes.md").write_text("none")
    assert dict(read_samples(tmp_path).images) == {"a.jpg": b"a", "b.PNG": b"b"}
    lines = tmp_path / "lines.txt"
    lines.write_text("first\n\n  \nzweite Zürich\n", encoding="utf-8")
    assert read_samples(lines).texts == ["first", "zweite Zürich"]


def test_what_are_no_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^samples: .* is no folder of images and no text file"):
        read_samples(tmp_path / "missing")
    with pytest.raises(SettingsError, match="has 0 images or lines"):
        read_samples(tmp_path)
    lines = tmp_path / "lines.txt"
    lines.write_text("line\n" * (MOST_SAMPLES + 1))
    with pytest.raises(SettingsError, match=f"give 1 to {MOST_SAMPLES}"):
        read_samples(lines)
    lines.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="no text file"):
        read_samples(lines)
