/* SPDX-License-Identifier: Apache-2.0 */
/* library.c -- what a program takes in with libsignalbox.so: its size as it is installed (stripped), and what it needs beside it. */
#include "tools/bench/bench.h"

#include <string.h>
#include <sys/stat.h>

#define KB 1000.0

/* Libraries that ldd names, but for the kernel's and the loader; how many of them are not among those that the design allows. */
static bool
read_ldd(const char *path, char *ret_names, size_t bytes, uint32_t *ret_others)
{
	char line[512], name[256];
	size_t at = 0;
	FILE *f = fopen(path, "re");
	if (!f)
		return false;
	*ret_names = 0;
	*ret_others = 0;
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, " %255s", name) != 1 || strstr(name, "linux-vdso") || name[0] == '/')
			continue;
		if (strncmp(name, "libc.so.", 8) != 0 && strncmp(name, "libmsgpackc.so.", 15) != 0)
			(*ret_others)++;
		int n = snprintf(ret_names + at, bytes - at, "%s%s", at ? ", " : "", name);
		at += n > 0 && (size_t)n < bytes - at ? (size_t)n : 0;
	}
	(void)fclose(f); /* it was only read */
	return at > 0;
}

bool
measure_library(struct bench *b)
{
	char built[340], stripped[128], said[128];
	struct stat st;
	uint32_t others;
	progress("library");
	rig_built(built, sizeof built, "libsignalbox.so");
	rig_file(stripped, sizeof stripped, "libsignalbox.so");
	rig_file(said, sizeof said, "ldd");
	const char *const strip[] = { "/usr/bin/strip", "-o", stripped, built, NULL };
	const char *const ldd[] = { "/usr/bin/ldd", stripped, NULL };
	struct figure size = { .name = "library_size", .what = "libsignalbox.so, stripped", .unit = "kB", .limit_of = LIMIT_VALUE, .limit = 80 };
	struct figure needs = { .name = "library_needs_others", .what = "libraries it needs but libc, libmsgpackc", .unit = "", .limit_of = LIMIT_VALUE, .limit = 0 };
	if (!program_run(strip, NULL) || stat(stripped, &st) || !program_run(ldd, said) || !read_ldd(said, needs.detail, sizeof needs.detail, &others))
		return false;
	size.value = (double)st.st_size / KB;
	needs.value = others;
	(void)report_add(&b->report, &size);
	(void)report_add(&b->report, &needs);
	return true;
}
