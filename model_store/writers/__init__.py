"""Plain models in the form of transformers: what the readers read, written.

    write_model(PlainModel(architecture, parameters, inputs, head, labels), Path("out"))

The names of tensors and the sense of configurations are the readers': a form (`image_forms`, `text_forms`)
adds the configuration that the family's reader takes for the same encoder, and the classes' names. A form is
one for a model if and only if its reader would read back that very model.
"""

from mass_serve.model_store.writers.plain_model import PlainInputs, PlainModel, TextInputs
from mass_serve.model_store.writers.write_model import WrittenModel, write_model

__all__ = ["PlainInputs", "PlainModel", "TextInputs", "WrittenModel", "write_model"]
