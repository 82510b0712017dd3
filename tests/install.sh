#!/bin/bash
# `make install` into a folder, then a C program that knows only pkg-config: linked against the shared library and against
# the static one, it says the library's version.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

make --no-print-directory install DESTDIR="$folder/stage" PREFIX=/opt/wsredis >/dev/null
# Where it would lie without DESTDIR.
mv "$folder/stage/opt/wsredis" "$folder/wsredis"
sed -i "s|/opt/wsredis|$folder/wsredis|" "$folder/wsredis/lib/pkgconfig/wsredis.pc"
export PKG_CONFIG_PATH=$folder/wsredis/lib/pkgconfig

cat >"$folder/version.c" <<'C'
#include <stdio.h>
#include <string.h>
#include <wsredis.h>

int main(void)
{
	puts(wsredis_version());
	return wsredis_abi_version() != WSREDIS_ABI_VERSION || strcmp(wsredis_version(), WSREDIS_VERSION);
}
C

read -ra cflags <<<"$(pkg-config --cflags wsredis)"
read -ra libs <<<"$(pkg-config --libs wsredis)"
read -ra private <<<"$(sed -n 's/^Libs.private: //p' "$PKG_CONFIG_PATH/wsredis.pc")"
version=$(pkg-config --modversion wsredis)

cc -Wall -Werror "${cflags[@]}" "$folder/version.c" -o "$folder/shared" "${libs[@]}"
[ "$(LD_LIBRARY_PATH=$folder/wsredis/lib "$folder/shared")" = "$version" ]
cc -Wall -Werror "${cflags[@]}" "$folder/version.c" -o "$folder/static" "$folder/wsredis/lib/libwsredis.a" "${private[@]}"
[ "$("$folder/static")" = "$version" ]
[ "$(stat -c %a "$folder/wsredis/lib/libwsredis.so.$version")" = 755 ]
echo "1 passed, 0 failed"
