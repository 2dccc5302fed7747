"""What the demos with real data share: packages as sources, honest splits, and the commands of `mass-serve`.

`real_demo` makes a store of pictures with it, `text_demo` one of texts.
"""
