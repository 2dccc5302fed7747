"""The catalogue: what each attack sends, and what it may cost others.

All of them worked once: each took a whole server down, or far past its stated limits, with the bytes that it
sends here. An attack sends what it has and goes on until it is answered or the arena ends it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from benchmarks.hostile import pictures
from benchmarks.hostile.wire import HUNG_UP, Answer, ask, chunked, form, infer, post, request

MIB = 1 << 20
# Refusals that say what was wrong with the request or that it is not its turn. 503 is for lack of memory.
REFUSED = frozenset({400, 404, 408, 413, 415, 429})
# Of one that is refused before its body is all there: a reset may overtake the answer.
CUT_OFF = REFUSED | {HUNG_UP}
ALL_FORMATS = {"MASS_IMAGE_FORMATS": "PNG,JPEG,WEBP,GIF,BMP,TIFF"}

# A worker that decodes a picture of 12 megapixels holds it as RGBA and as RGB: 84 MB, and there are two
# workers; what the allocator keeps and the interpreters of two workers that are replaced come to as much.
ORDINARY_GROWTH = 400 * MIB
# The bodies that `max_held_bytes` allows by default, and the ordinary growth.
GROWTH_WITH_BODIES = 512 * MIB + ORDINARY_GROWTH
# A WebP's decoder has a picture of 12 megapixels four times at once, 46 MiB each (a worker was seen to take
# 182 MiB), and either worker that it keeps too long makes room for a new interpreter of 55 MiB. A batch of 64
# takes the server itself 23 MiB (measured), which a load left behind until what it leaves was given back.
TINY_PICTURES = (2 * (4 * 46 + 55) + 32) * MIB
# A picture of 49 megapixels takes its worker five bytes a pixel, and each of three workers has a file of
# 30 MiB twice: as it is shared with the server, and as its decoder reads it.
LARGE_PICTURES = 5 * 49_000_000 + 3 * 2 * 30 * MIB

# A liveness probe allows a second and kills after a few failures; a tenth leaves room for a slow machine.
LONGEST_PROBE = 0.1
# What a person waits without wondering; on a calm server the same picture takes 20 to 50 milliseconds.
LONGEST_ANSWER = 2.0
# One attack misses it on two cores that the attacker shares with the server: 64 clients that insist keep both
# busy with good work (/livez took 0.12 to 0.32 s). What it may take is held where it is.
PROBE_OF_A_BUSY_MACHINE = 0.6


@dataclass
class Attacker:
    """One who sends, from 127.0.0.1, and remembers how much and what came back."""

    port: int
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)

    async def ask(self, data: bytes, *, piece: int | None = None, pause: float = 0.0) -> Answer:
        """Sends one request on a connection of its own."""
        self.sent += len(data)
        answer = await ask(self.port, data, piece=piece, pause=pause)
        self.statuses[answer.status] += 1
        return answer

    async def ask_at_once(self, data: bytes, connections: int) -> None:
        """Sends the same on so many connections."""
        await asyncio.gather(*(self.ask(data) for _ in range(connections)))

    async def insist(self, data: bytes, connections: int, seconds: float) -> None:
        """Asks again as soon as answered, on so many connections, for so long."""
        end = asyncio.get_running_loop().time() + seconds

        async def one() -> None:
            while asyncio.get_running_loop().time() < end:
                answer = await self.ask(data)
                if answer.status != 200:
                    await asyncio.sleep(
                        0.02
                    )  # refusals are cheap; asking without a pause would be another attack

        await asyncio.gather(*(one() for _ in range(connections)))


@dataclass(frozen=True)
class Attack:
    """One way to starve others, with what is still fair to the server."""

    name: str
    what: str
    perform: Callable[[Attacker], Awaitable[None]]
    answers: frozenset[int] = REFUSED  # whoever may be hung up on has HUNG_UP there
    growth: int = ORDINARY_GROWTH  # bytes of memory over those of a calm server
    longest_probe: float = LONGEST_PROBE  # seconds, the 99th percentile of /livez
    longest_answer: float = LONGEST_ANSWER  # seconds, for neighbours
    # Whether others at the attacker's own address, who share its turn, may be refused or wait with it.
    own_address_suffers: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)  # settings of the server, as its environment


async def _scans(attacker: Attacker, scans: int) -> None:
    await attacker.ask_at_once(post("/v1/classify", pictures.repeated_scans(scans=scans)), 2)


async def _one_image(attacker: Attacker, make: Callable[[], bytes], times: int = 1) -> None:
    await attacker.ask_at_once(post("/v1/classify", make()), times)


async def _small_chunks(attacker: Attacker) -> None:
    await attacker.ask_at_once(chunked("/v1/classify", bytes(40_000), 1), 8)


async def _slow_small_chunks(attacker: Attacker) -> None:
    """Half a megabyte a second over 8 connections."""
    data = chunked("/v1/classify", bytes(100_000), 1)
    await asyncio.gather(*(attacker.ask(data, piece=6_000, pause=0.1) for _ in range(8)))


async def _numbers(attacker: Attacker) -> None:
    """Pixels of no size that is served, just below what one request may hold."""
    await attacker.ask_at_once(_infer_json(b"128"), 8)


async def _lists(attacker: Attacker) -> None:
    """Lists where numbers should be, each an object to the parser."""
    await attacker.ask_at_once(_infer_json(b"[12345]", 999_000), 8)


def _infer_json(value: bytes, count: int = 1_998_000, zipped: bool = False) -> bytes:
    tensor = b'{"name":"pixel_values","datatype":"UINT8","shape":[1,1000,666,3],"data":[%b]}'
    body = b'{"inputs":[%b]}' % (tensor % b",".join([value] * count))
    if zipped:
        body = gzip.compress(body)
    headers = ("Content-Type: application/json", *(["Content-Encoding: gzip"] if zipped else []))
    return post("/v2/models/auto/infer", body, *headers)


async def _zipped_bodies(attacker: Attacker) -> None:
    """Decoders are kept busy by 49 megapixels, in bodies that are 30 kB on the way and 30 MiB in memory."""
    picture = pictures.black_and_white()
    data = infer([picture + bytes(30 * MIB)], zipped=True)
    await attacker.ask_at_once(data, 60)


async def _tiny_pictures(attacker: Attacker) -> None:
    await attacker.ask_at_once(form("/v1/classify", [pictures.tiny_webp()] * 64), 3)


async def _urgent(attacker: Attacker) -> None:
    """64 clients that say of every request that it comes first."""
    data = infer([pictures.photograph(224)] * 8, priority=1)
    await attacker.insist(data, 64, 10.0)


async def _broken_chunk(attacker: Attacker) -> None:
    data = request("POST", "/v1/nosuch", "Transfer-Encoding: chunked") + b"zz\r\n\r\n"
    for _ in range(20):
        await attacker.ask(data)


async def _zipped_lists(attacker: Attacker) -> None:
    await attacker.ask_at_once(_infer_json(b"[]", 999_000, zipped=True), 8)


async def _native_json(attacker: Attacker) -> None:
    """A long text of base64 in JSON, which is read as text, then as bytes, then as an image."""
    text = "A" * (30 * MIB)
    data = post("/v1/classify", json.dumps({"images": [{"b64": text}]}).encode())
    await attacker.ask_at_once(data, 8)


ATTACKS = (
    Attack(
        "scans",
        "progressive JPEG 3400 x 3400 with 50,000 repeated scans, twice",
        partial(_scans, scans=50_000),
    ),
    Attack("few-scans", "the same with 3,000 scans, twice", partial(_scans, scans=3_000)),
    Attack(
        "tile",
        "TIFF 16 x 16 with one 40,000 x 40,000 deflate tile, TIFF on",
        partial(_one_image, make=pictures.huge_tile, times=2),
        variables=ALL_FORMATS,
    ),
    Attack(
        "strips",
        "TIFF 1 x 8,000,000, a strip a row, TIFF on",
        partial(_one_image, make=pictures.strip_a_row),
        variables=ALL_FORMATS,
    ),
    Attack("tiff-off", "both TIFFs as the settings are", lambda attacker: _both_tiffs(attacker)),
    Attack(
        "png-chunks",
        "PNG with 2,000,000 empty chunks",
        partial(_one_image, make=pictures.empty_chunks),
    ),
    Attack(
        "jpeg-filling",
        "JPEG with 9,000 empty comments and 6 MB of filling before them, 4 at once",
        partial(_one_image, make=pictures.filled_markers, times=4),
    ),
    Attack("small-chunks", "chunked body in one-byte chunks, 8 connections", _small_chunks, CUT_OFF),
    Attack("slow-small-chunks", "the same at 0.5 MB/s", _slow_small_chunks, CUT_OFF),
    Attack(
        "numbers",
        "Open Inference JSON of 2 million numbers, 8 at once",
        _numbers,
        growth=GROWTH_WITH_BODIES,
        own_address_suffers=True,
    ),
    Attack(
        "lists",
        "Open Inference JSON of 1 million lists, 8 at once",
        _lists,
        growth=GROWTH_WITH_BODIES,
        own_address_suffers=True,
    ),
    Attack(
        "zipped-lists",
        "the same with empty lists, as gzip",
        _zipped_lists,
        growth=GROWTH_WITH_BODIES,
        own_address_suffers=True,
    ),
    Attack(
        "base64",
        "JSON with 30 MiB of base64, 8 at once",
        _native_json,
        CUT_OFF,
        growth=GROWTH_WITH_BODIES,
        own_address_suffers=True,
    ),
    Attack(
        "zipped-bodies",
        "60 gzip bodies of 30 MiB each while decoders are busy",
        _zipped_bodies,
        answers=REFUSED | {200},
        growth=GROWTH_WITH_BODIES + LARGE_PICTURES,
        own_address_suffers=True,
    ),
    Attack(
        "tiny-pictures",
        "3 requests of 64 x a 34-byte, 12-megapixel WebP, all valid",
        _tiny_pictures,
        answers=REFUSED | {200},
        growth=TINY_PICTURES,
        own_address_suffers=True,
    ),
    Attack(
        "urgent",
        "Open Inference `priority: 1` by anybody, 64 clients of 8 images",
        _urgent,
        answers=REFUSED | {200},
        longest_probe=PROBE_OF_A_BUSY_MACHINE,
        own_address_suffers=True,
    ),
    Attack("broken-chunk", "`POST /v1/nosuch` with a broken chunk, 20 times", _broken_chunk),
)


async def _both_tiffs(attacker: Attacker) -> None:
    await asyncio.gather(
        _one_image(attacker, pictures.huge_tile, times=2), _one_image(attacker, pictures.strip_a_row)
    )


def attack(name: str) -> Attack:
    """Looks one up."""
    return next(one for one in ATTACKS if one.name == name)
