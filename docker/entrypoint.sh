#!/bin/sh
# `mass-serve ARGUMENTS`. `serve` takes the store that is mounted at /store, or the demo where nothing is.
set -eu

if [ "${1:-}" = serve ] && [ -z "${MASS_STORE:-}" ]; then
    # Whatever lies there is taken for a store: one that is broken must not be answered for by the demo.
    contents=$(ls -A /store)
    if [ -n "$contents" ]; then
        export MASS_STORE=/store
    fi
fi

# Becomes the server, so that it gets the signals.
exec mass-serve "$@"
