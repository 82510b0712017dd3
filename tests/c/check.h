/*
 * What the C tests share: a failed check ends the program and says where; a host's end and a
 * browser's end of a connection; frames to write and to expect. Nothing waits without a deadline.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wsredis.h>

enum { DEADLINE_MS = 20000 };

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0 : (void)(fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), \
                                    abort()))

/* `call` must return WSREDIS_STATUS_`expected`. */
#define GIVES(expected, call) gives(__FILE__, __LINE__, #call, WSREDIS_STATUS_##expected, call)

/* A literal as pointer and length. */
#define TEXT(literal) literal, sizeof literal - 1

/* The text of this thread's last error must hold `part`. */
#define SAYS(part) says(__FILE__, __LINE__, part)

static inline void gives(const char *file, int line, const char *call, wsredis_status expected,
                         wsredis_status got) {
    char why[1024];
    if (got == expected)
        return;
    wsredis_last_error(why, sizeof why);
    fprintf(stderr, "%s:%d: %s gives %s instead of %s; the last error is: %s\n", file, line, call,
            wsredis_status_name(got), wsredis_status_name(expected), why);
    abort();
}

static inline void says(const char *file, int line, const char *part) {
    char why[1024];
    wsredis_last_error(why, sizeof why);
    if (strstr(why, part))
        return;
    fprintf(stderr, "%s:%d: the last error has no \"%s\": %s\n", file, line, part, why);
    abort();
}

/* A copy on the heap that ends where the text ends: a read behind it is found. */
static inline char *exact(const char *text) {
    char *copy = malloc(strlen(text) + (*text == '\0'));
    CHECK(copy);
    memcpy(copy, text, strlen(text));
    return copy;
}

static inline long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Is something to be read, or the end, within so many milliseconds? */
static inline bool readable(int fd, int ms) {
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};
    return poll(&pollfd, 1, ms) == 1;
}

/* The next byte, or -1 at the end of the stream. */
static inline int next_byte(int fd) {
    unsigned char byte;
    CHECK(readable(fd, DEADLINE_MS));
    ssize_t n = recv(fd, &byte, 1, 0);
    CHECK(n >= 0 || errno == ECONNRESET);
    return n == 1 ? byte : -1;
}

/* Reads up to the empty line of an HTTP answer and checks its status. */
static inline void expect_answer(int fd, const char *status) {
    char head[1024] = "";
    size_t len = 0;
    while (!strstr(head, "\r\n\r\n")) {
        int byte = next_byte(fd);
        CHECK(byte > 0 && len + 1 < sizeof head);
        head[len++] = (char)byte;
        head[len] = '\0';
    }
    CHECK(strncmp(head + strlen("HTTP/1.1 "), status, 3) == 0);
}

enum { TEXT_FRAME = 0x81, BINARY_FRAME = 0x82, CLOSE_FRAME = 0x88 };

/* The next frame from the engine must be this one. */
static inline void expect_frame(int fd, int first, const void *payload, size_t len) {
    CHECK(len < 126);
    CHECK(next_byte(fd) == first);
    CHECK(next_byte(fd) == (int)len);
    for (size_t i = 0; i < len; i++)
        CHECK(next_byte(fd) == ((const unsigned char *)payload)[i]);
}

/* A close frame with this code must come, whatever its reason. */
static inline void expect_close(int fd, int code) {
    CHECK(next_byte(fd) == CLOSE_FRAME);
    int len = next_byte(fd);
    CHECK(len >= 2);
    int high = next_byte(fd);
    CHECK((high << 8 | next_byte(fd)) == code);
    for (int i = 2; i < len; i++)
        CHECK(next_byte(fd) >= 0);
}

/* The end must come, whatever comes before it. */
static inline void expect_end(int fd) {
    while (next_byte(fd) >= 0)
        ;
}

/* Puts a browser's frame into `frame`; returns its length. */
static inline size_t frame_of(unsigned char *frame, int first, const void *payload, size_t len) {
    static const unsigned char mask[4] = {1, 2, 3, 4};
    CHECK(len < 126);
    frame[0] = (unsigned char)first;
    frame[1] = (unsigned char)(0x80 | len);
    memcpy(frame + 2, mask, 4);
    for (size_t i = 0; i < len; i++)
        frame[6 + i] = ((const unsigned char *)payload)[i] ^ mask[i % 4];
    return len + 6;
}

static inline void send_frame(int fd, int first, const void *payload, size_t len) {
    unsigned char frame[132];
    size_t n = frame_of(frame, first, payload, len);
    CHECK(send(fd, frame, n, MSG_NOSIGNAL) == (ssize_t)n);
}

/* Both ends of a connection: [0] the host's, [1] the browser's. */
static inline void unix_pair(int pair[2]) {
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
}

static inline int listening(struct sockaddr_in *address) {
    socklen_t len = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(fd, (struct sockaddr *)address, len) == 0 && listen(fd, 16) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)address, &len) == 0);
    return fd;
}

static inline void tcp_pair(int pair[2]) {
    struct sockaddr_in address;
    int listener = listening(&address);
    pair[1] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(pair[1], (struct sockaddr *)&address, sizeof address) == 0);
    pair[0] = accept(listener, NULL, NULL);
    CHECK(pair[0] >= 0);
    close(listener);
}

#define ANSWER                                                                                     \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

/* An adoption with everything that is needed. The grant must live as long. */
static inline wsredis_adoption adoption_of(int fd, const char *grant) {
    wsredis_adoption adoption = {.struct_size = sizeof adoption, .fd = fd};
    adoption.grant = grant, adoption.grant_len = strlen(grant);
    adoption.answer = ANSWER, adoption.answer_len = strlen(ANSWER);
    return adoption;
}

static inline wsredis_config *new_config(void) {
    wsredis_config *config = NULL;
    GIVES(OK, wsredis_config_new(&config));
    CHECK(config);
    return config;
}

static inline void set(wsredis_config *config, const char *key, const char *value) {
    GIVES(OK, wsredis_config_set(config, key, strlen(key), value, strlen(value)));
}

static inline wsredis_engine *start(const wsredis_config *config) {
    wsredis_engine *engine = NULL;
    GIVES(OK, wsredis_engine_start(config, NULL, NULL, &engine));
    CHECK(engine);
    return engine;
}

/* A browser that an engine has just adopted; it has read the handshake's answer. */
static inline int adopted(wsredis_engine *engine, const char *grant) {
    int pair[2];
    unix_pair(pair);
    wsredis_adoption adoption = adoption_of(pair[0], grant);
    GIVES(OK, wsredis_engine_adopt(engine, &adoption));
    expect_answer(pair[1], "101");
    return pair[1];
}

/* The number of a counter in the engine's statistics. */
static inline long counted(const wsredis_engine *engine, const char *name) {
    char json[4096], quoted[64];
    size_t len = 0;
    GIVES(OK, wsredis_engine_stats(engine, json, sizeof json, &len));
    CHECK(len == strlen(json) && json[0] == '{' && json[len - 1] == '}');
    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    char *at = strstr(json, quoted);
    CHECK(at);
    return atol(at + strlen(quoted));
}

/* Waits until the condition holds. */
#define EVENTUALLY(condition)                                                                      \
    do {                                                                                           \
        for (long until_ = now_ms() + DEADLINE_MS; !(condition); poll(NULL, 0, 2))                 \
            CHECK(now_ms() < until_ && #condition);                                                \
    } while (0)
