#!/bin/bash
# Runs the suites, all or those that are named, each within its time; ends with the closing lines of each.
#
#   tests/run.sh [rust] [uwsgi] [conformance] [python] [browser] [costs] [fuzz] [install] [soak] [conformance-all]
#
# All but the last two, which are only run by name: `soak` takes hours (`make soak`), `conformance-all` has every case of
# Autobahn and takes a quarter of an hour (`make conformance`). `fuzz` is a minute of fuzzing; `fuzz/run.sh long` is more.
#
# Wants what `tests/setup.sh test` installs and `make all` builds; `make test` does both first. A test that is skipped here
# has failed, because everything it could miss has been installed.
set -euo pipefail
cd "$(dirname "$0")/.."

deps=$PWD/.deps
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

export PATH=$PATH:/usr/sbin
export WSREDIS_REQUIRE_ALL=1
export WSREDIS_LIBRARY=${WSREDIS_LIBRARY:-$PWD/target/release/libwsredis.so}
export WSREDIS_UWSGI=/usr/bin/uwsgi
export WSREDIS_PIP_UWSGI=$deps/uwsgi/bin/uwsgi
export WSREDIS_PLAIN_UWSGI=$deps/uwsgi-plain/bin/uwsgi
# The plugin in its usual place may be for another binary.
export WSREDIS_PLUGIN=$PWD/uwsgi-plugin/build/debian/wsredis_plugin.so
export PYTHONPATH=$PWD/tests:$PWD/python
export PYTHONDONTWRITEBYTECODE=1

# Thousands of sockets need as many descriptors. No more than that: uWSGI makes tables of the limit's size.
hard=$(ulimit -Hn)
if [ "$hard" = unlimited ] || [ "$hard" -gt 65536 ]; then
    hard=65536
fi
ulimit -Sn "$hard"

# On a terminal Ctrl-C must reach the tests; elsewhere the children of a suite that hangs must end with it.
foreground=()
if [ -t 0 ]; then
    foreground=(--foreground)
fi

results=()
failed=0

# suite NAME SECONDS COMMAND…
suite() {
    local name=$1 seconds=$2 status=0 began=$SECONDS reader
    shift 2
    printf '\n==== %s (at most %s s)\n' "$name" "$seconds"
    # Not a pipe: a process that a failed test leaves behind would hold it open for ever.
    : >"$logs/$name"
    tail -n +1 -s 0.2 -f "$logs/$name" &
    reader=$!
    timeout "${foreground[@]}" --kill-after=20 "$seconds" "$@" </dev/null >"$logs/$name" 2>&1 || status=$?
    sleep 0.5
    kill "$reader"
    wait "$reader" 2>/dev/null || true
    local took=$((SECONDS - began)) result
    case $status in
    0) result="passed in $took s" ;;
    124 | 137) result="FAILED: not done within $seconds s" ;;
    *) result="FAILED with status $status in $took s" ;;
    esac
    results+=("$name: $result")
    # What cargo test and pytest say last, and how many of Autobahn's cases went how.
    mapfile -t -O "${#results[@]}" results < <(grep -E '^test result: |^Autobahn|executions in .* edges|^=+ .* in [0-9.]+s.*=+$|^[0-9]+ passed, [0-9]+ failed$' "$logs/$name")
    [ $status = 0 ] || failed=1
}

# The healthy browsers beside what the tests do to a site, and what does it with thousands of connections.
build_programs() {
    cargo build --release --locked --example bystander --example load
    export WSREDIS_BYSTANDER=${CARGO_TARGET_DIR:-$PWD/target}/release/examples/bystander
    export WSREDIS_LOAD=${CARGO_TARGET_DIR:-$PWD/target}/release/examples/load
}

# Autobahn's cases are left out where Python 2.7 can not be had. That fails nothing, but it is said at the end.
without=()
choose_autobahn() {
    without=()
    if [ ! -x "$deps/autobahn/wstest" ]; then
        local why
        why=$(cat "$deps/autobahn/skipped" 2>/dev/null || echo "tests/setup.sh test has not been run")
        results+=("$1: Autobahn SKIPPED: $why")
        without=(--ignore tests/conformance/test_autobahn.py --ignore tests/conformance/test_everything.py)
    fi
}

pytest=("$deps/venv/bin/python" -m pytest -p no_skips -p no:cacheprovider -ra)

# What depends on Django's version.
django_tests=(python/tests/test_{django,django_publish,middleware,checks,testing,runserver,rest_framework,publish}.py)

[ $# -gt 0 ] || set -- rust uwsgi conformance python browser costs fuzz install
for name in "$@"; do
    case $name in
    rust) suite rust 900 cargo test --locked --no-fail-fast ;;
    uwsgi)
        build_programs
        suite uwsgi 780 "${pytest[@]}" tests/uwsgi --ignore tests/uwsgi/soak
        ;;
    conformance)
        build_programs
        choose_autobahn conformance
        suite conformance 300 "${pytest[@]}" tests/conformance --ignore tests/conformance/test_everything.py "${without[@]}"
        ;;
    conformance-all)
        build_programs
        choose_autobahn conformance-all
        suite conformance-all 3600 "${pytest[@]}" tests/conformance "${without[@]}"
        ;;
    soak)
        build_programs
        suite soak 14400 "${pytest[@]}" -s tests/uwsgi/soak
        ;;
    python)
        suite python 240 "${pytest[@]}" python/tests
        for django in 4.2 newest; do
            if [ -e "$deps/django-$django/skipped" ]; then
                results+=("python: Django $django SKIPPED: $(cat "$deps/django-$django/skipped")")
            else
                suite "python, Django $django" 180 "$deps/django-$django/bin/python" "${pytest[@]:1}" "${django_tests[@]}"
            fi
        done
        ;;
    browser)
        mkdir -p "$(dirname "$WSREDIS_PLUGIN")"
        OUT=$WSREDIS_PLUGIN uwsgi-plugin/build.sh "$WSREDIS_UWSGI"
        suite browser 300 "${pytest[@]}" tests/browser
        ;;
    costs)
        benches/run.sh build
        suite costs 120 "${pytest[@]}" tests/costs
        ;;
    fuzz) suite fuzz 420 fuzz/run.sh quick ;;
    install) suite install 120 tests/install.sh ;;
    *)
        echo "there is no suite $name" >&2
        exit 2
        ;;
    esac
done

printf '\n==== all suites\n'
printf '%s\n' "${results[@]}"
exit $failed
