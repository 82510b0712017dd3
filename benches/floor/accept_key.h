/* The answer to a websocket's key, RFC 6455 §4.2.2: base64 of SHA-1 of the key and a fixed text. */
#ifndef FLOOR_ACCEPT_KEY_H
#define FLOOR_ACCEPT_KEY_H

enum { KEY_SIZE = 24, ACCEPT_SIZE = 28 };

/* Writes ACCEPT_SIZE characters, without an end, for a key of KEY_SIZE characters. */
void accept_key(const char *key, char *out);

#endif
