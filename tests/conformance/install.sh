#!/bin/bash
# Installs Autobahn|Testsuite into .deps/autobahn; .deps/autobahn/wstest runs it. It is a program of Python 2.7, which
# Debian 12 has not: pyenv's is taken where there is one, else Debian 11's packages are unpacked into .deps, from the
# mirror that this machine uses. Where neither can be had this says so and succeeds: the tests say what they then skip.
set -euo pipefail
cd "$(dirname "$0")/../.."

mkdir -p .deps
home=$(readlink -f .deps)/autobahn
# The second number is that of this recipe: another one is a reason to install anew.
made=$home/.made-25.10.1-1

# The last versions for Python 2.7 that are known to work together.
wheels=(autobahntestsuite==25.10.1 autobahn==0.10.9 Twisted==19.10.0 txaio==2.1.0 wsaccel==0.6.6 ujson==2.0.3
    zope.interface==4.6.0 klein==17.10.0 Werkzeug==1.0.1 Jinja2==2.11.3 MarkupSafe==1.1.1 cryptography==3.3.2
    pyOpenSSL==19.1.0 service-identity==18.1.0 cffi==1.15.1 attrs==21.4.0 Automat==22.10.0 incremental==16.10.1
    constantly==15.1.0 hyperlink==21.0.0 PyHamcrest==1.10.1 idna==2.10 six==1.16.0 unittest2==1.1.0)
# The last virtualenv that makes environments of Python 2.7.
virtualenv=virtualenv==20.21.1
packages=(python2.7 python2.7-minimal libpython2.7-minimal libpython2.7-stdlib libpython2.7-dev libssl1.1 libffi7)

[ ! -e "$made" ] || exit 0
rm -rf "$home"
mkdir -p "$home"

skip() {
    rm -rf "$home"
    mkdir "$home"
    echo "$*" >"$home/skipped"
    echo "setup: Autobahn can NOT be installed: $*" >&2
    exit 0
}

# pyenv's Python 2.7, if it has one.
of_pyenv() {
    local versions
    versions=$(pyenv versions --bare 2>/dev/null | grep '^2\.7') || return 1
    PYENV_VERSION=$(tail -n 1 <<<"$versions") pyenv which python2.7 2>/dev/null
}

# Debian 11's Python 2.7 in a folder of ours. apt has lists and a cache of its own there: the machine's stay as they are.
of_debian_11() {
    local apt=$home/apt mirror key=/usr/share/keyrings/debian-archive-keyring.gpg
    command -v apt-get >/dev/null && [ -e "$key" ] || return 1
    mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' | sed -nE 's/ (bookworm|stable)$//p' | head -n 1)
    [ -n "$mirror" ] || return 1
    mkdir -p "$apt"/lists/partial "$apt"/cache/archives/partial "$apt"/debs
    echo "deb [signed-by=$key] $mirror bullseye main" >"$apt/sources.list"
    local get=(apt-get -q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::Cache=$apt/cache"
        -o "Dir::State::Lists=$apt/lists" -o APT::Sandbox::User= -o Acquire::Languages=none)
    "${get[@]}" update >&2 || return 1
    (cd "$apt/debs" && "${get[@]}" download "${packages[@]}") >&2 || return 1
    local package
    for package in "$apt"/debs/*.deb; do
        dpkg-deb -x "$package" "$home/debian11" || return 1
    done
    rm -rf "$apt"
    echo "$home/debian11/usr/bin/python2.7"
}

echo "setup: installing Autobahn|Testsuite into .deps/autobahn (about a minute)"
log=$home/install.log
if ! python=$(of_pyenv); then
    python=$(of_debian_11 2>>"$log") || { cat "$log" >&2; skip "no Python 2.7"; }
    # Its own OpenSSL, its own headers: wsaccel is compiled.
    export LD_LIBRARY_PATH=$home/debian11/usr/lib/x86_64-linux-gnu
    export C_INCLUDE_PATH=$home/debian11/usr/include:$home/debian11/usr/include/python2.7
fi
{
    /usr/bin/python3 -m venv "$home/maker" &&
        "$home/maker/bin/pip" --quiet --disable-pip-version-check install "$virtualenv" &&
        "$home/maker/bin/virtualenv" --quiet --no-periodic-update -p "$python" "$home/venv" &&
        "$home/venv/bin/python" -m pip --quiet --disable-pip-version-check --no-python-version-warning install "${wheels[@]}"
} >>"$log" 2>&1 || { cat "$log" >&2; skip "pip could not install it"; }
rm -rf "$home/maker"

cat >"$home/wstest" <<END
#!/bin/sh
LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-} exec "$home/venv/bin/wstest" "\$@"
END
chmod +x "$home/wstest"
version=$("$home/wstest" --autobahnversion 2>>"$log") || { cat "$log" >&2; skip "wstest does not start"; }
echo "setup: ${version//$'\n'/, } with $("$home/venv/bin/python" --version 2>&1)"
touch "$made"
