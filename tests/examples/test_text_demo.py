"""The text demo's own code, with small files of the forms that its packages have; nothing is fetched."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from examples.from_packages.commands import CALIBRATED_MODES, MODES, part_of
from examples.from_packages.packages import FetchError
from examples.from_packages.training import once
from examples.text_demo.figures import Reports, figures
from examples.text_demo.finetune import (
    Plan,
    accuracy,
    finetune,
    load_tokenizer,
    read_examples,
    with_classifier,
)
from examples.text_demo.packages import CODE, ISO_CODES, PACKAGES, SPAM_ASSASSIN, TRANSLATED, WORDNET
from examples.text_demo.sources import debian
from examples.text_demo.sources.glosses import nouns
from examples.text_demo.sources.mail import mail
from examples.text_demo.sources.manuals import languages, paragraphs
from examples.text_demo.sources.names import names
from examples.text_demo.sources.programs import LINES, code, places
from examples.text_demo.sources.terms import defined
from examples.text_demo.tasks import (
    CHOSEN_ON,
    SAME_TEXTS,
    TASKS,
    TWICE_LABELLED,
)
from examples.text_demo.texts import LONGEST, Text, distinct, write_task
from tests import texts


def labels(found: Iterable[Text]) -> list[str]:
    return [text.label for text in found]


class TestTexts:
    def test_what_says_the_same_is_in_one_split(self, tmp_path: Path) -> None:
        same = [Text("a", str(number), f"word {number % 20}!") for number in range(60)]
        assert [text.text for text in distinct(same)] == ["word 0!"], "digits and marks say nothing"
        words = [Text("ab"[n % 2], f"group {n // 3}", f"text {'x' * (n % 40 + 1)}") for n in range(80)]
        write_task(tmp_path, "task", words)
        found = [
            json.loads(line) for path in tmp_path.rglob("*.jsonl") for line in path.read_text().splitlines()
        ]
        assert max(Counter(row["text"] for row in found).values()) == 1
        assert len(found) == 40

    def test_a_long_text_ends_with_a_word(self) -> None:
        (text,) = distinct([Text("a", "", "many\x07 \n words " * 100)])
        assert len(text.text) <= LONGEST
        assert set(text.text.split(" ")) == {"many", "words"}


class TestSources:
    def test_mail_has_its_subject_and_its_text(self, tmp_path: Path) -> None:
        folder = tmp_path / SPAM_ASSASSIN.name / "package/data"
        for group, name in (("easy-ham-1", "a"), ("spam-2", "b")):
            (folder / group).mkdir(parents=True)
            head = "From: Ann <Ann@x.org>\nSubject: [list] Re: Lunch\nContent-Type: text/html\n"
            content = f"{head}\n<p>At &lt;one&gt;</p>"
            (folder / group / f"{name}.txt").write_text(content)
        assert list(mail(tmp_path)) == [
            Text("wanted", "ann@x.org", "Lunch.  At <one> "),
            Text("spam", "ann@x.org", "Lunch.  At <one> "),
        ]

    def test_meanings_under_one_more_general_meaning_are_one_group(self, tmp_path: Path) -> None:
        file = tmp_path / WORDNET.name / "usr/share/wordnet/data.noun"
        file.parent.mkdir(parents=True)
        file.write_text(
            "  1 a licence\n"
            '00000010 05 n 01 cat 0 001 @ 00000001 n 0000 | a pet; "the cat sat"\n'
            "00000020 05 n 01 dog 0 001 @ 00000001 n 0000 | another pet\n"
            "00000030 13 n 01 pie 0 000 | a dish\n"
        )
        assert list(nouns(tmp_path)) == [
            Text("animal", "00000001", "a pet"),
            Text("animal", "00000001", "another pet"),
            Text("food", "00000030", "a dish"),
        ]

    def test_terms_have_their_subject_and_no_references(self) -> None:
        dictionary = "term\n\n   <theory> A {partial} idea.\n\n   More.\n\nother\n\n   <jargon> A joke.\n"
        found = list(defined(dictionary))
        assert labels(found) == ["theory", "jargon"]
        assert found[0].text.split() == ["A", "partial", "idea.", "More."]

    def test_translations_of_a_page_are_one_group(self, tmp_path: Path) -> None:
        page = (
            '.TH X 1\n.SH "NAME"\n.PP\n\\fBWort\\fP ' + "ein langer Absatz mit \\- Text\n" * 4 + ".PP\nkurz\n"
        )
        for package in TRANSLATED.values():
            path = tmp_path / package.name / "usr/share/man/xx/man1/page.1.gz"
            path.parent.mkdir(parents=True)
            path.write_bytes(gzip.compress(page.encode()))
        found = list(languages(tmp_path))
        assert labels(found) == list(TRANSLATED)
        assert {text.group for text in found} == {"page.1.gz"}
        assert found[0].text.startswith("Wort ein langer Absatz mit - Text")
        assert list(paragraphs(page)) == [found[0].text]

    def test_code_is_known_by_its_files(self, tmp_path: Path) -> None:
        source = "\n\n".join(f"line {number}" for number in range(4 * LINES))
        names = {"c++": "usr/include/c++/12/a", "shell": "usr/share/bash-completion/completions/a"}
        suffixes = {"go": "go", "javascript": "js", "lisp": "el", "perl": "pm", "php": "php"}
        suffixes |= {"python": "py", "ruby": "rb", "tcl": "tcl"}
        for language, package in CODE.items():
            path = tmp_path / package.name / names.get(language, f"lib/a.{suffixes.get(language)}")
            path.parent.mkdir(parents=True)
            path.write_text(source)
        found = list(code(tmp_path))
        assert set(labels(found)) == set(CODE)
        assert all(f"line {LINES - 1}\n" not in text for text in places(source, "a"))

    def test_names_are_of_the_standard(self, tmp_path: Path) -> None:
        folder = tmp_path / ISO_CODES.name / "usr/share/iso-codes/json"
        folder.mkdir(parents=True)
        for standard in ("639-3", "3166-2", "4217", "15924"):
            (folder / f"iso_{standard}.json").write_text(json.dumps({standard: [{"name": standard}]}))
        assert labels(names(tmp_path)) == ["language", "region", "currency", "script"]

    def test_packages_have_a_section_and_some_an_interface(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listing = """Package: chess
Source: chess-src (1.0)
Description: a game
Tag: interface::graphical, role::program,
 use::gameplaying
Section: games

Package: libchess
Description: its library
Section: libs

Package: both
Description: two ways
Tag: interface::web, interface::commandline
Section: net
"""
        monkeypatch.setattr(debian, "_LISTED", ["printf", "%s", listing])
        assert list(debian.packages(Path())) == [
            Text("games", "chess-src", "a game"),
            Text("net", "both", "two ways"),
        ]
        assert list(debian.interfaces(Path())) == [Text("graphical", "chess-src", "a game")]

    @pytest.mark.parametrize("command", [["no-such-client-anywhere"], ["false"], ["true"]])
    def test_without_debians_list_it_says_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch, command: list[str]
    ) -> None:
        monkeypatch.setattr(debian, "_LISTED", command)
        with pytest.raises(FetchError, match="apt"):
            list(debian.packages(Path()))

    def test_every_package_and_task_has_a_name_of_its_own(self) -> None:
        tasks = [task.name for task in (*TASKS, SAME_TEXTS, *CHOSEN_ON)]
        assert len(set(tasks)) == len(tasks)
        assert len({package.name for package in PACKAGES}) == len(PACKAGES)


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    model = texts.make_model("Bert")
    model.save_pretrained(tmp_path / "pretrained")
    texts.save_tokenizer(tmp_path / "pretrained")
    return tmp_path / "pretrained"


def test_a_model_learns_its_texts_and_labels(pretrained: Path, tmp_path: Path) -> None:
    file = tmp_path / "task.jsonl"
    rows = [
        {"text": f"w{9 + number % 2} w{20 + number} w{9 + number % 2}", "label": "ba"[number % 2]}
        for number in range(24)
    ]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    examples = read_examples(file, load_tokenizer(pretrained))
    assert examples.labels == ("a", "b")
    model = with_classifier(pretrained, examples)
    assert model.config.id2label == {0: "a", 1: "b"}
    before = model.bert.embeddings.word_embeddings.weight.clone()
    model = finetune(model, "task", examples, Plan(steps=12))
    assert accuracy(model, examples) == 1.0
    changed = (model.bert.embeddings.word_embeddings.weight != before).any(1)
    seen = torch.zeros_like(changed)
    seen[[token for row in examples.tokens for token in row]] = True
    assert torch.equal(changed & seen, changed), "words that no text has stay as they were"


def test_what_is_measured_once_is_not_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "measured" / "task.json"
    first = once(file, lambda: {"accuracy": 0.5})
    assert once(file, lambda: {"accuracy": 0.9}) == first
    assert first["accuracy"] == 0.5
    assert first["seconds"] >= 0


def test_some_of_the_tasks_are_a_folder_of_links(tmp_path: Path) -> None:
    for split in ("evaluation", "tuning"):
        (tmp_path / "all" / split).mkdir(parents=True)
        for task in ("a", "b"):
            (tmp_path / "all" / split / f"{task}.jsonl").write_text(split)
    some = part_of(tmp_path / "all", ["a"], tmp_path / "some")
    assert [path.name for path in (some / "evaluation").iterdir()] == ["a.jsonl"]
    assert (some / "tuning" / "a.jsonl").read_text() == "tuning"


def test_the_figures_are_those_of_the_reports(tmp_path: Path) -> None:
    names = [task.name for task in TASKS]

    def report(accuracy: float, tasks: list[str]) -> object:
        routed = {
            "accuracy": accuracy,
            "normalised_accuracy": accuracy / 0.9,
            "router_accuracy": 0.8,
            "mean_passes": 2.0,
            "intervals": {"accuracy": [0.1, 0.9]},
        }
        known = dict.fromkeys(("individual", "tsv_c", "tsv_m", "pretrained"), 0.9)
        counts = {task: {task: 90, "other": 10} for task in tasks}
        of_tasks = dict.fromkeys(tasks, routed)
        method = {"tasks": of_tasks, "average": routed, "routed_to": counts, "answered_by": counts}
        return {
            "tasks": {name: {"images": 100, "baselines": known} for name in tasks},
            "average": {"baselines": known},
            "methods": dict.fromkeys(MODES, method),
            "unfamiliar": {"average": {"auroc": accuracy}},
        }

    (tmp_path / "measured").mkdir()
    for name in (*names, SAME_TEXTS.name):
        measured = {"logistic_regression": 0.5, "fine_tuned": 0.9, "seconds": 2.0}
        (tmp_path / "measured" / f"{name}.json").write_text(json.dumps(measured))
        (tmp_path / "tasks" / name).mkdir(parents=True)
        (tmp_path / "tasks" / name / "config.json").write_text('{"id2label": {"0": "a", "1": "b"}}')
    same = report(0.3, [TWICE_LABELLED, SAME_TEXTS.name])
    run = figures(tmp_path, Reports(report(0.6, names), report(0.7, names), same), {}, {})
    assert run["modes"]["exact"]["accuracy"] == 0.6
    assert run["calibrated"][CALIBRATED_MODES[0]]["accuracy"] == 0.7
    assert run["tasks"]["news"]["labels"] == 2
    assert run["same_texts"][SAME_TEXTS.name]["exact"] == 0.3
    assert run["same_texts"][SAME_TEXTS.name]["each"] == 0.9
    assert run["unfamiliar"]["calibrated"]["average"]["auroc"] == 0.7
    assert run["training_seconds"] == 2.0 * (len(TASKS) + 1)
