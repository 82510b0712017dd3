/* The sockets of uWSGI as the plugin has wrapped them, and the two that stand in their place once a
 * response is ours: one writes nothing and closes nothing, the other writes the header block and no
 * body.
 *
 * uWSGI reaches a connection only through the function pointers of the request's `socket`, so a
 * copy with other pointers is all it takes: the view goes on and ends as it always does, without a
 * write error. The copies are made once in each worker before its first request and never change.
 * Nothing here knows websockets.
 */
#include "plugin.h"

static struct plugin_socket *plugin_sockets;
static size_t plugin_sockets_len;

/* uWSGI counts the body of its first writev itself, whether it was written or not: take it off
 * the books beforehand. */
static void plugin_uncount_body(struct wsgi_request *req, struct iovec *iov, size_t len)
{
	if (!req->headers_sent && len == 2)
		req->response_size -= iov[1].iov_len;
}

static int plugin_swallow_write(struct wsgi_request *req, char *buf, size_t len)
{
	(void) req;
	(void) buf;
	(void) len;
	return UWSGI_OK;
}

static int plugin_swallow_writev(struct wsgi_request *req, struct iovec *iov, size_t *len)
{
	plugin_uncount_body(req, iov, *len);
	return UWSGI_OK;
}

static int plugin_swallow_sendfile(struct wsgi_request *req, int fd, size_t pos, size_t len)
{
	(void) req;
	(void) fd;
	(void) pos;
	(void) len;
	return UWSGI_OK;
}

/* The engine reads now; an app that reads its request's body late finds the end of it. */
static ssize_t plugin_swallow_read(struct wsgi_request *req, char *buf, size_t len)
{
	(void) req;
	(void) buf;
	(void) len;
	return 0;
}

static void plugin_keep_open(struct wsgi_request *req)
{
	(void) req;
}

struct plugin_socket *plugin_socket_of(const struct uwsgi_socket *socket)
{
	for (size_t i = 0; i < plugin_sockets_len; i++) {
		struct plugin_socket *known = &plugin_sockets[i];
		if (known->socket == socket || &known->taken == socket || &known->refused == socket)
			return known;
	}
	return NULL;
}

/* The first writev holds headers and body: only the headers go out. uWSGI calls again until they
 * are all written. */
static int plugin_refused_writev(struct wsgi_request *req, struct iovec *iov, size_t *len)
{
	if (req->headers_sent)
		return UWSGI_OK;
	int ret = req->socket->proto_write_headers(req, req->headers->buf, req->headers->pos);
	if (ret == UWSGI_OK)
		plugin_uncount_body(req, iov, *len);
	return ret;
}

/* Our refusals say `Connection: close`; http11-socket would keep the connection and wait on it
 * with a worker. */
static void plugin_refused_close(struct wsgi_request *req)
{
	if (!req->socket->retry) {
		plugin_socket_of(req->socket)->socket->proto_close(req);
		return;
	}
	req->socket->retry[req->async_id] = 0;
	req->socket->fd_threads[req->async_id] = -1;
	close(req->fd);
}

void plugin_wrap_sockets(int (*fix_headers)(struct wsgi_request *))
{
	size_t len = 0;
	for (struct uwsgi_socket *socket = uwsgi.sockets; socket; socket = socket->next)
		len++;
	plugin_sockets = uwsgi_calloc(sizeof(struct plugin_socket) * (len + 1));
	for (struct uwsgi_socket *socket = uwsgi.sockets; socket; socket = socket->next) {
		/* A socket without a protocol is one of the http router and not read here. */
		if (!socket->proto_fix_headers)
			continue;
		struct plugin_socket *known = &plugin_sockets[plugin_sockets_len++];
		known->socket = socket;
		known->fix_headers = socket->proto_fix_headers;

		known->taken = *socket;
		known->taken.proto_write = plugin_swallow_write;
		known->taken.proto_write_headers = plugin_swallow_write;
		known->taken.proto_writev = plugin_swallow_writev;
		known->taken.proto_sendfile = plugin_swallow_sendfile;
		known->taken.proto_read_body = plugin_swallow_read;
		known->taken.proto_close = plugin_keep_open;
		known->taken.can_offload = 0;

		known->refused = *socket;
		known->refused.proto_write = plugin_swallow_write;
		/* uWSGI has looked already whether the socket can writev; it calls the copy's. */
		known->refused.proto_writev = socket->proto_writev ? plugin_refused_writev : NULL;
		known->refused.proto_sendfile = plugin_swallow_sendfile;
		known->refused.proto_close = plugin_refused_close;
		known->refused.can_offload = 0;

		socket->proto_fix_headers = fix_headers;
	}
}
