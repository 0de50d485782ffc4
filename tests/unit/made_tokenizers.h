/* Small tokenizers written by hand, for the tests of core/text. */
#ifndef LK_TESTS_MADE_TOKENIZERS_H
#define LK_TESTS_MADE_TOKENIZERS_H

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "text.h"

#define MARK "\xE2\x96\x81" /* U+2581 */

static inline struct tokenizer *open_json(const char *json)
{
    struct tokenizer *t = NULL;
    struct error err = {.text = ""};
    if (tokenizer_from_json(json, strlen(json), "test", &t, &err) != STATUS_OK)
        print_error("%s\n", err.text);
    assert_non_null(t);
    return t;
}

/* Ids as "1 2 3". */
static inline const char *encode_with(const struct tokenizer *t, const char *text,
                                      const struct encode_options *o, char *out, size_t out_bytes)
{
    struct token_list ids = {.ids = NULL};
    struct error err = {.text = ""};
    size_t at = 0;
    out[0] = '\0';
    if (tokenizer_encode(t, text, strlen(text), o, &ids, &err) != STATUS_OK)
        snprintf(out, out_bytes, "%s", err.text);
    for (size_t i = 0; i < ids.n_ids && at + 16 < out_bytes; i++)
        at += (size_t)snprintf(out + at, out_bytes - at, i ? " %d" : "%d", ids.ids[i]);
    token_list_fini(&ids);
    return out;
}

#define ENCODE(t, text)                                                                                      \
    encode_with(t, text, &(struct encode_options){.parse_special = true}, (char[512]){0}, 512)
#define ENCODE_SPECIAL(t, text)                                                                              \
    encode_with(t, text, &(struct encode_options){.parse_special = true, .add_special = true},               \
                (char[512]){0}, 512)

/* The 256 byte tokens "<0xNN>" with the ids 0 to 255, as members of a JSON object. */
static inline void put_byte_tokens(struct buf *b)
{
    for (int i = 0; i < 256; i++)
        buf_printf(b, "%s\"<0x%02X>\":%d", i ? "," : "", i, i);
}

/* Opens what `b` has of a tokenizer's JSON, up to its vocabulary's last member, with the rest; frees `b`. */
static inline struct tokenizer *open_byte_tokenizer(struct buf *b, const char *normalizer,
                                                    const char *pre_tokenizer)
{
    buf_printf(b,
               "}},\"normalizer\":%s,\"pre_tokenizer\":%s,\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
               "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}}",
               normalizer, pre_tokenizer);
    struct tokenizer *t = open_json(b->data);
    buf_fini(b);
    return t;
}

/* A tokenizer whose only tokens are bytes: encoding and decoding shows what its steps did to a text. */
static inline struct tokenizer *open_steps(const char *normalizer, const char *pre_tokenizer)
{
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"merges\":[],\"vocab\":{");
    put_byte_tokens(&b);
    return open_byte_tokenizer(&b, normalizer, pre_tokenizer);
}

/* The text that comes back; NULL-terminated in `out`. */
static inline const char *round_trip(const struct tokenizer *t, const char *text, struct buf *out)
{
    struct token_list ids = {.ids = NULL};
    buf_clear(out);
    assert_int_equal(
        tokenizer_encode(t, text, strlen(text), &(struct encode_options){.parse_special = true}, &ids, NULL),
        STATUS_OK);
    assert_int_equal(tokenizer_decode(t, ids.ids, ids.n_ids, false, out, NULL), STATUS_OK);
    token_list_fini(&ids);
    return out->data;
}

#endif
