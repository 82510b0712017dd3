#!/bin/bash
# Measures wsredis beside the floors: how little a fan-out can cost on this kernel (benches/floor).
#
#   benches/run.sh build           the floors, the C host of examples/ with wsredis, the load generator
#   benches/run.sh SCENARIO…       benches/compare/scenario.py has them; --help tells the options
#
# Nothing else may keep the machine busy meanwhile. WSREDIS_LIBRARY names another libwsredis.so.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
flags=(-std=c11 -O2 -g -Wall -Wextra -Wpedantic -Werror)

if [ "${1:-}" = build ]; then
    cargo build --release --locked --lib --example load
    mkdir -p "$target/bench"
    cc "${flags[@]}" benches/floor/*.c -o "$target/bench/floor"
    cc "${flags[@]}" examples/host.c -Iinclude -L"$target/release" -lwsredis -o "$target/bench/host"
    exit
fi
exec python3 benches/compare "$@"
