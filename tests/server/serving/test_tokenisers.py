"""Texts become tokens here or in worker processes, the same ones; floods stay within what a text may take."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mass_serve.inputs.texts import Text, TextLimits, TextTokenizer
from mass_serve.model_store.readers.text_tokenizers import read_tokenizer
from mass_serve.sandbox.bounds import (
    Bounds,
    ExceededError,
    MemoryShortError,
    RefusedError,
    SandboxError,
)
from mass_serve.sandbox.pool import SandboxPool
from mass_serve.sandbox.text_jobs import KEEP, MOST_CHARACTERS_HERE, TOKENISE, bounds_of, predicted_seconds
from mass_serve.sandbox.tokenising import HEAD, TOKEN_BYTES
from mass_serve.server.errors import (
    BadRequestError,
    NoMemoryError,
    ServiceError,
    SlowInputError,
    TooLargeError,
)
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.parsers import Parsers
from mass_serve.server.serving.request_context import Texts
from mass_serve.server.serving.tokenisers import LONG_TEXTS, TEXTS, Tokenisers, tokenise_cost
from tests.inputs.test_texts import FLOODS
from tests.tokenizers_on_disk import save_byte_pairs, save_word_pieces

LIMITS = TextLimits(max_characters=2_000_000)
LONG = "cat the " * (MOST_CHARACTERS_HERE // 8 + 1)
SPLIT = {"type": "Split", "pattern": {"Regex": "(w+)+$"}, "behavior": "Isolated", "invert": False}


def word_pieces(folder: Path, **parts: object) -> TextTokenizer:
    """A tokenizer of 8 tokens, with other parts than BERT's."""
    content = json.loads(read_tokenizer(save_word_pieces(folder), 34).content) | parts
    return TextTokenizer(json.dumps(content).encode(), 8)


async def refused_at(made: Tokenisers, tokenizer: TextTokenizer, *texts: Text) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await made.tokens(Texts(texts), tokenizer, Turn("all", 2), placed=False)
    return caught.value


class Watched(SandboxPool):
    """Remembers in which lanes jobs were, and answers with an error where it is given one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lanes: list[str] = []
        self.error: SandboxError | None = None
        self.submitted: list[asyncio.Future[bytearray]] = []

    def submit(self, *args: Any, **kwargs: Any) -> asyncio.Future[bytearray]:
        self.lanes.append(kwargs["lane"])
        result = super().submit(*args, **kwargs)
        if self.error is not None:
            result.cancel()
            result = asyncio.get_running_loop().create_future()
            result.set_exception(self.error)
        self.submitted.append(result)
        return result


def with_tokenisers(test: Callable[[Tokenisers, Watched], Awaitable[None]]) -> None:
    async def run() -> None:
        pool = Watched([KEEP, TOKENISE], {TEXTS: 1, LONG_TEXTS: 1}, 8 << 20)
        pool.start()
        parsers = Parsers(pool)
        try:
            await test(Tokenisers(pool, parsers, LIMITS), pool)
        finally:
            parsers.close()
            pool.close()
            await asyncio.sleep(0)

    asyncio.run(run())


def rows(found: Sequence[Any]) -> list[tuple[list[list[int]], int]]:
    return [(one.words.tolist(), one.cut) for one in found]


MIXED: tuple[Text, ...] = ("cat", LONG, "the mat", ("cat", "über"), (LONG, "cat"), "cat the " * 9)


def test_the_order_is_kept_wherever_a_text_is_read(tmp_path: Path) -> None:
    bounded = word_pieces(tmp_path / "bounded")
    unknown = word_pieces(tmp_path / "unknown", pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT]})
    assert (bounded.is_bounded, unknown.is_bounded) == (True, False)

    async def test(made: Tokenisers, pool: Watched) -> None:
        for tokenizer, lanes in (
            (bounded, [LONG_TEXTS, LONG_TEXTS]),
            (unknown, [TEXTS, LONG_TEXTS, TEXTS, TEXTS, LONG_TEXTS, TEXTS]),
        ):
            pool.lanes.clear()
            found = await made.tokens(Texts(MIXED), tokenizer, Turn("all", 2), placed=False)
            assert rows(found) == rows([tokenizer.tokens(text) for text in MIXED])
            assert pool.lanes == lanes

    with_tokenisers(test)


def test_places_come_from_wherever_a_text_is_read(tmp_path: Path) -> None:
    tokenizer = word_pieces(tmp_path)

    async def test(made: Tokenisers, pool: Watched) -> None:
        texts = ("the cat", LONG)
        for found, text in zip(
            await made.tokens(Texts(texts), tokenizer, Turn("all", 2), placed=True), texts, strict=True
        ):
            expected = tokenizer.tokens(text, placed=True).places
            assert expected is not None
            assert found.places is not None
            assert found.places.text == text
            assert found.places.offsets.tolist() == expected.offsets.tolist()
            assert found.places.continues.tolist() == expected.continues.tolist()
        assert pool.lanes == [LONG_TEXTS]

    with_tokenisers(test)


@pytest.mark.parametrize("save", [save_word_pieces, save_byte_pairs])
def test_floods_are_read_within_what_a_text_of_their_length_may_take(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    """The kernel ends the process that takes more of its time or memory."""
    tokenizer = TextTokenizer(read_tokenizer(save(tmp_path), 400).content, 512)

    async def test(made: Tokenisers, _: Watched) -> None:
        found = await made.tokens(Texts(tuple(FLOODS.values())), tokenizer, Turn("all", 2), placed=False)
        for (name, flood), tokens in zip(FLOODS.items(), found, strict=True):
            assert 3 <= len(tokens.words) <= 512, name
            assert len(tokens.words) + tokens.cut <= 4 * len(flood) + 2, name

    with_tokenisers(test)


def test_a_process_that_has_read_floods_reads_short_texts_as_before(tmp_path: Path) -> None:
    """What it keeps of their memory takes nothing of what a later text may have."""
    tokenizer = TextTokenizer(read_tokenizer(save_byte_pairs(tmp_path), 400).content, 512)
    tokenizer.is_bounded = False  # so that both kinds go to the one process

    async def test(made: Tokenisers, pool: Watched) -> None:
        for flood in FLOODS.values():
            for text in (flood, "the cat", flood[:9000]):
                await made.tokens(Texts([text]), tokenizer, Turn("all", 2), placed=False)
        assert {TEXTS, LONG_TEXTS} == set(pool.lanes)

    with_tokenisers(test)


def test_what_is_wrong_with_a_text_is_told_from_wherever_it_is_read(tmp_path: Path) -> None:
    tokenizer = word_pieces(tmp_path)

    async def test(made: Tokenisers, _: Watched) -> None:
        blank = await refused_at(made, tokenizer, "cat", " " * 10)
        assert isinstance(blank, BadRequestError)
        assert str(blank).startswith("texts[1]: The text has no word")
        assert str(await refused_at(made, tokenizer, "cat", " " * 20_000)) == str(blank)
        too_many = await refused_at(made, tokenizer, "cat" * 1_000_000)
        assert isinstance(too_many, TooLargeError)
        assert "3000000 characters" in str(too_many)

    with_tokenisers(test)


def test_where_the_library_fails_the_text_is_refused(tmp_path: Path) -> None:
    panics = word_pieces(tmp_path / "panics", pre_tokenizer=SPLIT)
    unknown = json.loads(word_pieces(tmp_path / "unknown").content)["model"] | {"unk_token": "[NOPE]"}
    fails = word_pieces(tmp_path / "fails", model=unknown)

    async def test(made: Tokenisers, _: Watched) -> None:
        for tokenizer, text in ((panics, "w" * 40 + "x"), (fails, "qqq")):
            refused = await refused_at(made, tokenizer, text)
            assert isinstance(refused, BadRequestError)
            assert str(refused) == "The store's tokenizer fails on this text; send another."

    with_tokenisers(test)


ERRORS: list[tuple[SandboxError, type[ServiceError], str]] = [
    (ExceededError("cpu"), TooLargeError, "more time or memory"),
    (ExceededError("memory"), TooLargeError, "more time or memory"),
    (ExceededError("crash"), TooLargeError, "more time or memory"),
    (ExceededError("wall"), SlowInputError, "took too long"),
    (MemoryShortError("short"), NoMemoryError, "has not the memory"),
    (RefusedError("TokenizerError", "a secret"), BadRequestError, "tokenizer fails on this text"),
    (RefusedError("NoPairsError", "no pairs"), BadRequestError, "no pairs"),
]


@pytest.mark.parametrize(("error", "kind", "words"), ERRORS)
def test_a_text_whose_process_has_no_result_is_named(
    tmp_path: Path, error: SandboxError, kind: type[ServiceError], words: str
) -> None:
    tokenizer = word_pieces(tmp_path)

    async def test(made: Tokenisers, pool: Watched) -> None:
        pool.error = error
        refused = await refused_at(made, tokenizer, "cat", LONG)
        assert type(refused) is kind
        assert str(refused).startswith("texts[1]: ")
        assert words in str(refused)
        assert "secret" not in str(refused)

    with_tokenisers(test)


def test_after_the_first_bad_text_nobody_waits_for_the_others(tmp_path: Path) -> None:
    tokenizer = word_pieces(tmp_path)

    async def test(made: Tokenisers, pool: Watched) -> None:
        await refused_at(made, tokenizer, " " * 20_000, LONG, LONG)
        assert [work.cancelled() for work in pool.submitted] == [False, True, True]

    with_tokenisers(test)


def test_only_what_goes_to_processes_costs_their_time(tmp_path: Path) -> None:
    tokenizer = word_pieces(tmp_path)
    assert tokenise_cost(["cat", ("cat", "mat")], tokenizer, 4) == 0.0
    # Long ones are read by one process, whatever there are.
    assert tokenise_cost(["cat", LONG], tokenizer, 4) == 4 * predicted_seconds(LONG)
    tokenizer.is_bounded = False
    assert tokenise_cost(["cat"], tokenizer, 4) == predicted_seconds("cat") < predicted_seconds(LONG)


def test_bounds_grow_with_the_text_and_have_an_end() -> None:
    short, long, endless = (bounds_of(characters, 8) for characters in (10, 200_000, 1 << 30))
    assert short.cpu_seconds < long.cpu_seconds <= endless.cpu_seconds == 10.0
    assert short.memory_bytes < long.memory_bytes
    assert short.result_bytes == HEAD.size + 8 * TOKEN_BYTES
    assert isinstance(short, Bounds)
