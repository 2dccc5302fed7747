"""Why a file is no input, as one tree; the text is one sentence for whoever sent it.

InputError
├── EmptyInputError        no bytes at all
├── UnknownFormatError     bytes of no format that is read here
├── InputTooLargeError     more pixels than the limit
└── CorruptInputError      a file of a known format that does not decode
"""


class InputError(Exception):
    """A file cannot be made an input of the encoder."""


class EmptyInputError(InputError):
    """There are no bytes."""


class UnknownFormatError(InputError):
    """The bytes are of no format that is read here."""


class InputTooLargeError(InputError):
    """The header announces more than the limit."""


class CorruptInputError(InputError):
    """A file of a known format is truncated or corrupt."""
