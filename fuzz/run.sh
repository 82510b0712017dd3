#!/bin/bash
# Builds the fuzzers and runs them. What they are and want: README.md.
#
#   fuzz/run.sh quick                  every target for some seconds: a minute in all, for each commit
#   fuzz/run.sh long                   every target to its full count, then until half an hour brings nothing new
#   fuzz/run.sh TARGET|all 60s         so many seconds each
#   fuzz/run.sh TARGET|all 1000000     so many executions each
#
# SANITIZER=address builds with AddressSanitizer, which is slower (no nightly is needed: the flag is unlocked for the
# fuzzers alone). JOBS=2 runs so many targets at once; `quick` uses all cores.
#
# Ends with a line for each target, and with 1 if there was a finding: its input lies in fuzz/artifacts/TARGET/.
# Nothing is installed; the crates come by fuzz/Cargo.lock, and libFuzzer is built from its own (by a C++ compiler).
set -euo pipefail
cd "$(dirname "$0")"

targets=(frame resp message handshake grant envelope ini keeper origin)

# The longest input of a target. What is behind it is only more of the same, and short inputs run faster.
declare -A longest=([frame]=48 [resp]=160 [message]=1024 [handshake]=2048 [grant]=1024 [envelope]=512 [ini]=1024
    [keeper]=512 [origin]=384)
# How often `long` runs a target at least.
declare -A full=([frame]=100000000 [resp]=100000000)
at_least=10000000

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' run.sh
    exit 2
}

sanitizer=${SANITIZER:-none}
host=$(rustc -vV | sed -n 's/^host: //p')
built=target/$sanitizer

build() {
    # What cargo-fuzz would pass: counters on every edge, and the values that are compared.
    local flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
        -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
    if [ "$sanitizer" != none ]; then
        flags+=" -Zsanitizer=$sanitizer"
        export RUSTC_BOOTSTRAP=1
    fi
    # With --target build scripts and macros are built without the flags.
    RUSTFLAGS=$(tr -s ' \n' ' ' <<<"$flags") \
        cargo build --release --locked --target "$host" --target-dir "$built" --bins
}

# Puts the seconds since the begin before each line: when was something new found?
stamp() {
    local line begin=$SECONDS
    while IFS= read -r line; do
        printf '%d %s\n' $((SECONDS - begin)) "$line"
    done
}

# fuzz TARGET FLAG…: one run. What it finds is kept in target/corpus, for the next run.
fuzz() {
    local target=$1 words=()
    shift
    mkdir -p "target/corpus/$target" "artifacts/$target" target/logs
    [ ! -f "dictionaries/$target" ] || words=("-dict=dictionaries/$target")
    "$built/$host/release/$target" "target/corpus/$target" "corpus/$target" "${words[@]}" \
        "-max_len=${longest[$target]}" "-artifact_prefix=artifacts/$target/" -print_final_stats=1 -timeout=60 \
        -rss_limit_mb=2048 -malloc_limit_mb=256 -reload=0 "$@" 2>&1 | stamp >>"target/logs/$target"
}

# Every target's state: executions, seconds, coverage, when it last grew.
summary() {
    awk -v target="$1" '
        # Each run begins at 0 again.
        $1 < last { before += last }
        { last = $1; at = before + $1 }
        / cov: / {
            for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1)
            if (cov > most) { grew = at; most = cov }
        }
        $2 == "stat::number_of_executed_units:" { runs += $3 }
        $2 == "stat::peak_rss_mb:" { if ($3 > rss) rss = $3 }
        END {
            seconds = at > 0 ? at : 1
            printf "%-10s %11d executions in %6d s (%7d/s), %5d edges, the last new one after %5d s, %4d MB\n",
                target, runs, seconds, runs / seconds, most, grew, rss
        }' "target/logs/$1"
}

# The whole campaign of one target.
campaign() {
    local target=$1 before after
    fuzz "$target" "-runs=${full[$target]:-$at_least}" || return 1
    # At most six half hours more: what still grows then is said by the summary.
    for _ in 1 2 3 4 5 6; do
        before=$(summary "$target" | sed 's/.*, *\([0-9]*\) edges.*/\1/')
        fuzz "$target" -max_total_time=1800 || return 1
        after=$(summary "$target" | sed 's/.*, *\([0-9]*\) edges.*/\1/')
        [ "$before" != "$after" ] || break
    done
}

# one TARGET WHAT: runs it and says how it went.
one() {
    local target=$1 what=$2 status=0
    : >"target/logs/$target"
    case $what in
    long) campaign "$target" || status=1 ;;
    *s) fuzz "$target" "-max_total_time=${what%s}" || status=1 ;;
    *) fuzz "$target" "-runs=$what" || status=1 ;;
    esac
    summary "$target"
    if [ $status != 0 ]; then
        echo "==== a finding of $target; the whole log is fuzz/target/logs/$target"
        grep -m 1 -A 25 -E 'panicked at|ERROR: ' "target/logs/$target" || tail -n 25 "target/logs/$target"
        grep -E 'Test unit written' "target/logs/$target" || true
    fi
    return $status
}

jobs=${JOBS:-1}
case $# in
1)
    case $1 in
    quick) what=10s jobs=${JOBS:-$(nproc)} ;;
    long) what=long ;;
    *) usage ;;
    esac
    chosen=("${targets[@]}")
    ;;
2)
    [[ $2 =~ ^[0-9]+s?$ ]] || usage
    what=$2
    chosen=("$1")
    [ "$1" != all ] || chosen=("${targets[@]}")
    ;;
*) usage ;;
esac

build
mkdir -p target/logs
failed=0 running=0
for target in "${chosen[@]}"; do
    [ -n "${longest[$target]:-}" ] || usage
    if [ $running -ge "$jobs" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    one "$target" "$what" &
    running=$((running + 1))
done
while [ $running -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit $failed
