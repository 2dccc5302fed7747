#!/usr/bin/env bash
# Builds the CPU image, runs it as an operator would who trusts nobody, and checks that it behaves.
#
#   docker/verify.sh
#
# Needs docker or podman, curl and python3. All of the following may be set in the environment:
#
#   ENGINE             docker or podman; whichever is found, docker first
#   BASE               the base image; otherwise the Dockerfile's own or, where that cannot be had and mmdebstrap can be
#                      run, one made from Debian's packages
#   IMAGE              an image to check instead of building one
#   EXTRA_BUILD_FLAGS  for the build, such as a CA bundle (-v ...:ro), pip's configuration, --isolation or --build-arg
#   EXTRA_RUN_FLAGS    for every container
#   NETWORK            host, where the engine has no network of its own: the server then listens on the loopback only
#   PORT               a free port of this machine, 18000 by default
#   KEEP               1 keeps what was made: containers, volumes and images
# shellcheck disable=SC2016 # what stands in single quotes is for the shell in the container
set -euo pipefail
cd "$(dirname "$0")/.."

PORT=${PORT:-18000}
NETWORK=${NETWORK:-}
ENGINE=${ENGINE:-$(command -v docker >/dev/null && echo docker || echo podman)}
NAME=mass-serve-verify-$$
URL=http://127.0.0.1:$PORT
EXAMPLE=examples/images/street/eight/00.png
DRAIN=3
GRACE=60

read -ra BUILD_FLAGS <<<"${EXTRA_BUILD_FLAGS:-}"
read -ra RUN_FLAGS <<<"${EXTRA_RUN_FLAGS:-}"
HARDENED=(--read-only --tmpfs /tmp --cap-drop=ALL --security-opt=no-new-privileges)
if [ "$NETWORK" = host ]; then
    REACHABLE=(--network host -e MASS_HOST=127.0.0.1 -e "MASS_PORT=$PORT")
else
    REACHABLE=(-p "127.0.0.1:$PORT:8000")
fi

scratch=$(mktemp -d)
built=()
checks=0
failures=0

# --- Helpers

say() { printf '\n%s\n' "$*"; }

# check TEXT COMMAND...: one line for each; a failure is counted, and the rest goes on.
check() {
    local text=$1
    shift
    checks=$((checks + 1))
    if "$@" >"$scratch/output" 2>&1; then
        echo "ok      $text"
    else
        failures=$((failures + 1))
        echo "FAILED  $text"
        sed 's/^/        /' "$scratch/output" | tail -n 20
    fi
}

refuses() { ! "$@"; }

clean_up() {
    local status=$?
    if [ "${KEEP:-}" != 1 ]; then
        "$ENGINE" rm --force --volumes "$NAME" >/dev/null 2>&1 || true
        "$ENGINE" volume rm --force "$NAME-store" "$NAME-texts" "$NAME-broken" >/dev/null 2>&1 || true
        [ ${#built[@]} -eq 0 ] || "$ENGINE" rmi --force "${built[@]}" >/dev/null 2>&1 || true
    fi
    rm -rf "$scratch"
    exit $status
}
trap clean_up EXIT

get() { curl --silent --show-error --noproxy '*' --max-time 30 "$@"; }
status_of() { get --output "$scratch/body" --write-out '%{http_code}' "$@"; }
gives() { [ "$(status_of "${@:2}")" = "$1" ] || { cat "$scratch/body"; return 1; }; }
# As a file: grep ends at the first match, which curl takes for an error when it still writes into a pipe.
answers() { get --output "$scratch/body" "${@:2}" && grep --quiet --fixed-strings -- "$1" "$scratch/body"; }
inside() { "$ENGINE" exec "$NAME" "$@"; }
image_has() { [ "$("$ENGINE" image inspect --format "$1" "$image")" = "$2" ]; }

# start ARGUMENTS...: the server, hardened, in the background; returns when it is ready or has ended.
start() {
    "$ENGINE" run --detach --name "$NAME" "${HARDENED[@]}" "${REACHABLE[@]}" "${RUN_FLAGS[@]}" \
        -e "MASS_DRAIN_SECONDS=$DRAIN" "$@" >/dev/null 2>"$scratch/started" || { cat "$scratch/started"; return 1; }
    for _ in $(seq 300); do
        if [ "$(status_of "$URL/readyz" 2>/dev/null)" = 200 ]; then return; fi
        if [ "$("$ENGINE" inspect --format '{{.State.Running}}' "$NAME")" = false ]; then break; fi
        sleep 0.2
    done
    "$ENGINE" logs "$NAME"
    return 1
}

# Docker runs the health check by itself; podman only where systemd starts it, so it is asked to.
healthy() {
    if [ "$ENGINE" = podman ]; then
        podman healthcheck run "$NAME"
    else
        for _ in $(seq 60); do
            if [ "$(docker inspect --format '{{.State.Health.Status}}' "$NAME")" = healthy ]; then return; fi
            sleep 1
        done
        return 1
    fi
}

stopped_cleanly() { [ "$("$ENGINE" inspect --format '{{.State.ExitCode}} {{.State.Running}}' "$NAME")" = "0 false" ]; }
remove() { "$ENGINE" rm --force --volumes "$NAME" >/dev/null 2>&1 || true; }

# with_store VOLUME COMMAND...: a command in a container of its own that may write to a store.
with_store() {
    "$ENGINE" run --rm "${HARDENED[@]}" "${RUN_FLAGS[@]}" -v "$1:/store" "${@:2}" 2>"$scratch/ran" || { cat "$scratch/ran"; return 1; }
}

# --- Building

made_base() {
    local own
    own=$(sed -n 's/^ARG BASE=//p' docker/Dockerfile)
    if "$ENGINE" pull --quiet "$own" >/dev/null 2>&1; then
        echo "$own"
        return
    fi
    echo "$own cannot be had here; making a base of Debian's packages." >&2
    # As a file: an archive that was cut off in a pipe would be imported as if it were whole.
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$scratch/base.tar" >&2
    "$ENGINE" import "$scratch/base.tar" "localhost/$NAME-base:latest" >/dev/null
    rm "$scratch/base.tar"
    echo "localhost/$NAME-base:latest"
}

build() {
    local format=()
    # Podman's own format has no health check.
    [ "$ENGINE" = docker ] || format=(--format docker)
    "$ENGINE" build "${format[@]}" "${BUILD_FLAGS[@]}" --file docker/Dockerfile --target cpu \
        --build-arg "BASE=$base" --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
        --tag "$image" . >"$scratch/build" 2>&1 || { tail -n 40 "$scratch/build"; exit 1; }
}

if [ -n "${IMAGE:-}" ]; then
    image=$IMAGE
else
    base=${BASE:-$(made_base)}
    image=localhost/$NAME:cpu
    built=("$image")
    [ -n "${BASE:-}" ] || [[ $base != localhost/* ]] || built+=("$base")
    SECONDS=0
    say "Building on $base with $ENGINE ..."
    build
    base_bytes=$("$ENGINE" image inspect --format '{{.Size}}' "$base")
    echo "        built in $SECONDS s; the base is $((base_bytes / 1000000)) MB of what follows"
fi

# --- Checks

say "The image"
bytes=$("$ENGINE" image inspect --format '{{.Size}}' "$image")
echo "        size: $((bytes / 1000000)) MB"
echo "        torch: $("$ENGINE" run --rm --entrypoint python "${RUN_FLAGS[@]}" "$image" -c 'import torch; print(torch.__version__)' 2>"$scratch/output")"
check "runs as user 1000" image_has '{{.Config.User}}' 1000:1000
check "has a volume for the store, ports for HTTP and gRPC, and a version" image_has \
    '{{and (index .Config.Labels "org.opencontainers.image.version") (len .Config.Volumes) (len .Config.ExposedPorts)}}' 2
check "has a health check" sh -c "'$ENGINE' image inspect '$image' | grep -i '\"healthcheck\": {'"

say "Served: the demo, with a read-only root, without capabilities"
check "becomes ready" start "$image"
check "the health check passes" healthy
check "/livez answers" gives 200 "$URL/livez"
check "/readyz answers" gives 200 "$URL/readyz"
check "an image is classified: task" answers '"task":"street"' --data-binary "@$EXAMPLE" "$URL/v1/classify"
check "an image is classified: label" answers '"label":"eight"' --data-binary "@$EXAMPLE" "$URL/v1/classify"
check "a Hugging Face client is answered" answers '"label":"eight"' --data-binary "@$EXAMPLE" "$URL/"
check "the Open Inference Protocol is spoken" gives 200 "$URL/v2/models/auto"
check "the page is there" answers '<html' "$URL/"
check "what is no image is refused" gives 415 --data-binary @LICENSE "$URL/v1/classify"
check "the metrics have counted it" answers 'mass_requests_total{code="415",protocol="v1"} 1.0' "$URL/metrics"

say "Confined"
check "runs as user and group 1000" inside sh -c '[ "$(id -u):$(id -g)" = 1000:1000 ]'
check "process 1 is the server itself" inside sh -c 'tr "\0" " " </proc/1/cmdline | grep "mass-serve serve"'
check "has no capabilities, not even to gain" inside sh -c '! grep ^Cap /proc/1/status | grep -Ev ":[[:space:]]*0+$"'
check "can gain no privileges" inside grep -E 'NoNewPrivs:.1' /proc/1/status
check "cannot write to its own root" inside sh -c 'for folder in / /etc /opt/mass-serve /usr/local/bin; do if touch "$folder/anything"; then echo "$folder"; exit 1; fi; done'
check "can write to /tmp" inside touch /tmp/anything
check "has no compiler, make, git or curl" inside sh -c 'for tool in cc gcc g++ c++ clang tcc ld as make cmake git curl wget; do if command -v "$tool"; then exit 1; fi; done'
check "has no pip" inside sh -c 'for python in /opt/mass-serve/bin/python "$(readlink -f /opt/mass-serve/bin/python)"; do for module in pip ensurepip; do if "$python" -c "import $module"; then exit 1; fi; done; done; ! command -v pip && ! command -v pip3'
check "has nothing left of the build" "$ENGINE" run --rm --user 0 --entrypoint sh "${RUN_FLAGS[@]}" "$image" \
    -c '[ ! -e /build ] && [ ! -e /root/.cache ] && [ -z "$(find / -xdev -name "*.whl" -print -quit)" ]'

say "Stopped while a request is under way"
# Half of the body is sent; the rest follows when the server has stopped to take new connections.
python3 - "$PORT" "$EXAMPLE" "$DRAIN" >"$scratch/in_flight" 2>&1 <<'PYTHON' &
import http.client, pathlib, sys, time

port, example, drain = int(sys.argv[1]), pathlib.Path(sys.argv[2]).read_bytes(), float(sys.argv[3])
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
connection.putrequest("POST", "/v1/classify")
connection.putheader("Content-Length", str(len(example)))
connection.endheaders(example[:100])
print("half sent", flush=True)
time.sleep(drain + 3)
connection.send(example[100:])
response = connection.getresponse()
print(response.status, response.read().decode())
PYTHON
in_flight=$!
until grep --quiet --no-messages 'half sent' "$scratch/in_flight" || ! kill -0 "$in_flight" 2>/dev/null; do sleep 0.1; done
sleep 0.5
SECONDS=0
"$ENGINE" stop --time "$GRACE" "$NAME" >/dev/null 2>&1 &
stopping=$!
sleep 1
check "draining: /readyz says so" gives 503 "$URL/readyz"
check "draining: still answers" gives 200 --data-binary "@$EXAMPLE" "$URL/v1/classify"
sleep $((DRAIN + 1))
check "drained: takes no new connection" refuses get "$URL/livez"
wait "$in_flight" || true
wait "$stopping" || true
check "the request under way was answered" grep --quiet '^200 .*"label":"eight"' "$scratch/in_flight"
check "ended with 0, by itself (after $SECONDS s, of $GRACE)" stopped_cleanly
# What begins with time= is podman's own complaint that there is no systemd.
check "every line of the log is JSON" sh -c \
    "'$ENGINE' logs '$NAME' 2>&1 | grep -v ^time= | python3 -c 'import json, sys; assert [json.loads(line) for line in sys.stdin]'"
remove

say "A store on a volume, and keys"
check "a new volume can be written to" with_store "$NAME-store" --entrypoint sh "$image" \
    -c 'cp -r "$(python -c "import mass_serve.server as s; print(s.__path__[0])")"/demo_store/. /store'
check "the command line works in the container: task remove" with_store "$NAME-store" "$image" task remove /store textures
mkdir "$scratch/keys"
chmod 755 "$scratch" "$scratch/keys"
echo first-key >"$scratch/keys/inference"
echo admin-key >"$scratch/keys/admin"
check "becomes ready" start -v "$NAME-store:/store:ro" -v "$scratch/keys:/keys:ro,z" \
    -e MASS_INFERENCE_KEYS_FILE=/keys/inference -e MASS_ADMIN_KEYS_FILE=/keys/admin -e MASS_STORE_POLL_SECONDS=1 "$image"
check "the health check needs no key" healthy
check "the metrics need no key" gives 200 "$URL/metrics"
check "inference without a key is refused" gives 401 --data-binary "@$EXAMPLE" "$URL/v1/classify"
check "inference with a wrong key is refused" gives 401 -H 'X-API-Key: other' --data-binary "@$EXAMPLE" "$URL/v1/classify"
check "inference with the key is answered" gives 200 -H 'Authorization: Bearer first-key' --data-binary "@$EXAMPLE" "$URL/v1/classify"
check "the mounted store is served, not the demo" gives 404 -H 'X-API-Key: first-key' "$URL/v1/tasks/textures"
check "its tasks are served" gives 200 -H 'X-API-Key: first-key' "$URL/v1/tasks/street"
echo second-key >"$scratch/keys/inference"
check "a task is removed while the store is served" with_store "$NAME-store" "$image" task remove /store aerial
sleep 5
check "a changed key file is read again: the new key" gives 200 -H 'X-API-Key: second-key' --data-binary "@$EXAMPLE" "$URL/v1/classify"
check "a changed key file is read again: the old key" gives 401 -H 'X-API-Key: first-key' --data-binary "@$EXAMPLE" "$URL/v1/classify"
check "a changed store is served without a restart" gives 404 -H 'X-API-Key: second-key' "$URL/v1/tasks/aerial"
check "the repository is for admin keys" gives 401 -X POST -H 'X-API-Key: second-key' "$URL/v2/repository/index"
check "the repository opens to an admin key" gives 200 -X POST -H 'X-API-Key: admin-key' "$URL/v2/repository/index"
"$ENGINE" stop --time "$GRACE" "$NAME" >/dev/null 2>&1 || true
check "ended with 0" stopped_cleanly
check "no key is in the log" refuses sh -c "'$ENGINE' logs '$NAME' 2>&1 | grep -E 'first-key|second-key|admin-key'"
remove

say "A store of texts, built in the container"
check "models of texts are written" "$ENGINE" run --interactive --rm "${HARDENED[@]}" "${RUN_FLAGS[@]}" -v "$NAME-texts:/store" \
    --entrypoint sh "$image" -c 'cat >/tmp/text_models.py && python /tmp/text_models.py /store/models' <docker/text_models.py
check "a store is built of them" with_store "$NAME-texts" "$image" build --pretrained /store/models/pretrained \
    --task guard=/store/models/guard --task domain=/store/models/domain --out /store/built
check "becomes ready" start -v "$NAME-texts:/store:ro" "$image" serve /store/built
check "a text is classified" answers '"task":"guard"' --data '{"texts": ["word1 word2"], "tasks": ["guard"]}' "$URL/v1/classify"
check "a pair is classified" answers '"label":"domain' -H 'Content-Type: application/json' \
    --data '{"inputs": {"text": "word1", "text_pair": "word2"}}' "$URL/models/domain"
check "images are told what the store reads" gives 400 --data-binary "@$EXAMPLE" "$URL/v1/classify"
"$ENGINE" stop --time "$GRACE" "$NAME" >/dev/null 2>&1 || true
check "ended with 0" stopped_cleanly
remove

say "A volume that holds no store"
check "a volume is given another file" with_store "$NAME-broken" --entrypoint touch "$image" /store/not-a-store
check "is not answered for by the demo" refuses start -v "$NAME-broken:/store:ro" "$image"
check "is named in the error" sh -c "'$ENGINE' logs '$NAME' 2>&1 | grep '^error:.*/store'"
check "ends with another code than 0" refuses stopped_cleanly
remove

say "$((checks - failures)) of $checks checks passed."
[ "$failures" -eq 0 ]
