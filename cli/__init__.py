"""`mass-serve`: one file a command, each with nothing but flags, progress and printing."""
