"""wsredis for Python: grants for websockets, and messages to them.

A view answers a websocket handshake with a *grant*; the uWSGI plugin hands the socket to the
engine, and this process never sees it again. ``wsredis.django`` has the same for Django.
This package opens no socket but the one to Redis, starts no thread, and imports no framework.
"""

from ._grant import GRANT_HEADER, grant, plugin_version, wsgi_grant
from ._publish import NotReachable, PublishError, publish

__version__ = "0.1.0"

__all__ = [
    "GRANT_HEADER",
    "NotReachable",
    "PublishError",
    "grant",
    "plugin_version",
    "publish",
    "wsgi_grant",
]
