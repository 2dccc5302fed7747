"""From the bytes of a file to what an encoder takes: decoding, which trusts nothing, and preprocessing."""
