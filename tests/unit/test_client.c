/* SPDX-License-Identifier: Apache-2.0 */
/* test_client.c -- opening, submitting, events and credit, against a scripted agent. */
#include "tests/unit/client_rig.h"

/* ---- opening ---- */

static void
test_version(void **state)
{
	char want[16];
	(void)state;
	(void)snprintf(want, sizeof want, "%d.%d.%d", SBX_VERSION_MAJOR, SBX_VERSION_MINOR, SBX_VERSION_PATCH);
	assert_string_equal(sbx_version(), want);
}

static void *
script_version_2(void *peer)
{
	peer_accept(peer);
	(void)peer_expect(peer, SBX_FRAME_HELLO);
	say(peer, SBX_FRAME_WELCOME, 0, "u:version", U(2), END);
	return NULL;
}

static void
refuse(struct peer *p, const char *code)
{
	peer_accept(p);
	(void)peer_expect(p, SBX_FRAME_HELLO);
	say(p, SBX_FRAME_ERROR, 0, "s:code", code, "s:message", "not you", END);
	(void)shutdown(p->fd, SHUT_WR);
}

static void *
script_unsupported(void *peer)
{
	refuse(peer, "unsupported");
	return NULL;
}

static void *
script_forbidden(void *peer)
{
	refuse(peer, "forbidden");
	return NULL;
}

static void *
script_busy(void *peer)
{
	refuse(peer, "busy");
	return NULL;
}

static void *
script_http(void *peer)
{
	peer_accept(peer);
	peer_write(peer, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
	return NULL;
}

static void *
script_hang_up(void *peer)
{
	peer_accept(peer);
	(void)peer_expect(peer, SBX_FRAME_HELLO);
	peer_close(peer);
	return NULL;
}

static void *
script_event_first(void *peer)
{
	peer_accept(peer);
	SAY_TEXT((struct peer *)peer, 1, "hello?");
	return NULL;
}

static void *
script_silent(void *peer)
{
	peer_accept(peer);
	return NULL;
}

static void
test_open_failures(void **state)
{
	static const struct {
		const char *name;
		void *(*script)(void *);
		int want;
		const char *says;
	} cases[] = {
		{ "another version", script_version_2, -SBX_EVERSION, "version 2" },
		{ "refused: unsupported", script_unsupported, -SBX_EVERSION, "not you" },
		{ "refused: forbidden", script_forbidden, -SBX_EACCESS, "not you" },
		{ "refused: busy", script_busy, -SBX_EBUSY, "not you" },
		{ "a web server", script_http, -SBX_EPROTO, "no frame" },
		{ "hangs up", script_hang_up, -SBX_EAGENT, "closed" },
		{ "an event first", script_event_first, -SBX_EPROTO, "WELCOME" },
		{ "silent", script_silent, -SBX_ETIME, "no WELCOME within 80 ms" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_open_options o = at_path();
		struct sbx_client *c = NULL;
		o.timeout_ms = cases[i].script == script_silent ? 80 : PATIENCE_MS;
		run_agent(cases[i].script);
		int rc = sbx_open(&o, &c);
		join_agent();
		if (rc != cases[i].want || !strstr(sbx_client_error(c), cases[i].says))
			fail_msg("%s: %d, %s", cases[i].name, rc, sbx_client_error(c));
		sbx_close(c);
		peer_close(&agent);
	}
}

/* It does not look for an agent until it is asked something, and finds one that came later. */
static void
test_open_later(void **state)
{
	struct sbx_open_options o = at_path();
	struct sbx_request_options ask = request();
	struct sbx_client *c = NULL;
	struct peer p;
	uint64_t id;
	(void)state;
	stop_listening();
	o.timeout_ms = SBX_OPEN_LATER;
	assert_int_equal(sbx_open(&o, &c), 0);
	assert_int_equal(sbx_fd(c), -1);
	assert_int_equal(sbx_timeout_ms(c), -1);
	assert_int_equal(sbx_submit(c, &ask, &id), -SBX_EAGENT);
	listen_here();
	assert_int_equal(sbx_submit(c, &ask, &id), 0);
	peer_accept(&p);
	(void)peer_expect(&p, SBX_FRAME_HELLO);
	SAY_WELCOME(&p);
	expect_nothing(c);
	assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == id);
	sbx_close(c);
	peer_close(&p);
}

static void
test_open_nobody(void **state)
{
	struct sbx_open_options o = at_path();
	struct sbx_client *c = NULL;
	char long_path[300];
	(void)state;
	stop_listening();
	assert_int_equal(sbx_open(&o, &c), -SBX_EAGENT);
	assert_non_null(strstr(sbx_client_error(c), path));
	sbx_close(c);
	memset(long_path, 'x', sizeof long_path - 1);
	long_path[sizeof long_path - 1] = 0;
	o.socket = long_path;
	assert_int_equal(sbx_open(&o, &c), -SBX_EINVAL);
	sbx_close(c);
	o.socket = "";
	assert_int_equal(sbx_open(&o, &c), -SBX_EINVAL);
	sbx_close(c);
	o = at_path();
	o.size = 3;
	assert_int_equal(sbx_open(&o, &c), -SBX_EINVAL);
	sbx_close(c);
	sbx_close(NULL);
}

static void
test_path_order(void **state)
{
	struct sbx_client *c;
	char runtime[80], in_runtime[128];
	struct stat st;
	(void)state;
	stop_listening();
	(void)snprintf(runtime, sizeof runtime, "%s/run", dir);
	(void)snprintf(in_runtime, sizeof in_runtime, "%s/signalbox", runtime);
	MUST(mkdir(runtime, 0700) == 0 && mkdir(in_runtime, 0700) == 0);
	(void)snprintf(in_runtime, sizeof in_runtime, "%s/signalbox/agent.sock", runtime);
	const struct {
		const char *option, *variable, *runtime;
		bool exists;
		const char *want;
	} cases[] = {
		{ "/nowhere/a", "/nowhere/b", runtime, true, "/nowhere/a" },
		{ NULL, "/nowhere/b", runtime, true, "/nowhere/b" },
		{ NULL, "", runtime, true, in_runtime },
		{ NULL, NULL, runtime, true, in_runtime },
		{ NULL, NULL, runtime, false, "/run/signalbox/agent.sock" },
		{ NULL, NULL, NULL, true, "/run/signalbox/agent.sock" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
		o.socket = cases[i].option;
		o.timeout_ms = 1;
		MUST((cases[i].variable ? setenv("SIGNALBOX_SOCKET", cases[i].variable, 1) : unsetenv("SIGNALBOX_SOCKET")) == 0);
		MUST((cases[i].runtime ? setenv("XDG_RUNTIME_DIR", cases[i].runtime, 1) : unsetenv("XDG_RUNTIME_DIR")) == 0);
		(void)unlink(in_runtime);
		if (cases[i].exists)
			MUST(close(open(in_runtime, O_CREAT | O_WRONLY, 0600)) == 0);
		int rc = sbx_open(&o, &c);
		bool system_agent_runs = stat("/run/signalbox/agent.sock", &st) == 0;
		if (!system_agent_runs)
			assert_true(rc < 0);
		if (strcmp(c->address.sun_path, cases[i].want) != 0)
			fail_msg("case %zu: %s, want %s", i, c->address.sun_path, cases[i].want);
		sbx_close(c);
	}
	(void)unlink(in_runtime);
	(void)unsetenv("XDG_RUNTIME_DIR");
}

/* ---- submitting ---- */

static void
test_submit_frame(void **state)
{
	static const char *const targets[] = { "a/b", "c/d" };
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_value v;
	uint64_t id, id2;
	(void)state;

	assert_int_equal(sbx_submit(c, &o, &id), 0);
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_true(f->id == id && f->id <= SBX_ID_MAX);
	assert_int_equal(f->map.n_items, 3);
	assert_true(sbx_span_is(text_member(f, "model"), "openai/gpt"));
	assert_true(sbx_span_is(text_member(f, "body"), body));
	assert_true(sbx_map_get(&f->map, "stream", &v) && v.type == SBX_BOOL && v.truth);

	o.model = NULL;
	o.targets = targets;
	o.n_targets = 2;
	o.stream = false;
	o.data = o.restart = true;
	o.deadline_ms = 1500;
	o.idempotency_key = "k1";
	assert_int_equal(sbx_submit(c, &o, &id2), 0);
	assert_true(id2 != id);
	f = peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_true(f->id == id2);
	assert_int_equal(f->map.n_items, 7);
	assert_true(sbx_map_get(&f->map, "targets", &v) && v.type == SBX_ARRAY && v.n_items == 2);
	struct sbx_cursor items = sbx_cursor_of(&v);
	struct sbx_value item;
	assert_true(sbx_next_item(&items, &item) && sbx_span_is(item.bytes, "a/b"));
	assert_true(sbx_next_item(&items, &item) && sbx_span_is(item.bytes, "c/d"));
	assert_false(sbx_next_item(&items, &item));
	assert_true(sbx_map_get(&f->map, "stream", &v) && v.type == SBX_BOOL && !v.truth);
	assert_true(sbx_map_get(&f->map, "restart", &v) && v.type == SBX_BOOL && v.truth);
	assert_true(sbx_span_is(text_member(f, "reply"), "data"));
	assert_true(sbx_span_is(text_member(f, "idempotency_key"), "k1"));
	assert_true(uint_member(f, "deadline_ms") == 1500);
	sbx_close(c);
	assert_null(peer_read(&p));
	peer_close(&p);
}

static void
test_submit_refused(void **state)
{
	static const char *const targets[] = { "a/b" };
	struct peer p;
	struct sbx_client *c = open_client(&p);
	char long_word[SBX_PRINCIPAL_MAX_BYTES + 2];
	struct { struct sbx_request_options o; char more[8]; } newer;
	struct sbx_request_options o;
	uint64_t id = 77;
	(void)state;
	memset(long_word, 'w', sizeof long_word - 1);
	long_word[sizeof long_word - 1] = 0;
#define REFUSED(want, change)                                                                                                  \
	do {                                                                                                                   \
		o = request();                                                                                                 \
		change;                                                                                                        \
		assert_int_equal(sbx_submit(c, &o, &id), (want));                                                              \
		assert_true(*sbx_client_error(c));                                                                             \
	} while (0)
	REFUSED(-SBX_EINVAL, o.route = "r");
	REFUSED(-SBX_EINVAL, (o.targets = targets, o.n_targets = 1));
	REFUSED(-SBX_EINVAL, (o.model = NULL, o.n_targets = 1));
	REFUSED(-SBX_EINVAL, o.body = NULL);
	REFUSED(-SBX_EINVAL, o.body_bytes = 0);
	REFUSED(-SBX_ETOOBIG, o.body_bytes = SBX_BODY_IN_MAX_BYTES + 1u);
	REFUSED(-SBX_EINVAL, o.deadline_ms = SBX_DEADLINE_MAX_MS + 1u);
	REFUSED(-SBX_EINVAL, o.idempotency_key = "");
	REFUSED(-SBX_EINVAL, o.size = offsetof(struct sbx_request_options, operation) - 1);
	REFUSED(-SBX_EINVAL, (o.as_http = true, o.stream = true));
	REFUSED(-SBX_EINVAL, o.operation = "");
	REFUSED(-SBX_EINVAL, o.tenant = "");
	REFUSED(-SBX_EINVAL, o.user = long_word);
	assert_true(id == 77);

	memset(&newer, 0, sizeof newer);
	newer.o = request();
	newer.o.size = sizeof newer;
	assert_int_equal(sbx_submit(c, &newer.o, &id), 0); /* longer, but asks for nothing unknown */
	newer.more[3] = 1;
	assert_int_equal(sbx_submit(c, &newer.o, &id), -SBX_EINVAL);
	sbx_close(c);
	peer_close(&p);
}

static void
test_in_flight_limit(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	static uint64_t ids[SBX_INFLIGHT_MAX];
	uint64_t id;
	(void)state;
	for (uint32_t i = 0; i < SBX_INFLIGHT_MAX; i++) {
		assert_int_equal(sbx_submit(c, &o, &ids[i]), 0);
		assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == ids[i]);
	}
	assert_int_equal(sbx_submit(c, &o, &id), -SBX_EBUSY);
	SAY_DONE(&p, ids[1234]);
	struct sbx_event ev = next_event(c);
	assert_true(ev.last && ev.id == ids[1234]);
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	assert_true(id != ids[1234]); /* its slot, not its number */
	assert_int_equal(sbx_cancel(c, ids[1234]), -SBX_ENOENT);
	sbx_close(c);
	peer_close(&p);
}

static void
test_large_body(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_event ev;
	uint64_t id, id2, id3;
	char *large = malloc(SBX_BODY_IN_MAX_BYTES);
	(void)state;
	MUST(large);
	for (size_t i = 0; i < SBX_BODY_IN_MAX_BYTES; i++)
		large[i] = (char)('a' + i % 23);
	o.body = large;
	o.body_bytes = SBX_BODY_IN_MAX_BYTES;
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	assert_true(sbx_events(c) & POLLOUT);
	assert_int_equal(sbx_submit(c, &o, &id2), 0);
	assert_int_equal(sbx_submit(c, &o, &id3), -SBX_EBUSY); /* 64 MiB wait */
	/* Both sides in one thread: the agent reads what there is, the library sends more. */
	struct sbx_buf got;
	sbx_buf_init(&got, 80u << 20);
	while (sbx_events(c) & POLLOUT) {
		uint8_t *room = sbx_buf_reserve(&got, 1u << 20);
		ssize_t n = recv(p.fd, room, 1u << 20, MSG_DONTWAIT);
		if (n > 0)
			sbx_buf_commit(&got, (size_t)n);
		assert_int_equal(sbx_process(c, POLLOUT), 0);
	}
	sbx_buf_fini(&p.in);
	p.consumed = 0;
	p.in = got;
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_true(f->id == id && text_member(f, "body").n == SBX_BODY_IN_MAX_BYTES);
	assert_memory_equal(text_member(f, "body").at, large, SBX_BODY_IN_MAX_BYTES);
	assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == id2);
	SAY_DONE(&p, id);
	ev = next_event(c);
	assert_true(ev.last && ev.id == id);
	free(large);
	sbx_close(c);
	peer_close(&p);
}

/* ---- events ---- */

static void
pack_all_events(struct sbx_buf *b, uint64_t id)
{
	pack(b, SBX_FRAME_ACCEPTED, id, END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TARGET), "s:target", "openai/gpt", "u:attempt", U(1), END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_REASONING), "s:text", "hmm", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "u:choice", U(2), "s:text", "\xc3\xa9t\xc3\xa9", END);
	pack(b, SBX_FRAME_EVENT, id, "s:text", "", "u:type", U(SBX_EVENT_TEXT), "s:new_key", "ignored", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_REFUSAL), "s:text", "no", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(99), "s:text", "of a later version", END);
	pack(b, (enum sbx_frame_kind)77, id, "s:text", "of a later version", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(1), "s:id", "call_1", "s:name", "f", "s:arguments",
	     "{\"a\"", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(1), "s:arguments", ":1}", END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_DATA), "d:data", "data: {}\n\n", END);
	pack(b, SBX_FRAME_RESET, id, "u:attempt", U(2), END);
	pack(b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_FINISH), "s:finish", "stop", END);
	pack(b, SBX_FRAME_DONE, id, "s:target", "openai/gpt", "s:finish", "stop", "n:usage", "i:cost_nanousd", (int64_t)55, END);
}

static void
expect_all_events(struct sbx_client *c, uint64_t id)
{
	static const struct {
		enum sbx_note note;
		uint32_t choice, index;
		const char *text, *call_id, *call_name;
	} want[] = {
		{ SBX_NOTE_ACCEPTED, 0, 0, "", NULL, NULL },
		{ SBX_NOTE_TARGET, 0, 0, "openai/gpt", NULL, NULL },
		{ SBX_NOTE_REASONING, 0, 0, "hmm", NULL, NULL },
		{ SBX_NOTE_TEXT, 2, 0, "\xc3\xa9t\xc3\xa9", NULL, NULL },
		{ SBX_NOTE_TEXT, 0, 0, "", NULL, NULL },
		{ SBX_NOTE_REFUSAL, 0, 0, "no", NULL, NULL },
		{ SBX_NOTE_TOOL_CALL, 0, 1, "{\"a\"", "call_1", "f" },
		{ SBX_NOTE_TOOL_CALL, 0, 1, ":1}", NULL, NULL },
		{ SBX_NOTE_DATA, 0, 0, "data: {}\n\n", NULL, NULL },
		{ SBX_NOTE_RESET, 0, 0, "", NULL, NULL },
		{ SBX_NOTE_FINISH, 0, 0, "stop", NULL, NULL },
	};
	struct sbx_event ev;
	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
		ev = next_event(c);
		assert_true(ev.id == id && !ev.last && !ev.reply);
		assert_int_equal(ev.note, want[i].note);
		assert_int_equal(ev.choice, want[i].choice);
		assert_int_equal(ev.index, want[i].index);
		assert_string_equal(ev.text, want[i].text);
		assert_int_equal(ev.text_bytes, strlen(want[i].text));
		assert_int_equal(ev.call_id != NULL, want[i].call_id != NULL);
		if (ev.call_id) {
			assert_string_equal(ev.call_id, want[i].call_id);
			assert_string_equal(ev.call_name, want[i].call_name);
		}
	}
	ev = next_event(c);
	assert_int_equal(ev.note, SBX_NOTE_DONE);
	assert_true(ev.last && ev.id == id && sbx_reply_ok(ev.reply));
	assert_string_equal(sbx_reply_target(ev.reply), "openai/gpt");
	assert_string_equal(sbx_reply_finish(ev.reply, 0), "stop");
	assert_true(sbx_reply_cost_nanousd(ev.reply) == 55);
	assert_true(sbx_reply_tokens(ev.reply).prompt == -1);
	assert_int_equal(sbx_reply_status(ev.reply), 200);
	assert_null(sbx_reply_text(ev.reply, 0, NULL));
}

static void
test_events(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_event ev;
	struct sbx_buf b;
	(void)state;
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_ENOENT);
	uint64_t id = submit(c);
	assert_int_equal(sbx_next(c, 10, &ev), -SBX_ETIME);
	sbx_buf_init(&b, 1u << 20);
	pack(&b, SBX_FRAME_EVENT, 12345, "u:type", U(SBX_EVENT_TEXT), "s:text", "for nobody", END);
	pack_all_events(&b, id);
	peer_write(&p, b.data, b.n);
	expect_all_events(c, id);
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_ENOENT);

	/* Frames that arrive in two pieces, cut at every byte; and one byte at a time. */
	for (size_t cut = 0; cut <= b.n; cut++) {
		id = submit(c);
		sbx_buf_clear(&b);
		pack_all_events(&b, id);
		peer_write(&p, b.data, cut);
		int rc = sbx_process(c, POLLIN);
		assert_int_equal(rc, 0);
		peer_write(&p, b.data + cut, b.n - cut);
		expect_all_events(c, id);
	}
	id = submit(c);
	sbx_buf_clear(&b);
	pack_all_events(&b, id);
	for (size_t i = 0; i < b.n; i++) {
		peer_write(&p, b.data + i, 1);
		assert_int_equal(sbx_process(c, POLLIN), 0);
	}
	expect_all_events(c, id);
	sbx_buf_fini(&b);
	sbx_close(c);
	peer_close(&p);
}

static void
test_interleaving(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id[3];
	(void)state;
	for (int i = 0; i < 3; i++)
		id[i] = submit(c);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 3; i++) {
			char text[32];
			(void)snprintf(text, sizeof text, "r%d-%d", i, round);
			SAY_TEXT(&p, id[i], text);
		}
	}
	SAY_DONE(&p, id[1]);
	SAY_TEXT(&p, id[2], "more");
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 3; i++) {
			char text[32];
			(void)snprintf(text, sizeof text, "r%d-%d", i, round);
			expect_text(c, id[i], text);
		}
	}
	struct sbx_event ev = next_event(c);
	assert_true(ev.last && ev.id == id[1]);
	expect_text(c, id[2], "more");
	expect_nothing(c);
	sbx_close(c);
	peer_close(&p);
}

/* A frame whose length has a first byte that is not 0 follows a string: the NUL of that string falls on it. */
static void
test_byte_behind_string(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c);
	struct sbx_buf b;
	struct sbx_packer k;
	const size_t large_bytes = 20u << 20;
	char *large = calloc(1, large_bytes);
	(void)state;
	MUST(large);
	sbx_buf_init(&b, 40u << 20);
	pack(&b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "s:text", "edge", END);
	sbx_frame_begin(&k, &b, SBX_FRAME_EVENT, id, 2);
	sbx_pack_uint(&k, "type", SBX_EVENT_DATA);
	sbx_pack_bin(&k, "data", (struct sbx_span){ large, large_bytes });
	MUST(sbx_frame_end(&k) == 0);
	peer_write(&p, b.data, 100); /* the large frame's head is there, its body is not */
	expect_text(c, id, "edge");
	assert_int_equal(sbx_timeout_ms(c), -1);
	assert_true(sbx_events(c) & POLLIN);
	for (size_t at = 100; at < b.n;) {
		size_t n = b.n - at < 65536 ? b.n - at : 65536;
		peer_write(&p, b.data + at, n);
		at += n;
		assert_int_equal(sbx_process(c, POLLIN), 0);
	}
	struct sbx_event ev = next_event(c);
	assert_int_equal(ev.note, SBX_NOTE_DATA);
	assert_int_equal(ev.text_bytes, large_bytes);
	free(large);
	sbx_buf_fini(&b);
	sbx_close(c);
	peer_close(&p);
}

static void
test_credit(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c), granted = 0;
	char kilobyte[1025];
	(void)state;
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	memset(kilobyte, 'k', 1024);
	kilobyte[1024] = 0;
	say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TARGET), "s:target", kilobyte, END); /* costs nothing */
	assert_int_equal(next_event(c).note, SBX_NOTE_TARGET);
	for (int i = 0; i < 63; i++) {
		SAY_TEXT(&p, id, kilobyte);
		expect_text(c, id, kilobyte);
	}
	expect_nothing(c);
	assert_true(peer_has_nothing(&p)); /* 63 KiB consumed: not yet a quarter */
	say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "s:id", "12", "s:name", "345", "s:arguments", kilobyte, END);
	assert_int_equal(next_event(c).note, SBX_NOTE_TOOL_CALL);
	assert_true(peer_has_nothing(&p)); /* it is still out on loan */
	expect_nothing(c);
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_CREDIT);
	assert_true(f->id == id && f->map.n_items == 1);
	assert_int_equal(uint_member(f, "bytes"), 64 * 1024 + 5);

	/* Whatever the sizes, what the agent may send never runs out, and never exceeds the window. */
	uint64_t credit = SBX_CREDIT_BYTES, sent = 0;
	for (int i = 0; i < 400; i++) {
		size_t n = (size_t)(i * 37) % 1024;
		assert_true(credit >= n);
		SAY_TEXT(&p, id, kilobyte + 1024 - n);
		credit -= n;
		sent += n;
		assert_int_equal(next_event(c).note, SBX_NOTE_TEXT);
		expect_nothing(c);
		while (!peer_has_nothing(&p)) {
			f = peer_expect(&p, SBX_FRAME_CREDIT);
			granted += uint_member(f, "bytes");
			credit += uint_member(f, "bytes");
		}
		assert_true(credit <= SBX_CREDIT_BYTES && credit >= SBX_CREDIT_BYTES - SBX_GRANT_BYTES);
	}
	assert_true(granted <= sent && granted > sent - SBX_GRANT_BYTES);
	sbx_close(c);
	peer_close(&p);
}

/* A request that is held is paid for by sbx_grant() alone, and its neighbour as ever. */
static void
test_hold_and_grant(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t held = submit(c), free_one = submit(c);
	char piece[1025];
	(void)state;
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	memset(piece, 'k', 1024);
	piece[1024] = 0;
	assert_int_equal(sbx_hold(c, held), 0);
	for (int i = 0; i < 100; i++) {
		SAY_TEXT(&p, held, piece);
		expect_text(c, held, piece);
	}
	expect_nothing(c);
	assert_true(peer_has_nothing(&p));
	for (int i = 0; i < 64; i++) {
		SAY_TEXT(&p, free_one, piece);
		expect_text(c, free_one, piece);
	}
	expect_nothing(c);
	assert_true(peer_expect(&p, SBX_FRAME_CREDIT)->id == free_one);
	assert_int_equal(sbx_grant(c, held, 60000), 0);
	assert_true(peer_has_nothing(&p)); /* not yet a quarter of the window */
	assert_int_equal(sbx_grant(c, held, 10000), 0);
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_CREDIT); /* at once */
	assert_true(f->id == held);
	assert_int_equal(uint_member(f, "bytes"), 70000);
	assert_int_equal(sbx_hold(c, held + 1), -SBX_ENOENT);
	assert_int_equal(sbx_grant(c, held + 1, 1), -SBX_ENOENT);
	sbx_close(c);
	peer_close(&p);
}

/* Corked, everything waits for sbx_process(), and leaves in its order. */
static void
test_cork(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id[3];
	(void)state;
	sbx_cork(c, true);
	for (int i = 0; i < 3; i++)
		id[i] = submit(c);
	assert_int_equal(sbx_cancel(c, id[1]), 0);
	assert_true(peer_has_nothing(&p));
	assert_true(sbx_events(c) & POLLOUT);
	assert_int_equal(sbx_process(c, 0), 0);
	assert_false(sbx_events(c) & POLLOUT);
	for (int i = 0; i < 3; i++)
		assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == id[i]);
	assert_true(peer_expect(&p, SBX_FRAME_CANCEL)->id == id[1]);
	/* A large one does not wait. */
	struct sbx_request_options o = request();
	char *large = calloc(1, 100000);
	uint64_t large_id;
	MUST(large);
	o.body = large;
	o.body_bytes = 100000;
	assert_int_equal(sbx_submit(c, &o, &large_id), 0);
	assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == large_id);
	free(large);
	sbx_close(c);
	peer_close(&p);
}

static void
test_cancel(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c);
	(void)state;
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_int_equal(sbx_cancel(c, id + 1), -SBX_ENOENT);
	assert_int_equal(sbx_cancel(c, id), 0);
	assert_int_equal(sbx_cancel(c, id), 0); /* again: no second frame */
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_CANCEL);
	assert_true(f->id == id && f->map.n_items == 0);
	assert_true(peer_has_nothing(&p));
	say(&p, SBX_FRAME_ERROR, id, "s:code", "cancelled", "u:status", U(499), "s:message", "as you wish", END);
	struct sbx_event ev = next_event(c);
	assert_true(ev.last && ev.id == id);
	assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_CANCELLED);
	assert_string_equal(sbx_reply_message(ev.reply), "as you wish");
	assert_int_equal(sbx_cancel(c, id), -SBX_ENOENT);
	sbx_close(c);
	peer_close(&p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_version),
		TEST(test_open_failures),
		TEST(test_open_nobody),
		TEST(test_open_later),
		TEST(test_path_order),
		TEST(test_submit_frame),
		TEST(test_submit_refused),
		TEST(test_in_flight_limit),
		TEST(test_large_body),
		TEST(test_events),
		TEST(test_interleaving),
		TEST(test_byte_behind_string),
		TEST(test_credit),
		TEST(test_hold_and_grant),
		TEST(test_cork),
		TEST(test_cancel),
	};
	return RUN(tests);
}
