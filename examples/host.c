/*
 * The smallest complete host of wsredis: a few threads that accept connections, read one HTTP
 * request each, decide by its path who may hear what, and hand the socket to the engine.
 *
 *     cc -std=c11 -pthread examples/host.c -Iinclude -Ltarget/release -lwsredis -o host
 *     ./host 8080 examples/host.ini max-sockets=5000
 *
 * Port 0 takes a free one. All pages that open ws://127.0.0.1:8080/ws/NAME hear each other. SIGPIPE
 * stays at its default, which is to end the process: neither the engine nor we ever raise it.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <wsredis.h>

enum { WORKERS = 4, REQUEST_SIZE = 8192, HEADERS = 64, REQUEST_MS = 2000, STOP_MS = 2000 };

static wsredis_config *config;
static wsredis_engine *engine;
static int listener;

static void report(const char *what) {
    char why[512];
    wsredis_last_error(why, sizeof why);
    fprintf(stderr, "%s: %s\n", what, why);
}

static void log_line(void *userdata, uint8_t level, const char *line, size_t line_len) {
    (void)userdata, (void)level;
    fprintf(stderr, "%.*s\n", (int)line_len, line);
}

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Reads up to the empty line that ends the headers and returns what is behind it, or NULL if it
   does not come in time or in size. A NUL is no part of a head: the search does not pass it. */
static char *read_head(int fd, char *buf, size_t size, size_t *len) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    char *end = NULL;
    long wait, until = now_ms() + REQUEST_MS;
    while (!end && *len + 1 < size && (wait = until - now_ms()) > 0) {
        if (poll(&readable, 1, (int)wait) <= 0)
            continue;
        ssize_t n = recv(fd, buf + *len, size - 1 - *len, MSG_DONTWAIT);
        if (n <= 0)
            return NULL;
        buf[*len += (size_t)n] = '\0';
        end = strstr(buf, "\r\n\r\n");
    }
    return end ? end + 4 : NULL;
}

/* Cuts a head into its parts, in place. Returns the path, or NULL for what is no HTTP. */
static char *parse_head(char *head, wsredis_request *request, wsredis_header *headers) {
    char *line = head, *end = strstr(line, "\r\n"), *path, *protocol;
    *end = '\0';
    if (!(path = strchr(line, ' ')) || !(protocol = strchr(path + 1, ' ')))
        return NULL;
    *path++ = *protocol++ = '\0';
    request->method = line, request->method_len = strlen(line);
    request->protocol = protocol, request->protocol_len = strlen(protocol);
    for (line = end + 2; (end = strstr(line, "\r\n")) != line; line = end + 2) {
        size_t name_len = strcspn(line, ": \t\r\n"); /* No space is allowed before the colon. */
        char *value = line + name_len + 1, *value_end = end;
        if (name_len == 0 || line[name_len] != ':' || request->headers_len == HEADERS)
            return NULL;
        value += strspn(value, " \t");
        while (value_end > value && (value_end[-1] == ' ' || value_end[-1] == '\t'))
            value_end--;
        headers[request->headers_len++] =
            (wsredis_header){line, name_len, value, (size_t)(value_end - value)};
    }
    request->headers = headers;
    path[strcspn(path, "?")] = '\0';
    return path;
}

/* Who may hear and say what: the only lines that are about your site. /ws/NAME is the room NAME. As
   a NAME holds nothing but letters, digits, - and _, it needs no escapes in JSON. */
static int grant_for(const char *path, char *grant, size_t size) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789-_";
    const char *name = strncmp(path, "/ws/", 4) ? "" : path + 4;
    size_t len = strspn(name, allowed);
    if (len == 0 || len > 64 || name[len])
        return -1;
    return snprintf(grant, size, "{\"subscribe\":[\"%s\"],\"publish\":[\"%s\"]}", name, name);
}

/* Writes one of the library's refusals to `answer`: a 503, say, tells when to come back. */
static size_t refusal(uint16_t http, char *answer) {
    size_t len = 0;
    if (wsredis_handshake_refusal(config, http, answer, WSREDIS_ANSWER_SIZE, &len))
        report("refusal");
    return len;
}

/* Reads a request and hands its socket over. Returns the length of the answer that is still to be
   written, or 0 once the engine has the socket. */
static size_t serve(int fd, const char *address, char *answer) {
    char head[REQUEST_SIZE], grant[256], *leftover, *path;
    size_t head_len = 0, answer_len = 0;
    uint16_t http = 0;
    wsredis_header headers[HEADERS];
    wsredis_request request = {.struct_size = sizeof request};
    request.remote_address = address, request.remote_address_len = strlen(address);
    if (!(leftover = read_head(fd, head, sizeof head, &head_len)) ||
        !(path = parse_head(head, &request, headers)))
        return refusal(400, answer);
    int grant_len = grant_for(path, grant, sizeof grant);
    if (grant_len < 0)
        return (size_t)snprintf(answer, WSREDIS_ANSWER_SIZE, "HTTP/1.1 404 Not Found\r\n"
                                "Content-Length: 0\r\nConnection: close\r\n\r\n");
    if (wsredis_handshake_answer(config, &request, grant, (size_t)grant_len, NULL, 0, answer,
                                 WSREDIS_ANSWER_SIZE, &answer_len, &http)) {
        report("handshake");
        return refusal(500, answer);
    }
    if (http != 101)
        return answer_len;
    wsredis_adoption adoption = {.struct_size = sizeof adoption, .fd = fd};
    adoption.grant = grant, adoption.grant_len = (size_t)grant_len;
    adoption.answer = answer, adoption.answer_len = answer_len;
    adoption.leftover = (uint8_t *)leftover;
    adoption.leftover_len = head_len - (size_t)(leftover - head);
    adoption.remote_address = address, adoption.remote_address_len = strlen(address);
    if (wsredis_engine_adopt(engine, &adoption) == WSREDIS_STATUS_OK)
        return 0; /* The engine owns fd and may have closed it by now; it has copied the rest. */
    report("adopt"); /* fd is still ours, and still a request without an answer. */
    return refusal(503, answer);
}

static void *work(void *unused) {
    for (;;) {
        struct sockaddr_in peer = {0};
        socklen_t peer_len = sizeof peer;
        char address[INET_ADDRSTRLEN] = "", answer[WSREDIS_ANSWER_SIZE], rest[REQUEST_SIZE];
        int fd = accept(listener, (struct sockaddr *)&peer, &peer_len);
        if (fd < 0) {
            if (errno == EINVAL)
                return unused; /* main has shut the listener down. */
            poll(NULL, 0, 50); /* Out of descriptors, say: to ask again at once would only spin. */
            continue;
        }
        inet_ntop(AF_INET, &peer.sin_addr, address, sizeof address);
        size_t len = serve(fd, address, answer);
        if (len == 0)
            continue;
        /* So few bytes always fit a new connection. Closing it with something unread would reset
           it, and the answer could be lost: what has come is read first. */
        send(fd, answer, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        shutdown(fd, SHUT_WR);
        for (int i = 0; i < 16 && recv(fd, rest, sizeof rest, MSG_DONTWAIT) > 0; i++)
            ;
        close(fd);
    }
}

/* key=value sets a key; anything else is a file with a [wsredis] section. */
static int configure(char **arguments) {
    if (wsredis_config_new(&config))
        return -1;
    for (char *key; (key = *arguments); arguments++) {
        char *value = strchr(key, '=');
        if (value ? wsredis_config_set(config, key, (size_t)(value - key), value + 1,
                                       strlen(value + 1))
                  : wsredis_config_load(config, key, strlen(key)))
            return -1;
    }
    return wsredis_config_check(config, 1) ? -1 : 0;
}

static int listen_on(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    socklen_t len = sizeof address;
    int yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, SOMAXCONN) ||
        getsockname(listener, (struct sockaddr *)&address, &len))
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
    pthread_t workers[WORKERS];
    int started = 0, signal_number;
    sigset_t ends;
    open_standard();
    if (argc < 2 || wsredis_abi_version() != WSREDIS_ABI_VERSION) {
        fprintf(stderr, "usage: host PORT [FILE.ini | KEY=VALUE]..., with libwsredis.so.%d\n",
                WSREDIS_ABI_VERSION);
        return 2;
    }
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, NULL); /* In all threads: they wait for main's sigwait. */
    if (configure(argv + 2) || wsredis_engine_start(config, log_line, NULL, &engine)) {
        report("wsredis");
        return 2;
    }
    if (listen_on(argv[1])) {
        perror("listen");
        return 1;
    }
    while (started < WORKERS && !pthread_create(&workers[started], NULL, work, NULL))
        started++;
    if (started == 0)
        return 1;
    sigwait(&ends, &signal_number);
    shutdown(listener, SHUT_RDWR); /* Ends every worker's accept. */
    if (wsredis_engine_stop(engine, STOP_MS))
        fprintf(stderr, "some browsers were cut before they had answered\n");
    while (started > 0)
        pthread_join(workers[--started], NULL);
    wsredis_engine_free(engine); /* Nobody can adopt any more. */
    wsredis_config_free(config);
    return 0;
}
