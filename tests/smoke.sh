#!/usr/bin/env bash
# Starts the release binary and talks to it from outside, with bash alone: a raw
# TCP conversation, `send`, `chat`, a WebSocket, and a drain. Then the examples, and the small node.
#
#   smoke.sh [PINPOST [SMALL]]
set -euo pipefail

cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}
name=smoke
pinpost=("${1:-$target/release/pinpost}")
small=${2:-$target/small/debug/pinpost}
source tests/talk.sh

step "arguments"
exits 0 "${pinpost[@]}" --version
said 'pinpost +([0-9.])'
exits 0 "${pinpost[@]}" serve --check
exits 2 "${pinpost[@]}" serve --sessions 0
exits 2 "${pinpost[@]}" serve --listen 0.0.0.0:0
exits 2 "${pinpost[@]}"

step "the ready line"
start_node --http 127.0.0.1:0

step "a conversation over TCP"
meet

step "send and chat"
exits 0 "${pinpost[@]}" send --from cron --server "$address" bob '-from a script'
said delivered
hear "$bob" 'MSG cron * -from a script'
exits 1 "${pinpost[@]}" send --from cron --server "$address" nobody hello
said '*nobody is not connected: not delivered'
echo 'from a pipe' | "${pinpost[@]}" chat carol --to bob --server "$address" || fail "chat failed"
hear "$bob" 'MSG carol * from a pipe'

step "a WebSocket"
meet_on_the_web

step "the examples hello, ws and phone, twice in a row"
timeout 300 "$cargo" build --quiet --example hello --example ws --example phone || fail "they can't be built"
for _ in 1 2; do
    exits 0 "$target/debug/examples/hello" "$address"
    said '*alice: delivered*bob: alice says hello*'
    hear "$bob" 'MSG alice * hello'
    # It goes on until it is ended.
    : >"$dir/received"
    "$target/debug/examples/ws" web "127.0.0.1:$http" >"$dir/received" 2>&1 &
    receiver=$!
    for _ in $(seq 100); do
        [[ $(cat "$dir/received") != *'MSG web '*' hello over WebSocket'* ]] || break
        sleep 0.1
    done
    { kill -TERM "$receiver" && wait "$receiver"; } 2>/dev/null || true
    receiver=
    [[ $(cat "$dir/received") == *'MSG web '*' hello over WebSocket'* ]] || fail "ws: $(cat "$dir/received")"
    exits 0 timeout 60 "$target/debug/examples/phone" --server "$address" --messages 200 --seconds 2
    said '*seen *: 0 missing, 0 doubled, *, 0 seen though refused*'
done

step "the example courier"
timeout 300 "$cargo" build --quiet --example courier || fail "the courier can't be built"
courier=$target/debug/examples/courier
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
drain_node

for example in embed mesh; do
    if [ -e "examples/$example.rs" ]; then
        step "the example $example"
        exits 0 timeout 300 "$cargo" run --quiet --example "$example"
    fi
done

step "the small node"
pinpost=("$small")
exits 0 "${pinpost[@]}" --version
said 'pinpost *, built without cluster, websocket, client, line-editor'
refuses() { # PATTERN ARGUMENT...
    exits 2 "${pinpost[@]}" "${@:2}"
    said "pinpost: $1"
}
refuses '--redis is not allowed: it takes off, *the feature cluster' serve --redis redis://127.0.0.1
refuses '--amqp is not allowed: it takes off, *the feature cluster' serve --amqp amqp://127.0.0.1
refuses '--http "127.0.0.1:0" is not allowed: it takes off, *the feature websocket' serve --http 127.0.0.1:0
refuses 'chat is not in this pinpost: *the feature client' chat alice
refuses 'send is not in this pinpost: *the feature client' send --from alice bob hello
start_node
meet
drain_node

step "all is well"
