"""Classification heads from words: class names, put into prompts, through the text tower of a CLIP.

    head = head_from_words(Path("clip-vit-base-patch32"), ["cat", "dog"], ["a photo of a {}."])
    head = head_from_words(Path("clip-vit-base-patch32"), read_class_names("Cars"), read_templates("Cars"))

A text tower is needed for a moment, when a head is made: in float32, on the CPU, over a batch of prompts that
no task changes. It is therefore no encoder of `backbone`, which runs mixed batches of tasks and would have to
grow causal attention for it, and it is at rest that heads are made. Its blocks are described by the same
`Block` and named alike, so a backbone that serves texts can take its place.
"""

from mass_serve.model_store.words.head_from_words import head_from_words
from mass_serve.model_store.words.lists import read_class_names, read_templates

__all__ = ["head_from_words", "read_class_names", "read_templates"]
