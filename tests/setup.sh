#!/bin/bash
# Installs what is missing, by name, and says so; what is there is left alone, so a second time is quick.
#
#   tests/setup.sh build [UWSGI]   a C compiler, and Debian's uWSGI with the headers that its own header asks for
#   tests/setup.sh run             and what serves the example: uWSGI's Python plugin, Django in .deps/venv
#   tests/setup.sh redis           and Debian's Redis server
#   tests/setup.sh peer NAME       another server, to be measured beside ours (benches/peers)
#   tests/setup.sh test            and everything that the tests drive: Redis, nginx, Chromium, valgrind, pip's uWSGI, Autobahn
#
# Debian's packages come by apt-get (with sudo where we are not root), Python's by pip into .deps/ of this tree, which git
# ignores. Nothing else of the machine is changed. Python is always Debian's, because Debian's uWSGI embeds that one.
set -euo pipefail
cd "$(dirname "$0")/.."

deps=$PWD/.deps
python=/usr/bin/python3

# What a uWSGI binary of Debian lets its plugins include; uwsgi-dev would bring uWSGI's whole source besides.
build_packages=(build-essential uwsgi-core python3 python3-distutils
    libcap-dev libpcre3-dev libssl-dev uuid-dev zlib1g-dev)
run_packages=(uwsgi-plugin-python3 python3-venv)
redis_packages=(redis-server)
# pip compiles its uWSGI: with the headers of PCRE it has internal routing.
test_packages=(uwsgi-plugin-gevent-python3 uwsgi-plugin-greenlet-python3 python3-dev libpcre2-dev
    nginx openssl pkg-config chromium strace valgrind faketime iproute2)

run_wheels=(django==5.2.* redis==8.*)
# What the Python package is tested with in every Django.
package_wheels=(pytest==9.* pytest-xdist==3.* hypothesis==6.* djangorestframework==3.* flask==3.*)
test_wheels=("${package_wheels[@]}" websockets==17.* wsproto==1.* playwright==1.* gevent==26.* mypy==2.* wheel==0.*)
pip_uwsgi=uwsgi==2.0.31

fail() {
    echo "setup: $*" >&2
    exit 1
}

# Who says how to install Rust is Rust; Debian 12's own is too old for this crate.
need_rust() {
    command -v cargo >/dev/null || fail "Rust is missing: install Rust 1.88 or newer, see https://rustup.rs" \
        "(the rustc of Debian 12 is too old)"
}

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

need_packages() {
    local name missing=()
    for name in "$@"; do
        is_installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "this is no Debian; please install what these packages hold: ${missing[*]}"

    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "run as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    echo "setup: installing Debian packages: ${missing[*]}"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
    # A fresh machine has no lists of packages at all, an old one has lists of versions that are gone.
    "${apt[@]}" update >/dev/null || fail "apt-get update failed"
    "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get could not install: ${missing[*]}"
}

# need_venv NAME WHEEL…: the environment .deps/NAME with these packages. It remembers what it was asked for.
need_venv() {
    local venv=$deps/$1 wheel
    shift
    # One whose Python was upgraded away underneath it is made anew.
    "$venv/bin/python" -c '' 2>/dev/null || {
        rm -rf "$venv"
        mkdir -p "$deps"
        "$python" -m venv "$venv"
    }
    local missing=()
    for wheel in "$@"; do
        [ -e "$venv/.has-$wheel" ] || missing+=("$wheel")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "setup: installing into ${venv#"$PWD/"} by pip: ${missing[*]}"
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check install "${missing[@]}" ||
        fail "pip could not install: ${missing[*]}"
    for wheel in "${missing[@]}"; do
        touch "$venv/.has-$wheel"
    done
}

# The newest Django that pip has for the newest Python that is here, in .deps/django-newest. Debian 12's own Python is too
# old for it: where there is no other, this says so and succeeds, and so does the suite that would need it.
need_newest_django() {
    local version newer
    for version in 3.14 3.13 3.12; do
        for newer in "$(command -v "python$version")" "$(pyenv prefix "$(pyenv latest "$version")")/bin/python"; do
            # What pyenv names for a version that it does not have is another one.
            "$newer" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 12))' || continue
            python=$newer need_venv django-newest 'django>=6' redis==8.* "${package_wheels[@]}" 2>&3
            return
        done
    done 3>&2 2>/dev/null
    mkdir -p "$deps/django-newest"
    echo "there is no Python 3.12 or newer" >"$deps/django-newest/skipped"
    echo "setup: the newest Django can NOT be tested: there is no Python 3.12 or newer" >&2
}

# need_pip_uwsgi NAME ROUTING [PROFILE]: pip's uWSGI, compiled into .deps/NAME. Never from pip's cache: it may hold one that
# was compiled with other headers around.
need_pip_uwsgi() {
    local venv=$deps/$1 routing=$2 profile=${3:-}
    need_venv "$1"
    if [ ! -x "$venv/bin/uwsgi" ] || [ ! -e "$venv/.has-$pip_uwsgi" ]; then
        echo "setup: compiling $pip_uwsgi in ${venv#"$PWD/"} by pip (about a minute)"
        env ${profile:+"UWSGI_PROFILE_OVERRIDE=$profile"} "$venv/bin/python" -m pip --quiet \
            --disable-pip-version-check install --no-cache-dir --no-binary uwsgi "$pip_uwsgi" \
            >"$deps/$1.log" 2>&1 || {
            cat "$deps/$1.log" >&2
            fail "pip could not compile $pip_uwsgi"
        }
        touch "$venv/.has-$pip_uwsgi"
    fi
    local found=no
    case $("$venv/bin/uwsgi" --cflags) in *-DUWSGI_ROUTING*) found=yes ;; esac
    [ "$found" = "$routing" ] || fail "$venv/bin/uwsgi: routing is $found, not $routing; remove $venv and try again"
}

# need_node PACKAGE@VERSION…: these packages of npm in .deps/node. It remembers what it was asked for.
need_node() {
    command -v npm >/dev/null || need_packages nodejs npm
    local package missing=()
    for package in "$@"; do
        [ -e "$deps/node/.has-$package" ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "setup: installing into .deps/node by npm: ${missing[*]}"
    mkdir -p "$deps/node"
    npm install --silent --no-fund --no-audit --prefix "$deps/node" "${missing[@]}" ||
        fail "npm could not install: ${missing[*]}"
    for package in "${missing[@]}"; do
        touch "$deps/node/.has-$package"
    done
}

need_peer() {
    need_packages python3-venv "${redis_packages[@]}"
    case $1 in
    nchan)
        need_packages nginx libnginx-mod-nchan
        need_venv peers redis==8.*
        ;;
    uwsgi-gevent)
        need_packages uwsgi-core uwsgi-plugin-python3 uwsgi-plugin-gevent-python3
        need_venv venv redis==8.*
        ;;
    ws) need_node ws@8 redis@6 ;;
    socket.io) need_node socket.io@4 redis@6 ;;
    starlette) need_venv peers redis==8.* starlette==1.* 'uvicorn[standard]==0.*' ;;
    tornado) need_venv peers redis==8.* tornado==6.* ;;
    socketify)
        need_packages libuv1
        need_venv peers redis==8.* socketify==0.*
        ;;
    *) fail "there is no peer $1" ;;
    esac
}

case ${1:-} in
build)
    need_rust
    # Somebody else's uWSGI brings its headers with it, or its own packages; Debian's must not be forced on its owner.
    case $(command -v "${2:-uwsgi}" || true) in
    '' | /usr/bin/* | /bin/*) need_packages "${build_packages[@]}" ;;
    *) command -v cc >/dev/null || need_packages build-essential ;;
    esac
    ;;
run)
    need_packages "${build_packages[@]}" "${run_packages[@]}"
    need_venv venv "${run_wheels[@]}"
    ;;
redis)
    need_packages "${redis_packages[@]}"
    ;;
peer)
    need_peer "${2:-}"
    ;;
test)
    need_rust
    need_packages "${build_packages[@]}" "${run_packages[@]}" "${redis_packages[@]}" "${test_packages[@]}"
    need_venv venv "${run_wheels[@]}" "${test_wheels[@]}"
    # The oldest that is supported, with the oldest redis-py.
    need_venv django-4.2 django==4.2.* redis==5.* "${package_wheels[@]}"
    need_newest_django
    need_pip_uwsgi uwsgi yes
    need_pip_uwsgi uwsgi-plain no 'pcre=false;routing=false'
    tests/conformance/install.sh
    ;;
*)
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
