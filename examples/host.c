/*
 * The smallest complete host of wsredis: one thread that accepts connections, reads one HTTP
 * request from each, decides by its path who may hear what, and hands the socket to the engine.
 *
 *     cc -std=c11 examples/host.c -Iinclude -Ltarget/release -lwsredis -o host
 *     ./host 8080 examples/host.ini max-sockets=5000
 *
 * Port 0 takes a free one. All pages that open ws://127.0.0.1:8080/ws/NAME hear each other. SIGUSR1
 * prints the engine's numbers, SIGINT and SIGTERM end the host. SIGPIPE stays at its default, which
 * is to end the process: neither the engine nor we ever raise it.
 *
 * A request has 16 KiB, 100 headers and 10 seconds (handshake-ms=10000). At most 1,000 are read at
 * a time, or as many as a quarter of the descriptors; one more, and the oldest has to go.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <wsredis.h>

enum { HEAD_SIZE = 16384, HEADERS = 100, REQUESTS = 1000, STOP_MS = 2000 };

/* A connection whose request is being read, or whose refusal has yet to be. */
struct request {
    struct request *before, *next;
    long until; /* Its time is up. */
    int fd, is_answered, is_watched;
    char address[INET_ADDRSTRLEN];
    size_t len;
    char head[HEAD_SIZE + 1];
};

_Static_assert(sizeof(struct request) < 20 * 1024, "what a connection may cost");

static struct request requests[REQUESTS];
static struct request unused = {.before = &unused, .next = &unused};
static struct request waiting = {.before = &waiting, .next = &waiting}; /* The oldest is first. */
static struct request *newest; /* Accepted in this turn, and not read yet. */
static wsredis_config *config;
static wsredis_engine *engine;
static int listener, signals, poller;
static long now, handshake_ms = 10000;

static void report(const char *what) {
    char why[512];
    wsredis_last_error(why, sizeof why);
    fprintf(stderr, "%s: %s\n", what, why);
}

static void log_line(void *userdata, uint8_t level, const char *line, size_t line_len) {
    (void)userdata, (void)level;
    fprintf(stderr, "%.*s\n", (int)line_len, line);
}

static void look_at_clock(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    now = time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Takes a request out of its list and puts it at the end of another one. */
static void move(struct request *request, struct request *list) {
    request->before->next = request->next, request->next->before = request->before;
    request->before = list->before, request->next = list;
    request->before->next = request, list->before = request;
}

static void drop(struct request *request) {
    close(request->fd); /* epoll forgets it, too. */
    request->fd = -1;
    move(request, &unused);
}

/* Lets epoll tell of what comes. */
static void watch(struct request *request) {
    struct epoll_event readable = {.events = EPOLLIN, .data.ptr = request};
    if (request->is_watched)
        return;
    request->is_watched = 1;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, request->fd, &readable))
        drop(request);
}

/* Sends an answer that is no 101. So few bytes always fit a new connection. To close one that has
   something unread would reset it, and the answer could be lost: what comes is read until the
   client closes, or its time is up once more. */
static void answer_with(struct request *request, const char *answer, size_t len) {
    send(request->fd, answer, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(request->fd, SHUT_WR);
    request->is_answered = 1, request->until = now + handshake_ms;
    move(request, &waiting);
}

/* Answers with one of the library's refusals: a 503, say, tells when to come back. */
static void refuse(struct request *request, uint16_t http) {
    char answer[WSREDIS_ANSWER_SIZE];
    size_t len = 0;
    if (wsredis_handshake_refusal(config, http, answer, sizeof answer, &len))
        report("refusal");
    answer_with(request, answer, len);
}

/* Cuts a head into its parts, in place. Returns the status to refuse it with, or 0. */
static uint16_t parse_head(char *head, char **path, wsredis_request *parsed,
                           wsredis_header *headers) {
    char *line = head, *end = strstr(line, "\r\n"), *protocol;
    *end = '\0';
    if (!(*path = strchr(line, ' ')) || !(protocol = strchr(*path + 1, ' ')))
        return 400;
    *(*path)++ = *protocol++ = '\0';
    parsed->method = line, parsed->method_len = strlen(line);
    parsed->protocol = protocol, parsed->protocol_len = strlen(protocol);
    for (line = end + 2; (end = strstr(line, "\r\n")) != line; line = end + 2) {
        size_t name_len = strcspn(line, ": \t\r\n"); /* No space is allowed before the colon. */
        char *value = line + name_len + 1, *value_end = end;
        if (name_len == 0 || line[name_len] != ':')
            return 400;
        if (parsed->headers_len == HEADERS)
            return 431;
        value += strspn(value, " \t");
        while (value_end > value && (value_end[-1] == ' ' || value_end[-1] == '\t'))
            value_end--;
        headers[parsed->headers_len++] =
            (wsredis_header){line, name_len, value, (size_t)(value_end - value)};
    }
    parsed->headers = headers;
    (*path)[strcspn(*path, "?")] = '\0';
    return 0;
}

/* The NAME of a path that is PREFIX and NAME, or NULL. As it holds nothing but letters, digits, - and
   _, it needs no escapes in JSON. */
static const char *name_behind(const char *prefix, const char *path) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789-_";
    const char *name = path + strlen(prefix);
    if (strncmp(path, prefix, strlen(prefix)))
        return NULL;
    size_t len = strspn(name, allowed);
    return len == 0 || len > 64 || name[len] ? NULL : name;
}

/* Who may hear and say what: the only lines that are about your site. At /ws/NAME one hears and
   speaks in the room NAME, at /news/NAME one only hears, at /inbox/NAME one only speaks. */
static int grant_for(const char *path, char *grant, size_t size) {
    const char *name;
    if ((name = name_behind("/ws/", path)))
        return snprintf(grant, size, "{\"subscribe\":[\"%s\"],\"publish\":[\"%s\"]}", name, name);
    if ((name = name_behind("/news/", path)))
        return snprintf(grant, size, "{\"subscribe\":[\"%s\"]}", name);
    if ((name = name_behind("/inbox/", path)))
        return snprintf(grant, size, "{\"publish\":[\"%s\"]}", name);
    return -1;
}

/* A whole head has come: the socket goes to the engine, or gets the answer that says why not. */
static void serve(struct request *request, char *leftover) {
    char grant[256], answer[WSREDIS_ANSWER_SIZE], *path;
    static const char not_found[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n"
                                    "Connection: close\r\n\r\n";
    size_t len = 0;
    wsredis_header headers[HEADERS];
    wsredis_request parsed = {.struct_size = sizeof parsed};
    uint16_t http = parse_head(request->head, &path, &parsed, headers);
    if (http) {
        refuse(request, http);
        return;
    }
    int grant_len = grant_for(path, grant, sizeof grant);
    if (grant_len < 0) {
        answer_with(request, not_found, sizeof not_found - 1);
        return;
    }
    parsed.remote_address = request->address;
    parsed.remote_address_len = strlen(request->address);
    if (wsredis_handshake_answer(config, &parsed, grant, (size_t)grant_len, NULL, 0, answer,
                                 sizeof answer, &len, &http)) {
        report("handshake");
        refuse(request, 500);
        return;
    }
    if (http != 101) {
        answer_with(request, answer, len);
        return;
    }
    wsredis_adoption adoption = {.struct_size = sizeof adoption, .fd = request->fd};
    adoption.grant = grant, adoption.grant_len = (size_t)grant_len;
    adoption.answer = answer, adoption.answer_len = len;
    adoption.leftover = (uint8_t *)leftover;
    adoption.leftover_len = request->len - (size_t)(leftover - request->head);
    adoption.remote_address = request->address;
    adoption.remote_address_len = strlen(request->address);
    if (request->is_watched)
        epoll_ctl(poller, EPOLL_CTL_DEL, request->fd, NULL); /* While it is still ours. */
    request->is_watched = 0;
    if (wsredis_engine_adopt(engine, &adoption) == WSREDIS_STATUS_OK) {
        request->fd = -1; /* The engine may have closed it by now; it has copied the rest. */
        move(request, &unused);
        return;
    }
    report("adopt"); /* fd is still ours, and still a request without an answer. */
    refuse(request, 503);
    watch(request);
}

/* Reads once what has come. However it is cut, each byte is looked at a fixed number of times. */
static void read_request(struct request *request) {
    static char rest[HEAD_SIZE];
    char *buf = request->is_answered ? rest : request->head + request->len, *head_end;
    ssize_t n = recv(request->fd, buf, HEAD_SIZE - (request->is_answered ? 0 : request->len),
                     MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0 || (n == 0 && request->is_answered)) {
        drop(request);
        return;
    }
    if (request->is_answered)
        return;
    /* The empty line may have begun with the last bytes that came before. */
    char *from = request->head + (request->len < 3 ? 0 : request->len - 3);
    request->len += (size_t)n;
    request->head[request->len] = '\0';
    if ((head_end = strstr(from, "\r\n\r\n")))
        serve(request, head_end + 4);
    else if (n == 0 || memchr(buf, '\0', (size_t)n)) /* No end comes, or a byte of no head. */
        refuse(request, 400);
    else if (request->len == HEAD_SIZE)
        refuse(request, 431);
}

/* One at a time: whoever came before is read first. */
static void accept_request(void) {
    struct sockaddr_in peer = {0};
    socklen_t peer_len = sizeof peer;
    int fd = accept(listener, (struct sockaddr *)&peer, &peer_len);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) /* To ask again at once would only spin. */
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        return;
    }
    if (unused.next == &unused) {
        struct request *oldest = waiting.next;
        if (!oldest->is_answered)
            refuse(oldest, 503);
        drop(oldest);
    }
    struct request *request = unused.before; /* The memory that was used last. */
    request->fd = fd, request->len = 0;
    request->is_answered = request->is_watched = 0;
    request->until = now + handshake_ms;
    inet_ntop(AF_INET, &peer.sin_addr, request->address, sizeof request->address);
    move(request, &waiting);
    newest = request;
}

/* Reads one that was accepted a moment ago: by now its request is mostly there, and epoll need not
   be asked to tell of it. */
static void read_newcomer(struct request *request) {
    if (request->fd < 0 || request->is_watched)
        return;
    read_request(request);
    if (request->fd >= 0)
        watch(request);
}

/* Is it a signal to end? */
static int heed_signal(void) {
    struct signalfd_siginfo info;
    char stats[4096];
    size_t len;
    if (read(signals, &info, sizeof info) != sizeof info)
        return 0;
    if (info.ssi_signo != SIGUSR1)
        return 1;
    if (wsredis_engine_stats(engine, stats, sizeof stats, &len))
        report("stats");
    else
        puts(stats), fflush(stdout);
    return 0;
}

static void serve_all(void) {
    struct epoll_event events[64];
    for (;;) {
        look_at_clock();
        long wait = waiting.next->until - now;
        if (waiting.next == &waiting)
            wait = -1;
        else if (wait <= 0) {
            if (waiting.next->is_answered)
                drop(waiting.next);
            else
                refuse(waiting.next, 408);
            continue;
        }
        struct request *newcomer = newest;
        int count = epoll_wait(poller, events, sizeof events / sizeof *events,
                               newcomer ? 0 : (int)wait);
        newest = NULL;
        look_at_clock();
        for (int i = 0; i < count; i++) {
            struct request *request = events[i].data.ptr;
            if (request == &waiting)
                accept_request();
            else if (request == &unused) {
                if (heed_signal())
                    return;
            } else if (request->fd >= 0) /* Not dropped, for another one, in this very turn. */
                read_request(request);
        }
        if (newcomer && newcomer != newest) /* Not dropped for one that is newer. */
            read_newcomer(newcomer);
    }
}

/* handshake-ms=N is ours, key=value sets a key; all else is a file with a [wsredis] section. */
static int configure(char **arguments) {
    if (wsredis_config_new(&config))
        return -1;
    for (char *key; (key = *arguments); arguments++) {
        char *value = strchr(key, '=');
        if (strncmp(key, "handshake-ms=", 13) == 0)
            handshake_ms = atol(key + 13);
        else if (value ? wsredis_config_set(config, key, (size_t)(value - key), value + 1,
                                            strlen(value + 1))
                       : wsredis_config_load(config, key, strlen(key)))
            return -1;
    }
    return wsredis_config_check(config, 1) ? -1 : 0;
}

/* Prepares the signals and the listener, and watches both. */
static int listen_on(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    struct epoll_event to_accept = {.events = EPOLLIN, .data.ptr = &waiting};
    struct epoll_event to_heed = {.events = EPOLLIN, .data.ptr = &unused};
    socklen_t len = sizeof address;
    int yes = 1;
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGUSR1);
    sigprocmask(SIG_BLOCK, &ours, NULL);
    signals = signalfd(-1, &ours, 0);
    poller = epoll_create1(0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, SOMAXCONN) ||
        getsockname(listener, (struct sockaddr *)&address, &len) ||
        epoll_ctl(poller, EPOLL_CTL_ADD, listener, &to_accept) ||
        epoll_ctl(poller, EPOLL_CTL_ADD, signals, &to_heed))
        return -1;
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    return fflush(stdout);
}

/* A standard descriptor that is closed would become a browser's socket, and get the log's lines. */
static void open_standard(void) {
    for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = open("/dev/null", O_RDWR))
        if (fd > STDERR_FILENO) {
            close(fd);
            return;
        }
}

int main(int argc, char **argv) {
    struct rlimit files;
    open_standard();
    if (argc < 2 || wsredis_abi_version() != WSREDIS_ABI_VERSION) {
        fprintf(stderr, "usage: host PORT [FILE.ini | KEY=VALUE]..., with libwsredis.so.%d\n",
                WSREDIS_ABI_VERSION);
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &files);
    for (size_t i = 0; i < REQUESTS && i < files.rlim_cur / 4; i++) {
        requests[i].before = requests[i].next = &requests[i];
        move(&requests[i], &unused);
    }
    if (configure(argv + 2) || wsredis_engine_start(config, log_line, NULL, &engine)) {
        report("wsredis");
        return 2;
    }
    if (listen_on(argv[1])) {
        perror("listen");
        return 1;
    }
    serve_all();
    close(listener);
    while (waiting.next != &waiting)
        drop(waiting.next);
    if (wsredis_engine_stop(engine, STOP_MS))
        fprintf(stderr, "some browsers were cut before they had answered\n");
    wsredis_engine_free(engine);
    wsredis_config_free(config);
    return 0;
}
