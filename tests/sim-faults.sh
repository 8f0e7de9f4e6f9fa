#!/usr/bin/env bash
# Shows that the simulator sees: plants each fault of tests/sim/faults by itself, and plays until it is found.
#
#   sim-faults.sh [SECONDS [NAME]]   so long for each fault, 60 if not said; or for one of them alone
#
# A fault is a patch against src/, a mistake that somebody might make. Its first line tells which promise it
# breaks, its second which of the checker's rules see that: a run that is wrong by other rules alone does not count.
# The runs are the same each time. All of it happens in a copy of the tree below target/sim-faults, which
# is removed at the end; what is built there stays, so that a fault costs one build of this crate.
set -euo pipefail

cd "$(dirname "$0")/.."
time_max=${1:-60}
one=${2:-}
mkdir -p "${CARGO_TARGET_DIR:-target}/sim-faults"
target=$(realpath "${CARGO_TARGET_DIR:-target}/sim-faults")
tree=$target/tree
log=$target/log

fail() {
    echo "sim-faults: $*" >&2
    exit 1
}

patches=(tests/sim/faults/${one:-*}.patch)
[ -e "${patches[0]}" ] || fail "there is no tests/sim/faults/${one:-*}.patch"

exec {lock}>"$target/lock"
flock -n "$lock" || fail "another one runs in $target"
trap 'rm -rf "$tree"' EXIT
# So that an interruption passes through the EXIT above.
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# What is copied is new, so that cargo never takes what was built of an earlier copy for this one.
rm -rf "$tree"
mkdir "$tree"
tar -c --exclude=./target --exclude=./.git . | tar -xm -C "$tree"

build() { # sets sim
    local said
    said=$(RUSTFLAGS=-Dwarnings CARGO_TARGET_DIR=$target "${CARGO:-cargo}" test --manifest-path "$tree/Cargo.toml" \
        --profile sim --features internals --test sim --no-run 2>&1) || { echo "$said" >&2 && return 1; }
    sim=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$said")
}

change() { # PATCH OPTION...: plants a fault, or takes it back
    patch -p1 --silent --force --no-backup-if-mismatch --reject-file=- -d "$tree" -i "$PWD/$1" "${@:2}" >"$log" 2>&1
}

# Plays runs until one is wrong by one of the rules. Sets found to the rule and the seed, or others to what else was wrong.
play() { # RULE...
    local end=$((SECONDS + time_max)) first wrong rule
    found='' others=''
    for ((first = 1; SECONDS < end; first++)); do
        # The simulator looks at the time between two runs.
        if PINPOST_SIM_FIRST=$first PINPOST_SIM_SECONDS=$((end - SECONDS)) timeout --foreground "$((time_max + 30))" \
            "$sim" every_promise --nocapture >"$log" 2>&1; then
            return
        fi
        wrong=$(sed -n 's/^ *\([A-Za-z]*\) first with PINPOST_SEED=\([0-9]*\)$/\1, PINPOST_SEED=\2/p' "$log")
        for rule; do
            found=$(grep -m 1 "^$rule," <<<"$wrong") && return
        done
        others+=${wrong:-a panic}$'\n'
    done
}

build || fail 'the tree does not build, and no fault is planted yet'
code=0
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    read -ra rules < <(sed -n '2s/^# Found by: //p' "$patch")
    [ ${#rules[@]} -gt 0 ] || fail "$patch does not say by which rules it is found"
    if ! change "$patch" --dry-run; then
        cat "$log" >&2
        echo "$name: DOES NOT APPLY any more"
        code=1
        continue
    fi
    change "$patch"
    if build; then
        start=$SECONDS
        play "${rules[@]}"
        if [ -n "$found" ]; then
            echo "$name: found after $((SECONDS - start)) s, $found"
        else
            echo "$name: NOT FOUND"
            # Each rule once, with its first seed.
            [ -z "$others" ] || sort -u -t, -k1,1 <<<"${others%$'\n'}" | sed "s/^/$name: there was /"
            code=1
        fi
    else
        echo "$name: DOES NOT BUILD"
        code=1
    fi
    change "$patch" --reverse
done
exit "$code"
