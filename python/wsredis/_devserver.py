"""Websockets on a server of Python's own `wsgiref`, as Django's `runserver` is one.

It does there what the plugin does in uWSGI: a view's grant becomes a socket of the engine, its
header never leaves the process, and every other answer passes untouched. For development: a server
that is hurried needs uWSGI.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Callable

from ._engine import GRANT, Engine, EngineError, Request
from ._grant import GRANT_HEADER

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
else:
    WSGIRequestHandler = WSGIServer = object

logger = logging.getLogger("wsredis")

# Where the handler of a request is found by `adopting`.
HANDLER = "wsredis.handler"

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]


class AdoptingServer(WSGIServer):
    """A mixin for a WSGIServer: its requests carry what `adopting` wants to know."""

    def __init__(self, address: Any, handler: Any, *args: Any, **options: Any) -> None:
        handler = type(handler.__name__, (_Handler, handler), {})
        super().__init__(address, handler, *args, **options)


class _Handler(WSGIRequestHandler):
    def get_environ(self) -> Any:
        environ = super().get_environ()
        environ[HANDLER] = self
        return environ


def adopting(application: Application, engine: Engine) -> Application:
    """`application`, whose grants become sockets of `engine`.

    It must call start_response before it returns, as Django does.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        granted: list[tuple[list[str], list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            grants = [value for name, value in headers if name.lower() == GRANT_HEADER.lower()]
            headers = [line for line in headers if line[0].lower() != GRANT_HEADER.lower()]
            if grants and status.startswith("2"):
                granted.append((grants, headers))
                return lambda data: None
            return start_response(status, headers, *exc_info)

        result = application(environ, start)
        if not granted:
            return result
        if hasattr(result, "close"):
            result.close()
        _take(environ[HANDLER], engine, *granted[-1])
        # The one way to tell wsgiref that there is nothing more to write on this connection: it
        # returns in silence when a browser goes away.
        raise ConnectionAbortedError("the engine has the connection")

    return answer


def _take(handler: Any, engine: Engine, grants: list[str], headers: list[tuple[str, str]]) -> None:
    """Answers the request whose view said `grants`: by the engine if it becomes a websocket."""
    request = Request(
        handler.command,
        handler.request_version,
        handler.headers.items(),
        handler.client_address[0],
    )
    cookies = [line for line in headers if line[0].lower() == "set-cookie"]
    http, text = 500, b""
    try:
        if len(grants) > 1:
            raise EngineError(GRANT, f"the view answered with {len(grants)} headers {GRANT_HEADER}")
        http, text, why = engine.handshake(request, grants[0], cookies)
        if http == 101:
            engine.adopt(
                handler.connection,
                grants[0],
                text,
                _leftover(handler),
                request.remote_address,
                handler.headers.get("Host", ""),
            )
        # A plain request is how the script asks whether it may connect: no reason for a line.
        elif http != 426:
            logger.warning("handshake refused: %d: %s", http, why)
    except EngineError as error:
        http = 500 if error.status == GRANT else 503
        text = engine.refusal(http)
        logger.error("handshake refused: %d: %s", http, error)
    if http != 101:
        handler.wfile.write(text)
    handler.close_connection = True
    handler.log_request(str(http), "-")


def _leftover(handler: Any) -> bytes:
    """What was read behind the request. The descriptor must not be waited for."""
    handler.connection.settimeout(0)
    # It may read more once, which then is here and not lost.
    return bytes(handler.rfile.peek())
