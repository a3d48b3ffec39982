/* SPDX-License-Identifier: Apache-2.0 */
/* test_keys.c -- agent/keys: sources, protection and redaction of secrets. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <signalbox/errors.h>

#include "agent/keys.h"

static char dir[] = "/tmp/sbx-test-keys-XXXXXX";
static char why[512];

static struct sbx_secret *
secret(const char *text)
{
	struct sbx_secret *s = NULL;
	assert_int_equal(sbx_secret_new(text, strlen(text), &s), 0);
	return s;
}

static void
test_headers(void **state)
{
	(void)state;
	struct sbx_secret *s = secret("sk-0123456789");
	assert_string_equal(sbx_secret_header(s, SBX_AUTH_BEARER), "Authorization: Bearer sk-0123456789");
	assert_string_equal(sbx_secret_header(s, SBX_AUTH_API_KEY), "api-key: sk-0123456789");
	assert_string_equal(sbx_secret_header(s, SBX_AUTH_X_API_KEY), "x-api-key: sk-0123456789");
	assert_null(sbx_secret_header(s, SBX_AUTH_NONE));
	assert_string_equal(sbx_secret_fingerprint(s), "5c85b6dd");
	assert_ptr_equal(sbx_secret_get(s), s);
	sbx_secret_put(s);
	assert_string_equal(sbx_secret_header(s, SBX_AUTH_API_KEY), "api-key: sk-0123456789");
	sbx_secret_put(s);
	sbx_secret_put(NULL);
}

static void
test_what_is_no_key(void **state)
{
	(void)state;
	static const char *const bad[] = { "", "a b", "a\nb", "a\r\nX-Evil: 1", "a\tb", "a\x7f", "k\xc3\xa9y", "a\n" };
	struct sbx_secret *s = NULL;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(sbx_secret_new(bad[i], strlen(bad[i]), &s), -SBX_EINVAL);
	assert_int_equal(sbx_secret_new("a\0b", 3, &s), -SBX_EINVAL);
	char *big = malloc(SBX_KEY_FILE_MAX_BYTES + 1);
	assert_non_null(big);
	memset(big, 'k', SBX_KEY_FILE_MAX_BYTES + 1);
	assert_int_equal(sbx_secret_new(big, SBX_KEY_FILE_MAX_BYTES + 1, &s), -SBX_EINVAL);
	assert_null(s);
	assert_int_equal(sbx_secret_new(big, SBX_KEY_FILE_MAX_BYTES, &s), 0);
	sbx_secret_put(s);
	free(big);
}

static void
test_sources(void **state)
{
	(void)state;
	static const struct {
		const char *source;
		bool ok;
	} cases[] = {
		{ "env:A_b9", true }, { "env:", false }, { "env:9A", false }, { "env:A-B", false }, { "env:A=B", false }, { "file:/x", true },
		{ "file:x", false }, { "file:", false }, { "cred:x", true }, { "cred:", false }, { "cred:a/b", false }, { "cred:..", false },
		{ "none", false }, { "sk-123", false }, { "", false },
	};
	struct sbx_vault v;
	sbx_vault_init(&v);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_secret *s = NULL;
		assert_int_equal(sbx_key_source_ok(cases[i].source), cases[i].ok);
		if (!cases[i].ok) {
			assert_int_equal(sbx_key_read(&v, cases[i].source, &s, why, sizeof why), -SBX_EINVAL);
			assert_null(cases[i].source[0] ? strstr(why, "sk-123") : NULL);
		}
	}
	sbx_vault_fini(&v);
}

/* In an environment that holds the variable twice, as a hostile or careless parent may leave it. */
static void
test_environment_is_wiped(void **state)
{
	(void)state;
	char one[] = "SBX_K=first-secret", two[] = "SBX_K=other-secret", other[] = "SBX_K2=untouched";
	char *mine[] = { one, other, two, NULL }, **before = environ;
	struct sbx_vault v;
	struct sbx_secret *s = NULL, *again = NULL;
	sbx_vault_init(&v);
	environ = mine;
	assert_true(sbx_vault_has(&v, "SBX_K"));
	int rc = sbx_key_read(&v, "env:SBX_K", &s, why, sizeof why);
	const char *left = getenv("SBX_K");
	environ = before;
	assert_int_equal(rc, 0);
	assert_string_equal(why, "");
	assert_null(left);
	assert_string_equal(sbx_secret_header(s, SBX_AUTH_API_KEY), "api-key: first-secret");
	assert_memory_equal(one, "SBX_K=\0\0\0\0\0\0\0\0\0\0\0\0", sizeof one);
	assert_memory_equal(two, "SBX_K=\0\0\0\0\0\0\0\0\0\0\0\0", sizeof two);
	assert_string_equal(other, "SBX_K2=untouched");

	/* what is gone from there is still in the vault, and a new value takes its place */
	assert_true(sbx_vault_has(&v, "SBX_K"));
	assert_int_equal(sbx_key_read(&v, "env:SBX_K", &again, why, sizeof why), 0);
	assert_ptr_equal(again, s);
	sbx_secret_put(again);
	setenv("SBX_K", "rotated-secret\r\n", 1);
	assert_int_equal(sbx_key_read(&v, "env:SBX_K", &again, why, sizeof why), 0);
	assert_string_equal(sbx_secret_header(again, SBX_AUTH_API_KEY), "api-key: rotated-secret");
	sbx_secret_put(again);

	setenv("SBX_K", "with space", 1);
	assert_int_equal(sbx_key_read(&v, "env:SBX_K", &again, why, sizeof why), -SBX_EINVAL);
	assert_null(getenv("SBX_K"));
	assert_null(strstr(why, "with space"));
	setenv("SBX_EMPTY", "", 1);
	assert_int_equal(sbx_key_read(&v, "env:SBX_EMPTY", &again, why, sizeof why), -SBX_ENOENT);
	assert_int_equal(sbx_key_read(&v, "env:SBX_UNSET", &again, why, sizeof why), -SBX_ENOENT);
	assert_false(sbx_vault_has(&v, "SBX_EMPTY"));
	sbx_secret_put(s);
	sbx_vault_fini(&v);
}

/* The same as the kernel shows it to others. */
static void
test_proc_environ(void **state)
{
	(void)state;
	if (!getenv("SBX_TEST_CANARY"))
		skip(); /* main() puts it there by executing itself */
	struct sbx_vault v;
	struct sbx_secret *s = NULL;
	sbx_vault_init(&v);
	assert_int_equal(sbx_key_read(&v, "env:SBX_TEST_CANARY", &s, why, sizeof why), 0);
	char buf[65536];
	int fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	ssize_t n = read(fd, buf, sizeof buf);
	close(fd);
	assert_true(n > 0);
	assert_non_null(memmem(buf, (size_t)n, "SBX_TEST_CANARY=", 16));
	assert_null(memmem(buf, (size_t)n, "canary-in-environ", 17));
	sbx_secret_put(s);
	sbx_vault_fini(&v);
}

static void
put_file(const char *path, const char *text, size_t n, mode_t mode)
{
	unlink(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_true(write(fd, text, n) == (ssize_t)n);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void
test_files(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		mode_t mode;
		int rc;
		const char *why; /* part of it; "" = nothing */
	} cases[] = {
		{ "the-key", 0400, 0, "" },
		{ "the-key\n", 0600, 0, "" },
		{ "the-key\r\n", 0600, 0, "" },
		{ "the-key\n\n", 0600, -SBX_EINVAL, "does not hold a key" },
		{ "the-key\nother", 0600, -SBX_EINVAL, "does not hold a key" },
		{ "", 0600, -SBX_EINVAL, "is empty" },
		{ "the-key", 0440, 0, "is open to its group" },
		{ "the-key", 0660, 0, "is open to its group" },
		{ "the-key", 0404, -SBX_EINVAL, "is open to every user" },
		{ "the-key", 0402, -SBX_EINVAL, "is open to every user" },
	};
	char path[128], link_path[128], source[160];
	snprintf(path, sizeof path, "%s/key", dir);
	snprintf(link_path, sizeof link_path, "%s/link", dir);
	snprintf(source, sizeof source, "file:%s", path);
	struct sbx_secret *s = NULL;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		put_file(path, cases[i].text, strlen(cases[i].text), cases[i].mode);
		assert_int_equal(sbx_key_read(NULL, source, &s, why, sizeof why), cases[i].rc);
		if (cases[i].why[0])
			assert_non_null(strstr(why, cases[i].why));
		else
			assert_string_equal(why, "");
		assert_null(strstr(why, "the-key"));
		if (cases[i].rc == 0) {
			assert_string_equal(sbx_secret_header(s, SBX_AUTH_API_KEY), "api-key: the-key");
			sbx_secret_put(s);
		}
	}
	/* links are followed: rotation works by them */
	put_file(path, "the-key", 7, 0400);
	assert_int_equal(symlink(path, link_path), 0);
	snprintf(source, sizeof source, "file:%s", link_path);
	assert_int_equal(sbx_key_read(NULL, source, &s, why, sizeof why), 0);
	sbx_secret_put(s);
	unlink(link_path);

	char *big = malloc(SBX_KEY_FILE_MAX_BYTES + 3);
	assert_non_null(big);
	memset(big, 'k', SBX_KEY_FILE_MAX_BYTES + 3);
	snprintf(source, sizeof source, "file:%s", path);
	put_file(path, big, SBX_KEY_FILE_MAX_BYTES + 3, 0400);
	assert_int_equal(sbx_key_read(NULL, source, &s, why, sizeof why), -SBX_EINVAL);
	assert_non_null(strstr(why, "larger than 64 KiB"));
	put_file(path, big, SBX_KEY_FILE_MAX_BYTES + 1, 0400);
	assert_int_equal(sbx_key_read(NULL, source, &s, why, sizeof why), -SBX_EINVAL);
	free(big);
	unlink(path);

	assert_int_equal(sbx_key_read(NULL, source, &s, why, sizeof why), -SBX_ENOENT);
	snprintf(source, sizeof source, "file:%s", dir);
	assert_int_equal(sbx_key_read(NULL, source, &s, why, sizeof why), -SBX_EINVAL);
	assert_non_null(strstr(why, "not a regular file"));
	assert_int_equal(mkfifo(path, 0600), 0);
	snprintf(source, sizeof source, "file:%s", path);
	assert_int_equal(sbx_key_read(NULL, source, &s, why, sizeof why), -SBX_EINVAL); /* and does not hang */
	unlink(path);
	assert_int_equal(sbx_key_read(NULL, "file:/dev/zero", &s, why, sizeof why), -SBX_EINVAL);
}

static void
test_credentials(void **state)
{
	(void)state;
	char path[128];
	struct sbx_secret *s = NULL;
	unsetenv("CREDENTIALS_DIRECTORY");
	assert_int_equal(sbx_key_read(NULL, "cred:openai", &s, why, sizeof why), -SBX_ENOENT);
	setenv("CREDENTIALS_DIRECTORY", dir, 1);
	assert_int_equal(sbx_key_read(NULL, "cred:openai", &s, why, sizeof why), -SBX_ENOENT);
	snprintf(path, sizeof path, "%s/openai", dir);
	put_file(path, "cred-key\n", 9, 0440); /* as systemd makes them where it grants by ACL */
	assert_int_equal(sbx_key_read(NULL, "cred:openai", &s, why, sizeof why), 0);
	assert_string_equal(why, "");
	assert_string_equal(sbx_secret_header(s, SBX_AUTH_API_KEY), "api-key: cred-key");
	sbx_secret_put(s);
	unlink(path);
	unsetenv("CREDENTIALS_DIRECTORY");
}

static void
test_fork_sees_nothing(void **state)
{
	(void)state;
	struct sbx_secret *s = secret("not-for-children");
	const char *header = sbx_secret_header(s, SBX_AUTH_BEARER);
	pid_t pid = fork();
	if (pid == 0)
		_exit(header[0] == '\0' && header[22] == '\0' ? 0 : 1);
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_string_equal(header, "Authorization: Bearer not-for-children");
	sbx_secret_put(s);
}

static void
test_redact(void **state)
{
	(void)state;
	struct sbx_secret *a = secret("sk-aaaaaaaaaaaaaaaa"), *longer = secret("sk-aaaaaaaaaaaaaaaaBBBB"), *shorter = secret("12345678"),
	                  *dummy = secret("ollama");
	char mark[24];
	snprintf(mark, sizeof mark, "[key %s]", sbx_secret_fingerprint(a));
	static const struct {
		const char *in, *want; /* %s = mark of a */
	} cases[] = {
		{ "", "" },
		{ "nothing here, sk-aaaaaaaaaaaaaaa", "nothing here, sk-aaaaaaaaaaaaaaa" },
		{ "key sk-aaaaaaaaaaaaaaaa.", "key %s." },
		{ "sk-aaaaaaaaaaaaaaaa", "%s" },
		{ "12345678", "[key]" },
		{ "x1234567812345678x", "x[key][key]x" },
		{ "ollama stays", "ollama stays" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char text[128], want[128];
		size_t n = (size_t)snprintf(text, sizeof text, "%s", cases[i].in);
		const char *at = strstr(cases[i].want, "%s");
		if (at)
			snprintf(want, sizeof want, "%.*s%s%s", (int)(at - cases[i].want), cases[i].want, mark, at + 2);
		else
			snprintf(want, sizeof want, "%s", cases[i].want);
		n = sbx_redact(text, n);
		assert_int_equal(n, strlen(want));
		assert_memory_equal(text, want, n);
	}
	/* one key at the beginning of another: nothing of the longer one is left */
	char both[] = "sk-aaaaaaaaaaaaaaaaBBBB and sk-aaaaaaaaaaaaaaaa";
	size_t n = sbx_redact(both, strlen(both));
	assert_null(memmem(both, sizeof both, "aaaa", 4));
	assert_null(memmem(both, n, "BBBB", 4));
	/* bytes of any kind around it */
	char binary[] = "\0\xff""12345678\0";
	n = sbx_redact(binary, sizeof binary - 1);
	assert_int_equal(n, 8);
	assert_memory_equal(binary, "\0\xff[key]\0", 8);
	/* only live ones */
	sbx_secret_put(shorter);
	char gone[] = "12345678";
	assert_int_equal(sbx_redact(gone, 8), 8);
	assert_string_equal(gone, "12345678");
	sbx_secret_put(a);
	sbx_secret_put(longer);
	sbx_secret_put(dummy);
}

int
main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers), cmocka_unit_test(test_what_is_no_key), cmocka_unit_test(test_sources),
		cmocka_unit_test(test_environment_is_wiped), cmocka_unit_test(test_proc_environ), cmocka_unit_test(test_files),
		cmocka_unit_test(test_credentials), cmocka_unit_test(test_fork_sees_nothing), cmocka_unit_test(test_redact),
	};
	/* /proc/self/environ shows what the process was started with, so the canary has to come by execve. */
	if (argc > 0 && !getenv("SBX_TEST_CANARY")) {
		setenv("SBX_TEST_CANARY", "canary-in-environ", 1);
		execv("/proc/self/exe", argv);
		unsetenv("SBX_TEST_CANARY"); /* no /proc here: that test is skipped */
	}
	if (!mkdtemp(dir))
		return 1;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return rc;
}
