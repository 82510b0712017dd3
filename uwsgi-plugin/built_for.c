/* Does this plugin fit this uWSGI binary?
 *
 * uWSGI gives its plugins its own structs, without a version: a plugin built for another binary
 * loads without a word and then reads garbage (`mywid` of Debian's 2.0.21 is at 6520, of pip's
 * 2.0.31 at 6480). So the plugin carries what it was compiled against and compares it with the
 * running binary. Only what does not depend on a layout is read of that binary: its header and its
 * compiler flags, which every uWSGI carries as text to build plugins with, and the size of its one
 * global as its own symbol table states it.
 */
#include "plugin.h"

#include <dlfcn.h>
#include <link.h>

/* From uwsgiplugin.py, which asked the binary that the plugin is built for. */
#if !defined(WSREDIS_BUILT_FOR_VERSION) || !defined(WSREDIS_BUILT_FOR_HEADER) || \
	!defined(WSREDIS_BUILT_FOR_DEFINES)
#error "build with uwsgi-plugin/build.sh, or with: uwsgi --build-plugin uwsgi-plugin"
#endif

/* FNV-1a: two texts of the same length that differ by a macro give two numbers; nobody attacks
 * it here. */
uint64_t plugin_hash(uint64_t hash, const void *bytes, size_t len)
{
	const unsigned char *byte = bytes;
	while (len--)
		hash = (hash ^ *byte++) * 1099511628211ull;
	return hash;
}

static int plugin_is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n';
}

/* The words -D... of the flags, in their order. Only they change the structs; paths of the
 * machine that built the binary stay out, so that a rebuild of the same package still fits.
 * uwsgiplugin.py computes the same. */
static uint64_t plugin_hash_defines(const char *cflags)
{
	uint64_t hash = PLUGIN_HASH_START;
	for (const char *word = cflags; *word;) {
		size_t len = 0;
		while (word[len] && !plugin_is_space(word[len]))
			len++;
		if (len > 2 && word[0] == '-' && word[1] == 'D') {
			hash = plugin_hash(hash, word, len);
			hash = plugin_hash(hash, "\n", 1);
		}
		word += len;
		while (plugin_is_space(*word))
			word++;
	}
	return hash;
}

/* The text between -DUWSGI_VERSION="\" and \"". */
static void plugin_version_of(const char *cflags, char *version, size_t size)
{
	const char *mark = "-DUWSGI_VERSION=\"\\\"";
	const char *from = cflags ? strstr(cflags, mark) : NULL;
	if (!from) {
		snprintf(version, size, "(unknown)");
		return;
	}
	from += strlen(mark);
	snprintf(version, size, "%.*s", (int) strcspn(from, "\\\" "), from);
}

/* What is different, or NULL. Symbols are looked up by name: a binary that lacks one is a
 * different binary, not a failed dlopen with a riddle. */
static const char *plugin_difference(const char *cflags)
{
	char *(*get_header)(void) = (char *(*)(void)) dlsym(RTLD_DEFAULT, "uwsgi_get_dot_h");
	if (!cflags || !get_header)
		return "it does not say what it was built with";
	if (plugin_hash_defines(cflags) != WSREDIS_BUILT_FOR_DEFINES)
		return "it was compiled with other features";
	char *header = get_header();
	if (!header ||
		plugin_hash(PLUGIN_HASH_START, header, strlen(header)) != WSREDIS_BUILT_FOR_HEADER)
		return "its uwsgi.h is another one";
	free(header);

	Dl_info info;
	ElfW(Sym) *symbol = NULL;
	if (dladdr1(&uwsgi, &info, (void **) &symbol, RTLD_DL_SYMENT) && symbol && symbol->st_size &&
		symbol->st_size != sizeof(struct uwsgi_server))
		return "its struct uwsgi_server has another size";
	return NULL;
}

void plugin_check_binary(void)
{
	char *(*get_cflags)(void) = (char *(*)(void)) dlsym(RTLD_DEFAULT, "uwsgi_get_cflags");
	char *cflags = get_cflags ? get_cflags() : NULL;
	const char *difference = plugin_difference(cflags);
	if (difference) {
		char version[64], path[4096] = "";
		plugin_version_of(cflags, version, sizeof(version));
		if (readlink("/proc/self/exe", path, sizeof(path) - 1) < 0)
			snprintf(path, sizeof(path), "/path/of/this/uwsgi");
		/* Straight to the log's descriptor: this is no place to trust anything of uWSGI's, and
		 * exit() would run handlers inside of dlopen. */
		dprintf(2,
			"wsredis: this plugin was built for uWSGI %s (struct uwsgi_server %zu bytes, mywid at "
			"%zu), but this is uWSGI %s and %s. A plugin fits one uWSGI binary; build it again "
			"with: make plugin UWSGI=%s\n",
			WSREDIS_BUILT_FOR_VERSION, sizeof(struct uwsgi_server),
			offsetof(struct uwsgi_server, mywid), version, difference, path);
		_exit(1);
	}
	free(cflags);
}
