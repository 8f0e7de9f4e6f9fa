#!/usr/bin/env bash
# Starts the release binary and talks to it from outside, with bash alone: a raw
# TCP conversation, `send`, `chat`, a WebSocket, and a drain. Then the examples.
#
# Every port is one that the system picks. Nothing is left behind.
set -euo pipefail
export LC_ALL=C # one character is one byte

cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
pinpost=${1:-${CARGO_TARGET_DIR:-target}/release/pinpost}
dir=$(mktemp -d)
server=
receiver=

clean_up() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    [ -z "$receiver" ] || kill -KILL "$receiver" 2>/dev/null || true
    rm -rf "$dir"
}
trap clean_up EXIT

fail() {
    echo "smoke: $*" >&2
    [ ! -s "$dir/log" ] || sed 's/^/smoke: the node says: /' "$dir/log" >&2
    exit 1
}

say() { # FD LINE
    printf '%s\n' "$2" >&"$1"
}

hear() { # FD PATTERN: the next line is like that
    local line
    IFS= read -r -t 10 -u "$1" line || fail "no line within 10 seconds; expected: $2"
    line=${line%$'\r'}
    # shellcheck disable=SC2053 # the right side is a pattern
    [[ $line == $2 ]] || fail "expected: $2; heard: $line"
}

exits() { # CODE COMMAND...: it ends with that code
    local code=0
    "${@:2}" >"$dir/said" 2>&1 || code=$?
    [ "$code" -eq "$1" ] || fail "${*:2}: exit code $code instead of $1: $(cat "$dir/said")"
}

said() { # PATTERN: what the last command said
    # shellcheck disable=SC2053
    [[ $(cat "$dir/said") == $1 ]] || fail "expected: $1; it said: $(cat "$dir/said")"
}

step() {
    echo "smoke: $*"
}

step "arguments"
exits 0 "$pinpost" --version
said 'pinpost *'
exits 0 "$pinpost" serve --check
exits 2 "$pinpost" serve --sessions 0
exits 2 "$pinpost" serve --listen 0.0.0.0:0
exits 2 "$pinpost"

step "the ready line"
: >"$dir/out"
"$pinpost" serve --listen 127.0.0.1:0 --http 127.0.0.1:0 --node smoke >"$dir/out" 2>"$dir/log" &
server=$!
for _ in $(seq 100); do
    grep -q '^ready ' "$dir/out" && break
    kill -0 "$server" 2>/dev/null || fail "the node has ended"
    sleep 0.1
done
ready='^ready tcp=(127\.0\.0\.1:([0-9]+)) http=(127\.0\.0\.1:([0-9]+)) node=(smoke-[A-Za-z0-9_-]{8})$'
[[ $(cat "$dir/out") =~ $ready ]] || fail "not a ready line: $(cat "$dir/out")"
address=${BASH_REMATCH[1]} tcp=${BASH_REMATCH[2]} http=${BASH_REMATCH[4]} node=${BASH_REMATCH[5]}

step "a conversation over TCP"
exec {alice}<>"/dev/tcp/127.0.0.1/$tcp" {bob}<>"/dev/tcp/127.0.0.1/$tcp"
hear "$alice" "HELLO pinpost 1 $node"
hear "$bob" "HELLO pinpost 1 $node"
say "$alice" 'SEND bob hello'
hear "$alice" 'ERR login-first *'
say "$alice" 'LOGIN alice'
hear "$alice" 'OK alice ????????'
say "$bob" 'LOGIN bob'
hear "$bob" 'OK bob ????????'
say "$alice" 'SEND bob hello'
hear "$bob" 'MSG alice * hello'
hear "$alice" 'OK * delivered'
say "$alice" '@m-1 SEND nobody hello'
hear "$alice" '@m-1 ERR offline *'
say "$alice" 'WHO bob'
hear "$alice" 'OK bob online 1'

step "send and chat"
exits 0 "$pinpost" send bob 'from a script' --from cron --server "$address"
said delivered
hear "$bob" 'MSG cron * from a script'
exits 1 "$pinpost" send nobody hello --from cron --server "$address"
said '*nobody is not connected: not delivered'
echo 'from a pipe' | "$pinpost" chat carol --to bob --server "$address" || fail "chat failed"
hear "$bob" 'MSG carol * from a pipe'

step "a WebSocket"
exec {ws}<>"/dev/tcp/127.0.0.1/$http"
# The key and its answer are those of RFC 6455, 1.3.
printf '%s\r\n' 'GET /ws HTTP/1.1' 'Host: localhost' 'Upgrade: websocket' 'Connection: Upgrade' \
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' 'Sec-WebSocket-Version: 13' '' >&"$ws"
hear "$ws" 'HTTP/1.1 101 *'
accepted=
while IFS= read -r -t 10 -u "$ws" line && [ "$line" != $'\r' ]; do
    [[ $line != *s3pPLMBiTxaQ9kYGzzhZRbK+xOo=* ]] || accepted=yes
done
[ -n "$accepted" ] || fail "the handshake was not answered as RFC 6455 wants it"
hear_text() { # PATTERN: the next frame is one text, shorter than 126 bytes
    local head text length
    IFS= read -r -N 2 -t 10 -u "$ws" head || fail "no frame within 10 seconds; expected: $1"
    [ "${head:0:1}" = $'\x81' ] || fail "not a whole text message"
    printf -v length %d "'${head:1:1}"
    IFS= read -r -N "$length" -t 10 -u "$ws" text || fail "half a frame"
    # shellcheck disable=SC2053
    [[ $text == $1 ]] || fail "expected: $1; heard: $text"
}
say_text() { # a masked text frame; a mask of zeros changes nothing
    # shellcheck disable=SC2059
    printf "\x81\x$(printf %x $((128 + ${#1})))\x00\x00\x00\x00%s" "$1" >&"$ws"
}
hear_text "HELLO pinpost 1 $node"
say_text 'LOGIN dave'
hear_text 'OK dave ????????'
say_text 'SEND bob over the web'
hear "$bob" 'MSG dave * over the web'
hear_text 'OK * delivered'

step "the example hello"
exits 0 timeout 300 "$cargo" run --quiet --example hello -- "$address"
said '*alice: delivered*bob: alice says hello*'
hear "$bob" 'MSG alice * hello'

step "the example courier"
timeout 300 "$cargo" build --quiet --example courier || fail "the courier can't be built"
courier=${CARGO_TARGET_DIR:-target}/debug/examples/courier
seq 2000 >"$dir/lines"
"$courier" --receive --user frank --out "$dir/got" --count 2000 --server "$address" >"$dir/received" 2>&1 &
receiver=$!
deliver() {
    timeout 60 "$courier" --from erin --to frank --state "$dir/sent" --server "$address" "$dir/lines"
}
exits 0 deliver
said '*not_sent: 0*'
wait "$receiver" || fail "the receiver: $(cat "$dir/received")"
receiver=
# Those that were refused until frank was there may come behind others.
cut -f2 "$dir/got" | sort -n | cmp - "$dir/lines" || fail "the lines are not those that were sent"
exits 0 deliver
said '*known_before: 2000*'

step "a drain"
kill -TERM "$server"
hear "$alice" 'BYE draining *'
hear "$bob" 'BYE draining *'
hear_text 'BYE draining *'
code=0
wait "$server" || code=$?
server=
[ "$code" -eq 0 ] || fail "exit code $code instead of 0 after a drain"

for example in embed mesh; do
    if [ -e "examples/$example.rs" ]; then
        step "the example $example"
        exits 0 timeout 300 "$cargo" run --quiet --example "$example"
    fi
done
step "all is well"
