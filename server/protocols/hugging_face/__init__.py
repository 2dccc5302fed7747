"""Image classification as Hugging Face's inference clients ask for it."""
