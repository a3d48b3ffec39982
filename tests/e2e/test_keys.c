/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_keys.c -- virtual keys: made, listed, rotated and revoked by the tool, asked about as a door does, kept over the agent's
 * death, and obeyed for what they may ask for. A secret is seen once, and stands nowhere.
 */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <openssl/evp.h>

#include "tests/e2e/harness.h"
#include "tests/e2e/key.h"
#include "tests/e2e/tool.h"

#define STORE "\"store\": \"$DIR/s.db\""

static size_t
count(struct world *w)
{
	json_t *json;
	assert_int_equal(KEY_RUN(w, &json, "list"), 0);
	size_t n = json_object_size(json_object_get(json, "key"));
	json_decref(json);
	return n;
}

/* What the agent says to a door that was shown `secret`: the code, 0 = it is good; and the tenant. */
static enum sbx_code
check_hash(struct sbx_client *c, const char *hex, char *tenant, size_t room)
{
	const struct sbx_field field[] = { { "do", "check", 0 }, { "sha256", hex, 0 } };
	struct sbx_event ev;
	const char *text = "";
	uint64_t id;
	assert_int_equal(sbx_keys(c, field, 2, &id), 0);
	assert_int_equal(sbx_next(c, 10000, &ev), 0);
	assert_int_equal(ev.id, id);
	assert_true(ev.last);
	if (ev.note == SBX_NOTE_ERROR)
		return sbx_reply_code(ev.reply);
	assert_int_equal(ev.note, SBX_NOTE_STATS);
	if (tenant && sbx_reply_string(ev.reply, "tenant", &text))
		(void)snprintf(tenant, room, "%s", text);
	return SBX_CODE_NONE;
}

static enum sbx_code
check(struct sbx_client *c, const char *secret)
{
	unsigned char hash[32];
	char hex[65];
	assert_int_equal(EVP_Digest(secret, strlen(secret), hash, NULL, EVP_sha256(), NULL), 1);
	for (int i = 0; i < 32; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", hash[i]);
	return check_hash(c, hex, NULL, 0);
}

/* A request as a door makes it for whom has this key. Its code; 0 = answered. */
static enum sbx_code
ask_as(struct sbx_client *c, const char *tenant, const char *id, const char *model, const char *body, char *why, size_t room)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_reply *reply;
	o.tenant = tenant;
	o.key_id = id;
	o.model = model;
	o.as_http = true;
	o.body = body;
	o.body_bytes = strlen(body);
	(void)sbx_ask(c, &o, &reply);
	assert_non_null(reply);
	enum sbx_code code = sbx_reply_ok(reply) ? SBX_CODE_NONE : sbx_reply_code(reply);
	(void)snprintf(why, room, "%s", sbx_reply_message(reply));
	sbx_reply_free(reply);
	return code;
}

/* ==== */

static void
a_key_lives_as_it_is_told(void **state)
{
	(void)state;
	struct world w;
	struct key_made a, b, rotated;
	json_t *json;
	world_simple(&w, 1, NULL, STORE);
	struct sbx_client *c = client_up(&w);
	key_make(&w, "acme", "m,r", "30d", &a);
	key_make(&w, "other", "", "2100-01-01", &b);
	assert_string_not_equal(a.secret, b.secret);
	assert_int_equal(check(c, a.secret), SBX_CODE_NONE);
	assert_int_equal(check(c, b.secret), SBX_CODE_NONE);
	assert_int_equal(check(c, a.id), SBX_CODE_INVALID_KEY);
	assert_int_equal(check(c, ""), SBX_CODE_INVALID_KEY);
	assert_int_equal(KEY_RUN(&w, &json, "list"), 0);
	json_t *about = json_object_get(json_object_get(json, "key"), a.id);
	assert_string_equal(json_string_value(json_object_get(about, "tenant")), "acme");
	assert_string_equal(json_string_value(json_object_get(about, "models")), "m,r");
	assert_string_equal(json_string_value(json_object_get(about, "state")), "active");
	assert_null(json_object_get(about, "secret"));
	int64_t days = (json_integer_value(json_object_get(about, "expires_unix_s")) - json_integer_value(json_object_get(about, "created_unix_s"))) / 86400;
	assert_true(days == 29 || days == 30);
	json_decref(json);

	assert_int_equal(KEY_RUN(&w, &json, "rotate", a.id), 0);
	key_take(json, &rotated);
	assert_string_equal(rotated.id, a.id);
	assert_int_equal(check(c, a.secret), SBX_CODE_NONE); /* within its grace */
	assert_int_equal(check(c, rotated.secret), SBX_CODE_NONE);
	(void)strcpy(a.secret, rotated.secret);
	assert_int_equal(KEY_RUN(&w, &json, "rotate", a.id, "--grace", "0s"), 0);
	key_take(json, &rotated);
	assert_int_equal(check(c, a.secret), SBX_CODE_INVALID_KEY); /* it had none */
	assert_int_equal(check(c, rotated.secret), SBX_CODE_NONE);

	assert_int_equal(KEY_RUN(&w, &json, "revoke", a.id), 0);
	json_decref(json);
	assert_int_equal(check(c, rotated.secret), SBX_CODE_INVALID_KEY);
	assert_int_equal(check(c, b.secret), SBX_CODE_NONE);
	assert_int_equal(count(&w), 1);
	assert_int_equal(KEY_RUN(&w, &json, "revoke", a.id), 1); /* there is no such key any more */
	assert_int_equal(KEY_RUN(&w, &json, "rotate", a.id), 1);
	sbx_close(c);
	world_down(&w);
}

static void
what_was_answered_is_there_after_a_kill(void **state)
{
	(void)state;
	struct world w;
	struct key_made a, b, c_, rotated;
	json_t *json;
	world_simple(&w, 1, NULL, STORE);
	key_make(&w, "acme", "", "30d", &a);
	key_make(&w, "acme", "", "30d", &b);
	key_make(&w, "acme", "", "30d", &c_);
	assert_int_equal(KEY_RUN(&w, &json, "revoke", b.id), 0);
	json_decref(json);
	assert_int_equal(KEY_RUN(&w, &json, "rotate", c_.id), 0);
	key_take(json, &rotated);
	world_agent_signal(&w, SIGKILL); /* right behind the answer */
	assert_int_not_equal(world_agent_wait(&w, 5000), -1);
	world_agent_start(&w, NULL, &(struct start){ .bare = false });
	agent_wait_number(&w, "store.opens", 1, 10000);
	struct sbx_client *c = client_up(&w);
	enum sbx_code code;
	for (uint64_t until = now_ms() + 10000; (code = check(c, a.secret)) == SBX_CODE_BUSY && now_ms() < until;)
		(void)usleep(10000); /* the ring is being read; a condition with a deadline */
	assert_int_equal(code, SBX_CODE_NONE);
	assert_int_equal(check(c, b.secret), SBX_CODE_INVALID_KEY);
	assert_int_equal(check(c, c_.secret), SBX_CODE_NONE);
	assert_int_equal(check(c, rotated.secret), SBX_CODE_NONE);
	assert_int_equal(count(&w), 2);
	sbx_close(c);
	world_down(&w);
}

static bool
file_holds(const char *path, const char *text)
{
	FILE *f = fopen(path, "re");
	bool found = false;
	char all[1 << 16];
	size_t n, keep = 0;
	while (f && !found && (n = fread(all + keep, 1, sizeof all - keep, f)) > 0) {
		n += keep;
		found = memmem(all, n, text, strlen(text)) != NULL;
		keep = n < 64 ? n : 64;
		memmove(all, all + n - keep, keep);
	}
	if (f)
		(void)fclose(f);
	return found;
}

static void
a_secret_stands_nowhere(void **state)
{
	(void)state;
	struct world w;
	struct key_made made[8];
	char path[512];
	json_t *json;
	world_simple(&w, 1, NULL, STORE);
	struct sbx_client *c = client_up(&w);
	for (int i = 0; i < 8; i++) {
		key_make(&w, "acme", "m", "30d", &made[i]);
		assert_int_equal(check(c, made[i].secret), SBX_CODE_NONE);
	}
	assert_int_equal(KEY_RUN(&w, &json, "rotate", made[0].id), 0);
	json_decref(json);
	DIR *d = opendir(w.dir);
	assert_non_null(d);
	for (int i = 0; i < 8; i++) {
		rewinddir(d);
		for (struct dirent *e; (e = readdir(d));) {
			(void)snprintf(path, sizeof path, "%s/%s", w.dir, e->d_name);
			assert_false(file_holds(path, made[i].secret + 7)); /* log, database, its log, snapshot */
		}
		const char *const of[] = { "cmdline", "environ" };
		for (int k = 0; k < 2; k++) {
			(void)snprintf(path, sizeof path, "/proc/%d/%s", (int)w.agent, of[k]);
			assert_false(file_holds(path, made[i].secret + 7));
		}
	}
	(void)closedir(d);
	(void)snprintf(path, sizeof path, "%s/s.db-wal", w.dir);
	assert_true(file_holds(path, made[0].id)); /* so it was looked into */
	sbx_close(c);
	world_down(&w);
}

static void
verbs_are_for_whom_they_are(void **state)
{
	(void)state;
	struct world w;
	struct key_made a;
	struct sbx_client *c[2];
	struct sbx_event ev;
	uint64_t id;
	if (geteuid() != 0)
		skip();
	world_up(&w);
	world_double(&w, "a", (const char *[]){ NULL });
	w.listen_more = ", \"trusted_uids\": [54321]";
	assert_int_equal(chmod(w.dir, 0711), 0);
	world_agent(&w, "{\"providers\":{\"a\":{\"dialect\":\"openai-chat\",\"base_url\":\"$0\",\"key\":\"$KEY\",\"models\":{\"m\":{}}}}," STORE "}", NULL);
	assert_int_equal(chmod(w.socket, 0666), 0);
	assert_int_equal(chmod(w.admin_socket, 0666), 0);
	key_make(&w, "acme", "", "30d", &a);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(seteuid(54321 + (uid_t)i), 0);
		c[i] = client_up(&w);
		struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
		struct sbx_client *admin;
		o.socket = w.admin_socket;
		assert_int_equal(sbx_open(&o, &admin), -SBX_EACCESS); /* the agent looks at the user, not at the file alone */
		sbx_close(admin);
		assert_int_equal(seteuid(0), 0);
	}
	assert_int_equal(check(c[0], a.secret), SBX_CODE_NONE);
	assert_int_equal(check(c[1], a.secret), SBX_CODE_FORBIDDEN);
	static const char *const verbs[] = { "create", "list", "rotate", "revoke" };
	for (size_t v = 0; v < 4; v++)
		for (int i = 0; i < 2; i++) {
			const struct sbx_field field[] = { { "do", verbs[v], 0 }, { v == 0 ? "tenant" : "key", a.id, 0 } };
			assert_int_equal(sbx_keys(c[i], field, v == 1 ? 1 : 2, &id), 0);
			assert_int_equal(sbx_next(c[i], 10000, &ev), 0);
			assert_int_equal(ev.note, SBX_NOTE_ERROR);
			assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_FORBIDDEN);
		}
	assert_int_equal(count(&w), 1);
	sbx_close(c[0]);
	sbx_close(c[1]);
	world_down(&w);
}

static void
whatever_a_key_looks_like_is_only_looked_up(void **state)
{
	(void)state;
	static const char *const shown[] = {
		"' OR '1'='1", "\" OR 1=1 --", "sk-sbx-'; DROP TABLE key; --", "x'); DELETE FROM key; --", "%", "_", "key-%", "\\", "NULL",
	};
	static const char *const tenants[] = { "a'); DROP TABLE key; --", "\" OR 1=1", "%s%n", "{}[]\\", "=" };
	static const char *const hashes[] = { "", "00", "' OR 1=1 --", "zz00000000000000000000000000000000000000000000000000000000000000",
		"000000000000000000000000000000000000000000000000000000000000000'" };
	struct world w;
	struct key_made made[5];
	char tenant[64], why[512];
	world_simple(&w, 1, NULL, STORE);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < 5; i++)
		key_make(&w, tenants[i], "", "1d", &made[i]);
	for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
		json_t *json;
		assert_int_equal(check(c, shown[i]), SBX_CODE_INVALID_KEY);
		assert_int_equal(KEY_RUN(&w, &json, "revoke", shown[i]), 1);
		(void)ask_as(c, "t", shown[i], "m", BODY, why, sizeof why); /* an id that is none of ours: only kept */
	}
	for (size_t i = 0; i < sizeof hashes / sizeof hashes[0]; i++)
		assert_int_equal(check_hash(c, hashes[i], NULL, 0), SBX_CODE_INVALID_REQUEST);
	assert_int_equal(count(&w), 5);
	for (size_t i = 0; i < 5; i++) {
		unsigned char hash[32];
		char hex[65];
		assert_int_equal(EVP_Digest(made[i].secret, strlen(made[i].secret), hash, NULL, EVP_sha256(), NULL), 1);
		for (int k = 0; k < 32; k++)
			(void)snprintf(hex + 2 * k, 3, k % 2 ? "%02X" : "%02x", hash[k]);
		assert_int_equal(check_hash(c, hex, tenant, sizeof tenant), SBX_CODE_NONE);
		assert_string_equal(tenant, tenants[i]);
	}
	sbx_close(c);
	world_down(&w);
}

#define CHAT(members) "{" members "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"

static void
a_key_may_ask_for_what_it_may(void **state)
{
	(void)state;
	struct world w;
	struct key_made a, all;
	json_t *json;
	char why[512];
	world_simple(&w, 2, NULL, STORE); /* targets a/m and b/m, route r */
	struct sbx_client *c = client_up(&w);
	key_make(&w, "acme", "r,a/m", "30d", &a);
	key_make(&w, "acme", "", "30d", &all);
	const struct {
		const char *model, *body;
		enum sbx_code code;
		const char *names;
	} rows[] = {
		{ NULL, CHAT("\"model\":\"r\","), SBX_CODE_NONE, NULL },
		{ NULL, CHAT("\"model\":\"a/m\","), SBX_CODE_NONE, NULL },
		{ NULL, CHAT("\"model\":\"a\\/\\u006d\","), SBX_CODE_NONE, NULL }, /* the same name, spelled otherwise */
		{ NULL, CHAT("\"model\":\"b/m\","), SBX_CODE_FORBIDDEN, "\"b/m\"" },
		{ NULL, CHAT("\"model\":\"m\","), SBX_CODE_FORBIDDEN, "\"m\"" },
		{ NULL, CHAT("\"model\":\"\\u0062/m\","), SBX_CODE_FORBIDDEN, "\"b/m\"" },
		{ "b/m", CHAT("\"model\":\"a/m\","), SBX_CODE_FORBIDDEN, "\"b/m\"" }, /* the frame's name counts */
		{ "a/m", CHAT("\"model\":\"b/m\","), SBX_CODE_NONE, NULL },
		{ NULL, CHAT("\"model\":\"r\",\"models\":[\"a/m\",\"b/m\"],"), SBX_CODE_FORBIDDEN, "\"b/m\"" },
		{ NULL, CHAT("\"model\":\"r\",\"fallbacks\":[\"b/m\"],"), SBX_CODE_FORBIDDEN, "\"b/m\"" },
		{ NULL, CHAT("\"models\":[\"b/m\"],"), SBX_CODE_FORBIDDEN, "\"b/m\"" },
		{ NULL, CHAT("\"model\":\"r\",\"models\":[\"a/m\"],\"fallbacks\":[\"r\"],"), SBX_CODE_NONE, NULL },
		{ NULL, CHAT("\"model\":\"nothing\","), SBX_CODE_FORBIDDEN, "\"nothing\"" }, /* not: there is no such model */
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		enum sbx_code code = ask_as(c, "acme", a.id, rows[i].model, rows[i].body, why, sizeof why);
		if (code != rows[i].code || (rows[i].names && !strstr(why, rows[i].names)))
			fail_msg("%zu: %d: %s", i, (int)code, why);
		if (code == SBX_CODE_FORBIDDEN)
			assert_int_equal(ask_as(c, "acme", all.id, rows[i].model, rows[i].body, why, sizeof why), i == 12 ? SBX_CODE_UNKNOWN_MODEL : SBX_CODE_NONE);
	}
	assert_int_equal(ask_as(c, "another", all.id, "m", BODY, why, sizeof why), SBX_CODE_FORBIDDEN);
	assert_int_equal(ask_as(c, "acme", "key-0000000000000000", "m", BODY, why, sizeof why), SBX_CODE_INVALID_KEY);
	assert_int_equal(ask_as(c, "acme", "somebody's own", "m", BODY, why, sizeof why), SBX_CODE_NONE);
	/* A door may believe in a key for 10 s; the agent does not. */
	assert_int_equal(KEY_RUN(&w, &json, "revoke", all.id), 0);
	json_decref(json);
	assert_int_equal(ask_as(c, "acme", all.id, "m", BODY, why, sizeof why), SBX_CODE_INVALID_KEY);
	sbx_close(c);
	world_down(&w);
}

static void
an_expired_key_is_none(void **state)
{
	(void)state;
	struct world w;
	struct key_made a;
	json_t *json;
	char why[512];
	world_simple(&w, 1, NULL, STORE);
	struct sbx_client *c = client_up(&w);
	key_make(&w, "acme", "", "2s", &a);
	assert_int_equal(check(c, a.secret), SBX_CODE_NONE);
	enum sbx_code code;
	for (uint64_t until = now_ms() + 10000; (code = check(c, a.secret)) == SBX_CODE_NONE && now_ms() < until;)
		(void)usleep(20000); /* a condition with a deadline */
	assert_int_equal(code, SBX_CODE_INVALID_KEY);
	assert_int_equal(ask_as(c, "acme", a.id, "m", BODY, why, sizeof why), SBX_CODE_INVALID_KEY);
	assert_int_equal(KEY_RUN(&w, &json, "list"), 0);
	assert_string_equal(json_string_value(json_object_get(json_object_get(json_object_get(json, "key"), a.id), "state")), "expired");
	json_decref(json);
	assert_int_equal(KEY_RUN(&w, &json, "create", "--tenant", "t", "--expires", "2020-01-01"), 1);
	sbx_close(c);
	world_down(&w);
}

static void
checks_have_a_rate(void **state)
{
	(void)state;
	enum { ASKED = 12000 };
	static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
	const struct sbx_field field[] = { { "do", "check", 0 }, { "sha256", zeros, 0 } };
	struct world w;
	struct key_made a;
	struct sbx_event ev;
	uint64_t id, from = now_ms();
	int sent = 0, ended = 0, limited = 0;
	world_simple(&w, 1, NULL, STORE);
	key_make(&w, "acme", "", "1d", &a);
	struct sbx_client *c = client_up(&w);
	while (ended < ASKED) {
		while (sent < ASKED && sent - ended < 2000 && sbx_keys(c, field, 2, &id) == 0)
			sent++;
		assert_int_equal(sbx_next(c, 10000, &ev), 0);
		ended++;
		limited += sbx_reply_code(ev.reply) == SBX_CODE_BUSY;
		assert_true(limited == 0 || sbx_reply_retry_after_ms(ev.reply) != 0);
	}
	uint64_t took_ms = now_ms() - from;
	assert_true(limited >= ASKED - 5001 - (int)(took_ms * 5)); /* 5000 at once, and 5 a millisecond */
	assert_int_equal(agent_number(&w, "key_checks") + limited, ASKED);
	assert_int_equal(agent_number(&w, "key_checks_limited"), limited);
	for (uint64_t until = now_ms() + 10000; check(c, a.secret) != SBX_CODE_NONE;) {
		assert_true(now_ms() < until);
		(void)usleep(10000); /* the rate comes down */
	}
	sbx_close(c);
	world_down(&w);
}

static void
without_a_store_there_are_none(void **state)
{
	(void)state;
	struct world w;
	char *said, why[512];
	world_simple(&w, 1, NULL, "\"store\": false");
	const char *const args[] = { "key", "create", "--tenant", "t", "--socket", w.admin_socket, NULL };
	assert_int_equal(tool_run("signalbox", args, NULL, &said), 1);
	assert_non_null(strstr(said, "keeps no store"));
	free(said);
	struct sbx_client *c = client_up(&w);
	assert_int_equal(check(c, "sk-sbx-x"), SBX_CODE_INVALID_KEY);
	assert_int_equal(ask_as(c, "t", "key-0000000000000000", "m", BODY, why, sizeof why), SBX_CODE_INVALID_KEY);
	sbx_close(c);
	world_down(&w);
}

/* What cannot be kept is not answered as done; but a key that was to be revoked is refused nevertheless. */
static void
a_disk_that_fails_changes_nothing(void **state)
{
	(void)state;
	struct world w;
	struct key_made a;
	char path[256], *said;
	world_up(&w);
	(void)snprintf(path, sizeof path, "%s/gone", w.dir);
	assert_int_equal(mkdir(path, 0700), 0);
	world_double(&w, "a", (const char *[]){ NULL });
	world_agent(&w, "{\"providers\":{\"a\":{\"dialect\":\"openai-chat\",\"base_url\":\"$0\",\"key\":\"$KEY\",\"models\":{\"m\":{}}}},\"store\":\"$DIR/no/s.db\"}", NULL);
	const char *const create[] = { "key", "create", "--tenant", "t", "--socket", w.admin_socket, NULL };
	assert_int_equal(tool_run("signalbox", create, NULL, &said), 1);
	assert_non_null(strstr(said, "does not exist")); /* the store's own words */
	free(said);
	(void)snprintf(path, sizeof path, "%s/no", w.dir);
	assert_int_equal(mkdir(path, 0700), 0); /* it goes on by itself */
	json_t *json = NULL;
	for (uint64_t until = now_ms() + 15000; KEY_RUN(&w, &json, "create", "--tenant", "t") != 0;) {
		assert_true(now_ms() < until);
		(void)usleep(50000);
	}
	key_take(json, &a);
	struct sbx_client *c = client_up(&w);
	assert_int_equal(check(c, a.secret), SBX_CODE_NONE);
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_lives_as_it_is_told),
		cmocka_unit_test(what_was_answered_is_there_after_a_kill),
		cmocka_unit_test(a_secret_stands_nowhere),
		cmocka_unit_test(verbs_are_for_whom_they_are),
		cmocka_unit_test(whatever_a_key_looks_like_is_only_looked_up),
		cmocka_unit_test(a_key_may_ask_for_what_it_may),
		cmocka_unit_test(an_expired_key_is_none),
		cmocka_unit_test(checks_have_a_rate),
		cmocka_unit_test(without_a_store_there_are_none),
		cmocka_unit_test(a_disk_that_fails_changes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
