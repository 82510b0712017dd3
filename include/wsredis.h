/*
 * wsredis: holds the websockets of a host and fans Redis pub/sub out to them.
 *
 * Generated from src/ffi by `make header`; a test compares the two. Change it there.
 *
 * The rules that every function keeps:
 *
 * Handles    wsredis_config and wsredis_engine are opaque: made and freed here. Freeing NULL is
 *            fine, freeing twice is not.
 * Results    Whatever can fail returns a wsredis_status. Values come through parameters that begin
 *            with `out_`, stand last, and are written only on WSREDIS_STATUS_OK. The comments name
 *            statuses without WSREDIS_STATUS_. Every function can return INVALID for a bad argument
 *            and PANIC for a bug of the library, which ends at this boundary.
 * Errors     wsredis_last_error copies out the text of this thread's last failure. What goes wrong
 *            with no caller to tell (Redis lost, a slow browser) is logged and counted.
 * Texts      A pointer and a length, UTF-8. NULL is an empty text if its length is 0. Everything is
 *            copied before a function returns; nothing of the caller's is kept, but for the
 *            descriptor that wsredis_engine_adopt takes.
 * Structs    that begin with struct_size may grow at their end. Zero them and set struct_size to
 *            sizeof: a field that is missing is 0, which is its default. A field that the library
 *            does not know must be 0, or the answer is UNSUPPORTED.
 * Enums      are passed in as integers and checked.
 * Versions   Compare wsredis_abi_version() with WSREDIS_ABI_VERSION; the soname has that number.
 * Callbacks  One, the log sink. What else happens is an event, behind a descriptor to be polled.
 * Threads    Each function's comment says which threads may call it.
 * Fork       An engine belongs to the process that started it; in another one its functions return
 *            WRONG_PROCESS.
 *
 * Nothing here writes to standard output, reads the environment, or changes signal handlers.
 */


#ifndef WSREDIS_H
#define WSREDIS_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header; wsredis_version() is that of the library. */
#define WSREDIS_VERSION "0.1.0"

/* A status that nobody looks at is a compiler's warning, where the compiler knows how. */
#if defined(__GNUC__) || defined(__clang__)
#define WSREDIS_MUST_USE __attribute__((warn_unused_result))
#else
#define WSREDIS_MUST_USE
#endif

/**
 * The number of this ABI. It changes only when something that was there is gone or different; what
 * is new does not change it.
 */
#define WSREDIS_ABI_VERSION 0

/** Room for an answer of `wsredis_handshake_answer` without the extra headers. */
#define WSREDIS_ANSWER_SIZE 1024

/** What a function says of its work. Numbers are never reused. */
typedef enum {
    /** Done. */
    WSREDIS_STATUS_OK = 0,
    /** An argument is wrong: NULL, out of range, not UTF-8, a struct of the wrong size. */
    WSREDIS_STATUS_INVALID = 1,
    /** The configuration is wrong. */
    WSREDIS_STATUS_CONFIG = 2,
    /** The grant is wrong. */
    WSREDIS_STATUS_GRANT = 3,
    /** The descriptor is not a connected stream socket. */
    WSREDIS_STATUS_FD = 4,
    /** The process has no descriptor left. */
    WSREDIS_STATUS_NO_FILE = 5,
    /** A limit that the configuration names, or the size of a buffer, is exceeded. */
    WSREDIS_STATUS_LIMIT = 6,
    /** A bounded queue is full just now; trying later can help. */
    WSREDIS_STATUS_BUSY = 7,
    /** The engine was stopped, or has ended after an internal error. */
    WSREDIS_STATUS_STOPPED = 8,
    /** The engine belongs to another process: it was started before a fork. */
    WSREDIS_STATUS_WRONG_PROCESS = 9,
    /** The caller is newer than this library and asks for what it does not know. */
    WSREDIS_STATUS_UNSUPPORTED = 10,
    /** There is nothing of that name, or nothing waiting. */
    WSREDIS_STATUS_NOT_FOUND = 11,
    /** The engine runs but does not hear every channel it should. */
    WSREDIS_STATUS_UNHEALTHY = 12,
    /** The operating system refused. */
    WSREDIS_STATUS_IO = 13,
    /** A bug of this library was caught at the boundary; the call did nothing or half of its work. */
    WSREDIS_STATUS_PANIC = 14,
} wsredis_status;

/** Whose sockets `wsredis_engine_kick` closes. */
typedef enum {
    /** The socket with this id. */
    WSREDIS_WHO_SOCKET = 0,
    /** All sockets whose grant has this `user`. */
    WSREDIS_WHO_USER = 1,
    /** All sockets whose grant has this `session`. */
    WSREDIS_WHO_SESSION = 2,
    /** All sockets that hear this channel. */
    WSREDIS_WHO_CHANNEL = 3,
} wsredis_who;

/** What happened to a socket. */
typedef enum {
    /** A socket was adopted. */
    WSREDIS_EVENT_OPENED = 1,
    /** A socket ended; `code` is the close code, 1006 if there was no close frame. */
    WSREDIS_EVENT_CLOSED = 2,
    /**
     * Nobody read for too long: `code` events were dropped. 0: there is another keeper, and the
     * events of the time between are missing.
     */
    WSREDIS_EVENT_OVERFLOW = 3,
} wsredis_event_kind;

/**
 * The settings of an engine. Made by `wsredis_config_new`, filled by `wsredis_config_set` and
 * `wsredis_config_load`, freed by `wsredis_config_free`. It may be filled before a fork.
 */
typedef struct wsredis_config wsredis_config;

/**
 * What holds the sockets. Made by `wsredis_engine_start`, freed by `wsredis_engine_free`. It
 * belongs to the process that started it: after a fork, in the child, its functions return
 * `WRONG_PROCESS`.
 */
typedef struct wsredis_engine wsredis_engine;

/**
 * Where log lines go: `level` is 1 error, 2 warning, 3 information, 4 debug; `line` has `line_len`
 * bytes of UTF-8, no line end and no NUL. Called with no lock held, also on the engine's own
 * threads; it must not block, not call wsredis, and not unwind (no exception, no longjmp).
 */
typedef void (*wsredis_log_sink)(void *userdata, uint8_t level, const char *line, size_t line_len);

/** A socket that the host hands over. */
typedef struct {
    /** `sizeof(wsredis_adoption)`. */
    size_t struct_size;
    /** The connection: a TCP or AF_UNIX stream socket whose request was read and not answered. */
    int32_t fd;
    /** 1: return every message as it came; the grant must be `{}`. */
    uint8_t mirror;
    /** The grant, JSON. */
    const char *grant;
    /** Its length. */
    size_t grant_len;
    /**
     * The 101 of `wsredis_handshake_answer`. The engine reads from it what was agreed with the
     * browser.
     */
    const char *answer;
    /** Its length. */
    size_t answer_len;
    /** What the host has read behind the request; may be NULL. */
    const uint8_t *leftover;
    /** Its length. */
    size_t leftover_len;
    /** The browser's address as text, for limits; may be empty. */
    const char *remote_address;
    /** Its length. */
    size_t remote_address_len;
    /** The request's Host, for logs; may be empty. */
    const char *host;
    /** Its length. */
    size_t host_len;
    /** A digest of the request's path, for statistics by route; 0 if none. */
    uint64_t path_digest;
} wsredis_adoption;

/** An event. The host sets `struct_size` before the call. */
typedef struct {
    /** `sizeof(wsredis_event)`. */
    size_t struct_size;
    /** A `wsredis_event_kind`. */
    uint32_t kind;
    /** By kind. */
    uint32_t code;
    /** The socket's id, NUL-terminated. */
    char socket_id[64];
} wsredis_event;

/** One header line of a request. */
typedef struct {
    /** Its name, in any case. */
    const char *name;
    /** Its length. */
    size_t name_len;
    /** Its value, without the white space around it. */
    const char *value;
    /** Its length. */
    size_t value_len;
} wsredis_header;

/** A parsed HTTP request. The texts are borrowed for the call. */
typedef struct {
    /** `sizeof(wsredis_request)`. */
    size_t struct_size;
    /** `GET`. */
    const char *method;
    /** Its length. */
    size_t method_len;
    /** `HTTP/1.1`. */
    const char *protocol;
    /** Its length. */
    size_t protocol_len;
    /** Every header line of the request, each as an entry of its own also where a name is repeated. */
    const wsredis_header *headers;
    /** How many there are. */
    size_t headers_len;
    /** The peer's address as text, for `trusted-proxies`; empty for AF_UNIX. */
    const char *remote_address;
    /** Its length. */
    size_t remote_address_len;
    /** How the browser came here, as far as the host knows: 0 unknown, 1 http, 2 https. */
    uint8_t https;
} wsredis_request;

/**
 * How a keeper is started: a program that calls `wsredis_keeper_run` with the settings of the ini
 * file that its environment variable `WSREDIS_KEEPER` names, and with `leased` 1 if
 * `WSREDIS_KEEPER_LEASED` is set.
 */
typedef struct {
    /** `sizeof(wsredis_keeper_command)`. */
    size_t struct_size;
    /** The program, an absolute path, and its arguments; ends with NULL. */
    const char *const *argv;
    /** The user that it runs as; 0: the caller's. */
    uint32_t uid;
    /** The group that it runs as; looked at only with `uid`. */
    uint32_t gid;
} wsredis_keeper_command;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The number of the ABI of the library that is loaded: to be compared with `WSREDIS_ABI_VERSION`.
 *
 * *Returns:* the number.
 *
 * *Threads:* any.
 */
uint32_t wsredis_abi_version(void);

/**
 * The version of the library that is loaded, like `0.1.0`.
 *
 * *Returns:* static text.
 *
 * *Threads:* any.
 */
const char *wsredis_version(void);

/**
 * The name of a status, like `WSREDIS_STATUS_BUSY`. Takes any number.
 *
 * *Returns:* static text.
 *
 * *Threads:* any.
 */
const char *wsredis_status_name(uint32_t status);

/**
 * Copies the text of this thread's last error to `buf`, always with a NUL behind it if `buf_len`
 * is not 0. A function that succeeds leaves the text as it is. It never holds a payload or a
 * password.
 *
 * *Returns:* the length of the whole text, also if `buf` had less room.
 *
 * *Ownership:* `buf` stays the caller's.
 *
 * *Threads:* any; each has its own text.
 *
 * *Requires:* `buf` is NULL or has `buf_len` bytes.
 */
size_t wsredis_last_error(char *buf, size_t buf_len);

/**
 * Makes settings with every key at its default.
 *
 * *Returns:* `INVALID` if `out_config` is NULL.
 *
 * *Ownership:* `*out_config` is the caller's, to be freed by `wsredis_config_free`.
 *
 * *Threads:* any.
 *
 * *Requires:* `out_config` is NULL or has room for a pointer.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_config_new(wsredis_config **out_config);

/**
 * Sets one key, like `max-message-size` to `64k`. Each key can be set once.
 *
 * *Returns:* `CONFIG` for an unknown key, a wrong value, or a key that was set before.
 *
 * *Ownership:* key and value are copied.
 *
 * *Threads:* one at a time for each config.
 *
 * *Requires:* `config` is live; the texts are as long as they say.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_config_set(wsredis_config *config,
                                  const char *key,
                                  size_t key_len,
                                  const char *value,
                                  size_t value_len);

/**
 * Reads the `[wsredis]` section of an ini file. On an error nothing has changed.
 *
 * *Returns:* `CONFIG`; the text of the error is `file:line: why`.
 *
 * *Ownership:* the path is copied.
 *
 * *Threads:* one at a time for each config.
 *
 * *Requires:* `config` is live; the path is as long as it says.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_config_load(wsredis_config *config, const char *path, size_t path_len);

/**
 * Writes the text of a key to `buf`, NUL-terminated: what it was set to, else its default. It may
 * hold a password.
 *
 * *Returns:* `NOT_FOUND` for an unknown key; `LIMIT` if `buf_len` is too small.
 *
 * *Ownership:* nothing is kept.
 *
 * *Threads:* any.
 *
 * *Requires:* `config` is live; the key is as long as it says; `buf` has `buf_len` bytes; `out_len` has room.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_config_get(const wsredis_config *config,
                                  const char *key,
                                  size_t key_len,
                                  char *buf,
                                  size_t buf_len,
                                  size_t *out_len);

/**
 * Do these settings hold together for a host that will run the engine in so many processes? A host
 * should ask before it forks, where an error can still stop it.
 *
 * *Returns:* `CONFIG` if not; the text of the error names the cure.
 *
 * *Ownership:* nothing changes hands.
 *
 * *Threads:* any.
 *
 * *Requires:* `config` is live.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_config_check(const wsredis_config *config, uint32_t processes);

/**
 * The table of keys, to be walked from index 0: a host makes one option of its own from each.
 *
 * *Returns:* `NOT_FOUND` behind the last key.
 *
 * *Ownership:* the texts are static.
 *
 * *Threads:* any.
 *
 * *Requires:* `out_name` and `out_help` have room for a pointer.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_config_key(size_t index, const char **out_name, const char **out_help);

/**
 * Frees settings. NULL is allowed. Engines that were started from them have a copy.
 *
 * *Ownership:* `config` is gone.
 *
 * *Threads:* one at a time for each config.
 *
 * *Requires:* `config` is NULL or was made by `wsredis_config_new` and not freed.
 */
void wsredis_config_free(wsredis_config *config);

/**
 * Is this JSON a grant that `wsredis_engine_adopt` will take?
 *
 * *Returns:* `GRANT` if not; the text of the error names the field.
 *
 * *Ownership:* nothing changes hands.
 *
 * *Threads:* any.
 *
 * *Requires:* `config` is live; the grant is as long as it says.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_grant_check(const wsredis_config *config,
                                   const char *grant,
                                   size_t grant_len);

/**
 * Starts an engine with a copy of `config`. Its threads, descriptors and connections come with the
 * first adopt or publish, so this never waits for Redis. If `config` has `keeper` as a path, the
 * engine is the keeper's there: the functions and the ownership are the same, and none of them
 * waits for the keeper, but `send`, `kick`, `stats` and `health` for its answer, at most a second.
 * `sink` may be NULL: then nothing is logged.
 *
 * *Returns:* `CONFIG` if the settings do not hold together.
 *
 * *Ownership:* `*out_engine` is the caller's, to be freed by `wsredis_engine_free`. `config` stays
 * the caller's. `sink` and `userdata` must live until the engine is freed.
 *
 * *Threads:* any.
 *
 * *Requires:* `config` is live; `out_engine` has room; `sink` may be called from any thread.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_start(const wsredis_config *config,
                                    wsredis_log_sink sink,
                                    void *userdata,
                                    wsredis_engine **out_engine);

/**
 * Hands a socket over. The engine writes the answer once the socket's channels are heard, or
 * writes a 503 itself if the socket does not fit. Never blocks on the network.
 *
 * *Returns:* `FD` if `fd` is no stream socket, or a listening one; `GRANT`; `INVALID` for an
 * answer that is no 101; `BUSY` if the loop's inbox or the keeper's queue is full; `STOPPED`, also
 * if no keeper is there; `UNSUPPORTED` if it is of another version; `WRONG_PROCESS`; `NO_FILE` or
 * `IO` if the engine could not begin or the keeper not be reached. After `OK` a keeper may still
 * refuse the socket by the limits of its own settings: it answers 503, and logs and counts it
 * there.
 *
 * *Ownership:* on `OK` the descriptor is the engine's: the host must not use or close it. On an
 * error it is still the host's, nothing was written, and the host should answer 503. Everything
 * else is copied.
 *
 * *Threads:* any.
 *
 * *Requires:* `engine` is live; the texts are as long as they say; nobody else uses `fd`.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_adopt(wsredis_engine *engine, const wsredis_adoption *adoption);

/**
 * Publishes a message to everyone who hears `channel`: in this engine, and with Redis everywhere.
 *
 * *Returns:* `OK` when it is queued; messages of one channel keep their order. `INVALID` for a bad
 * channel name; `LIMIT` for a payload that is too large; `BUSY` if a queue is full, also the
 * keeper's; `STOPPED`, also if no keeper is there; `UNSUPPORTED` if it is of another version;
 * `WRONG_PROCESS`; `NO_FILE`; `IO`. After `OK` a keeper may still drop the message by the limits
 * of its own settings, and logs and counts it there.
 *
 * *Ownership:* channel and payload are copied.
 *
 * *Threads:* any.
 *
 * *Requires:* `engine` is live; channel and payload are as long as they say.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_publish(wsredis_engine *engine,
                                      const char *channel,
                                      size_t channel_len,
                                      const uint8_t *payload,
                                      size_t payload_len);

/**
 * Sends a message to one socket, past all channels: a text frame if it is UTF-8, else a binary
 * one.
 *
 * *Returns:* `OK` when it is queued, also if the socket is gone meanwhile; `NOT_FOUND` for an id
 * that is not of this engine; `BUSY`; `STOPPED`; `WRONG_PROCESS`.
 *
 * *Ownership:* id and payload are copied.
 *
 * *Threads:* any.
 *
 * *Requires:* `engine` is live; id and payload are as long as they say.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_send(wsredis_engine *engine,
                                   const char *socket_id,
                                   size_t socket_id_len,
                                   const uint8_t *payload,
                                   size_t payload_len);

/**
 * Closes sockets of this engine with 4403.
 *
 * *Returns:* `OK` when it is queued, also if there are none; `INVALID` for a `who` that is no
 * `wsredis_who`; `NOT_FOUND` for a socket id that is not of this engine; `BUSY`; `STOPPED`;
 * `WRONG_PROCESS`.
 *
 * *Ownership:* the value is copied.
 *
 * *Threads:* any.
 *
 * *Requires:* `engine` is live; the value is as long as it says.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_kick(wsredis_engine *engine,
                                   uint32_t who,
                                   const char *value,
                                   size_t value_len);

/**
 * Writes the engine's counters to `buf`: one JSON object, NUL-terminated. Before the first adopt
 * or publish all are 0.
 *
 * *Returns:* `LIMIT` if `buf_len` is too small; 4096 bytes are enough. Of a keeper also `BUSY` if
 * it does not answer; `STOPPED` if it is gone; `UNSUPPORTED`; `WRONG_PROCESS`; `NO_FILE`; `IO`.
 *
 * *Ownership:* nothing is kept.
 *
 * *Threads:* any.
 *
 * *Requires:* `engine` is live; `buf` has `buf_len` bytes; `out_len` has room.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_stats(const wsredis_engine *engine,
                                    char *buf,
                                    size_t buf_len,
                                    size_t *out_len);

/**
 * Does the engine hear every channel it should?
 *
 * *Returns:* `OK`, or `UNHEALTHY` with the reason as the last error's text; `STOPPED`;
 * `WRONG_PROCESS`; of a keeper also `BUSY` if it does not answer; `UNSUPPORTED`; `NO_FILE`; `IO`.
 *
 * *Ownership:* nothing changes hands.
 *
 * *Threads:* any.
 *
 * *Requires:* `engine` is live.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_health(const wsredis_engine *engine);

/**
 * Closes all sockets with 1012 and waits until the engine has ended, at most `timeout_ms` and no
 * longer than the key `stop-timeout`. An engine in a keeper is only let go of: it and its sockets
 * stay. Later calls return `STOPPED`. Async-signal-safe: it may be called from a signal handler or
 * an exit handler.
 *
 * *Returns:* `BUSY` if the time was not enough; the engine ends all the same. `WRONG_PROCESS`.
 * There is no text for its errors.
 *
 * *Ownership:* `engine` stays the caller's, to be freed.
 *
 * *Threads:* any.
 *
 * *Requires:* `engine` is live.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_stop(wsredis_engine *engine, uint32_t timeout_ms);

/**
 * Frees an engine; what still runs is stopped at once. NULL is allowed. In another process than
 * the one that started it, the memory is left as it is on purpose: it is not that process's.
 *
 * *Ownership:* `engine` is gone.
 *
 * *Threads:* one at a time; no other function of this engine may run or follow. Not from a log
 * sink.
 *
 * *Requires:* `engine` is NULL or was made by `wsredis_engine_start` and not freed.
 */
void wsredis_engine_free(wsredis_engine *engine);

/**
 * A descriptor that is readable while events wait. Events are kept from the first call on, up to
 * 65,536. While its keeper is gone there are no events; the descriptor stays, and is readable
 * about once a second: then `wsredis_engine_next_event` looks for another keeper.
 *
 * *Returns:* `STOPPED`; `WRONG_PROCESS`; `NO_FILE`; `IO`.
 *
 * *Ownership:* the descriptor stays the engine's: poll it, do not read or close it.
 *
 * *Threads:* any.
 *
 * *Requires:* `engine` is live; `out_fd` has room.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_events_fd(wsredis_engine *engine, int32_t *out_fd);

/**
 * Takes the next event.
 *
 * *Returns:* `NOT_FOUND` if none waits, also while there is no keeper; `INVALID` for a wrong
 * `struct_size`; `WRONG_PROCESS`; with a keeper also `STOPPED` once the engine was; `UNSUPPORTED`
 * if it is of another version; `NO_FILE` or `IO` if it can not be reached.
 *
 * *Ownership:* the event is copied out.
 *
 * *Threads:* any; each event is given out once.
 *
 * *Requires:* `engine` is live; `out_event` has room.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_engine_next_event(wsredis_engine *engine, wsredis_event *out_event);

/**
 * Judges an upgrade and its Origin, chooses subprotocol and compression, and writes the whole HTTP answer to
 * `buf`: a 101, or the refusal with its body. The host writes a refusal itself and hands a 101 to
 * `wsredis_engine_adopt`.
 *
 * `grant` may be NULL with length 0: then the request alone is judged. `extra_headers` are raw
 * lines, each ended by CRLF, that a 101 carries (the app's Set-Cookie); a line that would change
 * the handshake is refused.
 *
 * Any size of a request is judged, at a cost that grows with it and no faster. How much of one is
 * read, and for how long, is for the host to limit: it answers 431 and 408.
 *
 * *Returns:* `OK` also for a refusal: `*out_http` says which, and unless it is 101 the last
 * error's text has the reason, for the log. `GRANT` for a bad grant; `INVALID` for bad extra
 * headers; `CONFIG` for bad `allowed-origins`; `LIMIT` if `buf_len` is less than
 * `WSREDIS_ANSWER_SIZE` + `extra_headers_len`.
 *
 * *Ownership:* nothing is kept.
 *
 * *Threads:* any.
 *
 * *Requires:* All pointers are as long as they say; `buf`, `out_len` and `out_http` have room.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_handshake_answer(const wsredis_config *config,
                                        const wsredis_request *request,
                                        const char *grant,
                                        size_t grant_len,
                                        const char *extra_headers,
                                        size_t extra_headers_len,
                                        char *buf,
                                        size_t buf_len,
                                        size_t *out_len,
                                        uint16_t *out_http);

/**
 * Writes the HTTP answer of a refusal that the host found out itself (400, 403, 408, 426, 431, 500,
 * 501 or 503), and counts it in the statistics.
 *
 * *Returns:* `INVALID` for another number; `LIMIT` if `buf_len` is too small
 * (`WSREDIS_ANSWER_SIZE` is enough).
 *
 * *Ownership:* nothing is kept.
 *
 * *Threads:* any.
 *
 * *Requires:* `config` is live; `buf` has `buf_len` bytes; `out_len` has room.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_handshake_refusal(const wsredis_config *config,
                                         uint16_t http,
                                         char *buf,
                                         size_t buf_len,
                                         size_t *out_len);

/**
 * Is a keeper until its end: it holds the sockets of every host whose settings have the same
 * `keeper` path. It takes over from a keeper that runs there. SIGTERM, SIGINT and SIGQUIT end it
 * in order: every socket is closed with 1012 within `stop-timeout`. With `leased` 1, and once a
 * host held its lease, it ends when nobody has held one for `keeper-grace`, with 1001.
 *
 * For a process of its own: signals are blocked, SIGHUP and SIGPIPE are ignored from here on.
 *
 * *Returns:* `OK` at its end; `CONFIG` for settings that do not hold together or have no path;
 * `IO` or `BUSY` if it can not have its place.
 *
 * *Ownership:* `config` stays the caller's. `sink` may be NULL: lines go to standard error. It
 * gets what could not be told to a host.
 *
 * *Threads:* the process's first, before there are others.
 *
 * *Requires:* `config` is live; `sink` may be called from any thread.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_keeper_run(const wsredis_config *config,
                                  uint8_t leased,
                                  wsredis_log_sink sink,
                                  void *userdata);

/**
 * Makes sure that the keeper of these settings runs, and holds its lease until this process ends
 * or executes another program; children that it forks hold it, too. A keeper that was built or
 * configured otherwise hands everything over to the new one.
 *
 * *Returns:* `STOPPED` if it does not run after `timeout_ms`; the text says why. `CONFIG` without
 * a path; `INVALID`; `IO`.
 *
 * *Ownership:* everything stays the caller's. One descriptor stays open, closed on exec.
 *
 * *Threads:* any; blocks for at most `timeout_ms` and a few seconds.
 *
 * *Requires:* `config` is live; `command` is as its struct says; `sink` may be called from any thread.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_keeper_start(const wsredis_config *config,
                                    const wsredis_keeper_command *command,
                                    uint32_t timeout_ms,
                                    wsredis_log_sink sink,
                                    void *userdata);

/**
 * Takes the lease of the keeper of these settings anew, if the keeper that
 * `wsredis_keeper_start` had it of is gone. To be called now and then by who called that.
 *
 * *Returns:* `OK` also if it is held already; `STOPPED` if no keeper is there; `BUSY` if it does
 * not accept anybody just now; `CONFIG` without a path.
 *
 * *Ownership:* as of `wsredis_keeper_start`.
 *
 * *Threads:* any; never blocks.
 *
 * *Requires:* `config` is live.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_keeper_hold(const wsredis_config *config);

/**
 * Holds a lease of the keeper of these settings, gives its log lines to `sink`, and starts another
 * one when it has died. For a process or thread of its own: it returns only on a wrong argument.
 *
 * *Returns:* `CONFIG` without a path; `INVALID`.
 *
 * *Ownership:* everything stays the caller's.
 *
 * *Threads:* any; blocks for ever.
 *
 * *Requires:* `config` is live; `command` is as its struct says; `sink` may be called from any thread.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_keeper_watch(const wsredis_config *config,
                                    const wsredis_keeper_command *command,
                                    wsredis_log_sink sink,
                                    void *userdata);

/**
 * Tells the keeper of these settings to close all sockets with 1012 and to end, and waits for
 * that, at most `timeout_ms` and no longer than its `stop-timeout`.
 *
 * *Returns:* `OK` also if none runs; `BUSY` if the time was not enough; `CONFIG` without a path.
 *
 * *Ownership:* nothing changes hands.
 *
 * *Threads:* any; blocks.
 *
 * *Requires:* `config` is live.
 */
WSREDIS_MUST_USE
wsredis_status wsredis_keeper_stop(const wsredis_config *config, uint32_t timeout_ms);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WSREDIS_H */
