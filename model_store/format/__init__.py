"""What the bytes of a store mean: the manifest, tensor files, experts, heads and the journal of a build."""
