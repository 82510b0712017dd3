#!/bin/bash
# Serves the chat: `make run`, which builds everything first. Ends with Ctrl-C.
#
# From the environment: PORT (8080), REDIS (a redis:// URL; without it, the embedded broker), UWSGI and
# CHAT_VENV (Debian's uWSGI, and a virtualenv for its Python with Django in it).
set -euo pipefail
cd "$(dirname "$0")/../.."

uwsgi=${UWSGI:-/usr/bin/uwsgi}
port=${PORT:-8080}
redis=${REDIS:-}
url=http://127.0.0.1:$port

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

tests/setup.sh run
if answers "$port"; then
    echo "port $port is taken; try: make run PORT=$((port + 1))" >&2
    exit 1
fi

# A Redis of this machine that does not run is started for as long as the chat is served.
if [[ $redis =~ ^redis://(127\.0\.0\.1|localhost)(:([0-9]+))?/?$ ]] && ! answers "${BASH_REMATCH[3]:-6379}"; then
    redis_port=${BASH_REMATCH[3]:-6379}
    tests/setup.sh redis
    # Debian starts the one that was just installed, but perhaps on another port, or not at all in a container.
    if ! answers "$redis_port"; then
        echo "No Redis answers on port $redis_port: starting one that ends with the chat."
        # In a session of its own: Ctrl-C is for the chat, which must not see Redis go first.
        setsid redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --logfile '' >/dev/null &
        redis_pid=$!
        trap 'kill "$redis_pid"' EXIT
    fi
fi

# uWSGI listens before the app is loaded; a connection waits for the answer until it is.
(
    for _ in {1..150}; do
        if answers "$port"; then
            exec 3<>"/dev/tcp/127.0.0.1/$port"
            printf 'GET / HTTP/1.0\r\nHost: 127.0.0.1:%s\r\n\r\n' "$port" >&3
            if read -r -t 30 <&3; then
                printf '\n    The chat is on %s: open it in two tabs. Ctrl-C ends it.\n\n' "$url"
            fi
            exit
        fi
        sleep 0.2
    done
) &

export WSREDIS_PLUGIN=${WSREDIS_PLUGIN:-$PWD/uwsgi-plugin/wsredis_plugin.so}
export CHAT_VENV=${CHAT_VENV:-$PWD/.deps/venv}
export CHAT_ADDRESS=127.0.0.1:$port
unset WSREDIS_REDIS_URL
if [ -n "$redis" ]; then
    export WSREDIS_REDIS_URL=$redis
fi
# Its end by Ctrl-C is what was asked for.
trap : INT
"$uwsgi" --ini examples/chat/uwsgi.ini
