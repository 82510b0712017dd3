/* RPC for every language that uWSGI hosts: publish without a Redis client, and the engine's
 * numbers (the keeper's, where there is one).
 *
 *   uwsgi.call(b"wsredis-publish", b"chat", b"100000", part1, part2)   ->  b"ok", or b"error: ..."
 *   uwsgi.call(b"wsredis-stats")                                       ->  JSON of the engine
 *
 * uWSGI's lengths are 16 bit and wrap without an error on either side: 65,536 bytes arrive as 0,
 * 70,000 as 4,464. So the caller states the total length and sends parts of at most 65,535 bytes; a
 * part that wrapped makes the sum wrong, and then nothing is published. The number of arguments
 * wraps at 256 in the same way and is caught by the same sum. The functions run on the caller's
 * thread, hold nothing between two calls and never wait for Redis; a keeper has one second to
 * answer with its statistics.
 */
#include "plugin.h"

/* The whole statistics fit one answer; a language that reads 16-bit lengths can take it. */
#define PLUGIN_STATS_SIZE 65535

/* The longest decimal total that 253 parts of 65,535 bytes can reach has eight digits. */
#define PLUGIN_TOTAL_DIGITS 8

/* What uWSGI frees. 0 (and no answer) when there is no memory for it. */
static uint64_t plugin_rpc_answer(char **output, const char *format, ...)
{
	char text[PLUGIN_WHY_SIZE + 64];
	va_list values;
	va_start(values, format);
	int len = vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	if (len < 0)
		return 0;
	*output = strdup(text);
	return *output ? strlen(*output) : 0;
}

/* Digits only, so that "1e3", " 5" and "-1" are errors and not surprises. Returns -1 on anything
 * else. */
static int64_t plugin_rpc_total(const char *digits, uint16_t len)
{
	int64_t total = 0;
	if (len == 0 || len > PLUGIN_TOTAL_DIGITS)
		return -1;
	for (uint16_t i = 0; i < len; i++) {
		if (digits[i] < '0' || digits[i] > '9')
			return -1;
		total = total * 10 + (digits[i] - '0');
	}
	return total;
}

static uint64_t plugin_rpc_publish(uint8_t argc, char **argv, uint16_t argvs[], char **output)
{
	char why[PLUGIN_WHY_SIZE];
	if (argc < 2)
		return plugin_rpc_answer(
			output, "error: wsredis-publish takes channel, total length, part...");
	int64_t total = plugin_rpc_total(argv[1], argvs[1]);
	if (total < 0)
		return plugin_rpc_answer(output,
			"error: the total length is not a number of at most %d digits", PLUGIN_TOTAL_DIGITS);
	int64_t arrived = 0;
	for (int i = 2; i < argc; i++)
		arrived += argvs[i];
	if (arrived != total)
		return plugin_rpc_answer(output,
			"error: %lld of %lld bytes arrived, nothing is published: uWSGI's RPC "
			"carries at most 65535 bytes in a part and 253 parts in a call",
			(long long) arrived, (long long) total);

	wsredis_engine *engine = plugin_engine(why);
	if (!engine)
		return plugin_rpc_answer(output, "error: %s", why);
	/* One part, the common case, is not copied. */
	uint8_t *payload = argc == 3 ? (uint8_t *) argv[2] : malloc(total + 1);
	if (!payload)
		return plugin_rpc_answer(output, "error: no memory for %lld bytes", (long long) total);
	if (argc != 3) {
		size_t filled = 0;
		for (int i = 2; i < argc; i++) {
			memcpy(payload + filled, argv[i], argvs[i]);
			filled += argvs[i];
		}
	}
	wsredis_status status = wsredis_engine_publish(engine, argv[0], argvs[0], payload, total);
	if (status != WSREDIS_STATUS_OK)
		plugin_last_error(status, why);
	if (argc != 3)
		free(payload);
	return status == WSREDIS_STATUS_OK ? plugin_rpc_answer(output, "ok")
									   : plugin_rpc_answer(output, "error: %s", why);
}

static uint64_t plugin_rpc_stats(char **output)
{
	char why[PLUGIN_WHY_SIZE];
	wsredis_engine *engine = plugin_engine(why);
	if (!engine)
		return plugin_rpc_answer(output, "error: %s", why);
	char *json = malloc(PLUGIN_STATS_SIZE);
	if (!json)
		return plugin_rpc_answer(output, "error: no memory");
	size_t len;
	wsredis_status status = wsredis_engine_stats(engine, json, PLUGIN_STATS_SIZE, &len);
	if (status != WSREDIS_STATUS_OK) {
		free(json);
		plugin_last_error(status, why);
		return plugin_rpc_answer(output, "error: %s", why);
	}
	*output = json;
	return len;
}

uint64_t plugin_rpc(void *function, uint8_t argc, char **argv, uint16_t argvs[], char **output)
{
	if (function == plugin_rpc_publish)
		return plugin_rpc_publish(argc, argv, argvs, output);
	return plugin_rpc_stats(output);
}

void plugin_register_rpc(void)
{
	extern struct uwsgi_plugin wsredis_plugin;
	if (uwsgi_register_rpc("wsredis-publish", &wsredis_plugin, 0, plugin_rpc_publish) ||
		uwsgi_register_rpc("wsredis-stats", &wsredis_plugin, 0, plugin_rpc_stats)) {
		plugin_log("uWSGI has no room for two RPC functions: raise rpc-max");
		exit(1);
	}
}
