"""What `uwsgi --build-plugin` asks about this plugin; it runs with that binary's header and flags.

Besides the usual five names it writes down which binary that is (built_for.c compares it at load).
It builds nothing itself: libwsredis.a must be there, by `cargo build --release` or as WSREDIS_LIB.
"""
import os
import re
import sys

# --build-plugin runs the builder as: uwsgiconfig.py --extra-plugin DIRECTORY
_directory = os.path.abspath(sys.argv[2])
_library = os.environ.get('WSREDIS_LIB') or _directory + '/../target/release/libwsredis.a'
if not os.path.exists(_library):
    sys.exit('%s is missing: build it with: cargo build --release' % os.path.normpath(_library))


def _hash(data):
    """plugin_hash() of built_for.c."""
    value = 14695981039346656037
    for byte in bytearray(data):
        value = (value ^ byte) * 1099511628211 & 0xffffffffffffffff
    return value


_flags = os.environ['UWSGI_PLUGINS_BUILDER_CFLAGS']
_defines = [word + '\n' for word in re.split('[ \t\n]+', _flags) if re.match('-D.', word)]
_version = re.search(r'-DUWSGI_VERSION="\\"([^"\\ ]*)', _flags)
with open('.uwsgi_plugins_builder/uwsgi.h', 'rb') as _file:
    _header = _file.read()

NAME = 'wsredis'
CFLAGS = [
    '-std=gnu11', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror',
    '-DWSREDIS_BUILT_FOR_VERSION=\'"%s"\'' % (_version.group(1) if _version else '(unknown)'),
    '-DWSREDIS_BUILT_FOR_HEADER=0x%xull' % _hash(_header),
    '-DWSREDIS_BUILT_FOR_DEFINES=0x%xull' % _hash(''.join(_defines).encode()),
]
# Plugins are opened RTLD_GLOBAL: without the first the symbols of Rust's std would be everybody's.
# The engine's threads have thread-local destructors: without the second, unloading their code would
# end the process.
LDFLAGS = ['-Wl,--exclude-libs,ALL', '-Wl,-z,nodelete']
LIBS = [os.path.normpath(_library), '-lgcc_s', '-lutil', '-lrt', '-lpthread', '-lm', '-ldl']
GCC_LIST = ['wsredis_plugin', 'keeper', 'built_for', 'takeover', 'socket', 'route', 'rpc']
