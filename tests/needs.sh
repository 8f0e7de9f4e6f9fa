#!/usr/bin/env bash
# Sees to it that what the build and the tests need from outside is here.
#
# A row of `needs` is a command and the Debian packages that bring it. What is
# missing is installed through apt-get, once, and said so; where that can't be
# done, the script tells what is missing and fails. Rust itself is never
# installed: how it comes to a machine is its owner's choice.
set -euo pipefail

missing=()

# needs COMMAND PACKAGE...
needs() {
    command -v "$1" >/dev/null || missing+=("${@:2}")
}

# Rust links with cc.
needs cc gcc libc6-dev

if ! command -v "${CARGO:-cargo}" >/dev/null; then
    echo "needs: cargo is missing: install Rust, as Cargo.toml's rust-version or newer" >&2
    exit 1
fi
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
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
if ! { install update && install install -y --no-install-recommends "${missing[@]}"; }; then
    echo "needs: apt-get failed; still missing: ${missing[*]}" >&2
    exit 1
fi
