/* wsredis for uWSGI: hands a websocket's descriptor from the worker to the engine, so that the
 * worker is free again.
 *
 *   [uwsgi]
 *   need-plugin = /usr/lib/wsredis/wsredis_plugin.so  ; not plugin: it must not start without
 *   master = true
 *   die-on-term = true
 *   http-socket = 127.0.0.1:8080
 *   wsgi-file = app.py
 *   wsredis-redis-url = redis://127.0.0.1:6379        ; one wsredis-KEY for every configuration key
 *   wsredis-ini = %p                                  ; or the section [wsredis], here of this file
 *   route = ^/ws/news/(\w+)$ wsredis:subscribe=news:$1   ; a grant without an app
 *
 * An ordinary view authorises the handshake and answers with the header WSRedis-Grant (takeover.c).
 * The processes of uWSGI own what is here: the configuration is read before the first fork, and
 * each process that needs an engine starts its own after it, because threads and connections do not
 * survive fork. Where a keeper holds the sockets (keeper.c), such an engine is a connection to it.
 * This file never writes to a socket.
 */
#include "plugin.h"

/* The table of keys is the library's; this only bounds the copy that uWSGI wants as an array. */
#define PLUGIN_MAX_OPTIONS 256

wsredis_config *plugin_config;

static struct uwsgi_option plugin_options[PLUGIN_MAX_OPTIONS + 1];

/* The engine of this process. `pid` is the process that post_fork saw: a child that the app
 * forks by itself has another one, and the engine's threads do not exist there. */
static struct {
	pthread_mutex_t lock;
	wsredis_engine *engine;
	pid_t pid;
} plugin_process = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Whether several processes reach the same browsers: through Redis, or through a keeper. */
static int plugin_is_shared;

void plugin_last_error(wsredis_status status, char why[PLUGIN_WHY_SIZE])
{
	if (wsredis_last_error(why, PLUGIN_WHY_SIZE) == 0)
		snprintf(why, PLUGIN_WHY_SIZE, "%s", wsredis_status_name(status));
}

void plugin_log_sink(void *userdata, uint8_t level, const char *line, size_t len)
{
	(void) userdata;
	(void) level;
	uwsgi_log("%.*s\n", (int) len, line);
}

char *plugin_key_text(const char *key)
{
	for (size_t size = 1024, len;; size *= 2) {
		char *text = uwsgi_malloc(size);
		wsredis_status status =
			wsredis_config_get(plugin_config, key, strlen(key), text, size, &len);
		if (status == WSREDIS_STATUS_OK)
			return text;
		free(text);
		if (status != WSREDIS_STATUS_LIMIT)
			plugin_option_failed(key, status);
	}
}

/* ---- options ---- */

void plugin_option_failed(const char *option, wsredis_status status)
{
	char why[PLUGIN_WHY_SIZE];
	plugin_last_error(status, why);
	/* The value stays out of the log: it may hold a password. */
	plugin_log("option %s: %s", option, why);
	exit(1);
}

static void plugin_option_set(char *option, char *value, void *key)
{
	wsredis_status status =
		wsredis_config_set(plugin_config, key, strlen(key), value, strlen(value));
	if (status != WSREDIS_STATUS_OK)
		plugin_option_failed(option, status);
}

static void plugin_option_load(char *option, char *path, void *unused)
{
	(void) unused;
	wsredis_status status = wsredis_config_load(plugin_config, path, strlen(path));
	if (status != WSREDIS_STATUS_OK)
		plugin_option_failed(option, status);
}

/* One uWSGI option per key of the library's table, so that the two can never differ. */
static void plugin_fill_options(void)
{
	size_t filled = 0;
	plugin_options[filled++] = (struct uwsgi_option){
		.name = "wsredis-ini",
		.type = required_argument,
		.func = plugin_option_load,
		.help = "read the section [wsredis] of this file (%p is uWSGI's own ini file)",
	};
	const char *key, *help;
	for (size_t index = 0; wsredis_config_key(index, &key, &help) == WSREDIS_STATUS_OK; index++) {
		if (filled == PLUGIN_MAX_OPTIONS) {
			plugin_log(
				"more than %d configuration keys: this is a bug of the plugin", PLUGIN_MAX_OPTIONS);
			exit(1);
		}
		plugin_options[filled++] = (struct uwsgi_option){
			.name = uwsgi_concat2("wsredis-", (char *) key),
			.type = required_argument,
			.func = plugin_option_set,
			.data = (void *) key,
			.help = (char *) help,
		};
	}
}

/* ---- start, before the first fork ---- */

/* Runs in dlopen, before uWSGI reads one field of the plugin's struct: on a wrong binary even
 * the place of `on_load` may differ. */
__attribute__((constructor)) static void plugin_opened(void)
{
	plugin_check_binary();
	if (wsredis_abi_version() != WSREDIS_ABI_VERSION) {
		plugin_log("the plugin was compiled for version %u of the C ABI, but libwsredis.a is "
				   "version %u: build both again with: make plugin",
			(unsigned) WSREDIS_ABI_VERSION, (unsigned) wsredis_abi_version());
		exit(1);
	}
	plugin_fill_options();
}

/* Where uWSGI is started with closed standard descriptors, the next sockets get their numbers: its
 * log would be written to a keeper, or to a browser. */
static void plugin_open_standard(void)
{
	int fd;
	while ((fd = open("/dev/null", O_RDWR)) >= 0) {
		if (fd > STDERR_FILENO) {
			close(fd);
			return;
		}
	}
}

static void plugin_on_load(void)
{
	plugin_open_standard();
	plugin_be_the_keeper();
	wsredis_status status = wsredis_config_new(&plugin_config);
	if (status != WSREDIS_STATUS_OK)
		plugin_option_failed("(defaults)", status);
	/* The app asks by this whether its grants will be understood; so it is set before any app is
	 * loaded. */
	if (setenv("WSREDIS_VERSION", wsredis_version(), 1)) {
		uwsgi_error("setenv()");
		exit(1);
	}
	plugin_register_routes();
}

/* Lets the app publish where the engine listens, without being told twice. What the operator has
 * set stays. On a full reload uWSGI executes itself with this environment; a mark tells what its
 * former life has put there. */
static void plugin_export(const char *key, const char *variable)
{
	char mark[64];
	snprintf(mark, sizeof(mark), "%s_BY_PLUGIN", variable);
	if (getenv(mark))
		unsetenv(variable);
	char *value = plugin_key_text(key);
	if (!strcmp(value, "none"))
		value[0] = 0;
	const char *set = getenv(variable);
	if (set && strcmp(set, value))
		plugin_log("%s in the environment is not what wsredis-%s says: the app may publish where "
				   "nobody listens",
			variable, key);
	if (!set && value[0] && (setenv(variable, value, 1) || setenv(mark, "1", 1)))
		uwsgi_error("setenv()");
	free(value);
}

/* All options are known and nothing is forked yet: what does not hold together ends uWSGI here. */
static int plugin_init(void)
{
	char why[PLUGIN_WHY_SIZE];
	char *place = plugin_choose_keeper();
	/* The keeper is started later, but it will be the one process that the browsers see. */
	uint32_t processes =
		uwsgi.numproc > 0 && !plugin_has_keeper ? (uint32_t) uwsgi.numproc : 1;
	wsredis_status status = wsredis_config_check(plugin_config, processes);
	if (status != WSREDIS_STATUS_OK) {
		plugin_last_error(status, why);
		plugin_log("%s", why);
		exit(1);
	}
	plugin_is_shared =
		plugin_has_keeper || wsredis_config_check(plugin_config, 2) == WSREDIS_STATUS_OK;
	plugin_export("redis-url", "WSREDIS_REDIS_URL");
	plugin_export("channel-prefix", "WSREDIS_CHANNEL_PREFIX");
	plugin_check_routes();
	plugin_log("version %s, %s", wsredis_version(), place);
	free(place);
	return 0;
}

/* In the master, before apps are loaded and anything is forked. In post_init the RPC functions
 * would crash uWSGI 2.0.21: the table of workers is not there yet. */
static void plugin_preinit_apps(void)
{
	plugin_register_rpc();
	plugin_start_keeper();
}

/* ---- processes, after fork ---- */

wsredis_engine *plugin_engine_if_started(void)
{
	return plugin_process.pid == getpid() ? plugin_process.engine : NULL;
}

wsredis_engine *plugin_engine(char why[PLUGIN_WHY_SIZE])
{
	/* uWSGI runs post_fork of a plugin like ours in workers only, but mules and spoolers
	 * publish, too. */
	if (uwsgi.mypid == getpid() && (uwsgi.muleid || uwsgi.i_am_a_spooler))
		plugin_process.pid = uwsgi.mypid;
	if (plugin_process.pid != getpid()) {
		snprintf(why, PLUGIN_WHY_SIZE,
			"no engine in this process: uWSGI has not started it as a worker, mule "
			"or spooler (is the app publishing while it is imported?)");
		return NULL;
	}
	/* A mule's own embedded broker would have no listener: its messages would vanish without a
	 * word. */
	if (uwsgi.mywid == 0 && !plugin_is_shared) {
		snprintf(why, PLUGIN_WHY_SIZE,
			"the embedded broker is reachable from the worker only: set wsredis-redis-url, or let "
			"a keeper hold the sockets (wsredis-keeper), to publish from mules and spoolers");
		return NULL;
	}
	pthread_mutex_lock(&plugin_process.lock);
	if (!plugin_process.engine) {
		wsredis_engine *started;
		wsredis_status status =
			wsredis_engine_start(plugin_config, plugin_log_sink, NULL, &started);
		if (status == WSREDIS_STATUS_OK)
			plugin_process.engine = started;
		else
			plugin_last_error(status, why);
	}
	wsredis_engine *engine = plugin_process.engine;
	pthread_mutex_unlock(&plugin_process.lock);
	return engine;
}

/* Runs in workers. Each starts its engine at once, so that an error is seen at start and not by
 * the first visitor; the library itself makes threads and connections only at the first adopt or
 * publish. */
static void plugin_post_fork(void)
{
	plugin_process.pid = getpid();
	if (uwsgi.mywid == 0) /* a version that runs it in mules and spoolers as well */
		return;
	plugin_take_sockets();
	char why[PLUGIN_WHY_SIZE];
	if (!plugin_engine(why))
		plugin_log("the engine of worker %d has not started: %s", uwsgi.mywid, why);
}

/* A worker's SIGHUP may call exit() inside the signal handler: nothing here takes a lock,
 * allocates or logs. */
static void plugin_atexit(void)
{
	wsredis_engine *engine = plugin_engine_if_started();
	if (engine && wsredis_engine_stop(engine, PLUGIN_STOP_TIMEOUT_MS) != WSREDIS_STATUS_OK)
		return; /* the process ends anyway, and the kernel closes what is left */
}

__attribute__((visibility("default"))) struct uwsgi_plugin wsredis_plugin = {
	.name = "wsredis",
	.options = plugin_options,
	.on_load = plugin_on_load,
	.init = plugin_init,
	.preinit_apps = plugin_preinit_apps,
	.post_fork = plugin_post_fork,
	.rpc = plugin_rpc,
	.atexit = plugin_atexit,
	.master_cycle = plugin_hold_keeper,
	.master_cleanup = plugin_before_reload,
};
