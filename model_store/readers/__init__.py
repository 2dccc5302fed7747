"""Other people's checkpoints, read into canonical names; one file a family."""
