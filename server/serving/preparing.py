"""What a request's inputs are as the engine takes them, and how texts become that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.engine import ServingEngine
from mass_serve.inputs.images import ImageSurvey
from mass_serve.inputs.texts import TextTokenizer, Tokens
from mass_serve.server.errors import BadRequestError
from mass_serve.server.serving.decoders import Decoders, decode_cost, survey_files
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.parsers import Parsers
from mass_serve.server.serving.request_context import EncodedImages, Images, Inputs, Texts
from mass_serve.server.serving.tokenisers import Tokenisers, tokenise_cost
from mass_serve.server.settings import Settings

# A survey of so few holds the event loop for two milliseconds at most: a JPEG of nothing but markers takes
# 0.3 microseconds for each two to four bytes. An ordinary file takes less than a thread's turn.
BYTES_SURVEYED_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Prepared:
    """Inputs, ready for the queries about them."""

    inputs: Sequence[Tensor] | Sequence[Tokens]  # pixels of images, tokens of texts
    cut: Sequence[int] = ()  # how many tokens of each text the encoder does not read

    @property
    def num_tokens(self) -> int:
        """How many tokens of texts are read; images have none."""
        return sum(len(one.words) for one in self.inputs if isinstance(one, Tokens))


class Preparer:
    """Makes the inputs of requests ready: images are decoded, texts made into tokens."""

    def __init__(
        self, settings: Settings, decoders: Decoders, tokenisers: Tokenisers, parsers: Parsers
    ) -> None:
        self._settings, self._parsers = settings, parsers
        self._decoders, self._tokenisers = decoders, tokenisers

    async def surveys(self, files: Sequence[bytes], turn: Turn) -> list[ImageSurvey]:
        """Returns what the files declare. Raises the error of a bad one."""
        nbytes = sum(map(len, files))
        if nbytes <= BYTES_SURVEYED_AT_ONCE:
            return survey_files(files, self._settings.image_limits)
        return await self._parsers.run(turn, nbytes, survey_files, files, self._settings.image_limits)

    async def prepared(
        self,
        inputs: Inputs,
        surveys: Sequence[ImageSurvey],
        engine: ServingEngine,
        turn: Turn,
        *,
        placed: bool,
    ) -> Prepared:
        """Returns inputs as the engine takes them; tokens of texts may have to know where they stand.

        Raises the error of a bad one.
        """
        if not isinstance(inputs, Texts):
            return Prepared(await self._pixels(inputs, surveys, engine, turn))
        tokens = await self._tokenisers.tokens(inputs, tokenizer_of(engine), turn, placed=placed)
        return Prepared(tokens, [one.cut for one in tokens])

    def cost(self, inputs: Inputs, surveys: Sequence[ImageSurvey], engine: ServingEngine) -> float:
        """Returns the time that worker processes should need until inputs are ready, all of them together."""
        workers = self._settings.decode_workers
        if isinstance(inputs, Texts):
            return tokenise_cost(inputs.texts, tokenizer_of(engine), workers)
        files = inputs.files if isinstance(inputs, EncodedImages) else ()
        return decode_cost(files, surveys, workers)

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
    if isinstance(inputs, Texts):
        tokenizer_of(engine)
    elif engine.tokenizer is not None:
        raise BadRequestError(
            "This store reads texts, not images; send JSON with 'texts', or the input 'text' in the Open"
            " Inference Protocol."
        )


def tokenizer_of(engine: ServingEngine) -> TextTokenizer:
    """Returns what makes tokens of texts. Raises BadRequestError where the store reads images."""
    if engine.tokenizer is None:
        raise BadRequestError(
            "This store reads images, not texts; send image files, which JSON has as 'images' or in objects"
            ' {"b64": "..."}.'
        )
    return engine.tokenizer
