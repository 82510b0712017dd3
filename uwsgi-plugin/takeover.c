/* A response with a grant: the socket changes hands.
 *
 * uWSGI calls `proto_fix_headers` of a socket exactly once per response, after the last header and
 * before the first byte, in every build, with or without routing. So that is where we stand: the
 * header WSRedis-Grant is taken out of every response, and where it is honoured the descriptor goes
 * to the engine together with the whole answer, unwritten. From then on the request has a socket
 * that swallows what the view still writes: the view ends as it always does.
 *
 * Owned by the worker's thread (or greenlet) that serves the request; no state but what
 * plugin_wrap_sockets fills before the first request, one slot per core, and the log's limits. It
 * never writes to an adopted descriptor. RFC 6455 itself (the key, the Origin, the subprotocol, the
 * answer's text) is the library's.
 */
#include "plugin.h"

#include <strings.h>

static const char plugin_header[] = "WSRedis-Grant";

/* A grant that a route action made, on its way through uWSGI's header functions. One slot per
 * core, because exactly one request is on a core, in threads as in greenlets. */
struct plugin_slot {
	const char *grant;
	size_t grant_len;
	int echo;
	uint16_t refusal; /* or this answer instead of a grant */
	const char *why;
};

static struct plugin_slot *plugin_slots;

/* ---- the log: one line per answer and second, so that a flood of bad handshakes is not a flood
 * of lines ---- */

static void plugin_log_refusal(uint16_t http, const char *why)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	/* More than there are refusals; whatever comes beyond shares the last place. */
	static struct {
		uint16_t http;
		time_t at;
		unsigned left_out;
	} causes[12];
	const size_t last = sizeof(causes) / sizeof(causes[0]) - 1;

	pthread_mutex_lock(&lock);
	size_t i = 0;
	while (i < last && causes[i].http && causes[i].http != http)
		i++;
	time_t now = uwsgi_now();
	unsigned left_out = causes[i].left_out;
	int is_due = causes[i].http != http || causes[i].at != now;
	if (is_due) {
		causes[i].http = http;
		causes[i].at = now;
		causes[i].left_out = 0;
	}
	else
		causes[i].left_out++;
	pthread_mutex_unlock(&lock);

	if (is_due && left_out)
		plugin_log("handshake refused: %u: %s (and %u more before)", http, why, left_out);
	else if (is_due)
		plugin_log("handshake refused: %u: %s", http, why);
}

/* ---- the header block ---- */

/* The end of the line that begins at `from`, behind its CRLF. */
static const char *plugin_next_line(const char *from, const char *end)
{
	const char *newline = memchr(from, '\n', end - from);
	return newline ? newline + 1 : end;
}

/* Is this line that header? The value without the spaces around it in `value`. */
static int plugin_is_header(
	const char *line, const char *end, const char *name, const char **value, size_t *value_len)
{
	const char *colon = memchr(line, ':', end - line);
	if (!colon)
		return 0;
	const char *name_end = colon;
	while (name_end > line && (name_end[-1] == ' ' || name_end[-1] == '\t'))
		name_end--;
	if ((size_t) (name_end - line) != strlen(name) || strncasecmp(line, name, strlen(name)))
		return 0;
	const char *from = colon + 1;
	while (from < end && (*from == ' ' || *from == '\t'))
		from++;
	while (end > from && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\t'))
		end--;
	*value = from;
	*value_len = end - from;
	return 1;
}

/* Takes every grant header out of the block. Returns how many there were and the first one's
 * value as a copy. Without memory for the copy the value is NULL, which is no grant. */
static unsigned plugin_strip_grants(struct uwsgi_buffer *block, char **grant, size_t *grant_len)
{
	unsigned found = 0;
	char *end = block->buf + block->pos;
	char *line = (char *) plugin_next_line(block->buf, end); /* behind the status line */
	char *kept = line;
	while (line < end) {
		char *next = (char *) plugin_next_line(line, end);
		const char *value;
		size_t value_len;
		if (plugin_is_header(line, next, plugin_header, &value, &value_len)) {
			if (found++ == 0 && (*grant = malloc(value_len + 1))) {
				memcpy(*grant, value, value_len);
				*grant_len = value_len;
			}
		}
		else {
			if (kept != line)
				memmove(kept, line, next - line);
			kept += next - line;
		}
		line = next;
	}
	block->pos = kept - block->buf;
	return found;
}

/* The view's Set-Cookie lines, which belong into the 101. NULL only without memory. */
static struct uwsgi_buffer *plugin_cookies(const struct uwsgi_buffer *block)
{
	struct uwsgi_buffer *cookies = uwsgi_buffer_new(uwsgi.page_size);
	const char *end = block->buf + block->pos;
	for (const char *line = plugin_next_line(block->buf, end); line < end;) {
		const char *next = plugin_next_line(line, end);
		const char *value;
		size_t value_len;
		if (plugin_is_header(line, next, "Set-Cookie", &value, &value_len) &&
			uwsgi_buffer_append(cookies, (char *) line, next - line)) {
			uwsgi_buffer_destroy(cookies);
			return NULL;
		}
		line = next;
	}
	return cookies;
}

/* ---- the request as the library wants it ---- */

/* CGI variables back to headers: HTTP_SEC_WEBSOCKET_KEY is Sec-WebSocket-Key, in any case. One
 * allocation holds the list and behind it the names. NULL without memory. */
static wsredis_header *plugin_request_headers(struct wsgi_request *req, size_t *len)
{
	size_t names_size = 0;
	for (int i = 0; i + 1 < req->var_cnt; i += 2)
		names_size += req->hvec[i].iov_len;
	wsredis_header *headers = malloc((req->var_cnt / 2) * sizeof(wsredis_header) + names_size + 1);
	if (!headers)
		return NULL;
	char *names = (char *) (headers + req->var_cnt / 2);
	*len = 0;
	for (int i = 0; i + 1 < req->var_cnt; i += 2) {
		const char *key = req->hvec[i].iov_base;
		size_t key_len = req->hvec[i].iov_len;
		if (key_len <= 5 || memcmp(key, "HTTP_", 5))
			continue;
		headers[*len] = (wsredis_header){
			.name = names,
			.name_len = key_len - 5,
			.value = req->hvec[i + 1].iov_base,
			.value_len = req->hvec[i + 1].iov_len,
		};
		for (size_t j = 5; j < key_len; j++)
			*names++ = key[j] == '_' ? '-' : key[j];
		++*len;
	}
	return headers;
}

/* What a trusted front says, else nothing is known: a plain socket may stand behind a proxy that
 * ends TLS. */
static uint8_t plugin_https(struct wsgi_request *req)
{
	uint16_t len = 0;
	if (req->https_len && strncasecmp(req->https, "off", req->https_len))
		return 2;
	if (req->scheme_len)
		return !uwsgi_strncmp(req->scheme, req->scheme_len, "https", 5) ? 2 : 1;
	char *scheme = uwsgi_get_var(req, "REQUEST_SCHEME", 14, &len);
	if (scheme && len)
		return !uwsgi_strncmp(scheme, len, "https", 5) ? 2 : 1;
	return 0;
}

/* The 101, or a refusal, travels as plain HTTP on this descriptor: true for HTTP and the uwsgi
 * protocol. FastCGI and SCGI wrap what they carry. */
static int plugin_is_plain(struct wsgi_request *req, struct uwsgi_socket *socket)
{
	return socket->proto_write == uwsgi_proto_base_write &&
		socket->proto_prepare_headers == uwsgi_proto_base_prepare_headers && !uwsgi.cgi_mode &&
		!req->is_raw;
}

static int plugin_is_tls(struct wsgi_request *req)
{
#ifdef UWSGI_SSL
	return req->ssl != NULL;
#else
	(void) req;
	return 0;
#endif
}

/* uWSGI's HTTP parser makes REMOTE_ADDR from the peer's address as if it were IPv4, also on a
 * unix socket, where it is noise. Empty is what the library calls a local peer. */
static int plugin_has_address(struct wsgi_request *req)
{
	int is_http = req->socket->proto_name && !strncmp(req->socket->proto_name, "http", 4);
	return !(is_http && req->socket->family == AF_UNIX && !uwsgi.enable_proxy_protocol);
}

/* ---- the two ends of a handshake ---- */

/* Puts `answer`, a whole HTTP response, in the place of the view's. uWSGI writes it. */
static int plugin_replace_response(
	struct wsgi_request *req, struct plugin_socket *known, uint16_t http, char *answer, size_t len)
{
	struct uwsgi_buffer *block = req->headers;
	int is_plain = plugin_is_plain(req, known->socket) || plugin_is_tls(req);
	char *end = answer + len, *body = memmem(answer, len, "\r\n\r\n", 4);
	if (!body)
		return -1;
	body += 4;
	char *line = (char *) plugin_next_line(answer, end);
	char *status = memchr(answer, ' ', line - answer);
	if (!status)
		return -1;

	req->status = http;
	req->header_cnt = 0;
	req->socket = &known->refused;
	block->pos = 0;
	/* uWSGI's own status line: only it knows how this protocol begins a response. */
	struct uwsgi_buffer *first =
		known->socket->proto_prepare_headers(req, status + 1, line - 2 - (status + 1));
	if (!first)
		return -1;
	int failed = uwsgi_buffer_append(block, first->buf, first->pos);
	uwsgi_buffer_destroy(first);
	while (!failed && line < body - 2) {
		char *next = (char *) plugin_next_line(line, body);
		const char *value;
		size_t value_len;
		/* Without a body of ours its length would be a lie. */
		if (is_plain || !plugin_is_header(line, next, "Content-Length", &value, &value_len)) {
			failed = uwsgi_buffer_append(block, line, next - line);
			req->header_cnt++;
		}
		line = next;
	}
	if (failed || known->fix_headers(req))
		return -1;
	/* RFC 9110 §9.3.2: no body in the answer to HEAD. */
	if (is_plain && uwsgi_strncmp(req->method, req->method_len, "HEAD", 4))
		return uwsgi_buffer_append(block, body, end - body);
	return 0;
}

static int plugin_refuse(
	struct wsgi_request *req, struct plugin_socket *known, uint16_t http, const char *why)
{
	char answer[WSREDIS_ANSWER_SIZE];
	size_t len;
	plugin_log_refusal(http, why);
	wsredis_status status =
		wsredis_handshake_refusal(plugin_config, http, answer, sizeof(answer), &len);
	if (status != WSREDIS_STATUS_OK) {
		char reason[PLUGIN_WHY_SIZE];
		plugin_last_error(status, reason);
		plugin_log("no text for the refusal %u: %s", http, reason);
		return -1; /* a write error: uWSGI closes the connection */
	}
	return plugin_replace_response(req, known, http, answer, len);
}

/* The descriptor is the engine's. Whatever uWSGI or the view still does with this request must
 * not reach it. */
static void plugin_let_go(struct wsgi_request *req, struct plugin_socket *known)
{
	/* The connection of http11-socket that this core keeps: nobody may read another request from
	 * it. */
	if (known->socket->retry) {
		known->socket->retry[req->async_id] = 0;
		known->socket->fd_threads[req->async_id] = -1;
	}
	req->socket = &known->taken;
	req->fd_closed = 1;
	/* The number may be closed by the engine and given to another connection while the view
	 * still runs. */
	req->fd = -1;
	req->status = 101;
	req->headers->pos = 0;
	req->header_cnt = 0;
	req->proto_parser_remains = 0;
}

/* Bytes behind the request, which the engine gets as if just read. On the uwsgi protocol they
 * lie where uWSGI appends variables (addvar, pull-header), so they may be gone: returns 0 then. */
static int plugin_leftover(struct wsgi_request *req, const uint8_t **leftover, size_t *len)
{
	const char *from = req->proto_parser_remains_buf;
	*leftover = (const uint8_t *) from;
	*len = req->proto_parser_remains;
	return *len == 0 || from < req->buffer || from >= req->buffer + req->uh->pktsize;
}

/* Judges the request and its grant; then the socket is the engine's, or the response is a
 * refusal. Returns what proto_fix_headers returns. `answer` has room for the whole answer. */
static int plugin_handshake(struct wsgi_request *req, struct plugin_socket *known,
	const struct plugin_slot *slot, const wsredis_header *headers, size_t headers_len,
	const struct uwsgi_buffer *cookies, char *answer)
{
	char why[PLUGIN_WHY_SIZE] = "";
	wsredis_request request = {
		.struct_size = sizeof(request),
		.method = req->method,
		.method_len = req->method_len,
		.protocol = req->protocol,
		.protocol_len = req->protocol_len,
		.headers = headers,
		.headers_len = headers_len,
		.remote_address = req->remote_addr,
		.remote_address_len = plugin_has_address(req) ? req->remote_addr_len : 0,
		.https = plugin_https(req),
	};
	size_t answer_len = 0;
	uint16_t http = 0;
	wsredis_status status = wsredis_handshake_answer(plugin_config, &request, slot->grant,
		slot->grant_len, cookies->buf, cookies->pos, answer, WSREDIS_ANSWER_SIZE + cookies->pos,
		&answer_len, &http);
	if (status != WSREDIS_STATUS_OK) {
		plugin_last_error(status, why);
		return plugin_refuse(req, known, 500, why);
	}
	if (http != 101) {
		plugin_last_error(status, why);
		plugin_log_refusal(http, why);
		return plugin_replace_response(req, known, http, answer, answer_len);
	}

	if (plugin_is_tls(req))
		return plugin_refuse(req, known, 501,
			"TLS ends in this process, so the descriptor carries ciphertext: use "
			"uWSGI's https router (https = ...) or a proxy in front");
	if (!plugin_is_plain(req, known->socket))
		return plugin_refuse(req, known, 501,
			"this socket's protocol cannot carry a websocket: use http-socket, "
			"http11-socket, the http router, or uwsgi behind nginx");
	wsredis_adoption adoption = {
		.struct_size = sizeof(adoption),
		.fd = req->fd,
		.grant = slot->grant,
		.grant_len = slot->grant_len,
		.answer = answer,
		.answer_len = answer_len,
		.remote_address = request.remote_address,
		.remote_address_len = request.remote_address_len,
		.host = req->host,
		.host_len = req->host_len,
		.path_digest = plugin_hash(PLUGIN_HASH_START, req->path_info, req->path_info_len),
		.mirror = slot->echo ? 1 : 0,
	};
	if (!plugin_leftover(req, &adoption.leftover, &adoption.leftover_len))
		return plugin_refuse(
			req, known, 400, "frames came before the answer and a route has written over them");
	wsredis_engine *engine = plugin_engine(why);
	if (!engine)
		return plugin_refuse(req, known, 503, why);
	status = wsredis_engine_adopt(engine, &adoption);
	if (status != WSREDIS_STATUS_OK) {
		plugin_last_error(status, why);
		return plugin_refuse(req, known, status == WSREDIS_STATUS_GRANT ? 500 : 503, why);
	}
	plugin_let_go(req, known);
	return 0;
}

static int plugin_take(
	struct wsgi_request *req, struct plugin_socket *known, const struct plugin_slot *slot)
{
	uint16_t len = 0;
	/* RFC 6455 §4.1 knows no body, and its bytes would be read as frames. */
	if (req->post_cl > 0 || uwsgi_get_var(req, "HTTP_TRANSFER_ENCODING", 22, &len))
		return plugin_refuse(req, known, 400, "the handshake has a body");
	struct uwsgi_buffer *cookies = plugin_cookies(req->headers);
	if (!cookies)
		return plugin_refuse(req, known, 503, "no memory");
	size_t headers_len = 0;
	wsredis_header *headers = plugin_request_headers(req, &headers_len);
	char *answer = malloc(WSREDIS_ANSWER_SIZE + cookies->pos);
	int ret = headers && answer
		? plugin_handshake(req, known, slot, headers, headers_len, cookies, answer)
		: plugin_refuse(req, known, 503, "no memory");
	free(answer);
	free(headers);
	uwsgi_buffer_destroy(cookies);
	return ret;
}

/* In the place of every socket's proto_fix_headers. */
static int plugin_fix_headers(struct wsgi_request *req)
{
	struct plugin_socket *known = plugin_socket_of(req->socket);
	struct plugin_slot *route = &plugin_slots[req->async_id];
	char *grant = NULL;
	size_t grant_len = 0;
	unsigned found = plugin_strip_grants(req->headers, &grant, &grant_len);
	req->header_cnt -= found;

	int ret;
	if (route->refusal)
		ret = plugin_refuse(req, known, route->refusal, route->why);
	else if (route->grant)
		ret = plugin_take(req, known, route);
	else if (!found || req->status < 200 || req->status > 299)
		ret = known->fix_headers(req); /* an ordinary response, or the view's own refusal */
	else if (found > 1)
		ret = plugin_refuse(req, known, 500,
			"the response has more than one WSRedis-Grant header: put everything "
			"into one JSON object");
	else if (!grant)
		ret = plugin_refuse(req, known, 503, "no memory");
	else if (grant_len == 0)
		/* The library reads no text as "judge the request alone". */
		ret = plugin_refuse(
			req, known, 500, "the WSRedis-Grant header is empty: a grant is one JSON object");
	else
		ret = plugin_take(
			req, known, &(struct plugin_slot){ .grant = grant, .grant_len = grant_len });
	free(grant);
	return ret;
}

/* ---- for route.c ---- */

/* A response of our own passes through uWSGI's header functions, as a view's does, so that there
 * is one way only. */
static void plugin_answer(struct wsgi_request *req, struct plugin_slot slot)
{
	struct plugin_slot *mine = &plugin_slots[req->async_id];
	if (uwsgi_response_prepare_headers(req, "200 OK", 6)) {
		plugin_log("a wsredis route comes after the response has begun: put it before the routes "
				   "that answer");
		return;
	}
	*mine = slot;
	uwsgi_response_write_headers_do(req);
	*mine = (struct plugin_slot){ 0 };
}

void plugin_answer_with_grant(
	struct wsgi_request *req, const char *grant, size_t grant_len, int echo)
{
	plugin_answer(
		req, (struct plugin_slot){ .grant = grant, .grant_len = grant_len, .echo = echo });
}

void plugin_answer_with_refusal(struct wsgi_request *req, uint16_t http, const char *why)
{
	plugin_answer(req, (struct plugin_slot){ .refusal = http, .why = why });
}

/* ---- start of a worker ---- */

void plugin_take_sockets(void)
{
	plugin_slots = uwsgi_calloc(sizeof(struct plugin_slot) * uwsgi.cores);
	plugin_wrap_sockets(plugin_fix_headers);
}
