#!/bin/bash
# Asks cargo-deny what the dependencies are allowed to be (deny.toml): licences, bans and sources always, advisories
# wherever their database can be had.
#
#   tests/deny.sh
#
# The database is fetched from where cargo-deny knows it. WSREDIS_ADVISORY_DB names a clone of it on a machine that
# cannot; WSREDIS_REQUIRE_ADVISORIES=1 fails where neither is there. cargo-deny itself is compiled from its authors'
# crate, once, into .deps/ (about 90 seconds of processor time).
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
root=$PWD/.deps/cargo-deny-$version

if [ ! -x "$root/bin/cargo-deny" ]; then
    echo "deny: installing cargo-deny $version into ${root#"$PWD/"} by cargo (about two minutes)"
    # It runs for a second: compiling it well would take longer than it ever saves.
    CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug \
        --version "=$version" --root "$root" cargo-deny
fi
deny() {
    "$root/bin/cargo-deny" --locked "$@"
}

deny check licenses bans sources

skip() {
    echo "SKIPPED: advisories were NOT checked: $*" >&2
    [ "${WSREDIS_REQUIRE_ADVISORIES:-}" != 1 ]
    exit
}

# What is fetched, or read at that path, is kept apart from the databases of this user.
config=$(mktemp)
databases=$(mktemp -d)
trap 'rm -rf "$config" "$databases"' EXIT
sed "s|^\[advisories\]|&\ndb-path = \"$databases\"|" deny.toml >"$config"

if [ -n "${WSREDIS_ADVISORY_DB:-}" ]; then
    [ -d "$WSREDIS_ADVISORY_DB" ] || skip "there is no $WSREDIS_ADVISORY_DB"
    # cargo-deny asks git for the address it knows, and git takes it from here.
    export GIT_CONFIG_COUNT=1
    export GIT_CONFIG_KEY_0=url.file://$(realpath "$WSREDIS_ADVISORY_DB").insteadOf
    export GIT_CONFIG_VALUE_0=https://github.com/RustSec/advisory-db
fi
if ! said=$(GIT_TERMINAL_PROMPT=0 timeout 60 "$root/bin/cargo-deny" --config "$config" fetch db 2>&1); then
    skip "their database cannot be fetched (${said##*$'\n'}); WSREDIS_ADVISORY_DB names a clone of it"
fi
for database in "$databases"/*/; do
    age=$((($(date +%s) - $(git -C "$database" log -1 --format=%ct)) / 86400))
    echo "deny: the newest advisory in the database is $age days old"
    [ $age -le 90 ] || echo "OLD: what was published in the last $age days was NOT checked" >&2
done
deny --offline --config "$config" check advisories
