/* SPDX-License-Identifier: Apache-2.0 */
/* vkeys.c -- see vkeys.h. */
#include "agent/io/vkeys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <openssl/evp.h>

#include "agent/core/keyring.h"
#include "agent/io/admit.h"
#include "agent/io/ending.h"
#include "agent/io/session.h"
#include "agent/io/store.h"
#include "agent/log.h"
#include "client/wire.h"

#define LOAD_AGAIN_NS 100000000ull  /* the store is not open yet, or not well */
#define BUSY_RETRY_MS 1000
#define TIME_MAX_UNIX_S 253402300800 /* the year 10000: more is a mistake in the unit */
#define LOCAL_TENANT "local"

enum verb { CREATE, ROTATE, REVOKE, LIST, CHECK, VERB__COUNT };

/* A change on its way to the disk. */
struct change {
	struct change *next;
	struct sbx_agent *agent;
	struct sbx_session *session;       /* to be answered; NULL = nobody */
	uint64_t id;                       /* of its frame */
	enum verb verb;
	struct sbx_vkey *key;              /* as it will be; owned */
	char secret[SBX_KEY_SECRET_BYTES]; /* "" = none was made */
};

struct sbx_vkeys {
	struct sbx_keyring *ring;
	bool loaded;
	struct sbx_timer again;            /* for the next try to load */
	struct change *changes;
	uint32_t n_creates;                /* of the changes */
	uint64_t check_from_ns;            /* the rate of checks is below its limit while this is less than a burst ahead */
	sbx_vkeys_show_fn *show;           /* wants a local key; NULL = nobody does, or it was seen to */
	void *show_arg;
};

static int64_t
now_unix_s(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
	return now.tv_sec;
}

/* ==== answers ==== */

static void
refuse(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, enum sbx_code code, const char *why)
{
	struct sbx_refusal r;
	(void)sbx_refuse(&r, code, code == SBX_CODE_BUSY ? BUSY_RETRY_MS : -1, why); /* -SBX_EINVAL, always */
	r.param[0] = '\0';
	sbx_ending_refusal(agent, id, false, &r);
	sbx_session_send(session);
}

static void
send_frame(struct sbx_agent *agent, struct sbx_session *session, struct sbx_packer *p)
{
	if (sbx_frame_end(p))
		sbx_buf_clear(&agent->frame);
	sbx_session_send(session);
}

static void
pack_time(struct sbx_packer *p, const char *name, int64_t unix_s)
{
	if (unix_s)
		sbx_pack_int(p, name, unix_s);
	else
		sbx_pack_nil(p, name);
}

#define ABOUT_KEYS 7
static void
pack_about(struct sbx_packer *p, const struct sbx_vkey *k, int64_t now_s)
{
	sbx_pack_str(p, "tenant", sbx_span_of(k->tenant));
	sbx_pack_str(p, "name", sbx_span_of(k->name));
	sbx_pack_str(p, "models", sbx_span_of(k->models));
	sbx_pack_str(p, "state", sbx_span_of(sbx_vkey_life_word(sbx_vkey_life(k, now_s))));
	sbx_pack_int(p, "created_unix_s", k->created_unix_s);
	pack_time(p, "expires_unix_s", k->expires_unix_s);
	pack_time(p, "old_until_unix_s", k->old_until_unix_s > now_s ? k->old_until_unix_s : 0);
}

/* ==== changes ==== */

static void
free_change(struct change *c)
{
	explicit_bzero(c->secret, sizeof c->secret);
	free(c->key);
	free(c);
}

static void
remove_change(struct sbx_vkeys *v, struct change *c)
{
	struct change **at = &v->changes;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	v->n_creates -= c->verb == CREATE;
}

static void
answer_change(const struct change *c)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, &c->agent->frame, SBX_FRAME_KEY, c->id, c->verb == REVOKE ? 1 : 2 + ABOUT_KEYS);
	sbx_pack_str(&p, "key", sbx_span_of(c->key->id));
	if (c->verb != REVOKE) {
		sbx_pack_str(&p, "secret", sbx_span_of(c->secret));
		pack_about(&p, c->key, now_unix_s());
	}
	send_frame(c->agent, c->session, &p);
	explicit_bzero(c->agent->frame.base, c->agent->frame.cap_bytes); /* it was copied */
}

static void
refuse_change(const struct change *c, int rc)
{
	char why[320];
	const struct sbx_store_view store = sbx_store_look(c->agent->store);
	sbx_log(SBX_LOG_ERROR, "key_not_kept", SBX_STR("key", c->key->id), SBX_STR("store", sbx_store_word(store.state)), SBX_INT("error", rc));
	(void)snprintf(why, sizeof why, "%s: %s",
	               c->verb == REVOKE ? "it is refused from now on, but that could not be kept for the next start; revoke it again" : "the key could not be kept, so there is no change",
	               rc == -SBX_EBUSY ? sbx_store_says(store.state) : "the store refuses it");
	if (c->session)
		refuse(c->agent, c->session, c->id, SBX_CODE_BUSY, why);
}

static void
on_kept(void *arg, struct sbx_store_keys *keys)
{
	static const char *const events[VERB__COUNT] = { [CREATE] = "key_created", [ROTATE] = "key_rotated", [REVOKE] = "key_revoked" };
	struct change *c = arg;
	struct sbx_vkeys *v = c->agent->vkeys;
	int rc = keys->rc;
	remove_change(v, c);
	struct sbx_vkey *kept = rc == 0 && c->verb != REVOKE ? sbx_vkey_copy(c->key) : NULL;
	if (rc == 0 && c->verb == REVOKE)
		sbx_keyring_drop(v->ring, c->key->id);
	else if (rc == 0)
		rc = kept ? sbx_keyring_put(v->ring, kept) : -SBX_ENOMEM;
	if (rc) {
		free(kept);
		refuse_change(c, rc);
	} else {
		sbx_log(SBX_LOG_NOTICE, events[c->verb], SBX_STR("key", c->key->id), SBX_STR("tenant", c->key->tenant));
		if (c->session)
			answer_change(c);
		else if (v->show && c->verb == CREATE && strcmp(c->key->tenant, LOCAL_TENANT) == 0)
			v->show(v->show_arg, c->secret);
	}
	free_change(c);
}

/* Takes `key`. NULL, or why not. */
static const char *
begin_change(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, enum verb verb, struct sbx_vkey *key, char *secret)
{
	struct sbx_vkeys *v = agent->vkeys;
	struct change *c = key ? calloc(1, sizeof *c) : NULL;
	if (!c) {
		free(key);
		return "out of memory";
	}
	*c = (struct change){ .next = v->changes, .agent = agent, .session = session, .id = id, .verb = verb, .key = key };
	if (secret) {
		memcpy(c->secret, secret, sizeof c->secret);
		explicit_bzero(secret, sizeof c->secret);
	}
	if (sbx_store_key_put(agent->store, key, on_kept, c)) {
		free_change(c);
		return "too much is asked of the store at once; try again";
	}
	v->changes = c;
	v->n_creates += verb == CREATE;
	return NULL;
}

static bool
is_changing(const struct sbx_vkeys *v, const char *id)
{
	for (const struct change *c = v->changes; c; c = c->next)
		if (strcmp(c->key->id, id) == 0)
			return true;
	return false;
}

/* A new secret for `k`. False: there is no randomness, or no hash, to be had. */
static bool
make_secret(struct sbx_vkey *k, char secret[SBX_KEY_SECRET_BYTES])
{
	uint8_t random[SBX_KEY_RANDOM_BYTES];
	int rc;
	do
		rc = getrandom(random, sizeof random, 0) == (ssize_t)sizeof random ? sbx_vkey_fmt_secret(secret, random) : -SBX_EINVAL;
	while (rc == -SBX_EBUSY);
	explicit_bzero(random, sizeof random);
	return rc == 0 && EVP_Digest(secret, SBX_KEY_SECRET_BYTES - 1, k->hash, NULL, EVP_sha256(), NULL) == 1;
}

/* `k` has tenant, name, models and expiry. NULL, or why not. */
static const char *
create(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, struct sbx_vkey *k)
{
	struct sbx_vkeys *v = agent->vkeys;
	uint8_t random[SBX_KEY_ID_DIGITS / 2];
	char secret[SBX_KEY_SECRET_BYTES];
	k->created_unix_s = now_unix_s();
	if (sbx_keyring_count(v->ring) + v->n_creates >= SBX_KEYRING_MAX)
		return "there are as many keys as may be; revoke some that are not used";
	do { /* 64 random bits: once */
		if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
			return "no random numbers are to be had for a key";
		sbx_vkey_fmt_id(k->id, random);
	} while (sbx_keyring_find(v->ring, sbx_span_of(k->id)) || is_changing(v, k->id));
	if (!make_secret(k, secret))
		return "no random numbers, or no SHA-256, are to be had for a key";
	return begin_change(agent, session, id, CREATE, sbx_vkey_copy(k), secret);
}

/* ==== the frame ==== */

struct said {
	enum verb verb;
	struct sbx_span tenant, name, models, key, sha256; /* empty = absent */
	uint64_t expires_unix_s, grace_s, from;            /* UINT64_MAX = absent */
};

#define WORD(member) { #member, offsetof(struct said, member), SBX_STR, 0 }
#define NUMBER(member, max) { #member, offsetof(struct said, member), SBX_UINT, max }
static const struct member {
	const char *name;
	size_t at;
	enum sbx_value_type type;
	uint64_t max;
} members[] = {
	WORD(tenant), WORD(name), WORD(models), WORD(key), WORD(sha256),
	NUMBER(expires_unix_s, TIME_MAX_UNIX_S), NUMBER(grace_s, SBX_KEY_GRACE_MAX_S), NUMBER(from, SBX_KEYRING_MAX),
};

static const struct {
	const char *word;
	bool admin;
	const char *takes[5]; /* members beside `do` */
} verbs[VERB__COUNT] = {
	[CREATE] = { "create", true, { "tenant", "name", "models", "expires_unix_s" } },
	[ROTATE] = { "rotate", true, { "key", "grace_s" } },
	[REVOKE] = { "revoke", true, { "key" } },
	[LIST] = { "list", true, { "from" } },
	[CHECK] = { "check", false, { "sha256" } },
};

static bool
takes(enum verb verb, const char *name)
{
	for (size_t i = 0; verbs[verb].takes[i]; i++)
		if (strcmp(verbs[verb].takes[i], name) == 0)
			return true;
	return false;
}

static bool
read_verb(const struct sbx_frame *frame, enum verb *ret_verb)
{
	struct sbx_value v;
	for (int i = 0; sbx_map_get(&frame->map, "do", &v) && v.type == SBX_STR && i < VERB__COUNT; i++)
		if (sbx_span_is(v.bytes, verbs[i].word)) {
			*ret_verb = (enum verb)i;
			return true;
		}
	return false;
}

/* The members beside `do`. False, with a sentence. */
static bool
read_members(const struct sbx_frame *frame, struct said *said, char *why, size_t why_bytes)
{
	struct sbx_value v;
	for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
		const struct member *m = &members[i];
		if (m->type == SBX_UINT)
			*(uint64_t *)((char *)said + m->at) = UINT64_MAX;
		if (!sbx_map_get(&frame->map, m->name, &v))
			continue;
		if (!takes(said->verb, m->name)) {
			(void)snprintf(why, why_bytes, "%s takes no %s", verbs[said->verb].word, m->name);
			return false;
		}
		if (v.type != m->type || (v.type == SBX_UINT && v.u > m->max)) {
			(void)snprintf(why, why_bytes, m->type == SBX_STR ? "%s must be a text" : "%s must be a number, and not as large", m->name);
			return false;
		}
		if (v.type == SBX_STR)
			*(struct sbx_span *)((char *)said + m->at) = v.bytes;
		else
			*(uint64_t *)((char *)said + m->at) = v.u;
	}
	return true;
}

static bool
is_printable(struct sbx_span s, size_t least, size_t most)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.at[i] < ' ' || s.at[i] > '~')
			return false;
	return s.n >= least && s.n <= most;
}

/* NULL when it is begun, or why not. */
static const char *
on_create(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, const struct said *said)
{
	char tenant[SBX_KEY_TENANT_MAX_BYTES + 1], name[SBX_KEY_NAME_MAX_BYTES + 1], models[SBX_KEY_MODELS_MAX_BYTES + 1];
	struct sbx_vkey k = { .tenant = tenant, .name = name, .models = models };
	if (!is_printable(said->tenant, 1, SBX_KEY_TENANT_MAX_BYTES))
		return "a key needs a tenant, of 1 to 255 printable ASCII characters";
	if (!is_printable(said->name, 0, SBX_KEY_NAME_MAX_BYTES))
		return "name has at most 64 printable ASCII characters";
	if (!sbx_vkey_models_ok(said->models))
		return "models are names without blanks, with one comma between two of them, at most 4096 characters";
	if (said->expires_unix_s != UINT64_MAX) {
		k.expires_unix_s = (int64_t)said->expires_unix_s;
		if (k.expires_unix_s <= now_unix_s())
			return "expires_unix_s is in the past";
	}
	(void)snprintf(tenant, sizeof tenant, "%.*s", (int)said->tenant.n, said->tenant.at);
	(void)snprintf(name, sizeof name, "%.*s", (int)said->name.n, said->name.n ? said->name.at : "");
	(void)snprintf(models, sizeof models, "%.*s", (int)said->models.n, said->models.n ? said->models.at : "");
	return create(agent, session, id, &k);
}

static const char *
on_rotate(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, const struct sbx_vkey *was, uint64_t grace_s)
{
	struct sbx_vkey k = *was;
	char secret[SBX_KEY_SECRET_BYTES];
	if (was->revoked_unix_s)
		return "the key is revoked";
	memcpy(k.old_hash, was->hash, sizeof k.old_hash);
	k.old_until_unix_s = now_unix_s() + (int64_t)(grace_s == UINT64_MAX ? SBX_KEY_GRACE_DEFAULT_S : grace_s);
	if (!make_secret(&k, secret))
		return "no random numbers, or no SHA-256, are to be had for a key";
	return begin_change(agent, session, id, ROTATE, sbx_vkey_copy(&k), secret);
}

static const char *
on_revoke(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, struct sbx_vkey *k)
{
	k->revoked_unix_s = now_unix_s(); /* at once, whatever the disk does */
	return begin_change(agent, session, id, REVOKE, sbx_vkey_copy(k), NULL);
}

static void
on_list(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, uint64_t from)
{
	const struct sbx_keyring *ring = agent->vkeys->ring;
	const uint32_t count = sbx_keyring_count(ring), first = from == UINT64_MAX ? 0 : from < count ? (uint32_t)from : count;
	const uint32_t n = count - first < SBX_KEYS_PER_FRAME ? count - first : SBX_KEYS_PER_FRAME;
	const int64_t now_s = now_unix_s();
	struct sbx_packer p;
	sbx_frame_begin(&p, &agent->frame, SBX_FRAME_KEY, id, 1 + (first + n < count));
	sbx_pack_map(&p, "key", n);
	for (uint32_t i = first; i < first + n; i++) {
		const struct sbx_vkey *k = sbx_keyring_at(ring, i);
		sbx_pack_map(&p, k->id, ABOUT_KEYS);
		pack_about(&p, k, now_s);
	}
	if (first + n < count)
		sbx_pack_uint(&p, "next", first + n);
	send_frame(agent, session, &p);
}

static bool
read_hex(struct sbx_span text, uint8_t to[SBX_KEY_HASH_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	if (text.n != 2 * SBX_KEY_HASH_BYTES)
		return false;
	for (size_t i = 0; i < text.n; i++) {
		const char *digit = text.at[i] ? strchr(digits, text.at[i] | 0x20) : NULL; /* lower case; digits stay */
		if (!digit)
			return false;
		to[i / 2] = (uint8_t)(to[i / 2] << 4 | (uint8_t)(digit - digits));
	}
	return true;
}

/* One more is within the rate. */
static bool
may_check(struct sbx_vkeys *v, uint64_t now_ns)
{
	const uint64_t each_ns = 1000000000u / SBX_KEY_CHECKS_PER_S;
	const uint64_t from_ns = v->check_from_ns > now_ns ? v->check_from_ns : now_ns;
	if (from_ns - now_ns > each_ns * SBX_KEY_CHECKS_BURST)
		return false;
	v->check_from_ns = from_ns + each_ns;
	return true;
}

static void
on_check(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, struct sbx_span sha256)
{
	uint8_t hash[SBX_KEY_HASH_BYTES] = { 0 };
	struct sbx_packer p;
	if (!read_hex(sha256, hash)) {
		refuse(agent, session, id, SBX_CODE_INVALID_REQUEST, "sha256 has 64 hex digits");
		return;
	}
	if (!may_check(agent->vkeys, sbx_loop_now_ns(agent->loop))) {
		agent->count.key_checks_limited++;
		refuse(agent, session, id, SBX_CODE_BUSY, "keys are checked faster than is allowed; try again");
		return;
	}
	const struct sbx_vkey *k = sbx_keyring_check(agent->vkeys->ring, hash, now_unix_s());
	agent->count.key_checks++;
	if (!k) {
		agent->count.key_checks_failed++;
		refuse(agent, session, id, SBX_CODE_INVALID_KEY, "there is no such key, or it is not valid any more");
		return;
	}
	sbx_frame_begin(&p, &agent->frame, SBX_FRAME_KEY, id, 4);
	sbx_pack_str(&p, "key", sbx_span_of(k->id));
	sbx_pack_str(&p, "tenant", sbx_span_of(k->tenant));
	sbx_pack_str(&p, "models", sbx_span_of(k->models));
	pack_time(&p, "expires_unix_s", k->expires_unix_s);
	send_frame(agent, session, &p);
}

static const char no_store[] = "this agent keeps no store, and so no virtual keys; \"store\": \"/path/to/file.db\" in its configuration makes one";

/* The rest of a frame that is well formed, from whom it may come. */
static void
on_verb(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, const struct said *said)
{
	struct sbx_vkeys *v = agent->vkeys;
	const char *why = NULL;
	struct sbx_vkey *k = NULL;
	if (takes(said->verb, "key")) {
		k = sbx_keyring_find(v->ring, said->key);
		if (!k || is_changing(v, k->id)) {
			refuse(agent, session, id, k ? SBX_CODE_BUSY : SBX_CODE_INVALID_REQUEST,
			       k ? "another change of this key is being written; try again" : "there is no key of that id; signalbox key list shows them");
			return;
		}
	}
	switch (said->verb) {
	case CREATE:
		why = on_create(agent, session, id, said);
		break;
	case ROTATE:
		why = on_rotate(agent, session, id, k, said->grace_s);
		break;
	case REVOKE:
		why = on_revoke(agent, session, id, k);
		break;
	case LIST:
		on_list(agent, session, id, said->from);
		break;
	case CHECK:
		on_check(agent, session, id, said->sha256);
		break;
	case VERB__COUNT:
		break;
	}
	if (why)
		refuse(agent, session, id, SBX_CODE_INVALID_REQUEST, why);
}

void
sbx_vkeys_on_frame(struct sbx_agent *agent, struct sbx_session *session, bool admin, bool trusted, const struct sbx_frame *frame)
{
	struct said said = { .verb = VERB__COUNT };
	char why[160];
	if (!read_verb(frame, &said.verb))
		refuse(agent, session, frame->id, SBX_CODE_INVALID_REQUEST, "do is create, rotate, revoke, list or check");
	else if (verbs[said.verb].admin && !admin)
		refuse(agent, session, frame->id, SBX_CODE_FORBIDDEN, "this is taken on the admin socket only");
	else if (said.verb == CHECK && !trusted)
		refuse(agent, session, frame->id, SBX_CODE_FORBIDDEN, "keys are checked for the users in listen.trusted_uids only");
	else if (!read_members(frame, &said, why, sizeof why))
		refuse(agent, session, frame->id, SBX_CODE_INVALID_REQUEST, why);
	else if (!agent->vkeys)
		refuse(agent, session, frame->id, said.verb == CHECK ? SBX_CODE_INVALID_KEY : SBX_CODE_UNSUPPORTED, no_store);
	else if (!agent->vkeys->loaded)
		refuse(agent, session, frame->id, SBX_CODE_BUSY, sbx_store_says(sbx_store_look(agent->store).state));
	else
		on_verb(agent, session, frame->id, &said);
}

void
sbx_vkeys_forget(struct sbx_agent *agent, const struct sbx_session *session)
{
	for (struct change *c = agent->vkeys ? agent->vkeys->changes : NULL; c; c = c->next)
		if (c->session == session)
			c->session = NULL;
}

/* ==== requests ==== */

static int
refuse_name(const struct sbx_vkey *k, struct sbx_span name, struct sbx_refusal *r)
{
	char why[sizeof r->why];
	const int shown = name.n > 96 ? 96 : (int)name.n;
	(void)snprintf(why, sizeof why, "this key may not ask for \"%.*s\"; it may for %.200s%s", shown, name.at, k->models, strlen(k->models) > 200 ? "..." : "");
	(void)snprintf(r->param, sizeof r->param, "model");
	return sbx_refuse(r, SBX_CODE_FORBIDDEN, -1, why);
}

static int
admit_list(const struct sbx_vkey *k, const struct sbx_span *name, uint32_t n, struct sbx_refusal *r)
{
	for (uint32_t i = 0; i < n; i++)
		if (!sbx_vkey_allows(k, name[i]))
			return refuse_name(k, name[i], r);
	return 0;
}

/* The names that admission will resolve: the frame's, or else the body's, and those that the body has after it. */
static int
admit_names(const struct sbx_vkey *k, const struct sbx_submit *submit, const struct sbx_ask *ask, const struct sbx_routing *routing,
            struct sbx_refusal *r)
{
	char text[SBX_NAME_MAX_BYTES + 1 + SBX_MODEL_MAX_BYTES];
	struct sbx_span own = submit->route.n ? submit->route : submit->model;
	if (!own.n && !submit->n_targets && ask->model.n) {
		own.at = text;
		if (sbx_json_string_decode(ask->model, text, sizeof text, &own.n))
			return 0; /* longer than any name: refused for that */
	}
	if ((own.n && admit_list(k, &own, 1, r)) || admit_list(k, submit->target, submit->n_targets, r))
		return -SBX_EINVAL;
	if (routing && (admit_list(k, routing->models.name, routing->models.n, r) || admit_list(k, routing->fallbacks.name, routing->fallbacks.n, r)))
		return -SBX_EINVAL;
	return 0;
}

int
sbx_vkeys_admit(struct sbx_agent *agent, const struct sbx_submit *submit, const struct sbx_ask *ask, const struct sbx_routing *routing,
                struct sbx_refusal *r)
{
	const struct sbx_vkeys *v = agent->vkeys;
	if (!submit->key.n || !sbx_vkey_is_id(submit->key))
		return 0; /* somebody else's name for somebody */
	if (v && !v->loaded)
		return sbx_refuse(r, SBX_CODE_BUSY, BUSY_RETRY_MS, sbx_store_says(sbx_store_look(agent->store).state));
	const struct sbx_vkey *k = v ? sbx_keyring_find(v->ring, submit->key) : NULL;
	if (!k || sbx_vkey_life(k, now_unix_s()) != SBX_VKEY_ACTIVE)
		return sbx_refuse(r, SBX_CODE_INVALID_KEY, -1, "there is no such key, or it is not valid any more");
	if (submit->tenant.n && !sbx_span_is(submit->tenant, k->tenant))
		return sbx_refuse(r, SBX_CODE_FORBIDDEN, -1, "this key is another tenant's");
	return admit_names(k, submit, ask, routing, r);
}

/* ==== start and end ==== */

/* Nobody can use a key of that tenant that nobody has seen: one that is there was shown when it was made. */
static void
make_local(struct sbx_agent *agent)
{
	struct sbx_vkeys *v = agent->vkeys;
	struct sbx_vkey k = { .tenant = LOCAL_TENANT, .name = "made at the first start", .models = "" };
	for (uint32_t i = 0; i < sbx_keyring_count(v->ring); i++) {
		const struct sbx_vkey *other = sbx_keyring_at(v->ring, i);
		if (strcmp(other->tenant, LOCAL_TENANT) == 0 && sbx_vkey_life(other, now_unix_s()) == SBX_VKEY_ACTIVE)
			return;
	}
	const char *why = create(agent, NULL, 0, &k);
	if (why)
		sbx_log(SBX_LOG_ERROR, "local_key", SBX_STR("why", why));
}

static void load(struct sbx_agent *agent);

static void
on_again(void *arg, uint64_t now_ns)
{
	(void)now_ns;
	load(arg);
}

static void
on_loaded(void *arg, struct sbx_store_keys *keys)
{
	struct sbx_agent *agent = arg;
	struct sbx_vkeys *v = agent->vkeys;
	uint32_t left_out = 0;
	if (keys->rc) {
		sbx_timer_arm(&agent->timers, &v->again, sbx_loop_now_ns(agent->loop) + LOAD_AGAIN_NS);
		return;
	}
	for (uint32_t i = 0; i < keys->n; i++) {
		if (sbx_keyring_put(v->ring, keys->key[i]))
			left_out++;
		else
			keys->key[i] = NULL; /* the ring's now */
	}
	v->loaded = true;
	sbx_log(left_out ? SBX_LOG_ERROR : SBX_LOG_INFO, "keys", SBX_UINT("loaded", sbx_keyring_count(v->ring)), SBX_UINT("beyond_the_limit", left_out));
	if (v->show)
		make_local(agent);
}

static void
load(struct sbx_agent *agent)
{
	if (sbx_store_key_load(agent->store, on_loaded, agent))
		sbx_timer_arm(&agent->timers, &agent->vkeys->again, sbx_loop_now_ns(agent->loop) + LOAD_AGAIN_NS);
}

int
sbx_vkeys_open(struct sbx_agent *agent)
{
	struct sbx_vkeys *v = calloc(1, sizeof *v);
	if (!v || !(v->ring = sbx_keyring_new())) {
		free(v);
		return -SBX_ENOMEM;
	}
	v->again = (struct sbx_timer){ .fire = on_again, .arg = agent };
	agent->vkeys = v;
	load(agent);
	return 0;
}

void
sbx_vkeys_free(struct sbx_agent *agent)
{
	struct sbx_vkeys *v = agent->vkeys;
	struct change *c;
	if (!v)
		return;
	while ((c = v->changes)) {
		v->changes = c->next;
		free_change(c);
	}
	sbx_timer_cancel(&agent->timers, &v->again);
	sbx_keyring_free(v->ring);
	free(v);
	agent->vkeys = NULL;
}

void
sbx_vkeys_want_local(struct sbx_agent *agent, sbx_vkeys_show_fn *fn, void *arg)
{
	struct sbx_vkeys *v = agent->vkeys;
	v->show = fn;
	v->show_arg = arg;
	if (v->loaded)
		make_local(agent);
}
