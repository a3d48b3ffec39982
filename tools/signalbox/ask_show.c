/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask_show.c -- what `signalbox ask` shows of an answer. See ask.h for the four ways.
 *
 * For people, standard output gets the answer and nothing else; who answers, what failed on the way and what it took goes to
 * standard error. A stream prints the first choice as it comes; other choices and tool calls, which mix with it piece by
 * piece, are kept and printed at the end. An answer that is not streamed is kept whole, so that a failure leaves no half answer.
 */
#include "tools/signalbox/ask.h"

#include <stdlib.h>
#include <string.h>

#define GATHER_MAX_BYTES (64u << 20) /* as much as the library keeps of an answer */
#define CHOICES_MAX 1024
#define CALLS_MAX 1024

static const char *const error_words[ASK_ERROR__COUNT] = {
	[ASK_ERROR_PROVIDER] = "provider", [ASK_ERROR_STATUS] = "status", [ASK_ERROR_TYPE] = "type",
	[ASK_ERROR_CODE] = "code",         [ASK_ERROR_PARAM] = "param",   [ASK_ERROR_MESSAGE] = "message",
};

/* ==== what is kept ==== */

static bool
append(struct ask_show *s, struct ask_text *to, const char *text, size_t n)
{
	if (n > GATHER_MAX_BYTES - s->gathered_bytes)
		return false;
	if (to->n + n + 1 > to->room) {
		to->room = (to->n + n + 1) * 2;
		to->at = must(realloc(to->at, to->room));
	}
	memcpy(to->at + to->n, text, n);
	to->n += n;
	to->at[to->n] = 0;
	s->gathered_bytes += n;
	return true;
}

static struct ask_choice *
choice_of(struct ask_show *s, uint32_t number)
{
	if (number >= CHOICES_MAX)
		return NULL;
	if (number >= s->n_choices) {
		s->choice = must(reallocarray(s->choice, number + 1, sizeof *s->choice));
		memset(s->choice + s->n_choices, 0, (number + 1 - s->n_choices) * sizeof *s->choice);
		s->n_choices = number + 1;
	}
	return &s->choice[number];
}

static struct ask_call *
call_of(struct ask_show *s, const struct sbx_event *ev)
{
	for (size_t i = s->n_calls; i-- > 0;) /* from the last: fragments of one call mostly come in a row */
		if (s->call[i].choice == ev->choice && s->call[i].index == ev->index)
			return &s->call[i];
	if (s->n_calls >= CALLS_MAX)
		return NULL;
	s->call = must(reallocarray(s->call, s->n_calls + 1, sizeof *s->call));
	s->call[s->n_calls] = (struct ask_call){ .choice = ev->choice, .index = ev->index };
	return &s->call[s->n_calls++];
}

static bool
gather(struct ask_show *s, const struct sbx_event *ev)
{
	struct ask_choice *choice = choice_of(s, ev->choice);
	struct ask_call *call;
	if (!choice)
		return false;
	switch (ev->note) {
	case SBX_NOTE_TEXT:
		return append(s, &choice->text, ev->text, ev->text_bytes);
	case SBX_NOTE_REASONING:
		return append(s, &choice->reasoning, ev->text, ev->text_bytes);
	case SBX_NOTE_REFUSAL:
		return append(s, &choice->refusal, ev->text, ev->text_bytes);
	case SBX_NOTE_FINISH:
		return append(s, &choice->finish, ev->text, ev->text_bytes);
	case SBX_NOTE_TOOL_CALL:
		call = call_of(s, ev);
		if (!call)
			return false;
		if (ev->call_id && !call->id.n && !append(s, &call->id, ev->call_id, strlen(ev->call_id)))
			return false;
		if (ev->call_name && !call->name.n && !append(s, &call->name, ev->call_name, strlen(ev->call_name)))
			return false;
		return append(s, &call->arguments, ev->text, ev->text_bytes);
	default:
		return true;
	}
}

static void
drop_gathered(struct ask_show *s)
{
	for (size_t i = 0; i < s->n_choices; i++) {
		free(s->choice[i].text.at);
		free(s->choice[i].reasoning.at);
		free(s->choice[i].refusal.at);
		free(s->choice[i].finish.at);
	}
	for (size_t i = 0; i < s->n_calls; i++) {
		free(s->call[i].id.at);
		free(s->call[i].name.at);
		free(s->call[i].arguments.at);
	}
	free(s->choice);
	free(s->call);
	s->choice = NULL;
	s->call = NULL;
	s->n_choices = s->n_calls = s->gathered_bytes = 0;
}

/* ==== for people ==== */

static void
end_line(struct ask_show *s)
{
	if (s->mid_line)
		(void)putc('\n', s->out.file);
	s->mid_line = false;
}

static void
speak(struct ask_show *s, enum sbx_note kind, const char *text, size_t n)
{
	if (n == 0 || (kind == SBX_NOTE_REASONING && !s->reasoning))
		return;
	if (s->speaking && s->speaking != kind) { /* between reasoning and answer */
		end_line(s);
		(void)putc('\n', s->out.file);
	}
	if (kind != SBX_NOTE_TEXT)
		term_style(&s->out, kind == SBX_NOTE_REASONING ? STYLE_DIM : STYLE_WARN);
	term_put(&s->out, text, n);
	if (kind != SBX_NOTE_TEXT)
		term_style(&s->out, STYLE_PLAIN);
	s->speaking = kind;
	s->mid_line = text[n - 1] != '\n';
}

static void
speak_choice(struct ask_show *s, const struct ask_choice *c)
{
	speak(s, SBX_NOTE_REASONING, c->reasoning.at, c->reasoning.n);
	speak(s, SBX_NOTE_TEXT, c->text.at, c->text.n);
	speak(s, SBX_NOTE_REFUSAL, c->refusal.at, c->refusal.n);
	end_line(s);
	s->speaking = 0;
}

static const char *
text_or(const struct ask_text *t, const char *otherwise)
{
	return t->n ? t->at : otherwise;
}

/* What was kept: all of it, or all but the first choice's words when those were streamed. */
static void
speak_rest(struct ask_show *s)
{
	end_line(s);
	s->speaking = 0;
	if (!s->o->stream && s->n_choices > 0)
		speak_choice(s, &s->choice[0]);
	for (size_t i = 1; i < s->n_choices; i++) {
		if (!s->choice[i].text.n && !s->choice[i].refusal.n)
			continue; /* tool calls only, or nothing */
		term_say(&s->out, STYLE_DIM, "\n[choice %zu]\n", i + 1);
		speak_choice(s, &s->choice[i]);
	}
	for (size_t i = 0; i < s->n_calls; i++) {
		const struct ask_call *call = &s->call[i];
		if (call->choice > 0)
			term_say(&s->out, STYLE_DIM, "[choice %u] ", call->choice + 1);
		term_say(&s->out, STYLE_BOLD, "%s", text_or(&call->name, "(a tool without a name)"));
		term_say(&s->out, STYLE_PLAIN, "(%s)\n", text_or(&call->arguments, ""));
	}
}

static void
fmt_time(char *to, size_t room, int64_t ms)
{
	if (ms < 0)
		(void)snprintf(to, room, "-");
	else if (ms < 1000)
		(void)snprintf(to, room, "%lld ms", (long long)ms);
	else
		(void)snprintf(to, room, "%lld.%02lld s", (long long)(ms / 1000), (long long)(ms % 1000 / 10));
}

static void
note_attempts(struct ask_show *s, const struct ask_end *end)
{
	static const char *const head[] = { ">#", "target", "outcome", ">http", ">began", ">ended", "what happened", NULL };
	struct table t;
	table_init(&t, head);
	for (size_t i = 0; i < end->n_attempts; i++) {
		const struct sbx_attempt_info a = end->attempt[i];
		char began[32] = "", ended[32] = "";
		bool ok = strcmp(a.outcome, "OK") == 0, tried = strcmp(a.outcome, "PASSED_OVER") != 0;
		table_row(&t, ok ? STYLE_GOOD : tried ? STYLE_BAD : STYLE_DIM);
		if (tried) {
			fmt_time(began, sizeof began, a.started_ms);
			fmt_time(ended, sizeof ended, a.ended_ms);
		}
		table_cell(&t, tried ? "%zu" : "", i + 1);
		table_cell(&t, "%s", a.target);
		table_cell(&t, "%s", a.outcome);
		table_cell(&t, a.status ? "%d" : "", a.status);
		table_cell(&t, "%s", began);
		table_cell(&t, "%s", ended);
		table_cell(&t, "%s", ok ? "answered" : a.message);
	}
	table_print(&t, &s->err);
	table_fini(&t);
}

static void
note_figures(struct ask_show *s, const struct ask_end *end)
{
	const struct sbx_tokens t = end->tokens;
	const int64_t cost = end->cost_nanousd;
	char first[32], total[32];
	fmt_time(first, sizeof first, end->first_content_ms);
	fmt_time(total, sizeof total, end->total_ms);
	term_style(&s->err, STYLE_DIM);
	if (*end->target)
		term_say(&s->err, STYLE_PLAIN, "%s; ", end->target);
	if (t.prompt >= 0 || t.completion >= 0) {
		(void)fprintf(s->err.file, "%lld + %lld tokens%s", (long long)(t.prompt < 0 ? 0 : t.prompt),
		              (long long)(t.completion < 0 ? 0 : t.completion), t.estimated ? " (estimated)" : "");
		if (t.reasoning > 0)
			(void)fprintf(s->err.file, ", %lld of them reasoning", (long long)t.reasoning);
		if (t.cached > 0)
			(void)fprintf(s->err.file, ", %lld from the cache", (long long)t.cached);
		(void)fputs("; ", s->err.file);
	}
	(void)fprintf(s->err.file, "first content %s, total %s; ", first, total);
	if (end->direct)
		(void)fputs("past the agent, not accounted for", s->err.file);
	else if (cost < 0)
		(void)fputs("unpriced", s->err.file);
	else
		(void)fprintf(s->err.file, "%lld.%09lld USD", (long long)(cost / 1000000000), (long long)(cost % 1000000000));
	term_style(&s->err, STYLE_PLAIN);
	(void)putc('\n', s->err.file);
}

static void
say_error(struct ask_show *s, const struct ask_end *end)
{
	const char *type = end->error[ASK_ERROR_TYPE], *code = end->error[ASK_ERROR_CODE];
	const int64_t wait_ms = end->retry_after_ms;
	term_say(&s->err, STYLE_BAD, "signalbox: %s (%d): %s\n", end->code_word, end->status, end->message);
	if (*type || *code)
		term_say(&s->err, STYLE_PLAIN, "the provider's own error: %s%s%s\n", type, *type && *code ? ", " : "", code);
	if (end->code == SBX_CODE_AGENT_LOST)
		term_say(&s->err, STYLE_PLAIN, end->sent ? "it may have been carried out\n" : "nothing was sent to a provider\n");
	if (wait_ms >= 0)
		term_say(&s->err, STYLE_PLAIN, "try again in %lld.%01lld s\n", (long long)(wait_ms / 1000), (long long)(wait_ms % 1000 / 100));
}

static void
show_end(struct ask_show *s, const struct ask_end *end)
{
	const bool ok = end->ok, cancelled = end->code == SBX_CODE_CANCELLED;
	const char *finish = s->n_choices && s->choice[0].finish.n ? s->choice[0].finish.at : end->finish;
	if (ok)
		speak_rest(s);
	else
		end_line(s);
	(void)fflush(s->out.file); /* before what is said about it; a failure is found at the end */
	if (ok && (strcmp(finish, "length") == 0 || strcmp(finish, "content_filter") == 0) && !s->o->quiet)
		term_say(&s->err, STYLE_WARN, "signalbox: the answer is not whole; it ended by \"%s\"\n", finish);
	if (cancelled && !s->o->quiet)
		term_say(&s->err, STYLE_WARN, "signalbox: cancelled\n");
	if (s->notes && end->n_attempts > (ok ? 1 : 0))
		note_attempts(s, end);
	if (s->notes)
		note_figures(s, end);
	if (!ok && !cancelled)
		say_error(s, end);
}

static bool
show_for_people(struct ask_show *s, const struct sbx_event *ev)
{
	switch (ev->note) {
	case SBX_NOTE_TARGET:
		(void)fflush(s->out.file);
		if (s->notes)
			term_say(&s->err, s->asked[0] ? STYLE_WARN : STYLE_DIM, "%s %s\n",
			         !s->asked[0] ? "asking" : strcmp(s->asked, ev->text) == 0 ? "asking again:" : "failing over to", ev->text);
		(void)snprintf(s->asked, sizeof s->asked, "%s", ev->text); /* names are shorter */
		return true;
	case SBX_NOTE_TEXT:
	case SBX_NOTE_REASONING:
	case SBX_NOTE_REFUSAL:
		if (!s->o->stream || ev->choice > 0)
			return gather(s, ev);
		speak(s, ev->note, ev->text, ev->text_bytes);
		return true;
	case SBX_NOTE_RESET:
		drop_gathered(s);
		end_line(s);
		(void)fflush(s->out.file);
		if (s->o->stream && s->speaking)
			term_say(&s->err, STYLE_WARN, "-- the stream broke; what stands above is void, the answer starts over --\n");
		s->speaking = 0;
		return true;
	default:
		return gather(s, ev);
	}
}

/* ==== JSON ==== */

static void
put_text(json_t *object, const char *key, const char *text, size_t n)
{
	(void)json_object_set_new(object, key, json_text(text, n)); /* a lack of memory leaves the key out */
}

static void
put_word(json_t *object, const char *key, const char *text)
{
	(void)json_object_set_new(object, key, *text ? json_text(text, strlen(text)) : json_null());
}

/* -1 is the library's "not known", null that of JSON. */
static void
put_number(json_t *object, const char *key, int64_t n)
{
	(void)json_object_set_new(object, key, n < 0 ? json_null() : json_integer(n));
}

static json_t *
json_tokens(struct sbx_tokens t)
{
	if (t.prompt < 0 && t.completion < 0 && t.total < 0)
		return json_null();
	json_t *o = must(json_object());
	put_number(o, "prompt_tokens", t.prompt);
	put_number(o, "completion_tokens", t.completion);
	put_number(o, "total_tokens", t.total);
	put_number(o, "cached_tokens", t.cached);
	put_number(o, "cache_write_tokens", t.cache_write);
	put_number(o, "reasoning_tokens", t.reasoning);
	(void)json_object_set_new(o, "estimated", json_boolean(t.estimated));
	return o;
}

static json_t *
json_attempts(const struct ask_end *end)
{
	json_t *list = must(json_array());
	for (size_t i = 0; i < end->n_attempts; i++) {
		const struct sbx_attempt_info a = end->attempt[i];
		json_t *o = must(json_object());
		put_word(o, "target", a.target);
		put_word(o, "outcome", a.outcome);
		put_number(o, "status", a.status ? a.status : -1);
		put_number(o, "started_ms", a.started_ms);
		put_number(o, "ended_ms", a.ended_ms);
		put_number(o, "first_content_ms", a.first_content_ms);
		put_word(o, "connection", a.connection);
		put_word(o, "message", a.message);
		(void)json_object_set_new(o, "usage", json_tokens(a.tokens));
		put_number(o, "cost_nanousd", a.cost_nanousd);
		(void)json_array_append_new(list, o);
	}
	return list;
}

static json_t *
json_error(const struct ask_end *end)
{
	if (end->ok)
		return json_null();
	json_t *o = must(json_object()), *said = must(json_object());
	put_word(o, "code", end->code_word);
	put_number(o, "status", end->status);
	put_word(o, "message", end->message);
	(void)json_object_set_new(o, "retryable", json_boolean(end->retryable));
	put_number(o, "retry_after_ms", end->retry_after_ms);
	(void)json_object_set_new(o, "sent", json_boolean(end->sent));
	for (size_t i = 0; i < ASK_ERROR__COUNT; i++)
		if (*end->error[i])
			put_word(said, error_words[i], end->error[i]);
	(void)json_object_set_new(o, "provider_error", json_object_size(said) ? said : json_null());
	if (!json_object_size(said))
		json_decref(said);
	return o;
}

static json_t *
json_calls(const struct ask_show *s)
{
	json_t *list = must(json_array());
	for (size_t i = 0; i < s->n_calls; i++) {
		const struct ask_call *call = &s->call[i];
		json_t *o = must(json_object());
		put_number(o, "choice", call->choice);
		put_word(o, "id", text_or(&call->id, ""));
		put_word(o, "name", text_or(&call->name, ""));
		put_text(o, "arguments", text_or(&call->arguments, ""), call->arguments.n);
		(void)json_array_append_new(list, o);
	}
	return list;
}

static void
put_choice(json_t *o, const struct ask_choice *c, const char *finish)
{
	put_text(o, "text", text_or(&c->text, ""), c->text.n);
	put_text(o, "reasoning", text_or(&c->reasoning, ""), c->reasoning.n);
	put_text(o, "refusal", text_or(&c->refusal, ""), c->refusal.n);
	put_word(o, "finish", text_or(&c->finish, finish));
}

/* The end of a request: the whole object, or the last line of a stream, which leaves out what the lines before it said. */
static void
print_end(struct ask_show *s, const struct ask_end *end)
{
	static const struct ask_choice nothing;
	json_t *o = must(json_object());
	if (s->o->stream) {
		put_word(o, "event", end->ok ? "done" : "error");
		put_word(o, "finish", end->finish);
	} else {
		put_choice(o, s->n_choices ? &s->choice[0] : &nothing, end->finish);
		(void)json_object_set_new(o, "tool_calls", json_calls(s));
		if (s->n_choices > 1) {
			json_t *list = must(json_array());
			for (size_t i = 0; i < s->n_choices; i++) {
				json_t *choice = must(json_object());
				put_choice(choice, &s->choice[i], "");
				(void)json_array_append_new(list, choice);
			}
			(void)json_object_set_new(o, "choices", list);
		}
	}
	(void)json_object_set_new(o, "usage", json_tokens(end->tokens));
	put_word(o, "target", end->target);
	(void)json_object_set_new(o, "attempts", json_attempts(end));
	put_number(o, "total_ms", end->total_ms);
	put_number(o, "first_content_ms", end->first_content_ms);
	put_number(o, "cost_nanousd", end->cost_nanousd);
	(void)json_object_set_new(o, "direct", json_boolean(end->direct));
	(void)json_object_set_new(o, "error", json_error(end));
	json_print_line(o);
	json_decref(o);
}

static void
print_event(const struct sbx_event *ev)
{
	static const char *const names[] = {
		[SBX_NOTE_ACCEPTED] = "accepted", [SBX_NOTE_TARGET] = "target",   [SBX_NOTE_TEXT] = "text",
		[SBX_NOTE_REASONING] = "reasoning", [SBX_NOTE_REFUSAL] = "refusal", [SBX_NOTE_TOOL_CALL] = "tool_call",
		[SBX_NOTE_FINISH] = "finish",     [SBX_NOTE_RESET] = "reset",
	};
	if ((size_t)ev->note >= sizeof names / sizeof names[0] || !names[ev->note])
		return; /* of a later version of the library */
	json_t *o = must(json_object());
	put_word(o, "event", names[ev->note]);
	switch (ev->note) {
	case SBX_NOTE_TARGET:
		put_text(o, "target", ev->text, ev->text_bytes);
		break;
	case SBX_NOTE_TOOL_CALL:
		put_number(o, "choice", ev->choice);
		put_number(o, "index", ev->index);
		if (ev->call_id)
			put_word(o, "id", ev->call_id);
		if (ev->call_name)
			put_word(o, "name", ev->call_name);
		put_text(o, "arguments", ev->text, ev->text_bytes);
		break;
	case SBX_NOTE_TEXT:
	case SBX_NOTE_REASONING:
	case SBX_NOTE_REFUSAL:
	case SBX_NOTE_FINISH:
		put_number(o, "choice", ev->choice);
		put_text(o, names[ev->note], ev->text, ev->text_bytes);
		break;
	default: /* the name says it */
		break;
	}
	json_print_line(o);
	json_decref(o);
}

static bool
show_as_json(struct ask_show *s, const struct sbx_event *ev)
{
	if (s->o->stream) {
		print_event(ev);
		return true;
	}
	if (ev->note == SBX_NOTE_RESET)
		drop_gathered(s);
	return gather(s, ev);
}

/* ==== */

void
ask_show_init(struct ask_show *s, const struct ask_options *o)
{
	*s = (struct ask_show){ .o = o, .out = term_of(stdout), .err = term_of(stderr) };
	s->notes = o->verbose || (s->err.tty && !o->quiet && !o->json);
	s->reasoning = o->reasoning || s->out.tty;
}

void
ask_show_end(struct ask_show *s, const struct ask_end *end)
{
	if (s->o->json)
		print_end(s, end);
	else
		show_end(s, end);
}

static void
show_reply(struct ask_show *s, const struct sbx_reply *reply)
{
	const uint32_t n = sbx_reply_attempts(reply);
	struct sbx_attempt_info *attempt = must(calloc(n + 1, sizeof *attempt));
	struct ask_end end = {
		.ok = sbx_reply_ok(reply), .retryable = sbx_reply_retryable(reply), .sent = sbx_reply_sent(reply),
		.code = sbx_reply_code(reply), .code_word = sbx_reply_code_word(reply), .message = sbx_reply_message(reply),
		.finish = sbx_reply_finish(reply, 0), .target = sbx_reply_target(reply), .status = sbx_reply_status(reply),
		.retry_after_ms = sbx_reply_retry_after_ms(reply), .first_content_ms = sbx_reply_first_content_ms(reply),
		.cost_nanousd = sbx_reply_cost_nanousd(reply), .total_ms = sbx_reply_total_ms(reply), .tokens = sbx_reply_tokens(reply),
		.attempt = attempt,
	};
	for (size_t i = 0; i < ASK_ERROR__COUNT; i++)
		end.error[i] = sbx_reply_provider_error(reply, error_words[i]);
	while (end.n_attempts < n && sbx_reply_attempt(reply, (uint32_t)end.n_attempts, &attempt[end.n_attempts]))
		end.n_attempts++;
	ask_show_end(s, &end);
	free(attempt);
}

bool
ask_show_event(struct ask_show *s, const struct sbx_event *ev)
{
	if (ev->last) {
		show_reply(s, ev->reply);
		return false;
	}
	return !(s->o->json ? show_as_json(s, ev) : show_for_people(s, ev));
}

void
ask_show_fini(struct ask_show *s)
{
	drop_gathered(s);
}
