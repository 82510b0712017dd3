/*
 * The floor: how little a fan-out from Redis to websockets can cost on this kernel. One thread, one
 * epoll, one connection that SUBSCRIBEs and one that PUBLISHes.
 *
 *     ./floor each|read PORT REDIS_PORT
 *
 *     each    one send for each message and each socket: what most servers do
 *     read    what one read of Redis has brought for a channel goes to each socket in one send
 *
 * The URLs are those of examples/host.c: who is at /ws/NAME hears and speaks in the room NAME, at
 * /news/NAME one only hears, at /inbox/NAME one only speaks. PORT 0 takes a free one.
 *
 * It is a measure and no server. It trusts everybody: there are no limits, fragments, timeouts or
 * origins, it checks nothing of a text but whether it is ASCII, it ends when Redis does, and what
 * the kernel does not take waits in a plain queue without an end.
 */
#define _GNU_SOURCE
#include "accept_key.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ = 256 << 10,     /* What is read at once of Redis: the same as wsredis' read-batch. */
    LONGEST = 4 << 20,    /* The longest push of Redis. */
    INPUT = 64 << 10,     /* What is read at once of a socket. */
    SOCKETS = 1 << 16,    /* Descriptors. */
    CHANNELS = 1 << 16,   /* Places for channels; a power of two. */
    NAME = 64,            /* The longest name of a room. */
    HEADER = 10,          /* The longest header of a frame that is not masked. */
};

/* Bytes that wait. */
struct bytes {
    char *at;
    size_t len, size;
};

struct channel {
    char name[NAME + 1];
    int32_t number; /* From 1 on. */
    int is_confirmed; /* Redis has answered the SUBSCRIBE. */
    int32_t *listeners, count, size;
    struct bytes frames; /* Of this read. */
};

/* What few sockets have: bytes that wait to be sent, the beginning of a frame. */
struct rest {
    struct bytes out, in;
};

/* One for each descriptor; open iff it has a channel. */
struct seat {
    int32_t channel;
    uint32_t position : 30, hears : 1, speaks : 1; /* Its place among the listeners. */
    struct rest *rest;
};

static struct seat seats[SOCKETS];
static struct channel *channels[CHANNELS], **touched;
static int32_t channel_count, places[CHANNELS], touched_count;
static struct bytes subscribes, publishes; /* To be sent at the end of the turn. */
static char pushes[LONGEST + READ], input[2 * INPUT];
static size_t pushes_len;
static int poller, listener, subscriber, publisher, sends_each;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void append(struct bytes *to, const void *from, size_t len) {
    if (to->len + len > to->size) {
        to->size = (to->len + len) * 2;
        if (!(to->at = realloc(to->at, to->size)))
            die("memory");
    }
    memcpy(to->at + to->len, from, len);
    to->len += len;
}

static void watch(int fd, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, operation, fd, &event))
        die("epoll_ctl");
}

/* ---- channels ---- */

static struct channel *channel_of(const char *name, size_t len, int may_add) {
    uint32_t hash = 2166136261u, place; /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)name[i]) * 16777619u;
    for (place = hash % CHANNELS; places[place]; place = (place + 1) % CHANNELS) {
        struct channel *channel = channels[places[place] - 1];
        if (memcmp(channel->name, name, len) == 0 && channel->name[len] == '\0')
            return channel;
    }
    struct channel *channel = may_add ? calloc(1, sizeof *channel) : NULL;
    if (!channel || channel_count == CHANNELS - 1)
        die("channel");
    memcpy(channel->name, name, len);
    channels[channel_count++] = channel;
    places[place] = channel->number = channel_count;
    return channel;
}

static void join(int fd, struct channel *channel) {
    if (channel->count == channel->size) {
        channel->size = channel->size ? channel->size * 2 : 1;
        channel->listeners =
            realloc(channel->listeners, (size_t)channel->size * sizeof *channel->listeners);
    }
    seats[fd].position = (uint32_t)channel->count;
    channel->listeners[channel->count++] = fd;
}

static void leave(int fd, struct channel *channel) {
    int32_t last = channel->listeners[--channel->count];
    channel->listeners[seats[fd].position] = last;
    seats[last].position = seats[fd].position;
}

/* ---- sockets ---- */

static void drop(int fd) {
    struct seat *seat = &seats[fd];
    if (seat->channel && seat->hears)
        leave(fd, channels[seat->channel - 1]);
    if (seat->rest) {
        free(seat->rest->in.at), free(seat->rest->out.at);
        free(seat->rest);
    }
    *seat = (struct seat){0};
    close(fd);
}

static struct rest *rest_of(int fd) {
    if (!seats[fd].rest && !(seats[fd].rest = calloc(1, sizeof(struct rest))))
        die("memory");
    return seats[fd].rest;
}

/* Most sockets have nothing that waits, most of the time. */
static void forget_rest(int fd) {
    struct rest *rest = seats[fd].rest;
    if (rest && rest->out.len == 0 && rest->in.len == 0) {
        free(rest->in.at), free(rest->out.at), free(rest);
        seats[fd].rest = NULL;
    }
}

static void deliver(int fd, const char *frames, size_t len) {
    ssize_t sent = 0;
    if (!seats[fd].rest || seats[fd].rest->out.len == 0) {
        sent = send(fd, frames, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent == (ssize_t)len)
            return;
        if (sent < 0 && errno != EAGAIN)
            return; /* The poll tells of its end. */
        sent = sent < 0 ? 0 : sent;
        watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    append(&rest_of(fd)->out, frames + sent, len - (size_t)sent);
}

static void flush(int fd) {
    struct bytes *out = &rest_of(fd)->out;
    ssize_t sent = send(fd, out->at, out->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
        memmove(out->at, out->at + sent, out->len - (size_t)sent);
        out->len -= (size_t)sent;
    }
    watch(fd, EPOLL_CTL_MOD, out->len ? EPOLLIN | EPOLLOUT : EPOLLIN);
    forget_rest(fd);
}

/* ---- from Redis to the sockets ---- */

/* Puts the header in front of a payload, where its length and its channel were. */
static char *frame_of(char *payload, size_t len) {
    size_t size = len < 126 ? 2 : len < 65536 ? 4 : 10;
    uint8_t *header = (uint8_t *)payload - size;
    header[0] = 0x81;
    header[1] = (uint8_t)(size == 2 ? len : size == 4 ? 126 : 127);
    for (size_t i = size; i > 2; i--, len >>= 8)
        header[i - 1] = (uint8_t)len;
    return (char *)header;
}

static void fan_out(const struct channel *channel, const char *frames, size_t len) {
    for (int32_t i = 0; i < channel->count; i++)
        deliver(channel->listeners[i], frames, len);
}

static void hear(struct channel *channel, char *payload, size_t len) {
    char *frame = frame_of(payload, len);
    len += (size_t)(payload - frame);
    if (sends_each) {
        fan_out(channel, frame, len);
        return;
    }
    if (channel->frames.len == 0)
        touched[touched_count++] = channel;
    append(&channel->frames, frame, len);
}

/* Everybody who waits for it has been asked to. */
static void confirm(struct channel *channel) {
    channel->is_confirmed = 1;
    for (int32_t i = 0; i < channel->count; i++)
        flush(channel->listeners[i]);
}

/* Takes "$5\r\nhello\r\n"; returns what is behind it, or NULL if it is not whole. */
static char *take_text(char *at, const char *end, char **text, size_t *len) {
    if (end - at < 4)
        return NULL;
    char *digit = at + 1;
    for (*len = 0; *digit >= '0' && *digit <= '9'; digit++) /* A '\0' is behind the end. */
        *len = *len * 10 + (size_t)(*digit - '0');
    *text = digit + 2;
    return end - digit >= (ssize_t)*len + 4 ? *text + *len + 2 : NULL;
}

/* Takes a push: message, channel, payload; or subscribe, channel, number. */
static char *take_push(char *at, const char *end) {
    char *kind, *name, *payload, *line_end;
    size_t kind_len, name_len, len;
    if (end - at < 4 || !(at = take_text(at + 4, end, &kind, &kind_len)) ||
        !(at = take_text(at, end, &name, &name_len)))
        return NULL;
    if (kind[0] == 's') {
        if (!(line_end = memchr(at, '\n', (size_t)(end - at))))
            return NULL;
        confirm(channel_of(name, name_len, 0));
        return line_end + 1;
    }
    if (!(at = take_text(at, end, &payload, &len)))
        return NULL;
    hear(channel_of(name, name_len, 0), payload, len);
    return at;
}

static void read_subscriber(void) {
    ssize_t n = recv(subscriber, pushes + pushes_len, READ, MSG_DONTWAIT);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN)
            return;
        die("Redis");
    }
    pushes_len += (size_t)n;
    char *at = pushes, *end = pushes + pushes_len, *next;
    *end = '\0';
    while ((next = take_push(at, end)))
        at = next;
    pushes_len = (size_t)(end - at);
    memmove(pushes, at, pushes_len);
    if (pushes_len > LONGEST - 1)
        die("a push that is too long");
    for (int32_t i = 0; i < touched_count; i++) {
        fan_out(touched[i], touched[i]->frames.at, touched[i]->frames.len);
        touched[i]->frames.len = 0;
    }
    touched_count = 0;
}

/* ---- from the sockets to Redis ---- */

static void command(struct bytes *to, const char *verb, const struct channel *channel,
                    const char *payload, size_t len) {
    char head[2 * NAME];
    int head_len = snprintf(head, sizeof head, "*%d\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n",
                            payload ? 3 : 2, strlen(verb), verb, strlen(channel->name),
                            channel->name);
    append(to, head, (size_t)head_len);
    if (payload) {
        head_len = snprintf(head, sizeof head, "$%zu\r\n", len);
        append(to, head, (size_t)head_len);
        append(to, payload, len);
        append(to, "\r\n", 2);
    }
}

/* Takes the mask off, eight bytes at a time. Returns whether the text is ASCII. */
static int unmask(char *text, size_t len, const char *mask) {
    uint64_t masks, word, seen = 0;
    memcpy(&masks, mask, 4), memcpy((char *)&masks + 4, mask, 4);
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        memcpy(&word, text + i, 8);
        word ^= masks, seen |= word;
        memcpy(text + i, &word, 8);
    }
    for (; i < len; i++)
        seen |= (uint8_t)(text[i] ^= mask[i % 4]);
    return (seen & 0x8080808080808080u) == 0;
}

/* Takes a frame; returns its size, 0 if it is not whole, -1 if it was the last. */
static ssize_t take_frame(int fd, char *at, size_t len) {
    const uint8_t *header = (const uint8_t *)at;
    size_t head = 6, size;
    if (len < 2)
        return 0;
    size = header[1] & 0x7f;
    if (size > 125) {
        size_t digits = size == 126 ? 2 : 8;
        head += digits;
        if (len < head)
            return 0;
        size = 0;
        for (size_t i = 0; i < digits; i++)
            size = size << 8 | header[2 + i];
    }
    if (!(header[1] & 0x80) || size > INPUT - 16)
        return -1;
    if (len < head + size)
        return 0;
    char *payload = at + head;
    int is_ascii = unmask(payload, size, payload - 4);
    switch (header[0]) {
    case 0x81:
        if (!is_ascii)
            return -1;
        if (seats[fd].speaks)
            command(&publishes, "PUBLISH", channels[seats[fd].channel - 1], payload, size);
        break;
    case 0x89: {
        char pong[2 + 125] = {(char)0x8a, (char)size};
        memcpy(pong + 2, payload, size % 126);
        deliver(fd, pong, 2 + size % 126);
        break;
    }
    case 0x8a:
        break;
    default: /* Close, and what is none of ours. */
        deliver(fd, "\x88\x02\x03\xe8", 4);
        return -1;
    }
    return (ssize_t)(head + size);
}

/* Where a path leads to; returns the name behind it, or NULL. */
static const char *place_of(const char *path, struct seat *seat) {
    static const struct {
        const char *path;
        unsigned hears, speaks;
    } kinds[] = {{"/ws/", 1, 1}, {"/news/", 1, 0}, {"/inbox/", 0, 1}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strncmp(path, kinds[i].path, strlen(kinds[i].path)) == 0) {
            seat->hears = kinds[i].hears & 1, seat->speaks = kinds[i].speaks & 1;
            return path + strlen(kinds[i].path);
        }
    return NULL;
}

/* Answers a request that is whole; returns its size, 0 if it is not, -1 if it is none. */
static ssize_t take_request(int fd, char *at, size_t len) {
    char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\n"
                    "Sec-WebSocket-Accept: ............................\r\n\r\n";
    static const char key_name[] = "\r\nSec-WebSocket-Key: ";
    char *end = memmem(at, len, "\r\n\r\n", 4), *key;
    struct seat *seat = &seats[fd];
    if (!end)
        return 0;
    *end = '\0';
    const char *name = strncmp(at, "GET ", 4) ? NULL : place_of(at + 4, seat);
    size_t name_len = name ? strcspn(name, " ?") : 0;
    if (name_len == 0 || name_len > NAME || !(key = strcasestr(at, key_name)))
        return -1;
    struct channel *channel = channel_of(name, name_len, 1);
    seat->channel = channel->number;
    accept_key(key + sizeof key_name - 1, answer + sizeof answer - 5 - ACCEPT_SIZE);
    if (seat->hears) {
        if (channel->count == 0 && !channel->is_confirmed)
            command(&subscribes, "SUBSCRIBE", channel, NULL, 0);
        join(fd, channel);
        if (!channel->is_confirmed) /* Who is answered hears everything from then on. */
            append(&rest_of(fd)->out, answer, sizeof answer - 1);
    }
    if (!seat->rest || seat->rest->out.len == 0)
        deliver(fd, answer, sizeof answer - 1);
    return end + 4 - at;
}

static void read_socket(int fd) {
    struct seat *seat = &seats[fd];
    size_t len = seat->rest ? seat->rest->in.len : 0;
    if (len) {
        memcpy(input, seat->rest->in.at, len);
        seat->rest->in.len = 0;
    }
    ssize_t n = recv(fd, input + len, INPUT, MSG_DONTWAIT), taken = 1;
    if (n < 0 && errno == EAGAIN)
        n = 0;
    else if (n <= 0) {
        drop(fd);
        return;
    }
    char *at = input;
    for (len += (size_t)n; len && taken > 0; at += taken, len -= (size_t)taken) {
        taken = seat->channel ? take_frame(fd, at, len) : take_request(fd, at, len);
        if (taken < 0) {
            drop(fd);
            return;
        }
    }
    if (len)
        append(&rest_of(fd)->in, at, len);
    forget_rest(fd);
}

/* ---- the loop ---- */

static int connect_to(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        die("Redis");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    return fd;
}

static void listen_on(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    socklen_t len = sizeof address;
    int yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, SOMAXCONN) ||
        getsockname(listener, (struct sockaddr *)&address, &len))
        die("listen");
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

static void accept_socket(void) {
    int fd = accept(listener, NULL, NULL), yes = 1;
    if (fd < 0)
        return;
    if (fd >= SOCKETS) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    watch(fd, EPOLL_CTL_ADD, EPOLLIN);
}

/* Waits for as long as Redis does not take them. */
static void send_commands(int fd, struct bytes *commands) {
    for (size_t sent = 0; sent < commands->len;) {
        ssize_t n = send(fd, commands->at + sent, commands->len - sent, MSG_NOSIGNAL);
        if (n <= 0)
            die("Redis");
        sent += (size_t)n;
    }
    commands->len = 0;
}

int main(int argc, char **argv) {
    static char answers[READ];
    struct epoll_event events[1024];
    if (argc != 4 || (strcmp(argv[1], "each") && strcmp(argv[1], "read"))) {
        fprintf(stderr, "usage: floor each|read PORT REDIS_PORT\n");
        return 2;
    }
    sends_each = strcmp(argv[1], "each") == 0;
    touched = calloc(CHANNELS, sizeof *touched);
    poller = epoll_create1(0);
    subscriber = connect_to(argv[3]);
    publisher = connect_to(argv[3]);
    listen_on(argv[2]);
    for (;;) {
        int count = epoll_wait(poller, events, sizeof events / sizeof *events, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == subscriber)
                read_subscriber();
            else if (fd == publisher) {
                if (recv(fd, answers, sizeof answers, MSG_DONTWAIT) == 0)
                    die("Redis");
            } else if (fd == listener)
                accept_socket();
            else {
                if (events[i].events & EPOLLOUT)
                    flush(fd);
                if (events[i].events & ~(uint32_t)EPOLLOUT)
                    read_socket(fd);
            }
        }
        send_commands(subscriber, &subscribes);
        send_commands(publisher, &publishes);
    }
}
