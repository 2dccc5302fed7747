"""Attacks on a running server: what each sends, who watches meanwhile, and the table that comes of it."""
