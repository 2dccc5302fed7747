"""Other people's checkpoints, read into canonical names; one file a family.

checkpoint = Checkpoint.open(path)
read = checkpoint.over(pretrained.parameter)  # what a fine-tuned model leaves out is the pretrained one's
read(name)  # for each name of checkpoint.architecture.parameter_shapes()
"""
