"""Embeddings as clients of OpenAI, of text-embeddings-inference and of Hugging Face ask for them."""
