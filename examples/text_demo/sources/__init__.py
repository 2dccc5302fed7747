"""One file a source: each turns an unpacked package into labelled texts."""
