/*
 * The smallest keeper: a process that holds the websockets of every host whose settings have the
 * same `keeper` path, so that they outlive those hosts.
 *
 *     cc -std=c11 examples/keeper.c -Iinclude -Ltarget/release -lwsredis -o keeper
 *     ./keeper site.ini
 *
 * The ini file has a section [wsredis] with at least `keeper = /run/…`. Started a second time, it
 * takes everything over from the first. wsredis_keeper_start and wsredis_keeper_watch start it with
 * the file in WSREDIS_KEEPER.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wsredis.h>

static int failed(const char *what) {
    char why[512];
    wsredis_last_error(why, sizeof why);
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

int main(int argc, char **argv) {
    const char *ini = argc > 1 ? argv[1] : getenv("WSREDIS_KEEPER");
    if (!ini) {
        fprintf(stderr, "usage: %s FILE.ini\n", argv[0]);
        return 2;
    }
    wsredis_config *config;
    if (wsredis_config_new(&config) != WSREDIS_STATUS_OK ||
        wsredis_config_load(config, ini, strlen(ini)) != WSREDIS_STATUS_OK)
        return failed("settings");
    uint8_t leased = getenv("WSREDIS_KEEPER_LEASED") != NULL;
    if (wsredis_keeper_run(config, leased, NULL, NULL) != WSREDIS_STATUS_OK)
        return failed("keeper");
    wsredis_config_free(config);
    return 0;
}
