"""What a request's inputs are as the engine takes them, and how texts become that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.engine import Query, ServingEngine, TextQuery
from mass_serve.inputs.errors import InputError
from mass_serve.inputs.images import ImageSurvey
from mass_serve.inputs.texts import TextLimits, TextTokenizer, check_texts
from mass_serve.server.errors import BadRequestError, input_refused
from mass_serve.server.serving.decoders import Decoders, survey_files
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.parsers import Parsers
from mass_serve.server.serving.request_context import EncodedImages, Images, Inputs, Texts
from mass_serve.server.settings import Settings

# A survey of so few holds the event loop for two milliseconds at most: a JPEG of nothing but markers takes
# 0.3 microseconds for each two to four bytes. An ordinary file takes less than a thread's turn.
BYTES_SURVEYED_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Prepared:
    """Inputs, ready for the queries about them."""

    tensors: Sequence[Tensor]  # pixels of images, words of texts
    kind: type[Query] | type[TextQuery]
    cut: Sequence[int] = ()  # how many tokens of each text the encoder does not read


class Preparer:
    """Makes the inputs of requests ready: images are decoded elsewhere, texts made into tokens on threads."""

    def __init__(self, settings: Settings, decoders: Decoders, parsers: Parsers) -> None:
        self._settings, self._decoders, self._parsers = settings, decoders, parsers

    async def surveys(self, files: Sequence[bytes], turn: Turn) -> list[ImageSurvey]:
        """Returns what the files declare. Raises the error of a bad one."""
        nbytes = sum(map(len, files))
        if nbytes <= BYTES_SURVEYED_AT_ONCE:
            return survey_files(files, self._settings.image_limits)
        return await self._parsers.run(turn, nbytes, survey_files, files, self._settings.image_limits)

    async def prepared(
        self, inputs: Inputs, surveys: Sequence[ImageSurvey], engine: ServingEngine, turn: Turn
    ) -> Prepared:
        """Returns inputs as the engine takes them. Raises the error of a bad one."""
        if not isinstance(inputs, Texts):
            return Prepared(await self._pixels(inputs, surveys, engine, turn), Query)
        assert engine.tokenizer is not None
        return await self._parsers.run(
            turn, inputs.nbytes, prepared_texts, inputs, self._settings.text_limits, engine.tokenizer
        )

    async def _pixels(
        self, images: Images, surveys: Sequence[ImageSurvey], engine: ServingEngine, turn: Turn
    ) -> Sequence[Tensor]:
        """Returns pixels as the engine takes them. Raises BadRequestError for ready ones of another size."""
        if isinstance(images, EncodedImages):
            return await self._decoders.pixels(images.files, surveys, engine, turn)
        crop = engine.preprocessing.crop
        if images.pixels.shape[1:] != (3, crop, crop):
            raise BadRequestError(
                f"This store's images are {crop} pixels wide and high; resize and crop yours to that, or send"
                " them encoded."
            )
        return torch.from_numpy(images.pixels).unbind()


def refuse_other_inputs(inputs: Inputs, engine: ServingEngine) -> None:
    """Raises BadRequestError for images where the store reads texts, and for texts where it reads images."""
    if isinstance(inputs, Texts) and engine.tokenizer is None:
        raise BadRequestError("This store reads images; send 'images', not 'texts'.")
    if not isinstance(inputs, Texts):
        refuse_images(engine)


def refuse_images(engine: ServingEngine) -> None:
    """Raises BadRequestError where the store reads texts."""
    if engine.tokenizer is not None:
        raise BadRequestError("This store reads texts; POST JSON with 'texts' to /v1/classify, not images.")


def prepared_texts(inputs: Texts, limits: TextLimits, tokenizer: TextTokenizer) -> Prepared:
    """Makes texts into tokens. Raises the ServiceError of the first bad one, naming it."""
    texts = inputs.texts
    try:
        check_texts(texts, limits)
    except InputError as error:
        raise input_refused(error) from error
    tokens = []
    for index, text in enumerate(texts):
        try:
            tokens.append(tokenizer.tokens(text, inputs.truncation))
        except InputError as error:
            raise input_refused(error, "" if len(texts) == 1 else f"texts[{index}]: ") from error
    words = [torch.from_numpy(one.words) for one in tokens]
    return Prepared(words, TextQuery, [one.cut for one in tokens])
