"""The same server and the same jobs on a Ray cluster (extra `ray`): thin, over `server` and `jobs`.

`settings` imports without Ray; `deployment` is the server as a Ray Serve application, whose replicas each
run all of it, and `serving` what `mass-serve ray serve` does with it.
"""
