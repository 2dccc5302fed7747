"""Jobs that make tokens of a text, as whoever gives them to a pool sees them: what they take and need."""

from __future__ import annotations

from mass_serve.inputs.errors import EmptyInputError, InputError, InputTooLargeError, NoPairsError
from mass_serve.inputs.texts import Text, TextTokenizer, TokenizerError, num_characters
from mass_serve.sandbox.bounds import Belonging, Bounds, RefusedError, SandboxError
from mass_serve.sandbox.tokenising import HEAD, TOKEN_BYTES

KEEP = "mass_serve.sandbox.tokenising:keep"
TOKENISE = "mass_serve.sandbox.tokenising:tokenise"
# So short a text takes a thread a tenth of a second and 30 MB at most, where the tokenizer is known to be
# bounded, and ordinary text a hundredth of both.
MOST_CHARACTERS_HERE = 10_000
# Bounded tokenizers took 8 microseconds and 3 kB a character at most, where NFKC makes 18 of each. A process
# that has read long texts keeps up to 70 MB of what they took.
LEAST_SECONDS, SLOWEST_CHARACTERS_PER_SECOND = 1.0, 50_000
LEAST_BYTES, BYTES_PER_CHARACTER = 128 << 20, 4096
# What no text may exceed, whatever the limit on characters is.
MOST_SECONDS = 10.0
# By the clock a job may take so many times longer: the processors have other work.
WALL_FACTOR, LEAST_WALL_SECONDS = 5.0, 10.0
# What is expected, until the pace is known.
TEXT_SECONDS, CHARACTERS_PER_SECOND = 0.0005, 1e6
# A vocabulary of 250,000 tokens took 38 times its file's bytes, and 0.4 seconds for each million of them.
KEEPING_SECONDS, KEEPING_BYTES_PER_SECOND = 10.0, 500_000
KEEPING_BYTES, KEEPING_BYTES_PER_BYTE = 256 << 20, 64


def is_tokenised_here(text: Text, tokenizer: TextTokenizer) -> bool:
    """Tells whether no more than a moment of a thread is needed for a text, whatever it is."""
    return tokenizer.is_bounded and not is_long(text)


def predicted_seconds(text: Text) -> float:
    """Returns the processor's time that the tokens of a text should take."""
    return TEXT_SECONDS + num_characters([text]) / CHARACTERS_PER_SECOND


def is_long(text: Text) -> bool:
    """Tells whether a text is read by the one process that long ones have."""
    return num_characters([text]) > MOST_CHARACTERS_HERE


def bounds_of(characters: int, max_tokens: int) -> Bounds:
    """Returns what making tokens of a text may take."""
    seconds = min(MOST_SECONDS, LEAST_SECONDS + characters / SLOWEST_CHARACTERS_PER_SECOND)
    return Bounds(
        cpu_seconds=seconds,
        wall_seconds=max(LEAST_WALL_SECONDS, WALL_FACTOR * seconds),
        memory_bytes=LEAST_BYTES + BYTES_PER_CHARACTER * characters,
        result_bytes=HEAD.size + TOKEN_BYTES * max_tokens,
    )


def kept(tokenizer: TextTokenizer) -> Belonging:
    """Returns a tokenizer as worker processes keep it."""
    size = len(tokenizer.content)
    seconds = KEEPING_SECONDS + size / KEEPING_BYTES_PER_SECOND
    memory = KEEPING_BYTES + KEEPING_BYTES_PER_BYTE * size
    return Belonging(
        f"{tokenizer.sha256} {tokenizer.max_tokens}",
        KEEP,
        tokenizer.content,
        b"%d" % tokenizer.max_tokens,
        Bounds(seconds, WALL_FACTOR * seconds, memory, result_bytes=0),
    )


# What may be said of a text outside, by name.
_REFUSALS = {kind.__name__: kind for kind in (EmptyInputError, InputTooLargeError, NoPairsError)}


def text_error(error: SandboxError) -> InputError | TokenizerError:
    """Returns what is wrong with a text whose job had no result, if it is the text that is wrong.

    That is not so where the machine has no memory, or time by the clock: `MemoryShortError`, and
    `ExceededError` for "wall".
    """
    if isinstance(error, RefusedError):
        return _REFUSALS.get(error.kind, TokenizerError)(str(error))
    # The library ends its process where it finds no memory, so that a crash says no more than the bounds do.
    return InputTooLargeError(
        "The text takes the store's tokenizer more time or memory than one of its length may; send a shorter"
        " one, or another."
    )
