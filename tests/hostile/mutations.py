"""Requests of every kind, and what becomes of them when a seeded hand spoils them."""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from PIL import Image

from tests.pictures import encode

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
# Where parsers think of numbers as small, positive, finite, 32 or 64 bits wide, or as numbers at all.
EXTREMES = (
    *(b"0", b"-1", b"-0", b"1e400", b"-1e-400", b"NaN", b"Infinity", b"2147483648", b"4294967296", b"0x10"),
    *(b"9223372036854775808", b"1" * 400, b"1.5", b'"1"', b"true", b"null", b"[]", b"{}", b"\xff", b"007"),
)
WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class Body:
    """A request by its path, further headers, and content."""

    path: str
    headers: tuple[str, ...]
    content: bytes


def _pictures() -> dict[str, bytes]:
    image = Image.linear_gradient("L").resize((24, 20)).convert("RGB")
    animation = {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)] * 3}
    return {
        "PNG": encode(image),
        "palette": encode(image.quantize(8)),
        "JPEG": encode(image, "JPEG"),
        "progressive": encode(image, "JPEG", progressive=True),
        "WEBP": encode(image, "WEBP"),
        "lossless": encode(image, "WEBP", lossless=True),
        "moving WEBP": encode(image, "WEBP", **animation),
        "GIF": encode(image, "GIF"),
        "moving GIF": encode(image, "GIF", **animation),
        "BMP": encode(image, "BMP"),
        "TIFF": encode(image, "TIFF", compression="tiff_lzw"),
    }


PICTURES = _pictures()


def bodies() -> list[Body]:
    """Well-formed requests in every form that is served."""
    files = list(PICTURES.values())
    text = b64encode(PICTURES["PNG"]).decode()
    native = {"images": [{"b64": text}, {"b64": text}], "tasks": ["digits", "signs"], "top_k": 3}
    as_json = "Content-Type: application/json"
    hugging_face = {"inputs": text, "parameters": {"top_k": 2, "function_to_apply": "sigmoid"}}
    return [
        *(Body("/v1/classify?tasks=digits&top_k=2", (), file) for file in files),
        *(Body("/predict", (), file) for file in files[::3]),
        Body("/v1/classify", ("Content-Type: multipart/form-data; boundary=cut",), form()),
        Body("/v1/classify", (as_json,), json.dumps(native).encode()),
        Body("/models/digits", (as_json,), json.dumps(hugging_face).encode()),
        *_infer(text),
    ]


def text_bodies() -> list[Body]:
    """Well-formed requests about texts in every form that is served."""
    pair = {"text": "w20 é", "text_pair": "w21, w22"}
    native = {"texts": ["w10 w11", pair], "tasks": ["guard", "domain"], "answer": "each", "top_k": 2}
    parameters = {"top_k": 1, "function_to_apply": "none"}
    predict = {"inputs": [["w10"], ["w11", "w12"]], "raw_scores": True, "truncation_direction": "left"}
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2]}
    elements = b"".join(len(text).to_bytes(4, "little") + text for text in (b"w10", "w20 é".encode()))
    binary = {"inputs": [tensor | {"parameters": {"binary_data_size": len(elements)}}]}
    head, infer = json.dumps(binary).encode(), "/v2/models/auto/infer"
    return [
        Body("/v1/classify", (), json.dumps(native).encode()),
        Body("/", (), json.dumps({"inputs": ["w10", pair], "parameters": parameters}).encode()),
        Body("/models/guard", (), json.dumps({"inputs": "w10 w11"}).encode()),
        Body("/predict", (), json.dumps(predict).encode()),
        Body("/predict", (), json.dumps({"inputs": ["w10", "w11"], "truncate": False}).encode()),
        Body(infer, (), json.dumps({"inputs": [tensor | {"data": ["w10", "w11"]}]}).encode()),
        Body(infer, (f"Inference-Header-Content-Length: {len(head)}",), head + elements),
    ]


def form() -> bytes:
    """A multipart body of images and fields."""
    head = b'Content-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    fields = (
        (b"images", PICTURES["PNG"]),
        (b"images", PICTURES["JPEG"]),
        (b"tasks", b"digits"),
        (b"top_k", b"2"),
    )
    return b"".join(b"--cut\r\n" + head % field for field in fields) + b"--cut--\r\n"


def _infer(text: str) -> Iterator[Body]:
    """Files and pixels, as JSON and as bytes, plain and packed."""
    path, as_json = "/v2/models/auto/infer", "Content-Type: application/json"
    files = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    values = {"name": "pixel_values", "datatype": "FP32", "shape": [1, 3, 4, 4], "data": [0.5] * 48}
    outputs = [
        {"name": "label", "parameters": {"classification": 3}},
        {"name": "score"},
        {"name": "residuals"},
    ]
    parameters = {"timeout": 20_000_000, "priority": 2, "binary_data_output": True}
    whole = json.dumps({"id": "7", "inputs": [files], "outputs": outputs, "parameters": parameters}).encode()
    yield Body(path, (as_json,), whole)
    yield Body(path, (as_json,), json.dumps({"inputs": [values]}).encode())
    yield Body(path, (as_json, "Content-Encoding: gzip"), whole)
    yield Body(path, (as_json, "Content-Encoding: deflate"), whole)
    elements = b"".join(len(file).to_bytes(4, "little") + file for file in list(PICTURES.values())[:3])
    binary = {"name": "image", "datatype": "BYTES", "shape": [3]}
    head = json.dumps({"inputs": [binary | {"parameters": {"binary_data_size": len(elements)}}]}).encode()
    yield Body(path, (f"Inference-Header-Content-Length: {len(head)}",), head + elements)


def _flip(chance: random.Random, data: bytes) -> bytes:
    spoilt = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8, 30))):
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
    return bytes(spoilt)


def _truncate(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _repeat(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] * chance.choice((1, 1, 2, 20)) + data[end:]


def _cut(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[end:]


def _splice(chance: random.Random, data: bytes) -> bytes:
    other = chance.choice(list(PICTURES.values()))
    place, start = chance.randrange(len(data) + 1), chance.randrange(len(other))
    return data[:place] + other[start:] + data[chance.randrange(place, len(data) + 1) :]


def _word(chance: random.Random, data: bytes) -> bytes:
    """A length field, or what is one by chance, with an extreme value."""
    size = chance.choice((1, 2, 4))
    value = chance.choice(WORDS) & ((1 << 8 * size) - 1)
    place = chance.randrange(len(data))
    order = "little" if chance.random() < 0.5 else "big"
    return data[:place] + value.to_bytes(size, order) + data[place + size :]  # type: ignore[arg-type]


def _number(chance: random.Random, data: bytes) -> bytes:
    found = list(NUMBER.finditer(data[:4096]))
    if not found:
        return _word(chance, data)
    number = chance.choice(found)
    return data[: number.start()] + chance.choice(EXTREMES) + data[number.end() :]


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_flip, _flip, _truncate, _repeat, _cut, _splice, _word, _word, _number, _number),
)


def spoilt(chance: random.Random, data: bytes) -> bytes:
    """One to three mutations."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        if data:
            data = chance.choice(MUTATIONS)(chance, data)
    return data


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def spoilt_body(chance: random.Random, body: Body) -> Body:
    """A request whose content is spoilt, before or after it is packed, and at times its headers."""
    coding = next((line for line in body.headers if line.startswith("Content-Encoding")), "")
    pack = PACKERS.get(coding.partition(": ")[2], bytes)
    if chance.random() < 0.7:
        content = pack(spoilt(chance, body.content))
    else:
        content = spoilt(chance, pack(body.content))
    headers = body.headers
    if headers and chance.random() < 0.1:
        name, _, value = chance.choice(headers).partition(": ")
        wrong = spoilt(chance, value.encode()).decode("latin-1")
        headers = (*headers, f"{name}: {re.sub('[^ -~]', '?', wrong)}")
    return replace(body, headers=headers, content=content)


# What is not quite HTTP, or more of it than anybody sends.
PICTURE = PICTURES["PNG"]
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
ODDITIES: tuple[bytes, ...] = (
    LIVEZ,
    b"GET /v1/tasks HTTP/1.0\r\n\r\n",
    b"GET http://localhost/v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET //localhost//v1/tasks/../tasks?%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"BREW /v1/classify HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /livez HTTP/1.1\nHost: localhost\n\n",
    b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\n folded: yes\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nName with blanks: 1\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde",
    POST + b"Content-Length: %d\r\n\r\n%b" % (len(PICTURE), PICTURE),
    POST + b"Content-Length: -1\r\n\r\n",
    POST + b"Content-Length: +5\r\n\r\nabcde",
    POST + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + LIVEZ,
    CHUNKED + b"5;x=y\r\nabcde\r\n0\r\n\r\n",
    CHUNKED + b"fffffffff\r\nabc",
    CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
    CHUNKED + b"5\r\nabcdefgh\r\n0\r\n\r\n",
    b"POST /v1/nosuch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"DELETE /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    CHUNKED + b"0\r\nTrailer: x\r\n\r\n",
    POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    POST + b"Expect: a miracle\r\nContent-Length: 3\r\n\r\nabc",
    LIVEZ * 20,
    b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\nGARBAGE\r\n\r\n",
    b"\r\n\r\n\r\n" + LIVEZ,
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-10\r\nAccept-Encoding: br\r\n\r\n",
    b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\nX-API-Key: \xe4\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\x1b[31mred\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


def raw_requests(chance: random.Random, count: int) -> Iterator[bytes]:
    """Every oddity as it is, then spoilt ones."""
    yield from ODDITIES
    for _ in range(count - len(ODDITIES)):
        yield spoilt(chance, chance.choice(ODDITIES))
