"""What can go wrong at rest, as one tree.

StoreError                  everything below; its text is one sentence for the user
├── CheckpointError         a model, head or labels file that cannot be used
├── RecipeError             a recipe that cannot be read, or what one of its lines names
├── ManifestError           manifest.json missing, malformed, or of a newer format
├── SignatureError          a store that no trusted key has signed, or a key that cannot be used
├── IntegrityError          a file of the store is missing or is not what its SHA-256 says
├── StoreExistsError        the destination of a build is taken
├── StoreLockedError        another writer is at work
└── TaskError               a task that is unknown, duplicate, badly named or has nothing to roll back to
"""

# Names out of a hostile file may have megabytes, and a terminal's control characters.
_LONGEST_TEXT = 2000


class StoreError(Exception):
    """A store or checkpoint cannot be used as asked; the text says what was wrong and what to do."""

    def __init__(self, text: str) -> None:
        """Makes one printable line of the text, whatever the names in it are."""
        super().__init__(_shortened("".join(map(_printable, _shortened(text)))))


class CheckpointError(StoreError):
    """A model directory, head file or labels file cannot be used."""


class RecipeError(StoreError):
    """A recipe cannot be read, or one of its lines cannot be followed; the text begins with file and line."""


class ManifestError(StoreError):
    """The manifest is missing, malformed, or written by a newer format version."""


class SignatureError(StoreError):
    """A store is not signed by a trusted key, or a key file cannot be used."""


class IntegrityError(StoreError):
    """A file of the store is missing, or its bytes are not those that were written."""


class StoreExistsError(StoreError):
    """The destination of a build already holds something else."""


class StoreLockedError(StoreError):
    """Another process is writing to this store."""


class TaskError(StoreError):
    """A task is unknown, duplicate, badly named, or has no earlier revision."""


def _shortened(text: str) -> str:
    """Returns a text of moderate length; what is wrong stands at its ends, a hostile name in between."""
    half = _LONGEST_TEXT // 2
    return text if len(text) <= _LONGEST_TEXT else f"{text[:half]} ... {text[-half:]}"


def _printable(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
