#!/usr/bin/env bash
# To be sourced: how a script starts a node and talks to it from outside, with bash alone.
#
# The script sets `name`, which is what its lines begin with, and `pinpost`, an array: the command.
# Every port is one that the system picks, every wait has a deadline, and nothing is left behind.
export LC_ALL=C # one character is one byte
dir=$(mktemp -d)
server=
receiver=

clean_up() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    [ -z "$receiver" ] || kill -KILL "$receiver" 2>/dev/null || true
    rm -rf "$dir"
}
trap clean_up EXIT
# So that an interruption passes through the EXIT above.
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
    echo "$name: $*" >&2
    [ ! -s "$dir/log" ] || sed "s/^/$name: the node says: /" "$dir/log" >&2
    exit 1
}

step() {
    echo "$name: $*"
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

start_node() { # ARGUMENT...: sets server, address, tcp, http (empty without one) and node
    local ready='^ready tcp=(127\.0\.0\.1:([0-9]+)) http=(off|127\.0\.0\.1:([0-9]+)) node=(smoke-[A-Za-z0-9_-]{8})$'
    : >"$dir/out"
    "${pinpost[@]}" serve --listen 127.0.0.1:0 --node smoke "$@" >"$dir/out" 2>"$dir/log" &
    server=$!
    for _ in $(seq 200); do
        grep -q '^ready ' "$dir/out" && break
        kill -0 "$server" 2>/dev/null || fail "the node has ended"
        sleep 0.1
    done
    [[ $(cat "$dir/out") =~ $ready ]] || fail "not a ready line within 20 seconds: $(cat "$dir/out")"
    # shellcheck disable=SC2034 # for the script
    address=${BASH_REMATCH[1]} tcp=${BASH_REMATCH[2]} http=${BASH_REMATCH[4]} node=${BASH_REMATCH[5]}
}

meet() { # alice and bob log in over TCP, and talk
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
}

meet_on_the_web() { # dave logs in over a WebSocket, and writes to bob
    local line accepted=
    exec {ws}<>"/dev/tcp/127.0.0.1/$http"
    # The key and its answer are those of RFC 6455, 1.3.
    printf '%s\r\n' 'GET /ws HTTP/1.1' 'Host: localhost' 'Upgrade: websocket' 'Connection: Upgrade' \
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' 'Sec-WebSocket-Version: 13' '' >&"$ws"
    hear "$ws" 'HTTP/1.1 101 *'
    while IFS= read -r -t 10 -u "$ws" line && [ "$line" != $'\r' ]; do
        [[ $line != *s3pPLMBiTxaQ9kYGzzhZRbK+xOo=* ]] || accepted=yes
    done
    [ -n "$accepted" ] || fail "the handshake was not answered as RFC 6455 wants it"
    hear_text "HELLO pinpost 1 $node"
    say_text 'LOGIN dave'
    hear_text 'OK dave ????????'
    say_text 'SEND bob over the web'
    hear "$bob" 'MSG dave * over the web'
    hear_text 'OK * delivered'
}

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

ends() { # PID: it ends by itself, with exit code 0
    local code=0
    for _ in $(seq 200); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    ! kill -0 "$1" 2>/dev/null || fail "a node is there 20 seconds after SIGTERM"
    wait "$1" || code=$?
    [ "$code" -eq 0 ] || fail "exit code $code instead of 0 after a drain"
}

drain_node() { # all who are there are told, and it ends within 20 seconds
    kill -TERM "$server"
    hear "$alice" 'BYE draining *'
    hear "$bob" 'BYE draining *'
    [ -z "$http" ] || hear_text 'BYE draining *'
    ends "$server"
    server=
}
