/* What the tokenizer's files share. One tokenizer is a pipeline over tables that never change after loading:
 *
 *   text → added tokens cut out → normalise each rest → split it into words → model (BPE, Unigram) → ids
 *   ids  → pieces (bytes, made once at load) → joined by the decoder's rules → text
 *
 * The steps are those of Hugging Face tokenizers (its names are used); GGUF metadata is turned into the same
 * steps. Everything of one tokenizer lies in its arena. */
#ifndef LK_TEXT_TOKENIZER_INNER_H
#define LK_TEXT_TOKENIZER_INNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "text.h"

#define TOKEN_IDS_MAX (1U << 22)   /* ids of a vocabulary */
#define TOKEN_BYTES_MAX (1U << 16) /* text of one token */
#define STEPS_MAX 24               /* normalisers, pre-tokenizers or decoders in a row */
#define SPECIAL_MAX 16             /* ids that a post-processor puts before or behind a text */

struct text_ref {
    const char *text;
    uint32_t length;
};
/* for "%.*s" in messages */
#define SHOWN(t) (int)((t).length < 60 ? (t).length : 60), (t).text

/* ---- vocabulary (tokenizer_vocab.c) */

/* Texts to ids: open addressing, half full at most; the texts stay where they are. */
struct text_slot {
    uint32_t hash, id_plus_1;
};
struct text_map {
    uint32_t mask;
    struct text_slot *slots;
};
bool text_map_init(struct text_map *m, struct arena *a, size_t n_texts);
int32_t text_map_find(const struct text_map *m, const struct text_ref *texts, const char *text,
                      size_t length);
void text_map_add(struct text_map *m, const struct text_ref *texts, uint32_t id); /* must not be there yet */

/* Hidden: left out when special tokens are skipped; special and hidden part where a token is normalised. */
enum token_flags { TOKEN_PRESENT = 1, TOKEN_ADDED = 2, TOKEN_SPECIAL = 4, TOKEN_HIDDEN = 8 };

struct vocab {
    struct arena *arena;
    uint32_t n_ids;         /* highest id + 1 */
    struct text_ref *texts; /* [n_ids]; text NULL where an id has no token */
    uint8_t *flags;         /* [n_ids], enum token_flags */
    struct text_map map;
};
bool vocab_init(struct vocab *v, struct arena *a, uint32_t n_ids);
/* Copies the text. STATUS_FORMAT if the id or the text is taken; `field` names the place in the file. */
LK_MUST_USE enum status vocab_add(struct vocab *v, uint32_t id, struct text_ref text, const char *field,
                                  struct error *err);

/* GPT-2's printable stand-ins for the 256 bytes: byte → code point, and back (-1: none). */
uint32_t byte_level_char(uint8_t byte);
int byte_level_byte(uint32_t code_point);
/* A token's text as the bytes behind its stand-ins; false if a character is none. dst holds length bytes. */
bool byte_level_decode(const char *text, size_t length, char *dst, size_t *n_bytes);
bool byte_level_encode(struct buf *out, const char *text, size_t length);

/* ---- patterns (tokenizer_regex.c; the dialect's translation in tokenizer_onig.c) */

struct regex;
struct regex_state; /* what matching writes to: one per call of tokenizer_encode */

/* Where the match that begins at `at` ends; such a pattern matches everywhere, its matches touch
 * (tokenizer_words.c). */
typedef size_t word_end_fn(struct text_ref text, size_t at);

struct pattern {
    struct regex *regex;     /* or NULL: the literal */
    struct text_ref literal; /* not empty */
    word_end_fn *word_end;   /* the same as regex, by hand; or NULL */
    bool (*accepts)(
        uint32_t code_point); /* not NULL: each such character is a match; there is no regex then */
};
LK_MUST_USE enum status pattern_regex(struct pattern *p, struct arena *a, const char *onig, size_t length,
                                      struct error *err);
/* The hand-written matcher of a well-known pattern, or NULL. */
word_end_fn *words_find(const char *onig, size_t length);
struct regex_state *regex_state_create(void);
void regex_state_expect_newer(struct regex_state *s); /* texts to come may hold newer characters */
void regex_state_destroy(struct regex_state *s);

/* Walks over the matches of a pattern in a text, as Oniguruma's find_iter does. */
struct matcher {
    const struct pattern *pattern;
    struct regex_state *state;
    const char *text;
    size_t length, at, last_end;
    bool any;
    struct buf copy; /* of a text with newer characters */
};
struct span {
    size_t start, end;
};
/* `text` stays as long as the matcher. False: no memory. fini after either. */
bool matcher_init(struct matcher *m, const struct pattern *p, struct text_ref text, struct regex_state *s);
void matcher_fini(struct matcher *m);
/* 1: *match is the next match; 0: no more; -1: the pattern ran into its limit. */
int matcher_next(struct matcher *m, struct span *match);

/* Characters younger than PCRE2's Unicode (tokenizer_newer.c): are there any, and older ones in their place.
 */
uint32_t newer_stand_in(uint32_t code_point);     /* 0: it is none */
bool normal_is_inert(uint32_t code_point);        /* not for normal forms, as the reference has them */
bool mark_is_unknown(uint32_t code_point);        /* a mark that StripAccents leaves where it is */
bool punctuation_is_unknown(uint32_t code_point); /* no punctuation to the reference */
uint32_t newer_lower(uint32_t code_point);        /* its lower case; 0: not one of the newer letters */
bool newer_found(const char *text, size_t length);
void newer_replace(char *text, size_t length);

/* Rewrites an Oniguruma (Ruby syntax) pattern as PCRE2's; refuses what has no exact counterpart. */
LK_MUST_USE enum status onig_translate(const char *onig, size_t length, struct buf *out, struct error *err);

/* Classes of Unicode as Rust has them. */
bool char_is_space(uint32_t code_point); /* White_Space */
bool char_is_word(uint32_t code_point);  /* \w */
bool char_is_punctuation(uint32_t code_point);
bool char_is_number(uint32_t code_point);

/* ---- normalisers (tokenizer_normalize.c) */

enum normal_kind {
    NORMAL_PREPEND,
    NORMAL_REPLACE,
    NORMAL_NFC,
    NORMAL_NFD,
    NORMAL_NFKC,
    NORMAL_NFKD,
    NORMAL_LOWERCASE,
    NORMAL_STRIP,
    NORMAL_STRIP_ACCENTS,
    NORMAL_BYTE_LEVEL,
    NORMAL_NMT
};
struct normal_step {
    enum normal_kind kind;
    struct pattern pattern; /* replace */
    struct text_ref text;   /* prepend, replace */
    bool left, right;       /* strip */
};
struct normalizer {
    struct normal_step steps[STEPS_MAX];
    uint32_t n_steps;
};
struct normal_scratch {
    struct buf buffers[2];
    struct regex_state *regex;
    bool cut; /* set when the text no longer begins with what the given one began with */
};
/* *text becomes the normalised text: the same bytes, or in one of the buffers. */
LK_MUST_USE enum status normalizer_run(const struct normalizer *n, struct text_ref *text,
                                       struct normal_scratch *scratch, struct error *err);
/* Replaces every match in text by `with`, into out. -1: the pattern ran into its limit; -2: no memory. */
int replace_all(const struct pattern *p, struct text_ref text, struct text_ref with, struct buf *out,
                struct regex_state *regex);

/* ---- splitting into words (tokenizer_split.c) */

enum split_kind { SPLIT_PATTERN, SPLIT_PREFIX_SPACE, SPLIT_METASPACE, SPLIT_BYTE_LEVEL, SPLIT_FIXED_LENGTH };
enum split_behavior {
    BEHAVIOR_ISOLATED,
    BEHAVIOR_REMOVED,
    BEHAVIOR_MERGED_WITH_PREVIOUS,
    BEHAVIOR_MERGED_WITH_NEXT,
    BEHAVIOR_CONTIGUOUS
};
enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };
struct split_step {
    enum split_kind kind;
    struct pattern pattern;
    enum split_behavior behavior;
    bool invert;
    enum prepend_scheme prepend; /* metaspace */
    struct text_ref replacement; /* metaspace */
    uint32_t n_characters;       /* fixed length */
};
struct splitter {
    struct split_step steps[STEPS_MAX];
    uint32_t n_steps;
};
struct encoder;
/* Hands each word of text to encoder_word; at_start: the text is the beginning of what was given. */
LK_MUST_USE enum status splitter_run(struct encoder *e, uint32_t step, struct text_ref text, bool at_start);

/* ---- byte pair encoding (tokenizer_bpe.c) */

struct merge {
    uint32_t left, right; /* ids; an empty slot has left == UINT32_MAX */
    uint32_t rank, merged;
};
struct bpe {
    const struct text_ref *words; /* [n_ids] what the model compares: texts, or the bytes behind them */
    struct text_map map;          /* words → ids */
    uint32_t n_ids, longest;      /* ids; bytes of the longest word */
    struct merge *merges;         /* open addressing */
    uint32_t merges_mask;
    uint64_t *junctions; /* bits: pairs of first symbols between which some merge may happen */
    uint32_t junctions_mask;
    uint8_t *whole;     /* [n_ids], atomic: does the word encode as itself? 0 not known yet, 1 yes, 2 no */
    int32_t *bmp;       /* [65536] symbol of a character, -1: none (text models) */
    int32_t bytes[256]; /* symbol of a byte (byte-level), or of "<0xNN>" (byte_fallback) */
    int32_t unknown;    /* id of unk_token, -1: none */
    bool raw;           /* byte-level: words are bytes */
    bool byte_fallback, fuse_unknown, ignore_merges, cut;
    struct text_ref prefix, suffix; /* continuing_subword_prefix, end_of_word_suffix */
};
struct heap_entry {
    uint32_t rank, at, merged;
};
struct bpe_scratch {
    uint32_t *symbols, *next, *previous; /* [capacity] */
    size_t n_symbols, capacity;
    struct heap_entry *heap;
    size_t n_heap, heap_capacity;
};
void bpe_scratch_fini(struct bpe_scratch *s);

/* The tables of a model whose words are set; merges then come one by one, rank by rank. */
LK_MUST_USE enum status bpe_init(struct bpe *b, struct arena *a, const struct vocab *v, bool raw,
                                 struct error *err);
LK_MUST_USE enum status bpe_merges_init(struct bpe *b, struct arena *a, size_t n_merges, struct error *err);
/* A pair that is there already takes the new rank. `field` names the place in the file. */
struct merge_text {
    struct text_ref left, right;
    uint32_t rank;
    const char *field;
};
LK_MUST_USE enum status bpe_add_merge(struct bpe *b, const struct vocab *v, const struct merge_text *merge,
                                      struct error *err);
void bpe_put_merge(struct bpe *b, const struct merge *m);
LK_MUST_USE enum status bpe_finish(struct bpe *b, struct arena *a, struct error *err);
LK_MUST_USE enum status bpe_encode(const struct bpe *b, struct encoder *e, struct text_ref word);

/* ---- words already met (tokenizer_cache.c) */

#define CACHED_BYTES 16U /* longest word that is kept */
#define CACHED_IDS 3U    /* most ids of one */

struct cached_word {
    uint64_t head, tail;    /* its first and last bytes */
    uint16_t length, n_ids; /* length 0: empty */
    uint32_t ids[CACHED_IDS];
};
/* Owner: one call of tokenizer_encode; a word goes to the one place that its bytes name. */
struct word_cache {
    struct cached_word *words; /* NULL: none */
    uint32_t mask;
};
bool word_cache_init(struct word_cache *c, size_t text_length); /* for a text of that many bytes */
void word_cache_fini(struct word_cache *c);
/* The word's place, NULL if it has none. *found: it is there. Otherwise the place has its bytes, and no ids.
 */
struct cached_word *word_cache_find(struct word_cache *c, struct text_ref word, bool *found);

/* ---- unigram (tokenizer_unigram.c) */

struct unigram_edge { /* of a trie of bytes: open addressing, child 0 means empty */
    uint32_t node, child;
    uint8_t byte;
};
struct unigram {
    const struct vocab *vocab;
    const double *scores; /* [n_model_ids] */
    uint32_t n_model_ids; /* added tokens come behind */
    int32_t unknown;      /* id; -1: none */
    double unknown_score; /* lower than any token's */
    int32_t bytes[256];   /* "<0xNN>", -1: none */
    bool byte_fallback;
    struct unigram_edge *edges;
    uint32_t edges_mask;
    uint32_t *node_ids; /* id + 1 of the text that ends at a node; 0: none */
};
struct unigram_scratch {
    struct unigram_node {
        double score;
        uint32_t start;
        int32_t id;
    } * nodes;
    size_t capacity;
};
LK_MUST_USE enum status unigram_finish(struct unigram *u, struct arena *a, struct error *err);
LK_MUST_USE enum status unigram_encode(const struct unigram *u, struct encoder *e, const char *word,
                                       size_t length);

/* ---- added tokens (tokenizer_added.c) */

struct added_token {
    uint32_t id;
    struct text_ref pattern; /* the content, normalised if that is asked for */
    bool single_word, left_strip, right_strip, special;
};
struct trie_node {
    uint32_t child, sibling; /* 0: none */
    uint32_t token_plus_1;   /* index into tokens */
    uint8_t byte;
};
struct added_set {
    struct added_token *tokens;
    uint32_t n_tokens;
    struct trie_node *nodes;
    uint32_t n_nodes;
    uint32_t roots[256]; /* node by first byte, 0: none */
};
LK_MUST_USE enum status added_set_finish(struct added_set *s, struct arena *a, struct error *err);
/* Finds the added tokens in text from *at on, leftmost and longest, in order. Each call gives one piece, the
 * plain text before a token (*token NULL) or a token; false at the end. */
struct added_cursor {
    const struct added_set *set;
    struct text_ref text;
    bool parse_special;
    size_t done, searched;             /* given out; looked at */
    const struct added_token *waiting; /* found, to be given after the text before it */
    size_t waiting_end;
};
bool added_next(struct added_cursor *c, struct span *piece, const struct added_token **token);

/* ---- decoding (tokenizer_decode.c) */

enum decode_kind { DECODE_REPLACE, DECODE_STRIP, DECODE_METASPACE };
struct decode_step { /* on each token's text, at load */
    enum decode_kind kind;
    struct pattern pattern;
    struct text_ref text; /* replace: with what; strip: the character; metaspace: the replacement */
    uint32_t start, stop; /* strip */
    bool drop_at_start;   /* metaspace: the first token of a text loses its replacements */
};
enum decode_bytes { BYTES_PLAIN, BYTES_LEVEL, BYTES_FALLBACK };
struct decoder {
    struct decode_step steps[STEPS_MAX];
    uint32_t n_steps;
    enum decode_bytes bytes;
    bool join_with_space;  /* no decoder: tokens are joined by spaces */
    struct text_ref strip; /* this character, up to strip_count times, at the start of the whole text */
    uint32_t strip_count;
    /* made by decoder_finish: */
    const struct text_ref *pieces;       /* [n_ids] what an id stands for inside a text */
    const struct text_ref *first_pieces; /* [n_ids] the same as first token of a text (often == pieces) */
    const uint8_t *is_byte;              /* [n_ids] its piece is one byte of "<0xNN>"; NULL: none */
    uint32_t longest;
};
struct tokenizer;
LK_MUST_USE enum status decoder_finish(struct tokenizer *t, struct error *err);

/* ---- all together (tokenizer.c) */

struct tokenizer {
    struct arena *arena;
    struct vocab vocab;
    struct added_set plain_added, normal_added; /* found before and after normalising */
    struct normalizer normalizer;
    struct splitter splitter;
    struct bpe *bpe; /* one of the two */
    struct unigram *unigram;
    struct decoder decoder;
    uint32_t before[SPECIAL_MAX], behind[SPECIAL_MAX]; /* the post-processor's */
    uint32_t n_before, n_behind;
    int32_t bos, eos; /* GGUF: what its metadata say; -1: unknown */
};

struct encoder {
    const struct tokenizer *t;
    struct token_list *out;
    size_t limit_count, limit_ids; /* of out; what the caller asked for */
    struct normal_scratch normal;
    struct buf split[STEPS_MAX];
    struct bpe_scratch bpe;
    struct word_cache words; /* bpe */
    struct unigram_scratch unigram;
    struct error *err;
};
LK_MUST_USE enum status encoder_push(struct encoder *e, uint32_t id);
LK_MUST_USE enum status encoder_word(struct encoder *e, struct text_ref word);
enum status encoder_no_memory(struct encoder *e);

/* Half-built tokenizers for the two loaders: create, fill in, then finish the common tables. */
struct tokenizer *tokenizer_create(void);
/* Adds one added token: to the vocabulary if its text isn't there, and to the set that finds it. Needs room:
 * both sets' tokens arrays hold all added tokens. */
struct added_spec {
    uint32_t id;
    struct text_ref content;
    bool single_word, left_strip, right_strip, normalized, special;
};
LK_MUST_USE enum status tokenizer_add_token(struct tokenizer *t, const struct added_spec *spec,
                                            const char *field, struct error *err);
LK_MUST_USE enum status tokenizer_finish(struct tokenizer *t, struct error *err);

/* The steps of a tokenizer.json (tokenizer_json_steps.c); each value may be NULL or JSON null. */
struct json_t;
LK_MUST_USE enum status json_normalizer(struct tokenizer *t, const struct json_t *value, struct error *err);
LK_MUST_USE enum status json_pre_tokenizer(struct tokenizer *t, const struct json_t *value,
                                           struct error *err);
LK_MUST_USE enum status json_post_processor(struct tokenizer *t, const struct json_t *value,
                                            struct error *err);
LK_MUST_USE enum status json_decoder(struct tokenizer *t, const struct json_t *value, struct error *err);

/* GGUF's pre-tokenizers by name (tokenizer_gguf_pre.c). */
struct pre_tokenizer {
    const char *names; /* separated by spaces */
    bool ignore_merges, add_bos, nfc;
    const char *patterns[6]; /* each cuts the pieces of the one before, matches isolated */
};
const struct pre_tokenizer *pre_tokenizer_find(const char *name);
void pre_tokenizer_names(char *names, size_t names_bytes); /* for a message */

/* Helpers of both loaders (tokenizer_split.c): a step at the end of the list, STATUS_TOO_LARGE when full. */
struct split_step *splitter_add(struct splitter *s, enum split_kind kind);
/* GPT-2's own pre-tokenizer pattern, Oniguruma syntax. */
extern const char byte_level_pattern[];

#endif
