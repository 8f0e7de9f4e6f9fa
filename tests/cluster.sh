#!/usr/bin/env bash
# A cluster to try out: a private Redis, a private RabbitMQ and three nodes on loopback.
#
#   cluster.sh start [PINPOST]   starts it, and tells where it is
#   cluster.sh stop              ends it
#
# Everything is in target/cluster: node-a.pid, and node-a.out, which has the log. It goes on when
# the terminal is closed, until it is stopped.
set -euo pipefail

cd "$(dirname "$0")/.."
# For processes: launch, is_ours, end and so on.
source tests/services.sh
services=$PWD/tests/services.sh
target=${CARGO_TARGET_DIR:-target}
nodes=(a b c)

fail() {
    echo "cluster: $*" >&2
    exit 1
}

start() { # PINPOST
    local name running=0
    for name in "${nodes[@]}"; do
        if is_ours "node-$name"; then running=$((running + 1)); fi
    done
    if [ "$running" -eq "${#nodes[@]}" ]; then
        # Comes back on its port if it has ended in the meantime.
        "$services" both "$PWD/services" >urls
        echo 'The cluster is running already.'
        tell
        return
    fi
    [ "$running" -eq 0 ] || fail "only $running of ${#nodes[@]} nodes run; 'make cluster-stop' ends what is left"

    # From here on it starts whole or not at all.
    trap 'code=$?; stop; exit "$code"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    "$services" both "$PWD/services" >urls
    { read -r redis && read -r amqp; } <urls
    for name in "${nodes[@]}"; do
        launch "node-$name" "$1" serve --listen 127.0.0.1:0 --http 127.0.0.1:0 --node "$name" \
            --redis "$redis" --amqp "$amqp"
    done
    local by=$((SECONDS + start_time_max))
    for name in "${nodes[@]}"; do
        until is_ready "$name"; do
            is_ours "node-$name" || not_started "$name" 'has ended'
            [ "$SECONDS" -lt "$by" ] || not_started "$name" "is not ready within $start_time_max seconds"
            pause 0.01
        done
    done
    trap - EXIT INT TERM HUP
    echo 'A cluster of three nodes is running.'
    tell
}

not_started() { # NAME WHAT
    echo "cluster: node $1 $2; the end of its log:" >&2
    tail -n 20 "node-$1.out" >&2
    exit 1
}

# Sets tcp and http.
is_ready() { # NAME
    local line
    line=$(grep -m 1 '^ready ' "node-$1.out") || return 1
    [[ $line =~ ' tcp='([^ ]+) ]] && tcp=${BASH_REMATCH[1]}
    [[ $line =~ ' http='([^ ]+) ]] && http=${BASH_REMATCH[1]}
}

tell() {
    local name addresses=()
    printf '\n  node  lines            WebSocket\n'
    for name in "${nodes[@]}"; do
        is_ready "$name"
        printf '  %-4s  %-15s  ws://%s/ws\n' "$name" "$tcp" "$http"
        addresses+=("${tcp/:/ }")
    done
    cat <<END

Users of any node can talk to users of any other. In two terminals:

  nc ${addresses[0]}    and type: LOGIN alice
  nc ${addresses[1]}    and type: LOGIN bob

Then alice may type: SEND bob hello

The nodes share $(paste -sd' ' urls)
Their logs are ${PWD#"$here/"}/node-*.out
To end it: make cluster-stop
END
}

stop() {
    local name
    # At once: each is drained, which may take its time.
    for name in "${nodes[@]}"; do
        end "node-$name" TERM &
    done
    wait
    "$services" remove "$PWD/services"
}

here=$PWD
case ${1:-} in
start)
    pinpost=$(realpath "${2:-$target/release/pinpost}")
    mkdir -p "$target/cluster"
    cd -P "$target/cluster"
    start "$pinpost"
    ;;
stop)
    if ! cd -P "$target/cluster" 2>/dev/null || ! compgen -G '*/*.pid' >/dev/null && ! compgen -G '*.pid' >/dev/null; then
        echo 'There is no cluster.'
        exit 0
    fi
    stop
    echo 'The cluster is stopped.'
    ;;
*)
    sed -n 's/^#   //p' tests/cluster.sh >&2
    exit 2
    ;;
esac
