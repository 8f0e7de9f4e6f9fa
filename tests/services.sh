#!/usr/bin/env bash
# Starts, breaks and stops a private Redis and a private RabbitMQ: the only place that knows how.
#
#   services.sh redis DIR [--durable] [--for PID] starts a Redis, empty; prints its URL
#   services.sh broker DIR [--empty] [--calm] [--for PID]   starts a broker; --empty forgets what it kept on disk
#   services.sh both DIR [--empty] [--durable] [--calm] [--for PID]   starts both at once; prints the Redis, then
#                                                 the broker
#   services.sh stop DIR                          stops them in order; they can be started again
#   services.sh remove DIR                        ends them at once, and deletes what they left
#   services.sh alarm DIR on|off                  makes the broker believe that it is out of memory
#   services.sh queues DIR                        prints the names of the broker's queues, one a line
#   services.sh published DIR                     prints how many messages the broker has taken so far
#   services.sh delete-queues DIR                 deletes them all, as an operator would
#   services.sh delete-exchange DIR               deletes the exchange of all nodes, as an operator would
#   services.sh unbind DIR [PREFIX]               removes the bindings of all nodes whose ids begin so, as an operator
#                                                 would
#   services.sh close-connections DIR             closes every connection, as an operator would
#   services.sh around COMMAND...                 runs a command with both, addresses in its environment
#
# Everything is in DIR: redis.pid and broker.pid name the servers themselves, for tests that send
# signals. A server that is started again in its DIR has the port that it had before; one that
# runs already is left alone, and its URL printed. With --for PID everything is removed as soon as
# that process is gone, however it ended. A Redis that is --durable at every start has everything on disk
# before it answers, and finds it there. REDIS_PASSWORD sets a password for the Redis. A --calm broker
# starts in six seconds instead of three, and leaves the processor as soon as it has nothing to do, as on
# any machine that it shares.
#
# Nothing here touches a server of the system, a default port, or a process that isn't DIR's.
set -euo pipefail

self=$(realpath "${BASH_SOURCE[0]}")
# A pipe that nobody writes to, so that pausing costs no process.
exec {quiet}<> <(:)

fail() {
    echo "services: $*" >&2
    exit 1
}

pause() { # SECONDS
    read -r -t "$1" -u "$quiet" || true
}

is_alive() { # PID: it runs. A zombie doesn't, though signals still reach it.
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null && [[ ${stat##*) } != [ZX]* ]]
}

# Sets pid. Whoever has another working directory has inherited the number, and is left alone.
is_ours() { # NAME: the process of NAME.pid runs, and it is the one that we started
    pid=
    { read -r pid <"$1.pid"; } 2>/dev/null || true
    [ -n "$pid" ] && [ "/proc/$pid/cwd" -ef . ]
}

launch() { # NAME COMMAND...: in the background, with no tie to us; its pid is in NAME.pid before it runs
    rm -f "$1.pid"
    # shellcheck disable=SC2016
    setsid bash -c 'echo $$ >"$0.new" && mv "$0.new" "$0.pid" && exec "$@"' "$@" \
        </dev/null >"$1.out" 2>&1 {quiet}>&- &
    until [ -e "$1.pid" ]; do pause 0.005; done
}

says() { # FILE TEXT: it is in there
    [ -e "$1" ] && [[ $(<"$1") == *$2* ]]
}

# Returns 1 when the process has ended because somebody else has its port.
await() { # NAME FILE TEXT: waits until the process has written that
    local by=$((SECONDS + start_time_max)) reason='(in use|already_used|already_running|eaddrinuse|duplicate_node)'
    until says "$2" "$3"; do
        if [ -n "$for_pid" ] && ! is_alive "$for_pid"; then
            end "$1" KILL
            fail "the process $for_pid, for which $1 was to be started, is gone"
        fi
        if ! is_ours "$1"; then
            # It may have said it last of all.
            says "$2" "$3" && return 0
            grep -qiE "$reason" "$1.out" "$2" && return 1
            tail -n 20 "$1.out" "$2" >&2
            fail "$1 has ended instead of starting"
        fi
        [ "$SECONDS" -lt "$by" ] || fail "$1 does not start within $start_time_max seconds: $PWD/$2"
        pause 0.01
    done
}

# Sets port. Ports that the system gives out by itself begin above these, so that one which we
# leave for a while is not taken by some connection. No default port of any service that we know.
pick_port() {
    while :; do
        port=$((21000 + RANDOM % 4000))
        { : <"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 0
    done
}

# A port that is written down stays; the first start goes on to others until one is free.
start_on_a_port() { # NAME COMMAND: calls it with port set, until it returns 0
    local by=$((SECONDS + start_time_max)) is_new=
    [ -e "$1.port" ] || is_new=yes
    while :; do
        if [ -n "$is_new" ]; then pick_port; else read -r port <"$1.port"; fi
        if "$2"; then break; fi
        [ "$SECONDS" -lt "$by" ] || fail "$1: the port $port is taken"
        pause 0.05
    done
    echo "$port" >"$1.port"
}

redis() {
    if ! is_ours redis; then
        command -v redis-server >/dev/null || fail "redis-server is missing; tests/needs.sh services installs it"
        start_on_a_port redis redis_once
    fi
    echo "redis://${REDIS_PASSWORD:+:$REDIS_PASSWORD@}127.0.0.1:$(<redis.port)"
}

redis_once() {
    local keeps=(--appendonly no)
    [ -z "$durable" ] || keeps=(--appendonly yes --appendfsync always)
    rm -f redis.log
    launch redis redis-server --port "$port" --bind 127.0.0.1 --dir . --logfile redis.log \
        --save '' "${keeps[@]}" --databases 1024 ${REDIS_PASSWORD:+--requirepass "$REDIS_PASSWORD"}
    await redis redis.log 'Ready to accept connections'
}

broker() {
    if ! is_ours broker; then
        [ -z "$empty" ] || rm -rf broker/mnesia
        start_on_a_port broker broker_once
    fi
    echo "amqp://guest:guest@127.0.0.1:$(<broker.port)"
}

broker_once() {
    local amqp_port=$port server
    # The script itself: Debian's /usr/sbin/rabbitmq-server changes the user, and is not replaced by the server.
    for server in /usr/lib/rabbitmq/bin/rabbitmq-server "$(command -v rabbitmq-server)"; do
        [ ! -x "$server" ] || break
    done
    [ -x "$server" ] || fail "rabbitmq-server is missing; tests/needs.sh services installs it"
    mkdir -p broker/mnesia broker/log broker/home
    if [ ! -s broker/home/.erlang.cookie ]; then
        (umask 077 && echo "PINPOST$RANDOM$RANDOM$RANDOM" >broker/home/.erlang.cookie)
        chmod 400 broker/home/.erlang.cookie
    fi
    # Memory and disk only by the alarm of a test, whatever the machine has.
    printf '%s\n' "listeners.tcp.1 = 127.0.0.1:$amqp_port" 'num_acceptors.tcp = 2' 'log.console = false' \
        'vm_memory_high_watermark.absolute = 2GB' 'disk_free_limit.absolute = 50MB' >broker/rabbitmq.conf
    echo '[].' | tee broker/enabled_plugins >broker/advanced.config
    # An epmd of its own, the register of Erlang's nodes: else it would use, or start, that of the system.
    if ! is_ours epmd; then
        pick_port
        echo "$port" >epmd.port
        launch epmd epmd -port "$port" -address 127.0.0.1
    fi
    pick_port
    echo "$port" >broker.control
    local waits='+sbwt very_short +sbwtdio very_short'
    [ -z "$calm" ] || waits='+sbwt none +sbwtdcpu none +sbwtdio none'
    local settings=(
        "PATH=$PATH" LC_ALL=C.UTF-8 "HOME=$PWD/broker/home" RABBITMQ_NODENAME=pinpost@localhost
        RABBITMQ_CONF_ENV_FILE=/dev/null "RABBITMQ_CONFIG_FILE=$PWD/broker/rabbitmq"
        "RABBITMQ_CONFIG_FILES=$PWD/broker/conf.d" "RABBITMQ_ADVANCED_CONFIG_FILE=$PWD/broker/advanced.config"
        "RABBITMQ_GENERATED_CONFIG_DIR=$PWD/broker/generated" "RABBITMQ_LOG_BASE=$PWD/broker/log"
        "RABBITMQ_MNESIA_BASE=$PWD/broker/mnesia" "RABBITMQ_ENABLED_PLUGINS_FILE=$PWD/broker/enabled_plugins"
        "RABBITMQ_PID_FILE=$PWD/broker/pid" "RABBITMQ_DIST_PORT=$port" "ERL_EPMD_PORT=$(<epmd.port)"
        ERL_EPMD_ADDRESS=127.0.0.1 ERL_CRASH_DUMP=/dev/null
        # Makes the server's script give its own process to the server.
        RABBITMQ_ALLOW_INPUT=1
        # Starting is mostly loading code, file by file through another thread: who waits for that
        # thread without sleeping at once starts in three seconds, not in six. The tables for
        # processes and names are large enough for a test, and smaller than by default.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} \
            $waits +SDio 1 +P 65536 +t 1048576"
    )
    launch broker env -i "${settings[@]}" "$server" -noinput -start_epmd false
    port=$amqp_port
    await broker broker.out ' completed with ' && is_ours epmd
}

usage() {
    sed -n 's/^#   //p' "$self" >&2
    exit 2
}

# Evaluates an Erlang expression in the broker; prints what it comes to.
tell_broker() { # EXPRESSION
    local answer
    is_ours broker || fail "no broker runs in $PWD"
    # Under a name of our own, because the broker takes no two of one name at the same time.
    answer=$(timeout 10 env ERL_EPMD_PORT="$(<epmd.port)" HOME="$PWD/broker/home" erl_call -sname pinpost@localhost \
        -h "test$$" -c "$(<broker/home/.erlang.cookie)" -e <<<"$1") || fail "the broker does not answer: ${answer:-}"
    [[ $answer == '{ok, '*'}' ]] || fail "the broker says: $answer"
    answer=${answer#'{ok, '}
    echo "${answer%'}'}"
}

alarm() { # on|off
    case $1 in
    on) tell_broker 'rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).' ;;
    off) tell_broker 'rabbit_alarm:clear_alarm({resource_limit, memory, node()}).' ;;
    *) usage ;;
    esac >alarm.out
}

queues() {
    local names
    names=$(tell_broker '[binary_to_list(element(4, amqqueue:get_name(Q))) || Q <- rabbit_amqqueue:list()].')
    # ["one", "two"]
    grep -oE '[^][", ]+' <<<"$names" || true
}

end() { # NAME SIGNAL: ends it; what doesn't end by the signal is killed
    local by=$((SECONDS + stop_time_max)) signal=$2
    # A watcher that removes everything is not to end itself.
    if is_ours "$1" && [ "$pid" != "$$" ]; then
        kill -s "$signal" "$pid" 2>/dev/null || true
        # A stopped process takes no other signal but KILL.
        kill -s CONT "$pid" 2>/dev/null || true
        while is_ours "$1"; do
            if [ "$SECONDS" -ge "$by" ]; then
                [ "$signal" != KILL ] || fail "$1, process $pid, can't be ended"
                signal=KILL by=$((SECONDS + stop_time_max))
                kill -s KILL "$pid" 2>/dev/null || true
            fi
            pause 0.005
        done
    fi
    rm -f "$1.pid"
}

end_all() { # SIGNAL
    local name
    for name in watch redis broker epmd; do
        end "$name" "$1"
    done
}

remove() {
    end_all KILL
    rm -rf broker appendonlydir
    rm -f {redis,broker,epmd,watch}.{pid,new,out,port} redis.log broker.control broker.url alarm.out
    cd /
    rmdir "$dir" 2>/dev/null || true
}

watch() { # PID: removes everything when it is gone
    while is_alive "$1"; do
        pause 0.1
    done
    # Who was being started when it went has its pid file by then.
    pause 0.1
    remove
}

around() { # COMMAND...
    local urls
    dir=$(mktemp -d "${TMPDIR:-/tmp}/pinpost-services.XXXXXX")
    urls=$("$self" both "$dir" --for $$)
    { read -r PINPOST_TEST_REDIS && read -r PINPOST_TEST_AMQP; } <<<"$urls"
    export PINPOST_TEST_REDIS PINPOST_TEST_AMQP
    # The command takes our process, which is what the services are there for: however it ends, they
    # end with it, and signals reach it as if there were no script.
    exec "$@" {quiet}>&-
}

start_time_max=60
stop_time_max=10
dir='' for_pid='' empty='' durable='' calm=''
# tests/cluster.sh reads this file for what is above.
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0

verb=${1:-}
[ $# -ge 2 ] || usage
if [ "$verb" = around ]; then
    around "${@:2}"
fi

dir=$2
shift 2
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --for) for_pid=${2:?--for takes a process id} && shift ;;
    --empty) empty=yes ;;
    --durable) durable=yes ;;
    --calm) calm=yes ;;
    *) arguments+=("$1") ;;
    esac
    shift
done
case $verb in
redis | broker | both) mkdir -p "$dir" ;;
esac
# Who has stopped something that isn't there has what he wants.
cd -P "$dir" 2>/dev/null || { [[ $verb == @(stop|remove|watch) ]] && exit 0 || fail "there is no $dir"; }
dir=$PWD

if [ -n "$for_pid" ] && ! is_ours watch; then
    launch watch "$self" watch "$dir" "$for_pid"
fi
case $verb in
redis) redis ;;
broker) broker ;;
both)
    broker >broker.url &
    of_broker=$!
    redis
    wait "$of_broker"
    cat broker.url
    ;;
stop) end_all TERM ;;
remove) remove ;;
watch) watch "${arguments[0]}" ;;
alarm) alarm "${arguments[0]:-}" ;;
queues) queues ;;
published) tell_broker 'lists:sum([N || {_, #{messages_received_total := N}} <- maps:to_list(rabbit_global_counters:overview())]).' ;;
delete-queues) tell_broker 'length([catch rabbit_amqqueue:delete(Q, false, false, <<"operator">>) || Q <- rabbit_amqqueue:list()]).' ;;
delete-exchange) tell_broker 'catch rabbit_exchange:delete(rabbit_misc:r(<<"/">>, exchange, <<"pinpost">>), false, <<"operator">>).' ;;
unbind) tell_broker 'length([catch rabbit_binding:remove(B, <<"operator">>) || B <- rabbit_binding:list(<<"/">>), string:prefix(element(3, B), <<"'"${arguments[0]:-}"'">>) =/= nomatch]).' ;;
close-connections) tell_broker 'length([catch rabbit_networking:close_connection(P, "operator") || P <- rabbit_networking:connections()]).' ;;
*) usage ;;
esac
