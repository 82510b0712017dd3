/* Route actions: a grant without an app.
 *
 *   route = ^/ws/news/(\w+)$ wsredis:subscribe=news:$1,publish=chat
 *   route = ^/ws/echo$ wsredis-echo:
 *
 * Options are KEY=VALUE, split at commas before anything is put in; subscribe, publish and origins
 * may be repeated. `$1` is a group of the route's pattern, `${VAR}` a variable of the request, as
 * everywhere in uWSGI. They are put in here and not by uwsgi_routing_translate, for two reasons
 * that a URL could use: that function expands `${...}` in the text that `$1` brought, and it ends a
 * value at the first zero byte, so that `/ws/news/secret%00` cuts off what follows `$1`.
 *
 * The actions run on the worker's thread that serves the request. What they make is a grant like
 * any app's; it is judged and answered in takeover.c, and nothing is written here.
 */
#include "plugin.h"

#ifdef UWSGI_ROUTING

/* How a value of the grant is written in JSON. */
enum plugin_kind {
	PLUGIN_LIST,   /* of strings; the key may be repeated */
	PLUGIN_TEXT,
	PLUGIN_NUMBER,
	PLUGIN_BOOL,
};

/* The fields of a grant that make sense as one word of a line. */
static const struct plugin_field {
	const char *name;
	enum plugin_kind kind;
} plugin_fields[] = {
	{ "subscribe", PLUGIN_LIST },
	{ "publish", PLUGIN_LIST },
	{ "origins", PLUGIN_LIST },
	{ "sender", PLUGIN_TEXT },
	{ "user", PLUGIN_TEXT },
	{ "session", PLUGIN_TEXT },
	{ "heartbeat", PLUGIN_TEXT },
	{ "subprotocol", PLUGIN_TEXT },
	{ "format", PLUGIN_TEXT },
	{ "slow", PLUGIN_TEXT },
	{ "expires_in", PLUGIN_NUMBER },
	{ "echo", PLUGIN_BOOL },
};

#define PLUGIN_FIELDS (sizeof(plugin_fields) / sizeof(plugin_fields[0]))

/* KEY=VALUE of one action, as the ini has it. */
struct plugin_route_option {
	const struct plugin_field *field;
	const char *value;
	struct plugin_route_option *next;
};

/* The actions of the configuration, for the check before the fork. */
struct plugin_action {
	const char *args;
	struct plugin_route_option *options;
	struct plugin_action *next;
};

static struct plugin_action *plugin_actions;

/* ---- JSON ---- */

/* The code point at the front of UTF-8 text, and its length in bytes; 0 for what RFC 3629 does
 * not allow. */
static size_t plugin_code_point(const unsigned char *text, size_t len, uint32_t *point)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	/* By the first byte; 0x80 to 0xc1 begin nothing, and nothing begins with more than 0xf4. */
	size_t size = text[0] < 0x80 ? 1 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
	if ((text[0] >= 0x80 && text[0] < 0xc2) || text[0] > 0xf4 || size > len)
		return 0;
	*point = size == 1 ? text[0] : text[0] & (0xff >> (size + 1));
	for (size_t i = 1; i < size; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		*point = *point << 6 | (text[i] & 0x3f);
	}
	if (*point < smallest[size] || *point > 0x10ffff || (*point >= 0xd800 && *point <= 0xdfff))
		return 0;
	return size;
}

/* Why this value cannot stand in a grant, or NULL. A template cannot hold a comma, so one here
 * came with the request; the reasons hold nothing of the value, which may be a secret. */
static const char *plugin_bad_value(const unsigned char *value, size_t len)
{
	for (size_t i = 0; i < len;) {
		uint32_t point;
		size_t size = plugin_code_point(value + i, len - i, &point);
		if (size == 0)
			return "the request put text into it that is not UTF-8";
		if (point < 0x20 || (point >= 0x7f && point < 0xa0))
			return "the request put a control character into it";
		if (point == ',')
			return "the request put a comma into it";
		i += size;
	}
	return NULL;
}

/* A JSON string in ASCII, as every grant is. The value was checked by plugin_bad_value. */
static int plugin_append_string(struct uwsgi_buffer *json, const unsigned char *value, size_t len)
{
	if (uwsgi_buffer_append(json, "\"", 1))
		return -1;
	for (size_t i = 0; i < len;) {
		char escaped[16];
		uint32_t point;
		i += plugin_code_point(value + i, len - i, &point);
		if (point == '"' || point == '\\')
			snprintf(escaped, sizeof(escaped), "\\%c", (char) point);
		else if (point < 0x7f)
			snprintf(escaped, sizeof(escaped), "%c", (char) point);
		else if (point < 0x10000)
			snprintf(escaped, sizeof(escaped), "\\u%04x", (unsigned) point);
		else
			snprintf(escaped, sizeof(escaped), "\\u%04x\\u%04x",
				(unsigned) (0xd7c0 + (point >> 10)), (unsigned) (0xdc00 + (point & 0x3ff)));
		if (uwsgi_buffer_append(json, escaped, strlen(escaped)))
			return -1;
	}
	return uwsgi_buffer_append(json, "\"", 1);
}

/* Returns why not, or NULL. */
static const char *plugin_append_value(
	struct uwsgi_buffer *json, enum plugin_kind kind, const struct uwsgi_buffer *value)
{
	const char *bad = plugin_bad_value((unsigned char *) value->buf, value->pos);
	if (bad)
		return bad;
	if (kind == PLUGIN_BOOL && uwsgi_strncmp(value->buf, value->pos, "true", 4) &&
		uwsgi_strncmp(value->buf, value->pos, "false", 5))
		return "true or false is wanted";
	if (kind == PLUGIN_NUMBER) {
		if (value->pos == 0 || value->pos > 15 || (value->pos > 1 && value->buf[0] == '0'))
			return "a number is wanted";
		for (size_t i = 0; i < value->pos; i++)
			if (value->buf[i] < '0' || value->buf[i] > '9')
				return "a number is wanted";
	}
	int failed = kind == PLUGIN_BOOL || kind == PLUGIN_NUMBER
		? uwsgi_buffer_append(json, value->buf, value->pos)
		: plugin_append_string(json, (unsigned char *) value->buf, value->pos);
	return failed ? "no memory" : NULL;
}

/* ---- putting in what the request brought ---- */

/* `$N`: by position and length, never through a C string. Returns why not, or NULL. */
static const char *plugin_append_group(
	struct uwsgi_buffer *value, struct wsgi_request *req, struct uwsgi_route *ur, int group)
{
	if (!ur->ovn || !ur->ovector || group > ur->ovn[req->async_id] || !ur->ovector[req->async_id])
		return "the route's pattern has no such group";
	const char *subject = NULL;
	int subject_len = 0;
	if (ur->condition_ub && ur->condition_ub[req->async_id]) {
		subject = ur->condition_ub[req->async_id]->buf;
		subject_len = ur->condition_ub[req->async_id]->pos;
	}
	else if (ur->subject && ur->subject_len) {
		subject = *(char **) ((char *) req + ur->subject);
		subject_len = *(uint16_t *) ((char *) req + ur->subject_len);
	}
	const int *at = ur->ovector[req->async_id] + group * 2;
	if (at[0] < 0)
		return NULL; /* an optional group that matched nothing */
	if (!subject || at[1] < at[0] || at[1] > subject_len)
		return "the route's pattern has no such group";
	return uwsgi_buffer_append(value, (char *) subject + at[0], at[1] - at[0]) ? "no memory" : NULL;
}

/* `${VAR}`, `${cookie[name]}` and so on, once: what a variable holds is not expanded again. */
static const char *plugin_append_variable(
	struct uwsgi_buffer *value, struct wsgi_request *req, const char *name, size_t len)
{
	uint16_t text_len = 0;
	char *text, *bracket = memchr(name, '[', len);
	struct uwsgi_route_var *var =
		bracket && name[len - 1] == ']' ? uwsgi_get_route_var((char *) name, bracket - name) : NULL;
	if (var)
		text = var->func(req, bracket + 1, len - (bracket - name) - 2, &text_len);
	else
		text = uwsgi_get_var(req, (char *) name, len, &text_len);
	int failed = text && uwsgi_buffer_append(value, text, text_len);
	if (text && var && var->need_free)
		free(text);
	return failed ? "no memory" : NULL;
}

/* Without a request (the check before the fork) the templates stand as they are. Returns why
 * not, or NULL. */
static const char *plugin_translate(struct uwsgi_buffer *value, const char *template,
	struct wsgi_request *req, struct uwsgi_route *ur)
{
	const char *why = NULL;
	for (const char *at = template; *at && !why;) {
		const char *brace = at[0] == '$' && at[1] == '{' ? strchr(at, '}') : NULL;
		if (req && brace && brace > at + 2) {
			why = plugin_append_variable(value, req, at + 2, brace - at - 2);
			at = brace + 1;
		}
		else if (req && at[0] == '$' && at[1] >= '1' && at[1] <= '9') {
			why = plugin_append_group(value, req, ur, at[1] - '0');
			at += 2;
		}
		else if (uwsgi_buffer_append(value, (char *) at++, 1))
			why = "no memory";
	}
	return why;
}

/* ---- an action's options to a grant ---- */

/* One `"name":value` of the object, or nothing where the action has no such option. Returns why
 * not, or NULL. */
static const char *plugin_append_field(struct uwsgi_buffer *json, const struct plugin_field *field,
	const struct plugin_route_option *options, struct wsgi_request *req, struct uwsgi_route *ur)
{
	const char *why = NULL;
	int is_list = field->kind == PLUGIN_LIST, count = 0;
	for (const struct plugin_route_option *option = options; option && !why;
		option = option->next) {
		if (option->field != field)
			continue;
		if (!req && strchr(option->value, '$'))
			continue; /* known with the request only */
		struct uwsgi_buffer *value = uwsgi_buffer_new(strlen(option->value) + 1);
		why = plugin_translate(value, option->value, req, ur);
		if (!why && count == 0 &&
			(uwsgi_buffer_append(json, json->pos > 1 ? ",\"" : "\"", json->pos > 1 ? 2 : 1) ||
				uwsgi_buffer_append(json, (char *) field->name, strlen(field->name)) ||
				uwsgi_buffer_append(json, is_list ? "\":[" : "\":", is_list ? 3 : 2)))
			why = "no memory";
		if (!why && count++ > 0 && uwsgi_buffer_append(json, ",", 1))
			why = "no memory";
		if (!why)
			why = plugin_append_value(json, field->kind, value);
		uwsgi_buffer_destroy(value);
	}
	if (!why && is_list && count > 0 && uwsgi_buffer_append(json, "]", 1))
		why = "no memory";
	return why;
}

/* The whole grant. NULL on failure, with the field and the reason in `why`. */
static struct uwsgi_buffer *plugin_grant_of(const struct plugin_route_option *options,
	struct wsgi_request *req, struct uwsgi_route *ur, char why[PLUGIN_WHY_SIZE])
{
	struct uwsgi_buffer *json = uwsgi_buffer_new(256);
	const char *bad = uwsgi_buffer_append(json, "{", 1) ? "no memory" : NULL;
	for (size_t i = 0; i < PLUGIN_FIELDS && !bad; i++) {
		bad = plugin_append_field(json, &plugin_fields[i], options, req, ur);
		if (bad)
			snprintf(why, PLUGIN_WHY_SIZE, "%s: %s", plugin_fields[i].name, bad);
	}
	if (!bad && !uwsgi_buffer_append(json, "}", 1))
		return json;
	uwsgi_buffer_destroy(json);
	return NULL;
}

/* ---- at a request ---- */

/* The other three lists of routes run while a response is under way, or after it. */
static int plugin_is_too_late(struct wsgi_request *req)
{
	if (!req->is_response_routing && !req->is_final_routing && !req->is_error_routing)
		return 0;
	plugin_log("a wsredis action belongs into route = ..., not into response-route, error-route or "
			   "final-route");
	return 1;
}

static int plugin_route_grant(struct wsgi_request *req, struct uwsgi_route *ur)
{
	if (plugin_is_too_late(req))
		return UWSGI_ROUTE_NEXT;
	char why[PLUGIN_WHY_SIZE];
	struct uwsgi_buffer *grant = plugin_grant_of(ur->data, req, ur, why);
	if (!grant) {
		plugin_answer_with_refusal(req, 400, why);
		return UWSGI_ROUTE_BREAK;
	}
	/* The templates passed the check at start, so what makes the grant bad now came with the
	 * request. */
	wsredis_status status = wsredis_grant_check(plugin_config, grant->buf, grant->pos);
	if (status == WSREDIS_STATUS_OK)
		plugin_answer_with_grant(req, grant->buf, grant->pos, 0);
	else {
		plugin_last_error(status, why);
		plugin_answer_with_refusal(req, 400, why);
	}
	uwsgi_buffer_destroy(grant);
	return UWSGI_ROUTE_BREAK;
}

static int plugin_route_echo(struct wsgi_request *req, struct uwsgi_route *ur)
{
	(void) ur;
	if (plugin_is_too_late(req))
		return UWSGI_ROUTE_NEXT;
	plugin_answer_with_grant(req, "{}", 2, 1);
	return UWSGI_ROUTE_BREAK;
}

/* ---- at the configuration ---- */

/* One KEY=VALUE. Returns why not, or NULL. */
static const char *plugin_parse_option(
	const char *text, size_t len, struct plugin_route_option **options)
{
	const char *equals = memchr(text, '=', len);
	if (!equals)
		return "an option is KEY=VALUE";
	const struct plugin_field *field = NULL;
	for (size_t i = 0; i < PLUGIN_FIELDS; i++)
		if (!uwsgi_strncmp((char *) plugin_fields[i].name, strlen(plugin_fields[i].name),
				(char *) text, equals - text))
			field = &plugin_fields[i];
	if (!field)
		return "unknown option; known are subscribe, publish, origins, sender, user, session, "
			   "heartbeat, subprotocol, format, slow, expires_in and echo";
	struct plugin_route_option **end = options;
	for (; *end; end = &(*end)->next)
		if ((*end)->field == field && field->kind != PLUGIN_LIST)
			return "only subscribe, publish and origins may be repeated";
	*end = uwsgi_calloc(sizeof(struct plugin_route_option));
	(*end)->field = field;
	(*end)->value = uwsgi_concat2n((char *) equals + 1, text + len - equals - 1, "", 0);
	return NULL;
}

/* uWSGI ends with the route's text when this returns -1; the reason stands above it. */
static int plugin_router_grant(struct uwsgi_route *ur, char *args)
{
	struct plugin_action *action = uwsgi_calloc(sizeof(struct plugin_action));
	action->args = args;
	for (const char *text = args; *text;) {
		size_t len = strcspn(text, ",");
		const char *why = plugin_parse_option(text, len, &action->options);
		if (why) {
			plugin_log("wsredis:%s: %.*s: %s", args, (int) len, text, why);
			return -1;
		}
		text += len;
		if (*text == ',')
			text++;
	}
	if (!action->options) {
		plugin_log("wsredis: grants nothing: say wsredis:subscribe=CHANNEL or "
				   "wsredis:publish=CHANNEL");
		return -1;
	}
	ur->data = action->options;
	ur->func = plugin_route_grant;
	action->next = plugin_actions;
	plugin_actions = action;
	return 0;
}

static int plugin_router_echo(struct uwsgi_route *ur, char *args)
{
	if (*args) {
		plugin_log("wsredis-echo:%s: wsredis-echo: takes no options", args);
		return -1;
	}
	ur->func = plugin_route_echo;
	return 0;
}

void plugin_register_routes(void)
{
	uwsgi_register_router("wsredis", plugin_router_grant);
	uwsgi_register_router("wsredis-echo", plugin_router_echo);
}

void plugin_check_routes(void)
{
	for (struct plugin_action *action = plugin_actions; action; action = action->next) {
		char why[PLUGIN_WHY_SIZE];
		struct uwsgi_buffer *grant = plugin_grant_of(action->options, NULL, NULL, why);
		wsredis_status status = WSREDIS_STATUS_GRANT;
		if (grant) {
			status = wsredis_grant_check(plugin_config, grant->buf, grant->pos);
			if (status != WSREDIS_STATUS_OK)
				plugin_last_error(status, why);
			uwsgi_buffer_destroy(grant);
		}
		if (status != WSREDIS_STATUS_OK) {
			plugin_log("route action wsredis:%s: %s", action->args, why);
			exit(1);
		}
	}
}

#else

void plugin_register_routes(void)
{
}

/* Without routing uWSGI ignores `route = ...` in silence, and the app would answer in the
 * action's place. */
void plugin_check_routes(void)
{
	for (int i = 0; i < uwsgi.exported_opts_cnt; i++) {
		const struct uwsgi_opt *option = uwsgi.exported_opts[i];
		if (strncmp(option->key, "route", 5) || !option->value)
			continue;
		if (strstr(option->value, "wsredis:") || strstr(option->value, "wsredis-echo:")) {
			plugin_log("%s = %s needs internal routing, which this uWSGI was built without: "
					   "install PCRE's headers (libpcre2-dev) and build uWSGI again (pip install "
					   "--no-cache-dir --force-reinstall uwsgi), or grant in a view",
				option->key, option->value);
			exit(1);
		}
	}
}

#endif
