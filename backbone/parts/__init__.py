"""The forward pass of each part of an encoder, one file a part type of `backbone.architecture`."""
