"""From the bytes of a file to the pixels of an input, trusting none of them and without torch.

Worker processes that decode import this folder: torch would cost each of them seconds and hundreds of MB.
"""
