/* What the files of the plugin share. Nothing here is exported: the objects are compiled with
 * hidden visibility and only the struct `wsredis_plugin` leaves the shared object.
 *
 *   wsredis_plugin.c   life: options, start, processes, stop      (read its foot first)
 *   keeper.c           the process that holds the sockets: started, watched, ended
 *   built_for.c        does this plugin fit this uWSGI binary?
 *   takeover.c         a response with a grant: the socket changes hands
 *   socket.c           uWSGI's sockets, wrapped, and what stands in their place then
 *   route.c            `route = ... wsredis:subscribe=...`: a grant without an app
 *   rpc.c              wsredis-publish and wsredis-stats for every language uWSGI hosts
 */
#ifndef WSREDIS_UWSGI_PLUGIN_H
#define WSREDIS_UWSGI_PLUGIN_H

#include <uwsgi.h>
#include "../include/wsredis.h"

/* uWSGI's one global. Its layout is the running binary's; built_for.c makes sure that it is ours
 * too. */
extern struct uwsgi_server uwsgi;

/* Every line of ours in uWSGI's log begins the same way. */
#define plugin_log(format, ...) uwsgi_log("wsredis: " format "\n", ##__VA_ARGS__)

/* atexit may run inside a worker's signal handler, and the master waits no longer than
 * worker-reload-mercy (60 s). The key stop-timeout is shorter and decides. */
#define PLUGIN_STOP_TIMEOUT_MS 50000

/* Long enough for a reason with a cure, short enough for the stack. */
#define PLUGIN_WHY_SIZE 512

/* ---- wsredis_plugin.c ---- */

/* The one configuration of this process tree. It is complete before any fork and never changes
 * after it. */
extern wsredis_config *plugin_config;

/* The text of one of its keys, to be freed. */
char *plugin_key_text(const char *key);

/* Ends the process with the library's reason why this option cannot be. */
void plugin_option_failed(const char *option, wsredis_status status) __attribute__((noreturn));

/* The library's lines go to uWSGI's log. */
void plugin_log_sink(void *userdata, uint8_t level, const char *line, size_t len);

/* The engine of this process, started by the first call. NULL: there is none here, and `why`
 * says the reason. Threads: any. */
wsredis_engine *plugin_engine(char why[PLUGIN_WHY_SIZE]);

/* The engine of this process if one was started, else NULL. Starts nothing. */
wsredis_engine *plugin_engine_if_started(void);

/* The library's last error of this thread, or the status by name where it left no text. */
void plugin_last_error(wsredis_status status, char why[PLUGIN_WHY_SIZE]);

/* ---- keeper.c ---- */

/* Whether this uWSGI has a keeper of its own. */
extern int plugin_has_keeper;

/* In a process that was started to be a keeper: is it, and ends the process. */
void plugin_be_the_keeper(void);

/* Once the options are known: decides on plugin_has_keeper and returns, for the log and to be
 * freed, where the sockets will live. */
char *plugin_choose_keeper(void);

/* Makes sure that the keeper runs. In the master, before any fork; may replace plugin_config. */
void plugin_start_keeper(void);

/* In the master's loop, at least once a second: never waits. */
void plugin_hold_keeper(void);

/* The master is about to execute itself. */
void plugin_before_reload(void);

/* ---- built_for.c ---- */

/* Ends the process with the cure when this plugin was built for another uWSGI. */
void plugin_check_binary(void);

uint64_t plugin_hash(uint64_t hash, const void *bytes, size_t len);
#define PLUGIN_HASH_START 14695981039346656037ull

/* ---- socket.c ---- */

/* One of uWSGI's sockets, and what a request's `socket` is pointed at once its own answer must
 * not be written. */
struct plugin_socket {
	struct uwsgi_socket *socket;
	int (*fix_headers)(struct wsgi_request *); /* uWSGI's own */
	struct uwsgi_socket taken;				   /* writes nothing, closes nothing */
	struct uwsgi_socket refused;			   /* writes the header block, and no body */
};

/* Puts `fix_headers` in the place of every uWSGI socket's own in this process. Once, before the
 * first request. */
void plugin_wrap_sockets(int (*fix_headers)(struct wsgi_request *));

/* What was made of a request's socket, also if it is one of the two copies. */
struct plugin_socket *plugin_socket_of(const struct uwsgi_socket *socket);

/* ---- takeover.c ---- */

/* From now on grants are honoured in this process. */
void plugin_take_sockets(void);

/* Answers `req` with this grant (JSON) as a view would have done with its header, or, with
 * `echo`, with a socket that returns every message. */
void plugin_answer_with_grant(
	struct wsgi_request *req, const char *grant, size_t grant_len, int echo);

/* Answers `req` with the refusal of that number; `why` goes to the log only. */
void plugin_answer_with_refusal(struct wsgi_request *req, uint16_t http, const char *why);

/* ---- route.c ---- */

/* Registers the route actions. Before the configuration is read. */
void plugin_register_routes(void);

/* Judges every registered action as far as it can be known without a request; ends the process
 * on a bad one. */
void plugin_check_routes(void);

/* ---- rpc.c ---- */

void plugin_register_rpc(void);

/* uWSGI's .rpc hook: calls `function`, which plugin_register_rpc registered. */
uint64_t plugin_rpc(void *function, uint8_t argc, char **argv, uint16_t argvs[], char **output);

#endif
