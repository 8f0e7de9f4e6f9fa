#!/usr/bin/env bash
# Builds for aarch64 and armv7 with Debian's own Rust and compilers, and runs what comes out under
# qemu: two users over TCP, one over WebSocket, a drain. Prints the sizes.
#
#   cross.sh [ARCHITECTURE...]   arm64 and armhf if none is named
#   services.sh around cross.sh  also two nodes with that Redis and RabbitMQ
#
# A fresh Debian 12 with bookworm-security in its sources is enough: tests/needs.sh installs the rest,
# once. The standard library of the other architecture is in a package of that architecture, which is
# not installed but unpacked below target/cross, so that dpkg never hears of a foreign architecture.
# It has to be of the same version as the compiler.
set -euo pipefail

cd "$(dirname "$0")/.."
tests/needs.sh cross
name=cross
cross=${CARGO_TARGET_DIR:-$PWD/target}/cross
mkdir -p "$cross"
cross=$(realpath "$cross")
source tests/talk.sh

version=$(dpkg-query -W -f '${Version}' rustc-web)

library() { # ARCHITECTURE RUST-TARGET: sees to $cross/ARCHITECTURE/sysroot
    local at=$cross/$1 deb uri
    [ "$(cat "$at/version" 2>/dev/null)" != "$version" ] || return 0
    rm -rf "$at" && mkdir -p "$at/lists/partial" "$at/archives/partial" "$at/sysroot/lib/rustlib"
    # An apt of that architecture, with all that it knows below $at.
    local apt=(timeout 300 apt-get -qq -o "APT::Architecture=$1" -o "APT::Architectures=$1"
        -o "Dir::State::Lists=$at/lists" -o "Dir::State::status=/dev/null" -o "Dir::Cache=$at"
        -o Acquire::Languages=none -o APT::Sandbox::User=root)
    step "$1: its standard library, once"
    if "${apt[@]}" update >"$at/apt.log" 2>&1 &&
        (cd "$at" && "${apt[@]}" download "libstd-rust-web-dev=$version") >>"$at/apt.log" 2>&1; then
        deb=("$at"/libstd-rust-web-dev_*.deb)
    else
        # A mirror may have the package, and an index that is out of step with its signature.
        step "$1: apt can't check it ($at/apt.log): taken from its address, with TLS for all proof"
        uri=$(apt-get download --print-uris "libstd-rust-web-dev=$version" | cut -d"'" -f2)
        uri=${uri/_$(dpkg --print-architecture)/_$1}
        uri=${uri/#http:/https:}
        deb=("$at/library.deb")
        timeout 300 /usr/lib/apt/apt-helper -qq -o APT::Sandbox::User=root download-file \
            "$uri" "${deb[0]}" || fail "$uri can't be had"
    fi
    dpkg-deb -x "${deb[0]}" "$at/package"
    rm -f "${deb[0]}"
    ln -s "$at/package/usr/lib/rustlib/$2" "$(rustlib)/$host" "$at/sysroot/lib/rustlib/"
    echo "$version" >"$at/version"
}

host=$(/usr/bin/rustc -vV | sed -n 's/^host: //p')
rustlib() {
    echo "$(/usr/bin/rustc --print sysroot)/lib/rustlib"
}

# What follows works on one architecture: architecture, target, tools, qemu and pinpost are set.

build() { # ARGUMENT...
    local under=${target//-/_} log=$cross/$architecture/build.log
    # RUSTC, because cargo would take another Rust that comes first in PATH.
    env "CC_$under=$tools-gcc" "CARGO_TARGET_${under^^}_LINKER=$tools-gcc" RUSTC=/usr/bin/rustc \
        "RUSTFLAGS=--sysroot $cross/$architecture/sysroot" CARGO_TARGET_DIR="$cross/build" \
        /usr/bin/cargo build --release --bin pinpost --target "$target" "$@" >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        fail "the build for $architecture failed"
    }
}

run() { # HTTP: what a person would do
    exits 0 timeout 60 "${pinpost[@]}" --version
    step "$architecture: $(cat "$dir/said")"
    step "$architecture: a conversation over TCP"
    start_node --http "$1"
    meet
    if [ -n "$http" ]; then
        step "$architecture: a WebSocket"
        meet_on_the_web
    fi
    step "$architecture: a drain"
    drain_node
}

needs_glibc() { # the newest version that the binary asks for
    "$tools-objdump" -T "$full" | sed -n 's/.*(GLIBC_\([0-9.]*\)).*/\1/p' | sort -V | tail -n 1
}

cluster() { # two nodes that share the Redis and the RabbitMQ of services.sh around
    local services=(--http off --redis "$PINPOST_TEST_REDIS" --amqp "$PINPOST_TEST_AMQP")
    step "$architecture: two nodes with Redis and RabbitMQ"
    start_node "${services[@]}"
    # The second node becomes the server; clean_up ends both.
    receiver=$server
    exec {alice}<>"/dev/tcp/127.0.0.1/$tcp"
    hear "$alice" "HELLO pinpost 1 $node"
    start_node "${services[@]}"
    exec {bob}<>"/dev/tcp/127.0.0.1/$tcp"
    hear "$bob" "HELLO pinpost 1 $node"
    say "$alice" 'LOGIN alice'
    hear "$alice" 'OK alice ????????'
    say "$bob" 'LOGIN bob'
    hear "$bob" 'OK bob ????????'
    say "$alice" 'SEND bob from the other node'
    hear "$bob" 'MSG alice * from the other node'
    hear "$alice" 'OK * delivered'
    say "$bob" 'WHO alice'
    hear "$bob" 'OK alice online 1'
    kill -TERM "$server" "$receiver"
    hear "$alice" 'BYE draining *'
    hear "$bob" 'BYE draining *'
    ends "$server"
    ends "$receiver"
    server='' receiver=''
}

report=()
if [ $# -eq 0 ]; then
    set -- arm64 armhf
fi
for architecture; do
    case $architecture in
    arm64) target=aarch64-unknown-linux-gnu tools=aarch64-linux-gnu qemu=qemu-aarch64-static ;;
    armhf) target=armv7-unknown-linux-gnueabihf tools=arm-linux-gnueabihf qemu=qemu-arm-static ;;
    *) fail "$architecture is not known: it takes arm64 or armhf" ;;
    esac
    library "$architecture" "$target"
    full=$cross/build/$target/release/pinpost small=$cross/$architecture/pinpost-small
    step "$architecture: the small node"
    build --no-default-features
    cp "$full" "$small"
    step "$architecture: a server"
    build
    pinpost=("$qemu" -L "/usr/$tools" "$small")
    run off
    pinpost=("$qemu" -L "/usr/$tools" "$full")
    run 127.0.0.1:0
    [ -z "${PINPOST_TEST_REDIS:-}" ] || cluster
    report+=("$(printf '%-31s %10s %10s' "$target" "$(stat -c %s "$full")" "$(stat -c %s "$small")")")
done
step "all is well; bytes of a server and of the small node, glibc $(needs_glibc) or newer:"
printf '  %s\n' "${report[@]}"
