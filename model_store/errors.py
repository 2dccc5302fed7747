"""What can go wrong at rest, as one tree.

StoreError                  everything below; its text is one sentence for the user
├── CheckpointError         a model, head or labels file that cannot be used
├── ManifestError           manifest.json missing, malformed, or of a newer format
├── IntegrityError          a file of the store is missing or is not what its SHA-256 says
├── StoreExistsError        the destination of a build is taken
├── StoreLockedError        another writer is at work
└── TaskError               a task that is unknown, duplicate, badly named or has nothing to roll back to
"""


class StoreError(Exception):
    """A store or checkpoint cannot be used as asked; the text says what was wrong and what to do."""


class CheckpointError(StoreError):
    """A model directory, head file or labels file cannot be used."""


class ManifestError(StoreError):
    """The manifest is missing, malformed, or written by a newer format version."""


class IntegrityError(StoreError):
    """A file of the store is missing, or its bytes are not those that were written."""


class StoreExistsError(StoreError):
    """The destination of a build already holds something else."""


class StoreLockedError(StoreError):
    """Another process is writing to this store."""


class TaskError(StoreError):
    """A task is unknown, duplicate, badly named, or has no earlier revision."""
