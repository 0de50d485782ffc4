/* Patterns: a literal, or an Oniguruma pattern compiled by PCRE2 (JIT where the system allows it), and the
 * walk over its matches. A compiled pattern is immutable and shared by threads; what matching writes to is a
 * regex_state of the caller. Matching is bounded: a tokenizer.json comes from strangers too. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/mem.h"
#include "tokenizer_inner.h"
#include "utf8.h"

#define MATCH_LIMIT 50000000U
#define DEPTH_LIMIT 1000000U
#define HEAP_LIMIT_KIB 65536U

struct regex {
    pcre2_code *code;
    pcre2_match_context *context;
};

struct regex_state {
    pcre2_match_data *data;
    bool expect_newer;
};

static void regex_destroy(void *data)
{
    struct regex *r = data;
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->context);
}

static pcre2_code *compile(const char *pattern, size_t length, int *code, PCRE2_SIZE *offset)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return NULL;
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, length,
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK |
                                             PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE,
                                         code, offset, context);
    pcre2_compile_context_free(context);
    return compiled;
}

static enum status regex_create(struct regex **out, struct arena *a, const struct buf *pattern,
                                struct error *err)
{
    struct regex *r = arena_alloc(a, sizeof *r);
    if (!r || arena_on_end(a, regex_destroy, r) != 0)
        return fail(err, STATUS_NO_MEMORY, "pattern: not enough memory");
    int code = PCRE2_ERROR_NOMEMORY;
    PCRE2_SIZE offset = 0;
    r->code = compile(pattern->data, pattern->length, &code, &offset);
    if (!r->code) {
        PCRE2_UCHAR text[120] = "";
        pcre2_get_error_message(code, text, sizeof text);
        return fail(err, STATUS_FORMAT, "pattern: %s, near \"%.40s\"", (const char *)text,
                    pattern->data + (offset < pattern->length ? offset : 0));
    }
    r->context = pcre2_match_context_create(NULL);
    if (!r->context)
        return fail(err, STATUS_NO_MEMORY, "pattern: not enough memory");
    pcre2_set_match_limit(r->context, MATCH_LIMIT);
    pcre2_set_depth_limit(r->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(r->context, HEAP_LIMIT_KIB);
    /* Without JIT (a hardened system) the interpreter does the same, slower. */
    (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
    *out = r;
    return STATUS_OK;
}

enum status pattern_regex(struct pattern *p, struct arena *a, const char *onig, size_t length,
                          struct error *err)
{
    struct buf translated;
    buf_init(&translated, 1 << 20);
    enum status s = onig_translate(onig, length, &translated, err);
    if (s == STATUS_OK)
        s = regex_create(&p->regex, a, &translated, err);
    buf_fini(&translated);
    p->word_end = words_find(onig, length);
    return s;
}

struct regex_state *regex_state_create(void)
{
    struct regex_state *s = mem_zalloc(sizeof *s);
    if (s)
        s->data = pcre2_match_data_create(1, NULL);
    if (s && !s->data) {
        mem_free(s);
        s = NULL;
    }
    return s;
}

void regex_state_expect_newer(struct regex_state *s)
{
    s->expect_newer = true;
}

void regex_state_destroy(struct regex_state *s)
{
    if (!s)
        return;
    pcre2_match_data_free(s->data);
    mem_free(s);
}

static int regex_search(const struct matcher *m, size_t from, struct span *match)
{
    pcre2_match_data *data = m->state->data;
    const struct regex *r = m->pattern->regex;
    int rc = pcre2_match(r->code, (PCRE2_SPTR)m->text, m->length, from, PCRE2_NO_UTF_CHECK, data, r->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(r->code, (PCRE2_SPTR)m->text, m->length, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         data, r->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return -1;
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(data);
    *match = (struct span){v[0], v[1]};
    return 1;
}

static int literal_search(const struct matcher *m, size_t from, struct span *match)
{
    const struct text_ref *l = &m->pattern->literal;
    const char *found = l->length == 1 ? memchr(m->text + from, l->text[0], m->length - from)
                                       : memmem(m->text + from, m->length - from, l->text, l->length);
    if (!found)
        return 0;
    size_t at = (size_t)(found - m->text);
    *match = (struct span){at, at + l->length};
    return 1;
}

static int character_search(const struct matcher *m, size_t from, struct span *match)
{
    unsigned n;
    for (size_t at = from; at < m->length; at += n) {
        uint32_t c;
        n = utf8_step(m->text + at, m->length - at, &c);
        if (m->pattern->accepts(c)) {
            *match = (struct span){at, at + n};
            return 1;
        }
    }
    return 0;
}

bool matcher_init(struct matcher *m, const struct pattern *p, struct text_ref text, struct regex_state *s)
{
    *m = (struct matcher){.pattern = p, .state = s, .text = text.text, .length = text.length};
    buf_init(&m->copy, 0);
    if (!p->regex || !s->expect_newer || !newer_found(text.text, text.length))
        return true;
    if (!buf_append(&m->copy, text.text, text.length))
        return false;
    newer_replace(m->copy.data, m->copy.length);
    m->text = m->copy.data;
    return true;
}

void matcher_fini(struct matcher *m)
{
    buf_fini(&m->copy);
}

int matcher_next(struct matcher *m, struct span *match)
{
    if (m->pattern->word_end && m->at < m->length) {
        *match = (struct span){m->at,
                               m->pattern->word_end((struct text_ref){m->text, (uint32_t)m->length}, m->at)};
        m->at = match->end;
        return 1;
    }
    if (m->pattern->word_end)
        return 0;
    while (m->at <= m->length) {
        int found = m->pattern->accepts ? character_search(m, m->at, match)
                    : m->pattern->regex ? regex_search(m, m->at, match)
                                        : literal_search(m, m->at, match);
        if (found <= 0)
            return found;
        if (match->start == match->end && m->any && m->last_end == match->end) {
            /* An empty match right behind the last match doesn't count: look on from the next character. */
            m->at += m->at < m->length ? utf8_size((unsigned char)m->text[m->at]) : 1;
            continue;
        }
        m->at = m->last_end = match->end;
        m->any = true;
        return 1;
    }
    return 0;
}
