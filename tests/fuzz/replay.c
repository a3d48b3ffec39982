/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.c -- runs one fuzz target over inputs that are kept, without a fuzzer: part of every test run, with any compiler.
 *
 *   fuzz_x-replay PATH...      each a file, or a directory whose files (and those of its directories) are taken in order of name
 *
 * A small input (SMALL_MAX_BYTES) also runs cut off at every byte: parsers break at ends. Each runs in memory of exactly its
 * own length, so that a sanitizer sees one byte too much. Exit 0: all ran. If the process dies the last line on stderr names the
 * input, and how much of it was given.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL_MAX_BYTES 512        /* 513 runs for such a file: still under a millisecond for most targets */
#define FILE_MAX_BYTES (64u << 20) /* nothing that is kept in a repository is larger */
#define DEPTH_MAX 8                /* of directories; a link that leads round ends there */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static char current[PATH_MAX];     /* the input that runs */
static size_t current_bytes;
static unsigned long n_run;

/* Only write(2): the heap may be the very thing that broke. */
static void
tell_current(void)
{
	char digits[24], *d = digits + sizeof digits;
	size_t n = current_bytes;

	*--d = '\n';
	do {
		*--d = (char)('0' + n % 10);
	} while ((n /= 10) != 0);
	if (write(STDERR_FILENO, "input: ", 7) < 0 || write(STDERR_FILENO, current, strlen(current)) < 0 || write(STDERR_FILENO, ", bytes given: ", 15) < 0 ||
	    write(STDERR_FILENO, d, (size_t)(digits + sizeof digits - d)) < 0)
		_exit(1);
}

static void
on_abort(int sig)
{
	tell_current();
	(void)signal(sig, SIG_DFL);
	(void)raise(sig);
}

static int
run(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);
	if (!exact)
		return -ENOMEM;
	if (size)
		memcpy(exact, data, size);
	current_bytes = size;
	(void)LLVMFuzzerTestOneInput(exact, size); /* the value is for the fuzzer's own corpus */
	free(exact);
	n_run++;
	return 0;
}

static int
replay_file(const char *path)
{
	uint8_t *data = NULL;
	struct stat st;
	int rc = 0;
	FILE *f = fopen(path, "rbe");

	if (!f)
		return -errno;
	if (fstat(fileno(f), &st) != 0 || st.st_size < 0 || st.st_size > FILE_MAX_BYTES) {
		rc = -EFBIG;
		goto out;
	}
	const size_t size = (size_t)st.st_size;
	data = malloc(size + 1);
	if (!data) {
		rc = -ENOMEM;
		goto out;
	}
	if (fread(data, 1, size, f) != size) {
		rc = -EIO;
		goto out;
	}
	(void)snprintf(current, sizeof current, "%s", path);
	rc = run(data, size);
	for (size_t n = 0; rc == 0 && size <= SMALL_MAX_BYTES && n < size; n++)
		rc = run(data, n);
out:
	free(data);
	(void)fclose(f); /* it was only read */
	return rc;
}

static int
not_hidden(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static int
replay(const char *path, int depth)
{
	struct dirent **entry;
	struct stat st;
	int rc = 0;

	if (stat(path, &st) != 0)
		rc = -errno;
	else if (!S_ISDIR(st.st_mode))
		rc = replay_file(path);
	if (rc != 0)
		(void)fprintf(stderr, "%s: %s\n", path, strerror(-rc));
	if (rc != 0 || !S_ISDIR(st.st_mode) || depth == 0)
		return rc;

	int n = scandir(path, &entry, not_hidden, alphasort);
	if (n < 0) {
		rc = -errno;
		(void)fprintf(stderr, "%s: %s\n", path, strerror(-rc));
		return rc;
	}
	for (int i = 0; i < n; i++) {
		char inner[PATH_MAX];
		if (rc == 0 && snprintf(inner, sizeof inner, "%s/%s", path, entry[i]->d_name) < (int)sizeof inner)
			rc = replay(inner, depth - 1);
		free(entry[i]);
	}
	free(entry);
	return rc;
}

int
main(int argc, char **argv)
{
	if (argc < 2) {
		(void)fprintf(stderr, "usage: %s FILE|DIRECTORY...\n", argv[0]);
		return 2;
	}
	if (LLVMFuzzerInitialize)
		(void)LLVMFuzzerInitialize(&argc, &argv);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(tell_current);
	(void)signal(SIGABRT, on_abort);
	for (int i = 1; i < argc; i++)
		if (replay(argv[i], DEPTH_MAX) != 0)
			return 1;
	(void)printf("%s: %lu inputs replayed\n", program_invocation_short_name, n_run);
	return 0;
}
