/* The keeper as uWSGI sees it: who starts it, who watches it, when it ends.
 *
 * With a master, and unless the key `keeper` says otherwise, the sockets live in a process of their
 * own, so that nothing that happens to workers touches one. The master makes a private folder for
 * the keeper's path and starts it before any fork; a gateway of uWSGI's watches it, prints its log
 * and starts another if it dies. uWSGI kills gateways when a reload begins, and then the master's
 * own lease counts; it takes one of each keeper. The keeper is this same binary, executed anew with
 * only this plugin: nothing of the app is in it. Who listens, who leases and how a successor takes
 * over is the library's.
 */
#include "plugin.h"

#include <dlfcn.h>
#include <sys/prctl.h>
#include <sys/stat.h>

/* Longer than any hand-over takes; the workers wait for it to be over. */
#define PLUGIN_KEEPER_START_MS 10000

/* The variable FOLDER:PID: how a master finds its own folder again after the exec of a reload. */
#define PLUGIN_KEEPER_FOLDER "WSREDIS_KEEPER_FOLDER"

int plugin_has_keeper;

/* Where the keeper of this master listens. */
static char *plugin_folder;

static void plugin_keeper_failed(wsredis_status status)
{
	char why[PLUGIN_WHY_SIZE];
	plugin_last_error(status, why);
	plugin_log("%s", why);
}

/* ---- the keeper's own process ---- */

void plugin_be_the_keeper(void)
{
	const char *ini = getenv("WSREDIS_KEEPER");
	if (!ini)
		return;
	prctl(PR_SET_NAME, "wsredis keeper");
	wsredis_config *config;
	wsredis_status status = wsredis_config_new(&config);
	if (status == WSREDIS_STATUS_OK)
		status = wsredis_config_load(config, ini, strlen(ini));
	if (status == WSREDIS_STATUS_OK)
		status = wsredis_keeper_run(
			config, getenv("WSREDIS_KEEPER_LEASED") != NULL, plugin_log_sink, NULL);
	if (status != WSREDIS_STATUS_OK)
		plugin_keeper_failed(status);
	/* The folder of plugin_keeper_command, whose master may be long gone. With a successor's socket
	 * in it, it stays. */
	if (uwsgi.argc == 3)
		rmdir(uwsgi.argv[2]);
	_exit(status == WSREDIS_STATUS_OK ? 0 : 1);
}

/* ---- where the sockets live ---- */

char *plugin_choose_keeper(void)
{
	char *keeper = plugin_key_text("keeper"), *redis_url = plugin_key_text("redis-url"), *place;
	int is_auto = !strcmp(keeper, "auto");
	plugin_has_keeper = is_auto && uwsgi.master_process;
	if (*keeper == '/')
		place = uwsgi_concat2("sockets in the keeper at ", keeper);
	else
		place = uwsgi_concat2(
			strcmp(redis_url, "none") ? "connected through Redis" : "embedded broker",
			plugin_has_keeper ? ", sockets in a keeper"
				: is_auto     ? ", sockets in the worker (a keeper needs: master = true)"
							  : ", sockets in the workers");
	free(keeper);
	free(redis_url);
	return place;
}

/* The settings again with a path for `keeper`: each key can be set only once. */
static void plugin_set_keeper(const char *path)
{
	wsredis_config *config;
	wsredis_status status = wsredis_config_new(&config);
	const char *key = "keeper", *help;
	for (size_t index = 0; status == WSREDIS_STATUS_OK; index++) {
		if (wsredis_config_key(index, &key, &help) != WSREDIS_STATUS_OK) {
			wsredis_config_free(plugin_config);
			plugin_config = config;
			return;
		}
		char *text = strcmp(key, "keeper") ? plugin_key_text(key) : uwsgi_str((char *) path);
		if (*text)
			status = wsredis_config_set(config, key, strlen(key), text, strlen(text));
		free(text);
	}
	plugin_option_failed(key, status);
}

/* ---- the folder ---- */

/* Whom the workers will be, where this process is still root. 0: as this process. */
static void plugin_workers_ids(uid_t *uid, gid_t *gid)
{
	*uid = 0;
	*gid = 0;
	if (geteuid())
		return;
	/* uWSGI looks the names up no sooner than it drops its rights. */
	struct passwd *user = uwsgi.uidname ? getpwnam(uwsgi.uidname) : NULL;
	struct group *group = uwsgi.gidname ? getgrnam(uwsgi.gidname) : NULL;
	*uid = user ? user->pw_uid : uwsgi.uid;
	*gid = group ? group->gr_gid : uwsgi.gid;
}

/* Lets the life after a reload find the folder. The pid is today's: daemonize2 changes it. */
static void plugin_remember_folder(void)
{
	char *value = uwsgi_concat3(plugin_folder, ":", uwsgi_num2str(getpid()));
	if (setenv(PLUGIN_KEEPER_FOLDER, value, 1))
		uwsgi_error("setenv()");
	free(value);
}

/* Believes the environment only if it is of this very process, and the folder only if it is
 * private: another one in its place would get our sockets. */
static int plugin_find_folder(uid_t owner)
{
	const char *value = getenv(PLUGIN_KEEPER_FOLDER);
	const char *colon = value ? strrchr(value, ':') : NULL;
	if (!colon || atoi(colon + 1) != getpid())
		return 0;
	char *folder = uwsgi_concat2n((char *) value, colon - value, "", 0);
	struct stat found;
	if (!lstat(folder, &found) && S_ISDIR(found.st_mode) && found.st_uid == owner &&
		(found.st_mode & 07777) == 0700) {
		plugin_folder = folder;
		return 1;
	}
	free(folder);
	return 0;
}

static void plugin_make_folder(uid_t uid, gid_t gid)
{
	const char *parent = getenv("TMPDIR");
	plugin_folder =
		uwsgi_concat2((char *) (parent && *parent == '/' ? parent : "/tmp"), "/wsredis-XXXXXX");
	if (!mkdtemp(plugin_folder) || ((uid || gid) && chown(plugin_folder, uid, gid))) {
		plugin_log("no folder %s for the keeper's socket: %s; TMPDIR names another parent",
			plugin_folder, strerror(errno));
		exit(1);
	}
}

/* ---- the master's part ---- */

/* uWSGI sees one option, the plugin. What the keeper must know is in its ini file; the folder is
 * there to be removed in the end, and seen by ps. */
static void plugin_keeper_command(wsredis_keeper_command *command)
{
	static char *argv[4];
	if (!argv[0]) {
		Dl_info plugin;
		if (!dladdr(&plugin_has_keeper, &plugin)) {
			plugin_log("the plugin does not find its own file");
			exit(1);
		}
		/* Not resolved further: uWSGI wants the name to end in _plugin.so. */
		int is_absolute = plugin.dli_fname[0] == '/';
		argv[1] = uwsgi_concat4("--need-plugin=", is_absolute ? "" : uwsgi.cwd,
			is_absolute ? "" : "/", (char *) plugin.dli_fname);
		argv[0] = uwsgi.binary_path;
	}
	argv[2] = plugin_folder;
	uid_t uid;
	gid_t gid;
	plugin_workers_ids(&uid, &gid);
	*command = (wsredis_keeper_command){
		.struct_size = sizeof(*command),
		.argv = (const char *const *) argv,
		.uid = uid,
		.gid = gid,
	};
}

/* The loop of uWSGI's gateway. */
static void plugin_watch_keeper(int id, void *data)
{
	(void) id;
	(void) data;
	wsredis_keeper_command command;
	plugin_keeper_command(&command);
	plugin_keeper_failed(wsredis_keeper_watch(plugin_config, &command, plugin_log_sink, NULL));
	for (;;) /* the master starts a gateway that ends at once, again and again */
		pause();
}

/* libc's, because uWSGI runs a plugin's .atexit in workers only. An exec does not run it, so that
 * it means a stop. */
static void plugin_end_keeper(void)
{
	if (uwsgi.workers[0].pid != getpid())
		return; /* a child of the master has inherited this */
	wsredis_status status = wsredis_keeper_stop(plugin_config, PLUGIN_STOP_TIMEOUT_MS);
	/* The library's text is of a thread that has begun to end: it is gone. */
	if (status != WSREDIS_STATUS_OK)
		plugin_log("the keeper has not ended in order: %s", wsredis_status_name(status));
	/* What it leaves if it was killed. */
	char *path = uwsgi_concat2(plugin_folder, "/keeper");
	unlink(path);
	unlink(uwsgi_concat2(path, ".lock"));
	rmdir(plugin_folder);
}

void plugin_start_keeper(void)
{
	if (!plugin_has_keeper) {
		unsetenv(PLUGIN_KEEPER_FOLDER); /* `auto` before a reload: that keeper misses its lease */
		return;
	}
	uid_t uid;
	gid_t gid;
	plugin_workers_ids(&uid, &gid);
	int is_known = plugin_find_folder(uid ? uid : geteuid());
	if (!is_known)
		plugin_make_folder(uid, gid);
	char *path = uwsgi_concat2(plugin_folder, "/keeper");
	plugin_set_keeper(path);
	free(path);
	plugin_remember_folder();
	if (atexit(plugin_end_keeper) ||
		!register_gateway("wsredis keeper", plugin_watch_keeper, NULL)) {
		plugin_log("no room for the keeper's gateway");
		exit(1);
	}
	wsredis_keeper_command command;
	plugin_keeper_command(&command);
	wsredis_status status = wsredis_keeper_start(
		plugin_config, &command, PLUGIN_KEEPER_START_MS, plugin_log_sink, NULL);
	if (status == WSREDIS_STATUS_OK)
		return;
	plugin_keeper_failed(status);
	if (!is_known) {
		plugin_log("without a keeper: wsredis-keeper = off, and the sockets live in the workers");
		exit(1);
	}
	/* A reload must not end the site: the gateway goes on trying. */
}

/* Also while a reload waits for busy workers: there is no other lease then. */
void plugin_hold_keeper(void)
{
	if (!plugin_has_keeper || uwsgi_instance_is_dying)
		return;
	if (wsredis_keeper_hold(plugin_config) != WSREDIS_STATUS_OK)
		return; /* the gateway is about to start another, and says why it can not */
}

void plugin_before_reload(void)
{
	if (plugin_folder)
		plugin_remember_folder();
}
