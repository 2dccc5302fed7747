"""The README of a folder whose head is a file beside the model: how logits come of both."""

from __future__ import annotations

from mass_serve.model_store.format.heads import HEAD_FILE, LABELS_FILE
from mass_serve.model_store.writers.written_form import WrittenForm

READ_ME = "README.md"


def read_me(written: WrittenForm) -> str:
    """Tells in Python how the model and its head give logits, [n, C] of n inputs."""
    head = written.model.head
    assert head is not None
    cosine = head.kind == "cosine"
    text = written.model.architecture.reads_text
    prepare = "AutoTokenizer" if text else "AutoImageProcessor"
    call = 'prepare(texts, padding=True, truncation=True, return_tensors="pt")'
    inputs = call if text else 'prepare(images, return_tensors="pt")'
    logits = (
        'head["logit_scale"] * F.normalize(embedding) @ F.normalize(head["weight"]).T'
        if cosine
        else 'F.linear(embedding, head["weight"], head["bias"])'
    )
    return f"""# {written.class_name} with a head beside it

transformers has no class for this encoder with this head. The head is `{HEAD_FILE}`, its classes by row are
`{LABELS_FILE}`:

```python
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import {prepare}, {written.class_name}

model = {written.class_name}.from_pretrained(folder)
prepare = {prepare}.from_pretrained(folder)
head = load_file(folder + "/{HEAD_FILE}")

inputs = {inputs}
with torch.inference_mode():
    output = model(**inputs)
    embedding = {written.embedding}
    logits = {logits}
```

`mass-serve build --task NAME=FOLDER` reads the folder as it is.
"""
