"""Why a file or a text is no input, as one tree; the text is one sentence for whoever sent it.

InputError
├── EmptyInputError        no bytes at all, or no word
├── UnknownFormatError     bytes of no format that is read here
├── InputTooLargeError     more pixels, or characters, than the limit
├── InvalidTextError       characters that no text has
├── NoPairsError           a pair of texts where the model reads one text
└── CorruptInputError      a file of a known format that does not decode
"""


class InputError(Exception):
    """A file or a text cannot be made an input of the encoder."""


class EmptyInputError(InputError):
    """There are no bytes, or no word."""


class UnknownFormatError(InputError):
    """The bytes are of no format that is read here."""


class InputTooLargeError(InputError):
    """The header announces more than the limit, or the text is longer."""


class InvalidTextError(InputError):
    """A text has characters that no text has."""


class NoPairsError(InputError):
    """Two texts came as one input, and the model's tokenizer does not make one of them."""


class CorruptInputError(InputError):
    """A file of a known format is truncated or corrupt."""
