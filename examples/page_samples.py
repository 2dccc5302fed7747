"""What the demo store's page offers to try: a held-out picture of each task, and two that no task covers.

python -m examples.page_samples
"""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from examples.suites.unseen import unseen

EXAMPLES = Path(__file__).resolve().parent
FOLDER = EXAMPLES.parent / "server" / "demo_samples"
UNCOVERED = {"noise": "noise", "scribble": "scribbles"}  # the names of the files and of their domains
NUMBER = 0


def sources() -> dict[str, Path]:
    """The pictures of the tasks by the names of their files: of the task's first label."""
    tasks = sorted(path for path in (EXAMPLES / "images").iterdir() if path.is_dir())
    return {f"{task.name}.png": min(task.iterdir()) / f"{NUMBER:02}.png" for task in tasks}


def main() -> None:
    """Writes the folder anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, source in sources().items():
        shutil.copyfile(source, FOLDER / name)
    for name, domain in UNCOVERED.items():
        Image.fromarray(unseen(domain, NUMBER)).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
