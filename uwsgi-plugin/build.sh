#!/bin/sh
# Builds uwsgi-plugin/wsredis_plugin.so for one uWSGI binary: build.sh [UWSGI] (default: the one on
# PATH). Needs a C compiler, Python (uWSGI's own builder is Python) and target/release/libwsredis.a;
# no Rust.
# OUT names another file to write, WSREDIS_LIB another libwsredis.a.
set -eu

uwsgi=$(command -v "${1:-uwsgi}") || {
	echo "${1:-uwsgi} is not there: name the binary with: make plugin UWSGI=/path/of/uwsgi" >&2
	exit 1
}
uwsgi=$(readlink -f "$uwsgi")
source=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$source/wsredis_plugin.so}

# uWSGI's builder leaves its header and the result in the current folder.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PYTHON=${PYTHON:-$(command -v python3)}
export PYTHON
if ! (cd "$work" && "$uwsgi" --build-plugin "$source") >"$work/log" 2>&1 ||
	[ ! -f "$work/wsredis_plugin.so" ]; then
	cat "$work/log" >&2
	echo "the plugin for $uwsgi was not built" >&2
	exit 1
fi
# Renamed over the old file, so that a running uWSGI keeps the one it has mapped.
cp "$work/wsredis_plugin.so" "$out.new"
mv "$out.new" "$out"
echo "$out: for $uwsgi ($("$uwsgi" --version))"
