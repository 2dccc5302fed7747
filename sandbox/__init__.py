"""Work on what callers send, in processes of their own that the kernel bounds.

A process that exceeds its bounds, or dies, is replaced; the piece of work that it had is all that is lost.
The child's side imports neither torch nor a web framework.
"""
