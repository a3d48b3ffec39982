/* SPDX-License-Identifier: Apache-2.0 */
/* test_config.c -- agent/config: what a configuration becomes, and every mistake with its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <signalbox/errors.h>

#include "agent/config.h"
#include "agent/providers.h"

#define MS UINT64_C(1000000)

static struct sbx_vault vault;
static struct sbx_config_messages errors;
static char dir[] = "/tmp/sbx-test-config-XXXXXX";

static int
setup(void **state)
{
	(void)state;
	static const char *const others[] = { "SIGNALBOX_CONFIG", "SIGNALBOX_SOCKET", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
	                                      "CREDENTIALS_DIRECTORY", "OLLAMA_HOST", "K1", "K2" };
	for (size_t i = 0; i < sbx_known_providers_n; i++)
		for (size_t k = 0; k < SBX_KNOWN_KEY_VARS_MAX && sbx_known_providers[i].key_var[k]; k++)
			unsetenv(sbx_known_providers[i].key_var[k]);
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		unsetenv(others[i]);
	sbx_vault_init(&vault);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	sbx_config_messages_fini(&errors);
	sbx_vault_fini(&vault);
	return 0;
}

static int
parse(const char *text, bool strict, struct sbx_config **ret)
{
	struct sbx_config_opts opts = { .vault = &vault, .strict = strict };
	return sbx_config_parse("c", text, strlen(text), &opts, ret, &errors);
}

static struct sbx_config *
must_parse(const char *text)
{
	struct sbx_config *c = NULL;
	if (parse(text, false, &c)) {
		for (uint32_t i = 0; i < errors.n; i++)
			print_error("%s\n", errors.message[i].text);
		fail();
	}
	assert_int_equal(errors.n, 0);
	return c;
}

static bool
has_note(const struct sbx_config *c, enum sbx_config_severity severity, const char *part)
{
	for (uint32_t i = 0; i < c->notes.n; i++)
		if (c->notes.message[i].severity == severity && strstr(c->notes.message[i].text, part))
			return true;
	return false;
}

/* ==== mistakes ==== */

/* Every message of `want`, in order, must be the beginning of a message or a part of it; and there are no others. */
struct mistake {
	const char *text;
	const char *want[6];
};
#define LOCAL "\"lan\":{\"base_url\":\"http://127.0.0.1:1/v1\",\"key\":\"none\"" /* a provider without its closing brace */

static const struct mistake mistakes[] = {
	/* no JSON */
	{ "", { "c:1: " } },
	{ "{\n\"routes\":{},\n}", { "c:3: " } },
	{ "{ // a comment\n // \"x\": 1,\n \"routes\": {},\n \"routes\": {} }", { "c:4: " } },
	{ "[]", { "c:1: must be an object, not an array" } },
	{ "{} / x", { "c:1: " } },
	{ "{\"routes\":\n\"a\nb\"}", { "c:2: " } },
	{ "{\n\"a\xff\":1}", { "c:2: " } },
	/* unknown members, all of them, with the nearest */
	{ "{\n\"provders\":{},\n\"rotues\":{},\n\"limits\":{\n\"max_in_fligth\":1},\n\"xyzzy\":1}",
	  { "c:2: unknown member \"provders\" (did you mean \"providers\"?)", "c:3: unknown member \"rotues\" (did you mean \"routes\"?)",
	    "c:6: unknown member \"xyzzy\"", "c:5: limits: unknown member \"max_in_fligth\" (did you mean \"max_in_flight\"?)" } },
	{ "{\"a\\u001b[31m\":1}", { "unknown member \"a?[31m\"" } },
	/* types and ranges */
	{ "{\"limits\":[]}", { "c:1: limits: must be an object, not an array" } },
	{ "{\"limits\":{\"max_in_flight\":0}}", { "limits.max_in_flight: must be a whole number from 1 to 1000000" } },
	{ "{\"limits\":{\"max_in_flight\":1.5}}", { "limits.max_in_flight: must be a whole number from 1" } },
	{ "{\"limits\":{\"max_in_flight\":\"9\"}}", { "limits.max_in_flight: must be a whole number, not a string" } },
	{ "{\"limits\":{\"max_in_flight\":99999999999999999999}}", { "limits.max_in_flight: must be a whole number from" } },
	{ "{\"limits\":{\"memory_max\":\"1GB\"}}", { "limits.memory_max: must be a size" } },
	{ "{\"limits\":{\"memory_max\":\"1KiB\"}}", { "limits.memory_max: must be from 64 to" } },
	{ "{\"limits\":{\"memory_max\":\"999999999999TiB\"}}", { "limits.memory_max: must be a size" } },
	{ "{\"replay_uncertain\":1}", { "replay_uncertain: must be true or false, not a number" } },
	{ "{\"timeouts\":{\"connect_ms\":0,\n\"idle_bytes_ms\":-1}}",
	  { "c:1: timeouts.connect_ms: must be a whole number from 1 to 86400000", "c:2: timeouts.idle_bytes_ms: " } },
	{ "{\"warm\":2,\"providers\":{\"openai\":{\"warm\":{\"connections\":5,\n\"every_ms\":60000,\"after_use\":1}}}}",
	  { "c:1: warm: must be an object, or true or false", "c:1: providers.openai.warm.connections: must be a whole number from 1 to 4",
	    "c:2: providers.openai.warm.every_ms: must be a whole number from 100 to 25000",
	    "c:2: providers.openai.warm: unknown member \"after_use\" (did you mean \"after_use_ms\"?)" } },
	{ "{\"timeouts\":{\"first_content_ms\":90000}}", { "timeouts: first_content_ms (90000) is above first_content_max_ms (60000)" } },
	{ "{\"attempts\":{\"total\":17,\n\"backoff_base_ms\":9000,\"backoff_cap_ms\":8000}}",
	  { "c:1: attempts.total: ", "c:1: attempts: backoff_base_ms (9000) is above backoff_cap_ms (8000)" } },
	/* listen */
	{ "{\"listen\":{\"socket\":\"agent.sock\"}}", { "listen: the socket's path must be absolute", "listen: the socket's path" } },
	{ "{\"listen\":{\"socket\":\"/a/x\",\"admin_socket\":\"/a/x\"}}", { "listen: socket and admin_socket are the same" } },
	{ "{\"listen\":{\"socket\":\"\"}}", { "listen.socket: must not be empty" } },
	{ "{\"listen\":{\"socket\":\"/a\\u0000b\"}}", { "listen.socket: has a control character in it" } },
	{ "{\"listen\":{\"group\":\"no-such-group-here\"}}", { "listen.group: there is no group \"no-such-group-here\"" } },
	{ "{\"listen\":{\"trusted_uids\":990}}", { "listen.trusted_uids: must be an array of user ids" } },
	{ "{\"listen\":{\"trusted_uids\":[-1]}}", { "listen.trusted_uids: must be a whole number from 0 to 4294967294" } },
	{ "{\"listen\":{\"trusted_uids\":[65534]}}", { "listen.trusted_uids: 65534 is every user who is not known here" } },
	{ "{\"listen\":{\"trusted_uids\":[\"no-such-user\"]}}", { "listen.trusted_uids: there is no user \"no-such-user\" on this host" } },
	{ "{\"providers\":{\"x\":{\"base_url\":\"http://127.0.0.1\",\"key\":\"none\",\"operations\":[\"images\"]}}}",
	  { "providers.x.operations: must be \"chat\", \"completions\", \"embeddings\" or \"count_tokens\"" } },
	{ "{\"providers\":{\"x\":{\"base_url\":\"http://127.0.0.1\",\"key\":\"none\",\"operations\":\"chat\"}}}",
	  { "providers.x.operations: must be an array" } },
	/* store */
	{ "{\"store\":\"x.db\"}", { "store: the path must be absolute: x.db" } },
	{ "{\"store\":{}}", { "store: must be a string" } },
	{ "{\"store\":true}", { "store: must be a path, or false for no store" } },
	/* not supported yet, by name */
	{ "{\"budgets\":{}}", { "budgets: is not supported yet by this version" } },
	{ "{\"providers\":{" LOCAL "}},\"routes\":{\"r\":{\"targets\":[\"lan/m\"],\n\"policy\":\"cheapest\",\n\"require\":[\"tools\"],\n"
	  "\"max_cost\":1,\n\"on_stream_failure\":\"rescue\"}}}",
	  { "c:3: routes.r.require: is not supported yet", "c:4: routes.r.max_cost: is not supported yet",
	    "c:2: routes.r.policy: \"cheapest\" is not supported yet", "c:5: routes.r.on_stream_failure: \"rescue\" is not supported yet" } },
	{ "{\"providers\":{" LOCAL ",\"dialect\":\"anthropic\",\"models\":{\"m\":{\"max_output\":9}}}}}",
	  { "providers.lan.dialect: \"anthropic\" is not supported yet", "providers.lan.models.m.max_output: is not supported yet" } },
	/* names */
	{ "{\"providers\":{\"a/b\":{},\n\"\":{},\n\"c d\":{},\n\"\\u0065\":{}}}",
	  { "c:1: providers.a/b: a name has letters", "c:2: providers", "c:3: providers.c d: ", "c:4: providers.e: " } },
	{ "{\"routes\":{\"a/b\":{}}}", { "routes.a/b: a name has letters, digits and . _ - : @ + only, 1 to 127 of them (a slash" } },
	/* providers */
	{ "{\"providers\":{\"opneai\":{\"key\":\"none\"}}}",
	  { "providers.opneai: needs \"base_url\": it is not a provider that this version knows (did you mean \"openai\"?)" } },
	{ "{\"providers\":{\"mine\":true,\"openai\":null,\"groq\":3}}",
	  { "providers.mine: must be an object", "providers.openai: must be an object, or true or false", "providers.groq: must be an object" } },
	{ "{\"providers\":{\"azure\":{\"key\":\"env:K1\"}}}", { "providers.azure: needs \"base_url\": its address differs" } },
	{ "{\"providers\":{\"lan\":{\"base_url\":\"http://127.0.0.1:1/v1\"}}}", { "providers.lan: needs \"key\"" } },
	{ "{\"providers\":{\"openai\":{\"base_url\":\"https://proxy.example/v1\"}}}",
	  { "providers.openai: needs \"key\": base_url moves it to another host, and OPENAI_API_KEY is not sent there unasked" } },
	{ "{\"providers\":{\"openai\":{\"key\":\"sk-proj-abcdefgh\"}}}", { "providers.openai.key: must say where the key is" } },
	{ "{\"providers\":{\"openai\":{\"key\":\"env:NOT A NAME\"}}}", { "providers.openai.key: must say where the key is" } },
	{ "{\"providers\":{\"openai\":{\"key\":\"file:relative\"}}}", { "providers.openai.key: must say where the key is" } },
	{ "{\"providers\":{\"openai\":{\"key\":\"cred:../x\"}}}", { "providers.openai.key: must say where the key is" } },
	{ "{\"providers\":{\"openai\":{\"key\":\"file:/nonexistent/key\"}}}", { "providers.openai.key: cannot open /nonexistent/key" } },
	{ "{\"providers\":{\"openai\":{\"key\":\"cred:x\"}}}", { "providers.openai.key: there are no systemd credentials here" } },
	{ "{\"providers\":{\"openai\":{\"key\":\"env:K1\",\"keys\":[\"env:K1\"]}}}", { "providers.openai: \"key\" and \"keys\" exclude each other" } },
	{ "{\"providers\":{\"openai\":{\"keys\":[]}}}", { "providers.openai.keys: must not be empty" } },
	{ "{\"providers\":{\"openai\":{\"keys\":\"env:K1\"}}}", { "providers.openai.keys: must be an array" } },
	{ "{\"providers\":{\"openai\":{\"keys\":[\"env:K1\",\n\"env:K1\",\n\"none\"]}}}",
	  { "c:2: providers.openai.keys: the same key source twice", "c:3: providers.openai.keys: must say where" } },
	{ "{\"providers\":{\"openai\":{\"keys\":[\"env:A1\",\"env:A2\",\"env:A3\",\"env:A4\",\"env:A5\",\"env:A6\",\"env:A7\",\"env:A8\",\"env:A9\"]}}}",
	  { "providers.openai.keys: more than 8 keys" } },
	{ "{\"providers\":{\"lan\":{\"base_url\":\"http://10.0.0.7/v1\",\"key\":\"none\"}}}", { "providers.lan.base_url: is http:// beyond this host" } },
	{ "{\"providers\":{\"lan\":{\"base_url\":\"ftp://h/v1\",\"key\":\"none\"}}}", { "providers.lan.base_url: must begin with https://" } },
	{ "{\"providers\":{\"lan\":{\"base_url\":\"https://u:p@h/v1\",\"key\":\"none\"}}}", { "providers.lan.base_url: must not carry a user" } },
	{ "{\"providers\":{\"lan\":{\"base_url\":\"https://h/v1?a=b\",\"key\":\"none\"}}}", { "providers.lan.base_url: must not have a query" } },
	{ "{\"providers\":{\"lan\":{\"base_url\":\"https://h/v1#x\",\"key\":\"none\"}}}", { "providers.lan.base_url: must not have a query" } },
	{ "{\"providers\":{\"lan\":{\"base_url\":\"https://h h/\",\"key\":\"none\"}}}", { "providers.lan.base_url: has a character that no URL" } },
	{ "{\"providers\":{\"lan\":{\"base_url\":\"h/v1\",\"key\":\"none\"}}}", { "providers.lan.base_url: is not a URL" } },
	{ "{\"providers\":{" LOCAL ",\"query\":\"api-version=1&Key=x\"}}}", { "providers.lan.query: has the parameter \"key\"" } },
	{ "{\"providers\":{" LOCAL ",\"query\":\"a b\"}}}", { "providers.lan.query: has a character that no query has" } },
	{ "{\"providers\":{" LOCAL ",\"proxy\":\"http://u:p@h:1\"}}}", { "providers.lan.proxy: must not carry a user" } },
	{ "{\"providers\":{" LOCAL ",\"proxy\":\"ftp://h:1\"}}}", { "providers.lan.proxy: must begin with http://" } },
	{ "{\"providers\":{" LOCAL ",\"proxy\":\"http://h:1/x\"}}}", { "providers.lan.proxy: must be a host and a port" } },
	{ "{\"providers\":{" LOCAL ",\"ca_file\":\"ca.pem\"}}}", { "providers.lan.ca_file: must be an absolute path" } },
	{ "{\"providers\":{" LOCAL ",\"ca_file\":\"/nonexistent/ca.pem\"}}}", { "providers.lan.ca_file: cannot be read" } },
	{ "{\"providers\":{" LOCAL ",\"http\":\"3\"}}}", { "providers.lan.http: must be one of \"1.1\", \"2\", \"auto\"" } },
	{ "{\"providers\":{" LOCAL ",\"auth\":\"beare\"}}}",
	  { "providers.lan.auth: must be one of \"none\", \"bearer\", \"api-key\", \"x-api-key\" (did you mean \"bearer\"?)" } },
	{ "{\"providers\":{" LOCAL ",\"dialect\":\"openai\"}}}", { "providers.lan.dialect: unknown dialect \"openai\"" } },
	{ "{\"providers\":{" LOCAL ",\"like\":\"gorq\"}}}", { "providers.lan.like: no known provider \"gorq\" (did you mean \"groq\"?)" } },
	{ "{\"providers\":{" LOCAL ",\"quirks\":{\"no_finsh\":true}}}}", { "providers.lan.quirks: unknown member \"no_finsh\" (did you mean \"no_finish\"?)" } },
	{ "{\"providers\":{" LOCAL ",\"attempts\":{\"total\":2}}}}", { "providers.lan.attempts.total: counts the attempts of a request on all" } },
	{ "{\"providers\":{" LOCAL ",\"models\":{\"\":{}}}}}", { "providers.lan.models: must not be empty" } },
	{ "{\"providers\":{" LOCAL ",\"models\":{\"m\":{\"context\":0}}}}}", { "providers.lan.models.m.context: must be a whole number from 1" } },
	{ "{\"providers\":{" LOCAL ",\"models\":[\"m\"]}}}", { "providers.lan.models: must be an object, not an array" } },
	/* routes */
	{ "{\"routes\":{\"r\":{}}}", { "routes.r: needs \"targets\"" } },
	{ "{\"routes\":{\"r\":[]}}", { "routes.r: must be an object, not an array" } },
	{ "{\"routes\":{\"r\":{\"targets\":[]}}}", { "routes.r.targets: must name at least one target" } },
	{ "{\"routes\":{\"r\":{\"targets\":\"a/b\"}}}", { "routes.r.targets: must be an array" } },
	{ "{\"providers\":{" LOCAL "}},\"routes\":{\"r\":{\"targets\":[\n\"lna/m\",\n\"lan\",\n\"lan/\",\n7,\n\"/m\"]}}}",
	  { "c:2: routes.r.targets: there is no provider \"lna\" (did you mean \"lan\"?)", "c:3: routes.r.targets: must be \"provider/model\"",
	    "c:4: routes.r.targets: must be", "c:5: routes.r.targets: must be a string, not a number", "c:6: routes.r.targets: must be" } },
	{ "{\"providers\":{" LOCAL "}},\"routes\":{\"r\":{\"targets\":[\"lan/m\",\n\"lan/m\"]}}}",
	  { "c:2: routes.r.targets: \"lan/m\" is in this route already" } },
	{ "{\"providers\":{\"openai\":false},\"routes\":{\"r\":{\"targets\":[\"openai/m\"]}}}",
	  { "routes.r.targets: the provider \"openai\" is switched off in this file" } },
	{ "{\"routes\":{\"r\":{\"targets\":[\"azure/m\"]}}}", { "routes.r.targets: the provider \"azure\" needs a \"base_url\"" } },
	{ "{\"routes\":{\"r\":{\"targets\":[\"openai/m\"],\"on_stream_failure\":\"retsart\"}}}",
	  { "routes.r.on_stream_failure: must be one of \"restart\", \"error\", \"rescue\" (did you mean \"restart\"?)" } },
};

static void
test_mistakes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
		const struct mistake *m = &mistakes[i];
		struct sbx_config *c = NULL;
		uint32_t n = 0;
		assert_int_equal(parse(m->text, false, &c), -SBX_ESYNTAX);
		assert_null(c);
		bool ok = true;
		for (; n < 6 && m->want[n]; n++)
			ok = ok && n < errors.n && strstr(errors.message[n].text, m->want[n]);
		if (!ok || errors.n != n) {
			print_error("in: %s\n", m->text);
			for (uint32_t k = 0; k < errors.n; k++)
				print_error("  said: %s\n", errors.message[k].text);
			fail();
		}
		for (uint32_t k = 0; k < errors.n; k++)
			assert_null(strstr(errors.message[k].text, "sk-proj"));
	}
}

static void
test_too_many_mistakes(void **state)
{
	(void)state;
	char text[8192];
	size_t n = (size_t)snprintf(text, sizeof text, "{");
	for (int i = 0; i < 150; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, "\"unknown%d\":1,\n", i);
	snprintf(text + n, sizeof text - n, "\"last\":1}");
	struct sbx_config *c = NULL;
	assert_int_equal(parse(text, false, &c), -SBX_ESYNTAX);
	assert_int_equal(errors.n, SBX_CONFIG_MESSAGES_MAX);
	assert_int_equal(errors.dropped, 51);
}

/* ==== what it becomes ==== */

static const char full[] =
	"{ // everything\n"
	"\"listen\":{\"socket\":\"/run/x/a.sock\",\"group\":\"root\"},\n"
	"\"limits\":{\"max_in_flight\":77,\"memory_max\":\"512MiB\"},\n"
	"\"timeouts\":{\"connect_ms\":1234},\"attempts\":{\"total\":4,\"per_target\":1},\"replay_uncertain\":false,\n"
	"\"providers\":{\n"
	"  \"openai\":{\"key\":\"env:K1\",\"models\":{\"gpt-4o\":{\"context\":128000}}},\n"
	"  \"xai\":{\"keys\":[\"env:K1\",\"env:K2\"],\"quirks\":{\"reasoning_apart\":false}},\n"
	"  \"lan\":{\"dialect\":\"openai-chat\",\"base_url\":\"HTTP://10.0.0.7:8000/v1//\",\"plaintext\":true,\"key\":\"none\",\"http\":\"auto\",\n"
	"    \"ca_file\":null,\"proxy\":\"socks5h://127.0.0.1:9050\",\"query\":\"api-version=1\",\"like\":\"mistral\",\n"
	"    \"replay_uncertain\":true,\"timeouts\":{\"whole_ms\":5},\"attempts\":{\"per_target\":2},\n"
	"    \"models\":{\"a/b\":{\"reasoning\":true},\"o3\":{\"reasoning\":false},\"o4-mini\":{}}},\n"
	"  \"az\":{\"like\":\"azure\",\"base_url\":\"https://r.openai.azure.com/openai/v1\",\"key\":\"env:UNSET\"}},\n"
	"\"routes\":{\"chat\":{\"targets\":[\"az/d\",\"lan/a/b\",\"openai/gpt-4o\"],\"policy\":\"priority\",\"on_stream_failure\":\"restart\"},\n"
	"  \"plain\":{\"targets\":[\"az/d\"],\"on_stream_failure\":\"error\"}}}\n";

static void
test_full(void **state)
{
	(void)state;
	setenv("K1", "key-number-one", 1);
	setenv("K2", "key-number-two", 1);
	struct sbx_config *c = must_parse(full);
	const struct sbx_tables *t = &c->tables;
	assert_string_equal(c->source, "c");
	assert_string_equal(c->listen.socket, "/run/x/a.sock");
	assert_string_equal(c->listen.admin_socket, "/run/x/admin.sock");
	assert_true(c->listen.has_group);
	assert_int_equal(c->limits.max_in_flight, 77);
	assert_true(c->limits.memory_max_bytes == UINT64_C(512) << 20);
	assert_int_equal(c->policy.attempts_max, 4);
	assert_false(c->policy.replay_uncertain);

	assert_int_equal(t->n_providers, 4);
	assert_int_equal(c->n_usable, 3);
	const struct sbx_provider *openai = &t->provider[0], *xai = &t->provider[1], *lan = &t->provider[2], *az = &t->provider[3];
	assert_string_equal(openai->base_url, "https://api.openai.com/v1");
	assert_int_equal(openai->auth, SBX_AUTH_BEARER);
	assert_int_equal(openai->http, SBX_HTTP_1_1);
	assert_true(openai->policy.connect_ns == 1234 * MS);
	assert_int_equal(openai->policy.attempts_per_target, 1);
	assert_int_equal(openai->n_credentials, 1);
	assert_int_equal(xai->n_credentials, 2);
	assert_false(xai->quirks.reasoning_apart);
	const struct sbx_credential *second = &t->credential[xai->first_credential + 1];
	assert_string_equal(second->source, "env:K2");
	assert_int_equal(second->provider, 1);
	assert_string_equal(sbx_secret_header(second->secret, SBX_AUTH_BEARER), "Authorization: Bearer key-number-two");
	assert_int_equal(strlen(second->fingerprint), 8);

	assert_string_equal(lan->base_url, "http://10.0.0.7:8000/v1");
	assert_string_equal(lan->proxy, "socks5h://127.0.0.1:9050");
	assert_string_equal(lan->query, "api-version=1");
	assert_null(lan->ca_file);
	assert_int_equal(lan->http, SBX_HTTP_AUTO);
	assert_int_equal(lan->auth, SBX_AUTH_NONE);
	assert_true(lan->plaintext && lan->quirks.no_stream_options && lan->policy.replay_uncertain);
	assert_true(lan->policy.connect_ns == 1234 * MS && lan->policy.whole_ns == 5 * MS);
	assert_int_equal(lan->policy.attempts_per_target, 2);
	assert_int_equal(lan->policy.attempts_max, 4);
	assert_string_equal(t->credential[lan->first_credential].source, "none");
	assert_null(t->credential[lan->first_credential].secret);
	assert_int_equal(az->auth, SBX_AUTH_API_KEY);
	assert_int_equal(az->n_credentials, 0);
	assert_true(has_note(c, SBX_CONFIG_WARNING, "c:12: providers.az.key: the variable UNSET is not set"));

	static const struct {
		const char *name;
		int64_t context;
		bool reasoning;
	} targets[] = { { "openai/gpt-4o", 128000, false }, { "lan/a/b", 0, true }, { "lan/o3", 0, false }, { "lan/o4-mini", 0, true }, { "az/d", 0, false } };
	assert_int_equal(t->n_targets, 5);
	for (size_t i = 0; i < 5; i++) {
		assert_string_equal(t->target[i].name, targets[i].name);
		assert_true(t->target[i].context_tokens == targets[i].context);
		assert_int_equal(t->target[i].reasoning, targets[i].reasoning);
	}
	assert_string_equal(t->target[1].model, "a/b");
	assert_int_equal(t->n_routes, 2);
	assert_string_equal(t->route[0].name, "chat");
	assert_int_equal(t->route[0].n_targets, 3);
	assert_int_equal(t->route[0].target[0], 4);
	assert_int_equal(t->route[0].target[1], 1);
	assert_int_equal(t->route[0].target[2], 0);
	assert_true(t->route[0].restart);
	assert_false(t->route[1].restart);
	assert_true(has_note(c, SBX_CONFIG_NOTE, "c:13: routes.chat.targets: \"az/d\" is skipped"));
	assert_true(has_note(c, SBX_CONFIG_WARNING, "c:14: routes.plain.targets: no target of this route is usable"));
	sbx_config_free(c);
}

/* Cut anywhere before its last brace, a file is an error, and nothing but that. */
static void
test_cut_everywhere(void **state)
{
	(void)state;
	setenv("K1", "key-number-one", 1);
	size_t end = (size_t)(strrchr(full, '}') - full);
	for (size_t n = 0; n <= end; n++) {
		char *text = malloc(n ? n : 1); /* exact, so that a read beyond it is seen */
		struct sbx_config *c = NULL;
		struct sbx_config_opts opts = { .vault = &vault };
		assert_non_null(text);
		memcpy(text, full, n);
		assert_int_equal(sbx_config_parse("c", text, n, &opts, &c, &errors), -SBX_ESYNTAX);
		assert_true(errors.n >= 1);
		free(text);
	}
}

static void
test_nothing_configured(void **state)
{
	(void)state;
	struct sbx_config *c = must_parse("{}");
	assert_int_equal(c->n_usable, 0);
	assert_true(has_note(c, SBX_CONFIG_WARNING, "no provider is usable"));
	assert_string_equal(c->listen.socket, "/run/signalbox/agent.sock");
	assert_string_equal(c->listen.admin_socket, "/run/signalbox/admin.sock");
	assert_int_equal(c->limits.max_in_flight, SBX_MAX_IN_FLIGHT);
	assert_true(c->limits.memory_max_bytes > 0);
	assert_false(c->listen.has_group);
	sbx_config_free(c);
	c = NULL;
	assert_int_equal(parse("{}", true, &c), -SBX_ESYNTAX);
	assert_non_null(strstr(errors.message[0].text, "no provider is usable"));
}

static void
test_socket_places(void **state)
{
	(void)state;
	static const struct {
		const char *sock, *runtime, *want;
	} cases[] = {
		{ "/a/s", "/r", "/a/s" }, { NULL, "/r", "/r/signalbox/agent.sock" }, { "", "", "/run/signalbox/agent.sock" },
	};
	for (size_t i = 0; i < 3; i++) {
		cases[i].sock ? setenv("SIGNALBOX_SOCKET", cases[i].sock, 1) : unsetenv("SIGNALBOX_SOCKET");
		cases[i].runtime ? setenv("XDG_RUNTIME_DIR", cases[i].runtime, 1) : unsetenv("XDG_RUNTIME_DIR");
		struct sbx_config *c = must_parse("{}");
		assert_string_equal(c->listen.socket, cases[i].want);
		sbx_config_free(c);
	}
	setenv("SIGNALBOX_SOCKET", "/a/s", 1); /* the file goes before the environment */
	struct sbx_config *c = must_parse("{\"listen\":{\"socket\":\"/b/s\"}}");
	assert_string_equal(c->listen.socket, "/b/s");
	sbx_config_free(c);
}

static void
test_environment_providers(void **state)
{
	(void)state;
	setenv("OPENAI_API_KEY", "key-of-openai", 1);
	setenv("GROQ_API_KEY", "key-of-groq", 1);
	setenv("DEEPSEEK_API_KEY", "key-of-deepseek", 1);
	setenv("AZURE_API_KEY", "key-of-azure", 1); /* no address: not enabled */
	setenv("VLLM_API_KEY", "key-of-vllm", 1);   /* a key alone does not say that a server is there */
	setenv("TOGETHER_API_KEY", "", 1);          /* empty is unset */
	setenv("OLLAMA_HOST", "0.0.0.0:1234", 1);
	struct sbx_config *c = must_parse("{\"providers\":{\"groq\":false,\"deepseek\":true}}");
	assert_int_equal(c->tables.n_providers, 3);
	assert_int_equal(c->n_usable, 3);
	assert_string_equal(c->tables.provider[0].name, "deepseek");
	assert_string_equal(c->tables.provider[1].name, "openai");
	assert_string_equal(c->tables.provider[2].name, "ollama");
	assert_string_equal(c->tables.provider[2].base_url, "http://127.0.0.1:1234/v1");
	assert_int_equal(c->tables.provider[2].auth, SBX_AUTH_NONE);
	assert_true(has_note(c, SBX_CONFIG_NOTE, "provider openai is enabled because the variable OPENAI_API_KEY is set"));
	/* used or not, no key stays in the environment; the next load finds them in the vault */
	assert_null(getenv("OPENAI_API_KEY"));
	assert_null(getenv("GROQ_API_KEY"));
	assert_null(getenv("AZURE_API_KEY"));
	struct sbx_config *again = must_parse("{}");
	assert_int_equal(again->n_usable, 4);
	assert_string_equal(again->tables.credential[0].fingerprint, "ae3049a9");
	sbx_config_free(c);
	sbx_config_free(again);
}

static void
test_ollama_addresses(void **state)
{
	(void)state;
	static const struct {
		const char *host, *url; /* NULL: not usable */
	} cases[] = {
		{ "127.0.0.1", "http://127.0.0.1:11434/v1" }, { ":9", "http://127.0.0.1:9/v1" }, { "localhost:9", "http://localhost:9/v1" },
		{ "http://127.0.0.1:9/", "http://127.0.0.1:9/v1" }, { "https://o.example", "https://o.example:443/v1" },
		{ "[::1]:9", "http://[::1]:9/v1" }, { "[::]", "http://[::1]:11434/v1" }, { "10.0.0.1", NULL }, { "a b", NULL },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		setenv("OLLAMA_HOST", cases[i].host, 1);
		struct sbx_config *c = must_parse("{}");
		assert_int_equal(c->tables.n_providers, 1);
		assert_non_null(c->tables.provider[0].base_url);
		assert_int_equal(c->n_usable, cases[i].url ? 1 : 0);
		if (cases[i].url)
			assert_string_equal(c->tables.provider[0].base_url, cases[i].url);
		else
			assert_true(has_note(c, SBX_CONFIG_WARNING, "not used: the address in OLLAMA_HOST"));
		sbx_config_free(c);
	}
}

/* A route may name known providers without any entry: with its key it works, without it is skipped. */
static void
test_route_alone(void **state)
{
	(void)state;
	setenv("OPENAI_API_KEY", "key-of-openai", 1);
	struct sbx_config *c = must_parse("{\"routes\":{\"r\":{\"targets\":[\"groq/llama\",\n\"openai/gpt-4o\",\"ollama/x\"]}}}");
	assert_int_equal(c->tables.n_providers, 3);
	assert_int_equal(c->n_usable, 2);
	assert_int_equal(c->tables.route[0].n_targets, 3);
	assert_true(has_note(c, SBX_CONFIG_WARNING, "c:1: routes.r.targets.groq: no key: the variable GROQ_API_KEY is not set"));
	assert_true(has_note(c, SBX_CONFIG_NOTE, "c:1: routes.r.targets: \"groq/llama\" is skipped"));
	sbx_config_free(c);
}

/* ==== files ==== */

static void
write_file(const char *path, const char *text, mode_t mode)
{
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static int
load(const char *path, struct sbx_config **ret)
{
	struct sbx_config_opts opts = { .path = path, .vault = &vault };
	return sbx_config_load(&opts, ret, &errors);
}

static void
test_search(void **state)
{
	(void)state;
	char user[160], sub[128], named[128], variable[128];
	snprintf(sub, sizeof sub, "%s/signalbox", dir);
	snprintf(user, sizeof user, "%s/config.json", sub);
	snprintf(named, sizeof named, "%s/named.json", dir);
	snprintf(variable, sizeof variable, "%s/variable.json", dir);
	assert_int_equal(mkdir(sub, 0700), 0);
	write_file(named, "{}", 0600);
	write_file(variable, "{}", 0600);
	setenv("XDG_CONFIG_HOME", dir, 1);
	struct sbx_config *c = NULL;
	if (access("/etc/signalbox/config.json", F_OK) < 0) {
		assert_int_equal(load(NULL, &c), 0);
		assert_null(c->source);
		sbx_config_free(c);
	}
	write_file(user, "{}", 0600);
	static const struct {
		bool named, variable;
	} cases[] = { { false, false }, { false, true }, { true, true } };
	for (size_t i = 0; i < 3; i++) {
		if (cases[i].variable)
			setenv("SIGNALBOX_CONFIG", variable, 1);
		assert_int_equal(load(cases[i].named ? named : NULL, &c), 0);
		assert_string_equal(c->source, cases[i].named ? named : cases[i].variable ? variable : user);
		sbx_config_free(c);
	}
	/* a file that is there but wrong is reported, never passed over */
	unsetenv("SIGNALBOX_CONFIG");
	write_file(user, "{", 0600);
	assert_int_equal(load(NULL, &c), -SBX_ESYNTAX);
	static const char *const bad[] = { "/nonexistent.json", "/", "/dev/null" };
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(load(bad[i], &c), -SBX_ESYNTAX);
		assert_int_equal(errors.n, 1);
		assert_non_null(strstr(errors.message[0].text, bad[i]));
	}
	assert_int_equal(truncate(named, (off_t)SBX_CONFIG_MAX_BYTES + 1), 0);
	assert_int_equal(load(named, &c), -SBX_ESYNTAX);
	assert_non_null(strstr(errors.message[0].text, "larger than 4 MiB"));
	unlink(named);
	unlink(variable);
	unlink(user);
	rmdir(sub);
}

static void
test_key_files(void **state)
{
	(void)state;
	static const struct {
		mode_t mode;
		const char *text, *error, *warning;
	} cases[] = {
		{ 0400, "key-in-a-file\n", NULL, NULL },
		{ 0440, "key-in-a-file", NULL, "is open to its group (mode 0440)" },
		{ 0444, "key-in-a-file", "is open to every user (mode 0444)", NULL },
		{ 0400, "two words", "does not hold a key", NULL },
		{ 0400, "\n", "is empty", NULL },
	};
	char path[128], text[256];
	snprintf(path, sizeof path, "%s/key", dir);
	snprintf(text, sizeof text, "{\"providers\":{\"openai\":{\n\"key\":\"file:%s\"}}}", path);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_config *c = NULL;
		write_file(path, cases[i].text, cases[i].mode);
		assert_int_equal(parse(text, false, &c), cases[i].error ? -SBX_ESYNTAX : 0);
		if (cases[i].error) {
			assert_non_null(strstr(errors.message[0].text, cases[i].error));
			assert_non_null(strstr(errors.message[0].text, "c:2: providers.openai.key: "));
			assert_null(strstr(errors.message[0].text, "key-in-a-file"));
		} else {
			assert_int_equal(c->n_usable, 1);
			assert_int_equal(c->notes.n, cases[i].warning ? 1 : 0);
			if (cases[i].warning)
				assert_true(has_note(c, SBX_CONFIG_WARNING, cases[i].warning));
		}
		sbx_config_free(c);
		unlink(path);
	}
}

static void
test_example(void **state)
{
	(void)state;
	struct sbx_config *c = NULL;
	if (access("agent/config.example.json", R_OK) < 0)
		skip(); /* not run from the top of the tree */
	int rc = load("agent/config.example.json", &c);
	for (uint32_t i = 0; i < errors.n; i++)
		print_error("%s\n", errors.message[i].text);
	assert_int_equal(rc, 0);
	assert_int_equal(c->tables.n_routes, 1);
	sbx_config_free(c);
}

static void
test_warm(void **state)
{
	static const struct { const char *top, *url, *own; unsigned connections, every_ms, after_ms; } cases[] = {
		{ "", "https://x.example", "", 2, 20000, 600000 },
		{ "\"warm\":true,", "https://x.example", "", 2, 20000, 600000 },
		{ "\"warm\":false,", "https://x.example", "", 0, 20000, 600000 },
		{ "\"warm\":null,", "https://x.example", ",\"warm\":false", 0, 20000, 600000 },
		{ "\"warm\":false,", "https://x.example", ",\"warm\":true", 2, 20000, 600000 },
		{ "\"warm\":false,", "https://x.example", ",\"warm\":{\"every_ms\":100}", 2, 100, 600000 },
		{ "\"warm\":{\"connections\":4,\"after_use_ms\":0},", "https://x.example", "", 4, 20000, 0 },
		{ "\"warm\":{\"connections\":4},", "https://x.example", ",\"warm\":{\"every_ms\":5000}", 4, 5000, 600000 },
		{ "\"warm\":{\"connections\":4},", "http://127.0.0.1", "", 0, 20000, 600000 },
		{ "", "http://127.0.0.1", ",\"warm\":{\"connections\":1}", 1, 20000, 600000 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char text[512];
		(void)snprintf(text, sizeof text, "{%s\"providers\":{\"p\":{\"base_url\":\"%s\",\"key\":\"none\"%s}}}", cases[i].top, cases[i].url, cases[i].own);
		struct sbx_config *c = must_parse(text);
		const struct sbx_policy *p = &c->tables.provider[0].policy;
		assert_int_equal(p->warm_connections, cases[i].connections);
		assert_int_equal(p->warm_every_ns, cases[i].every_ms * 1000000ull);
		assert_int_equal(p->warm_after_use_ns, cases[i].after_ms * 1000000ull);
		sbx_config_free(c);
	}
}

static void
test_references(void **state)
{
	(void)state;
	struct sbx_config *c = must_parse("{}");
	assert_ptr_equal(sbx_config_get(c), c);
	sbx_config_free(c);
	assert_string_equal(c->source, "c");
	sbx_config_free(c);
	sbx_config_free(NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int
main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_mistakes),    TEST(test_too_many_mistakes),     TEST(test_full),             TEST(test_cut_everywhere),
		TEST(test_nothing_configured), TEST(test_socket_places),  TEST(test_environment_providers), TEST(test_ollama_addresses),
		TEST(test_route_alone), TEST(test_search),                TEST(test_key_files),        TEST(test_example),
		TEST(test_references),    TEST(test_warm),
	};
	if (!mkdtemp(dir))
		return 1;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return rc;
}
