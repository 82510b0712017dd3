"""wsredis for Python: grants for websockets, and messages to them.

A view answers a websocket handshake with a *grant*; the uWSGI plugin hands the socket to the
engine, and this process never sees it again. ``wsredis.django`` has the same for Django.
``wsredis.testing`` is for a site's own tests. Imported, this package opens no socket, starts no
thread, and imports no framework.
"""

from ._broker import NotReachable, PublishError
from ._grant import GRANT_HEADER, answer, grant, plugin_version, wsgi_grant
from ._names import EVERYONE, group_channel, user_channel
from ._publish import apublish, publish, publish_many

__version__ = "0.1.0"

__all__ = [
    "EVERYONE",
    "GRANT_HEADER",
    "NotReachable",
    "PublishError",
    "answer",
    "apublish",
    "grant",
    "group_channel",
    "plugin_version",
    "publish",
    "publish_many",
    "user_channel",
    "wsgi_grant",
]
