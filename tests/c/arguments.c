/*
 * Every function of wsredis.h with wrong arguments: each pointer NULL, wrong sizes, text that is not
 * UTF-8, integers that no enum has, buffers that are too small by one, and calls in the wrong order.
 * A wrong argument is a status and a text; what stands behind an out_ parameter stays as it was.
 */
#include "check.h"

/* Stands behind every out_ parameter; an error must leave it. */
#define UNTOUCHED ((size_t)0x5a5a5a5a)

static void versions_and_names(void) {
    CHECK(wsredis_abi_version() == WSREDIS_ABI_VERSION);
    CHECK(strcmp(wsredis_version(), WSREDIS_VERSION) == 0);
    CHECK(strcmp(wsredis_status_name(WSREDIS_STATUS_OK), "WSREDIS_STATUS_OK") == 0);
    CHECK(strcmp(wsredis_status_name(WSREDIS_STATUS_PANIC), "WSREDIS_STATUS_PANIC") == 0);
    CHECK(strcmp(wsredis_status_name(WSREDIS_STATUS_PANIC + 1), "unknown status") == 0);
    CHECK(strcmp(wsredis_status_name(UINT32_MAX), "unknown status") == 0);
}

static void *in_another_thread(void *unused) {
    char why[64] = "x";
    CHECK(wsredis_last_error(why, sizeof why) == 0 && why[0] == '\0');
    GIVES(INVALID, wsredis_config_new(NULL));
    SAYS("out_config");
    return unused;
}

static void the_last_error_is_copied_out_and_is_the_threads_own(void) {
    pthread_t thread;
    char why[256], part[256];
    GIVES(INVALID, wsredis_config_check(NULL, 1));
    size_t len = wsredis_last_error(NULL, 0);
    CHECK(len == strlen("config is NULL"));
    CHECK(wsredis_last_error(NULL, 100) == len);
    for (size_t size = 0; size <= len + 2; size++) {
        char *buf = malloc(size + 1);
        memset(buf, 'x', size + 1);
        CHECK(wsredis_last_error(buf, size) == len);
        CHECK(buf[size] == 'x');
        if (size > 0) {
            size_t fits = size - 1 < len ? size - 1 : len;
            CHECK(strlen(buf) == fits && strncmp(buf, "config is NULL", fits) == 0);
        }
        free(buf);
    }
    wsredis_last_error(why, sizeof why);
    pthread_create(&thread, NULL, in_another_thread, NULL);
    pthread_join(thread, NULL);
    wsredis_config_free(new_config()); /* What succeeds leaves the text too. */
    wsredis_last_error(part, sizeof part);
    CHECK(strcmp(why, part) == 0);
}

static void config_functions(void) {
    GIVES(INVALID, wsredis_config_new(NULL));
    wsredis_config_free(NULL);
    wsredis_config *config = new_config();

    GIVES(INVALID, wsredis_config_set(NULL, TEXT("loops"), TEXT("2")));
    GIVES(INVALID, wsredis_config_set(config, NULL, 5, TEXT("2")));
    GIVES(INVALID, wsredis_config_set(config, TEXT("loops"), NULL, 1));
    GIVES(INVALID, wsredis_config_set(config, "loops", SIZE_MAX, TEXT("2")));
    GIVES(INVALID, wsredis_config_set(config, TEXT("\xff"), TEXT("2")));
    GIVES(INVALID, wsredis_config_set(config, TEXT("loops"), TEXT("2\xc3")));
    GIVES(CONFIG, wsredis_config_set(config, NULL, 0, TEXT("2")));
    GIVES(CONFIG, wsredis_config_set(config, TEXT("loops"), NULL, 0));
    GIVES(CONFIG, wsredis_config_set(config, TEXT("loops\0"), TEXT("2")));
    GIVES(CONFIG, wsredis_config_set(config, TEXT("loops"), TEXT("65")));
    GIVES(CONFIG, wsredis_config_set(config, TEXT("no-such-key"), TEXT("1")));
    SAYS("no-such-key");
    char *key = exact("loops"), *value = exact("3");
    GIVES(OK, wsredis_config_set(config, key, 5, value, 1));
    memset(key, 'x', 5), memset(value, 'x', 1); /* They were copied. */
    free(key), free(value);
    GIVES(CONFIG, wsredis_config_set(config, TEXT("loops"), TEXT("2")));

    GIVES(INVALID, wsredis_config_load(NULL, TEXT("x.ini")));
    GIVES(INVALID, wsredis_config_load(config, NULL, 5));
    GIVES(INVALID, wsredis_config_load(config, TEXT("\xff.ini")));
    GIVES(CONFIG, wsredis_config_load(config, NULL, 0));
    GIVES(CONFIG, wsredis_config_load(config, TEXT("x\0.ini")));
    GIVES(CONFIG, wsredis_config_load(config, TEXT("/")));
    GIVES(CONFIG, wsredis_config_load(config, TEXT("/no/such/file.ini")));
    SAYS("/no/such/file.ini");

    size_t len = UNTOUCHED;
    char buf[8] = "xxxxxxx";
    GIVES(INVALID, wsredis_config_get(NULL, TEXT("loops"), buf, sizeof buf, &len));
    GIVES(INVALID, wsredis_config_get(config, NULL, 5, buf, sizeof buf, &len));
    GIVES(INVALID, wsredis_config_get(config, TEXT("\xff"), buf, sizeof buf, &len));
    GIVES(INVALID, wsredis_config_get(config, TEXT("loops"), NULL, sizeof buf, &len));
    GIVES(INVALID, wsredis_config_get(config, TEXT("loops"), buf, sizeof buf, NULL));
    GIVES(NOT_FOUND, wsredis_config_get(config, TEXT("loop"), buf, sizeof buf, &len));
    GIVES(LIMIT, wsredis_config_get(config, TEXT("loops"), NULL, 0, &len));
    GIVES(LIMIT, wsredis_config_get(config, TEXT("loops"), buf, 1, &len));
    CHECK(len == UNTOUCHED && strcmp(buf, "xxxxxxx") == 0);
    GIVES(OK, wsredis_config_get(config, TEXT("loops"), buf, 2, &len));
    CHECK(len == 1 && strcmp(buf, "3") == 0 && buf[2] == 'x');

    GIVES(INVALID, wsredis_config_check(NULL, 1));
    GIVES(OK, wsredis_config_check(config, 1));
    GIVES(CONFIG, wsredis_config_check(config, 2));
    SAYS("redis-url");
    wsredis_config_free(config);
    config = new_config();
    set(config, "redis-url", "redis://127.0.0.1:1");
    GIVES(OK, wsredis_config_check(config, UINT32_MAX));
    wsredis_config_free(config);
}

static void the_table_of_keys(void) {
    wsredis_config *config = new_config();
    const char *name = NULL, *help = NULL;
    size_t count = 0;
    while (wsredis_config_key(count, &name, &help) == WSREDIS_STATUS_OK) {
        char value[256];
        size_t len = 0;
        CHECK(*name && *help && strstr(help, "(default: "));
        GIVES(OK, wsredis_config_get(config, name, strlen(name), value, sizeof value, &len));
        CHECK(len == strlen(value));
        count++;
    }
    CHECK(count > 20);
    name = help = "untouched";
    GIVES(NOT_FOUND, wsredis_config_key(count, &name, &help));
    GIVES(NOT_FOUND, wsredis_config_key(SIZE_MAX, &name, &help));
    GIVES(INVALID, wsredis_config_key(0, &name, NULL));
    GIVES(INVALID, wsredis_config_key(0, NULL, &help));
    CHECK(strcmp(name, "untouched") == 0 && strcmp(help, "untouched") == 0);
    wsredis_config_free(config);
}

static void grants(void) {
    wsredis_config *config = new_config();
    char *grant = exact("{\"subscribe\":[\"a\"]}");
    GIVES(OK, wsredis_grant_check(config, grant, 19));
    GIVES(GRANT, wsredis_grant_check(config, grant, 18));
    GIVES(GRANT, wsredis_grant_check(config, grant, 1));
    free(grant);
    GIVES(INVALID, wsredis_grant_check(NULL, TEXT("{}")));
    GIVES(INVALID, wsredis_grant_check(config, NULL, 2));
    GIVES(INVALID, wsredis_grant_check(config, "{}", SIZE_MAX));
    GIVES(GRANT, wsredis_grant_check(config, NULL, 0));
    GIVES(GRANT, wsredis_grant_check(config, TEXT("{\"user\":\"\xff\"}")));
    GIVES(GRANT, wsredis_grant_check(config, TEXT("{}\0")));
    GIVES(GRANT, wsredis_grant_check(config, TEXT("{\"subscribe\":[\"__x\"]}")));
    SAYS("subscribe");
    wsredis_config_free(config);
}

#define HEADER(name, value) {TEXT(name), TEXT(value)}

static const wsredis_header UPGRADE[] = {
    HEADER("host", "example.test"),         HEADER("UPGRADE", "websocket"),
    HEADER("Connection", "Upgrade"),        HEADER("Sec-WebSocket-Version", "13"),
    HEADER("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
};

static wsredis_request upgrade(void) {
    wsredis_request request = {.struct_size = sizeof request};
    request.method = "GET", request.method_len = 3;
    request.protocol = "HTTP/1.1", request.protocol_len = 8;
    request.headers = UPGRADE, request.headers_len = sizeof UPGRADE / sizeof *UPGRADE;
    return request;
}

static wsredis_config *handshake_config;
static size_t answer_len;
static uint16_t answer_http;

/* Asks for an answer into a buffer of exactly that size; an error must leave what it is given. */
static wsredis_status answer(const wsredis_request *request, size_t buf_len) {
    char *buf = malloc(buf_len + 1);
    answer_len = UNTOUCHED, answer_http = 7;
    buf[buf_len] = 'x';
    wsredis_status status = wsredis_handshake_answer(handshake_config, request, TEXT("{}"), NULL, 0,
                                                     buf, buf_len, &answer_len, &answer_http);
    CHECK(buf[buf_len] == 'x');
    if (status == WSREDIS_STATUS_OK)
        CHECK(buf[answer_len] == '\0' && strlen(buf) == answer_len && atoi(buf + 9) == answer_http);
    else
        CHECK(answer_len == UNTOUCHED && answer_http == 7);
    free(buf);
    return status;
}

/* A field that is a pointer with a length: NULL is only allowed for nothing. */
#define NULL_FIELD(field)                                                                          \
    do {                                                                                           \
        wsredis_request null_ = upgrade();                                                         \
        null_.field = NULL, null_.field##_len = 1;                                                 \
        GIVES(INVALID, answer(&null_, WSREDIS_ANSWER_SIZE));                                       \
        null_.field = (const void *)UPGRADE, null_.field##_len = SIZE_MAX;                         \
        GIVES(INVALID, answer(&null_, WSREDIS_ANSWER_SIZE));                                       \
        null_.field = NULL, null_.field##_len = 0;                                                 \
        GIVES(OK, answer(&null_, WSREDIS_ANSWER_SIZE));                                            \
    } while (0)

static void handshake_answers(void) {
    char buf[WSREDIS_ANSWER_SIZE + 64];
    size_t len = UNTOUCHED;
    uint16_t http = 7;
    wsredis_request good = upgrade(), request = good;
    wsredis_config *config = handshake_config = new_config();

    GIVES(OK, answer(&good, WSREDIS_ANSWER_SIZE));
    CHECK(answer_http == 101);
    GIVES(LIMIT, answer(&good, WSREDIS_ANSWER_SIZE - 1));
    GIVES(LIMIT, answer(&good, 1));
    GIVES(LIMIT, answer(&good, 0));
    GIVES(INVALID, answer(NULL, WSREDIS_ANSWER_SIZE));
    NULL_FIELD(method);
    NULL_FIELD(protocol);
    NULL_FIELD(headers);
    NULL_FIELD(remote_address);

    wsredis_header headers[2] = {UPGRADE[0], {NULL, 1, "x", 1}};
    request.headers = headers, request.headers_len = 2;
    GIVES(INVALID, answer(&request, WSREDIS_ANSWER_SIZE));
    headers[1] = (wsredis_header){"x", 1, NULL, 1};
    GIVES(INVALID, answer(&request, WSREDIS_ANSWER_SIZE));
    headers[1] = (wsredis_header){"\xff\0", 2, "\xff\0", 2}; /* Bytes of a browser, not text. */
    GIVES(OK, answer(&request, WSREDIS_ANSWER_SIZE));
    CHECK(answer_http == 426);

    request = good;
    for (int https = 0; https <= UINT8_MAX; https++) {
        request.https = (uint8_t)https;
        CHECK(answer(&request, WSREDIS_ANSWER_SIZE) ==
              (https <= 2 ? WSREDIS_STATUS_OK : WSREDIS_STATUS_INVALID));
    }

    /* Sizes: of nothing, of no size at all, of less than the first header's and of newer ones. */
    union {
        wsredis_request request;
        unsigned char bytes[sizeof(wsredis_request) + 24];
    } sized = {.request = good};
    for (size_t size = 0; size < sizeof(size_t); size++) {
        sized.request.struct_size = size;
        GIVES(INVALID, answer(&sized.request, WSREDIS_ANSWER_SIZE));
    }
    size_t *only_size = malloc(sizeof *only_size);
    *only_size = sizeof *only_size;
    GIVES(INVALID, answer((wsredis_request *)only_size, WSREDIS_ANSWER_SIZE));
    free(only_size);
    sized.request.struct_size = sizeof sized;
    memset(sized.bytes + sizeof good, 0, sizeof sized - sizeof good);
    GIVES(OK, answer(&sized.request, WSREDIS_ANSWER_SIZE));
    CHECK(answer_http == 101);
    sized.bytes[sizeof sized - 1] = 1;
    GIVES(UNSUPPORTED, answer(&sized.request, WSREDIS_ANSWER_SIZE));
    for (size_t bit = 17; bit < 64; bit++) {
        sized.request.struct_size = (size_t)1 << bit;
        GIVES(INVALID, answer(&sized.request, WSREDIS_ANSWER_SIZE));
    }
    GIVES(INVALID, answer((wsredis_request *)(sized.bytes + 1), WSREDIS_ANSWER_SIZE));

    /* The pointers beside the request. */
    char *extra = exact("Set-Cookie: a=b\r\n");
    size_t n = sizeof buf;
    memset(buf, 'x', n);
    GIVES(INVALID, wsredis_handshake_answer(NULL, &good, TEXT("{}"), NULL, 0, buf, n, &len, &http));
    GIVES(INVALID, wsredis_handshake_answer(config, &good, NULL, 2, NULL, 0, buf, n, &len, &http));
    GIVES(INVALID, wsredis_handshake_answer(config, &good, NULL, 0, NULL, 9, buf, n, &len, &http));
    GIVES(INVALID,
          wsredis_handshake_answer(config, &good, NULL, 0, extra, SIZE_MAX, buf, n, &len, &http));
    GIVES(INVALID, wsredis_handshake_answer(config, &good, NULL, 0, NULL, 0, NULL, n, &len, &http));
    GIVES(INVALID, wsredis_handshake_answer(config, &good, NULL, 0, NULL, 0, buf, n, NULL, &http));
    GIVES(INVALID, wsredis_handshake_answer(config, &good, NULL, 0, NULL, 0, buf, n, &len, NULL));
    GIVES(INVALID, wsredis_handshake_answer(config, &good, NULL, 0, extra, 16, buf, n, &len, &http));
    GIVES(GRANT, wsredis_handshake_answer(config, &good, TEXT("{"), NULL, 0, buf, n, &len, &http));
    GIVES(LIMIT, wsredis_handshake_answer(config, &good, NULL, 0, extra, 17, buf,
                                          WSREDIS_ANSWER_SIZE + 16, &len, &http));
    CHECK(len == UNTOUCHED && http == 7 && buf[0] == 'x');
    GIVES(OK, wsredis_handshake_answer(config, &good, NULL, 0, extra, 17, buf,
                                       WSREDIS_ANSWER_SIZE + 17, &len, &http));
    CHECK(http == 101 && strstr(buf, "\r\nSet-Cookie: a=b\r\n"));
    free(extra);
    wsredis_config_free(config);
}

static void refusals(void) {
    static const uint16_t ours[] = {400, 403, 408, 426, 431, 500, 501, 503};
    char buf[WSREDIS_ANSWER_SIZE];
    size_t len = 0, all = 0;
    wsredis_config *config = new_config();
    for (unsigned http = 0; http <= UINT16_MAX; http++) {
        bool is_ours = false;
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            is_ours = is_ours || ours[i] == http;
        len = UNTOUCHED;
        wsredis_status status =
            wsredis_handshake_refusal(config, (uint16_t)http, buf, sizeof buf, &len);
        CHECK(status == (is_ours ? WSREDIS_STATUS_OK : WSREDIS_STATUS_INVALID));
        CHECK(is_ours ? len == strlen(buf) && atoi(buf + 9) == (int)http : len == UNTOUCHED);
        all += is_ours;
    }
    CHECK(all == sizeof ours / sizeof *ours);
    GIVES(OK, wsredis_handshake_refusal(config, 503, buf, sizeof buf, &all));
    CHECK(strstr(buf, "\r\nRetry-After: "));
    /* No 503: each has a time of its own, so that two may differ in length. */
    GIVES(OK, wsredis_handshake_refusal(config, 426, buf, sizeof buf, &all));
    char *tight = malloc(all + 1);
    GIVES(OK, wsredis_handshake_refusal(config, 426, tight, all + 1, &len));
    CHECK(len == all && strcmp(tight, buf) == 0);
    len = UNTOUCHED;
    GIVES(LIMIT, wsredis_handshake_refusal(config, 426, tight, all, &len));
    GIVES(LIMIT, wsredis_handshake_refusal(config, 426, NULL, 0, &len));
    GIVES(INVALID, wsredis_handshake_refusal(config, 426, NULL, 1, &len));
    GIVES(INVALID, wsredis_handshake_refusal(config, 426, buf, sizeof buf, NULL));
    GIVES(INVALID, wsredis_handshake_refusal(NULL, 426, buf, sizeof buf, &len));
    CHECK(len == UNTOUCHED);
    free(tight);
    wsredis_config_free(config);
}

static void an_engine_that_has_not_begun(void) {
    wsredis_config *config = new_config();
    wsredis_engine *const none = (wsredis_engine *)UNTOUCHED;
    wsredis_engine *engine = none;
    GIVES(INVALID, wsredis_engine_start(NULL, NULL, NULL, &engine));
    GIVES(INVALID, wsredis_engine_start(config, NULL, NULL, NULL));
    CHECK(engine == none);
    engine = start(config);
    wsredis_config_free(config); /* The engine has a copy. */

    char json[4096];
    size_t len = UNTOUCHED;
    GIVES(OK, wsredis_engine_stats(engine, json, sizeof json, &len));
    CHECK(len == strlen(json) && json[0] == '{' && json[len - 1] == '}');
    CHECK(strstr(json, "\"sockets\":0") && strstr(json, "\"closed\":{"));
    char *tight = malloc(len + 1);
    size_t all = len;
    GIVES(OK, wsredis_engine_stats(engine, tight, all + 1, &len));
    len = UNTOUCHED;
    GIVES(LIMIT, wsredis_engine_stats(engine, tight, all, &len));
    GIVES(LIMIT, wsredis_engine_stats(engine, tight, 1, &len));
    GIVES(LIMIT, wsredis_engine_stats(engine, NULL, 0, &len));
    GIVES(INVALID, wsredis_engine_stats(engine, NULL, 1, &len));
    GIVES(INVALID, wsredis_engine_stats(engine, tight, all + 1, NULL));
    GIVES(INVALID, wsredis_engine_stats(NULL, tight, all + 1, &len));
    CHECK(len == UNTOUCHED);
    free(tight);

    wsredis_event event = {.struct_size = sizeof event, .kind = 77};
    GIVES(NOT_FOUND, wsredis_engine_next_event(engine, &event));
    CHECK(event.kind == 77);
    wsredis_engine_free(engine);
    wsredis_engine_free(NULL);
}

static void engine_functions(void) {
    wsredis_config *config = new_config();
    wsredis_engine *engine = start(config);
    const uint8_t payload[] = "x";

    GIVES(INVALID, wsredis_engine_publish(NULL, TEXT("a"), payload, 1));
    GIVES(INVALID, wsredis_engine_publish(engine, NULL, 1, payload, 1));
    GIVES(INVALID, wsredis_engine_publish(engine, TEXT("a"), NULL, 1));
    GIVES(INVALID, wsredis_engine_publish(engine, TEXT("a"), payload, SIZE_MAX));
    GIVES(INVALID, wsredis_engine_publish(engine, "a", SIZE_MAX, payload, 1));
    GIVES(INVALID, wsredis_engine_publish(engine, NULL, 0, payload, 1));
    GIVES(INVALID, wsredis_engine_publish(engine, TEXT("\xff"), payload, 1));
    GIVES(INVALID, wsredis_engine_publish(engine, TEXT("a\0"), payload, 1));
    GIVES(INVALID, wsredis_engine_publish(engine, TEXT("__a"), payload, 1));
    char name[256];
    memset(name, 'a', sizeof name);
    GIVES(INVALID, wsredis_engine_publish(engine, name, 256, payload, 1));
    GIVES(OK, wsredis_engine_publish(engine, name, 255, payload, 1));
    GIVES(OK, wsredis_engine_publish(engine, TEXT("a"), NULL, 0));

    GIVES(INVALID, wsredis_engine_send(NULL, TEXT("a"), payload, 1));
    GIVES(INVALID, wsredis_engine_send(engine, NULL, 1, payload, 1));
    GIVES(INVALID, wsredis_engine_send(engine, TEXT("\xff"), payload, 1));
    GIVES(INVALID, wsredis_engine_send(engine, TEXT("1-1-1"), NULL, 1));
    static const char *const ids[] = {"",  "-", "--", "a", "1-", "-1", "1-1", "1-1-1", "1-1-1-1",
                                      "ffffffffffffffffff-1", "0000000000000000-1-1", "1-1\n"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        GIVES(NOT_FOUND, wsredis_engine_send(engine, ids[i], strlen(ids[i]), payload, 1));
        GIVES(NOT_FOUND,
              wsredis_engine_kick(engine, WSREDIS_WHO_SOCKET, ids[i], strlen(ids[i])));
    }

    GIVES(INVALID, wsredis_engine_kick(NULL, WSREDIS_WHO_USER, TEXT("a")));
    GIVES(INVALID, wsredis_engine_kick(engine, WSREDIS_WHO_USER, NULL, 1));
    GIVES(INVALID, wsredis_engine_kick(engine, WSREDIS_WHO_USER, TEXT("\xff")));
    GIVES(INVALID, wsredis_engine_kick(engine, WSREDIS_WHO_CHANNEL + 1, TEXT("a")));
    GIVES(INVALID, wsredis_engine_kick(engine, UINT32_MAX, TEXT("a")));
    for (uint32_t who = WSREDIS_WHO_USER; who <= WSREDIS_WHO_CHANNEL; who++)
        GIVES(OK, wsredis_engine_kick(engine, who, TEXT("nobody")));

    GIVES(INVALID, wsredis_engine_adopt(NULL, NULL));
    GIVES(INVALID, wsredis_engine_adopt(engine, NULL));
    GIVES(INVALID, wsredis_engine_health(NULL));
    GIVES(OK, wsredis_engine_health(engine));

    int32_t fd = -7, same = -7;
    GIVES(INVALID, wsredis_engine_events_fd(NULL, &fd));
    GIVES(INVALID, wsredis_engine_events_fd(engine, NULL));
    CHECK(fd == -7);
    GIVES(OK, wsredis_engine_events_fd(engine, &fd));
    GIVES(OK, wsredis_engine_events_fd(engine, &same));
    CHECK(fd >= 0 && fd == same && !readable(fd, 0));

    struct {
        wsredis_event event;
        unsigned char tail[8];
    } out = {.tail = "xxxxxxx"};
    static const size_t wrong[] = {0, 4, 8, sizeof out.event - 1, (size_t)1 << 17, SIZE_MAX};
    GIVES(INVALID, wsredis_engine_next_event(engine, NULL));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        out.event.struct_size = wrong[i];
        GIVES(INVALID, wsredis_engine_next_event(engine, &out.event));
    }
    out.event.struct_size = sizeof out.event;
    GIVES(INVALID, wsredis_engine_next_event(NULL, &out.event));
    GIVES(NOT_FOUND, wsredis_engine_next_event(engine, &out.event));
    /* An event may grow: a caller that knows more gets zeroes there. */
    wsredis_adoption adoption;
    int pair[2];
    unix_pair(pair);
    adoption = adoption_of(pair[0], "{}");
    GIVES(OK, wsredis_engine_adopt(engine, &adoption));
    CHECK(readable(fd, DEADLINE_MS));
    out.event.struct_size = sizeof out;
    GIVES(OK, wsredis_engine_next_event(engine, &out.event));
    CHECK(out.event.kind == WSREDIS_EVENT_OPENED && out.event.struct_size == sizeof out);
    CHECK(out.tail[0] == 0 && out.tail[7] == 0);
    close(pair[1]);

    wsredis_engine_free(engine);
    wsredis_config_free(config);
}

static void a_stopped_engine_says_so(void) {
    wsredis_config *config = new_config();
    GIVES(INVALID, wsredis_engine_stop(NULL, 0));
    for (int begun = 0; begun <= 1; begun++) {
        wsredis_engine *engine = start(config);
        int browser = -1;
        int32_t fd = -1;
        char json[4096];
        size_t len;
        wsredis_event event = {.struct_size = sizeof event};
        if (begun) {
            GIVES(OK, wsredis_engine_events_fd(engine, &fd));
            browser = adopted(engine, "{}");
        }
        /* The browser does not answer the close frame, so that all the time is used. */
        EVENTUALLY(wsredis_engine_stop(engine, 50) == WSREDIS_STATUS_OK);
        GIVES(OK, wsredis_engine_stop(engine, UINT32_MAX));
        int pair[2];
        unix_pair(pair);
        wsredis_adoption adoption = adoption_of(pair[0], "{}");
        GIVES(STOPPED, wsredis_engine_adopt(engine, &adoption));
        CHECK(fcntl(pair[0], F_GETFD) >= 0 && !readable(pair[1], 0));
        close(pair[0]), close(pair[1]);
        GIVES(STOPPED, wsredis_engine_publish(engine, TEXT("a"), NULL, 0));
        GIVES(STOPPED, wsredis_engine_kick(engine, WSREDIS_WHO_USER, TEXT("a")));
        GIVES(STOPPED, wsredis_engine_health(engine));
        GIVES(STOPPED, wsredis_engine_events_fd(engine, &fd));
        GIVES(OK, wsredis_engine_stats(engine, json, sizeof json, &len));
        if (begun) {
            /* What happened is still told. */
            GIVES(OK, wsredis_engine_next_event(engine, &event));
            CHECK(event.kind == WSREDIS_EVENT_OPENED);
            GIVES(OK, wsredis_engine_next_event(engine, &event));
            CHECK(event.kind == WSREDIS_EVENT_CLOSED && event.code == 1012);
            GIVES(STOPPED, wsredis_engine_send(engine, event.socket_id, strlen(event.socket_id),
                                               NULL, 0));
            expect_close(browser, 1012);
            expect_end(browser);
            close(browser);
        }
        GIVES(NOT_FOUND, wsredis_engine_next_event(engine, &event));
        wsredis_engine_free(engine);
    }
    wsredis_config_free(config);
}

int main(void) {
    versions_and_names();
    the_last_error_is_copied_out_and_is_the_threads_own();
    config_functions();
    the_table_of_keys();
    grants();
    handshake_answers();
    refusals();
    an_engine_that_has_not_begun();
    engine_functions();
    a_stopped_engine_says_so();
    return 0;
}
