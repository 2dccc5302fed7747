"""Other people's checkpoints, read into canonical names; one file a family.

checkpoint = Checkpoint.open(path)
checkpoint.parameter(name)  # for each name of checkpoint.architecture.parameter_shapes()
"""
