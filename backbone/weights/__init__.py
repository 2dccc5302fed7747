"""The encoder's weights as the operations that a forward pass asks for, in one file a form.

`protocol` is what a pass asks; `dense` gives every sample the same weights, `segmented` each segment its
experts, `planned` the same in planned kernel launches, `metered` also measures what goes through.
"""
