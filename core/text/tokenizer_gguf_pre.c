/* The pre-tokenizers that GGUF files name (tokenizer.ggml.pre), with their patterns. Left out, so refused:
 * those that are no byte-level models (gemma4, sarvam-moe, granite-embed-multi-311m, whitespace), those for
 * embeddings (roberta-bpe and its kin), and those whose pattern looks ahead over a whole run of digits
 * (afmoe, tiny_aya, cohere2moe, superbpe): time would grow with the square of the run.
 *
 * Source: llama.cpp's vocabulary loader has the names; the patterns are those of the models' own
 * tokenizer.json where it quotes them. */
#include <stdio.h>
#include <string.h>

#include "tokenizer_inner.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORDS_AND_REST " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define LEAD "[^\\r\\n\\p{L}\\p{N}]?"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}{1,3}|" WORDS_AND_REST
#define QWEN2 CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}|" WORDS_AND_REST
#define QWEN35 CONTRACTIONS "|" LEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES
#define CASED(tail) LEAD UPPER "*" LOWER "+" tail "|" LEAD UPPER "+" LOWER "*" tail
#define TEKKEN CASED("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define GPT4O CASED(CONTRACTIONS "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define DEEPSEEK_CJK "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+"
#define DEEPSEEK3                                                                                            \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"     \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES
#define DEEPSEEK_LETTERS                                                                                     \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}"                           \
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}"                   \
    "\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}"                            \
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"                                 \
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"                           \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}"                           \
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}"                  \
    "\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}"                   \
    "\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}"                           \
    "\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                            \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}"                             \
    "\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}"                  \
    "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}"                   \
    "\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"                            \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}"                           \
    "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"                         \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"                   \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
#define KIMI_UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI_LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI                                                                                                 \
    "\\p{Han}+|" LEAD KIMI_UPPER "*" KIMI_LOWER "+" CONTRACTIONS "?|" LEAD KIMI_UPPER "+" KIMI_LOWER         \
    "*" CONTRACTIONS "?|\\p{N}{1,3}|" WORDS_AND_REST
#define YOUTU_BLOCKS                                                                                         \
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|"                                                             \
    "[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}\\x{FF1A}\\x{FF1B}\\x{FF0C}"            \
    "\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|" DEEPSEEK_CJK
#define SPARK                                                                                                \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"     \
    " ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+"
#define JAIS_SPACES                                                                                          \
    "\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|"           \
    "\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"
#define DEEPSEEK_HAN "[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xEA\xB0\x80-\xED\x9F\xBF]+"
#define BLOOM " ?[^(\\s|.,!?\xE2\x80\xA6\xE3\x80\x82\xEF\xBC\x8C\xE3\x80\x81\xE0\xA5\xA4\xDB\x94\xD8\x8C)]+"
#define BAILING                                                                                              \
    "'(?i:[sdmt]|ll|ve|re)|" LEAD                                                                            \
    "+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"

static const struct pre_tokenizer pre_tokenizers[] = {
    {"llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     true,
     true,
     false,
     {LLAMA3}},
    {"dbrx smaug-bpe glm4 chatglm-bpe", false, false, false, {LLAMA3}},
    {"qwen2", false, false, true, {QWEN2}},
    {"stablelm2 hunyuan solar-open grok-2 megrez deepseek-r1-qwen kormo f2llmv2",
     false,
     false,
     false,
     {QWEN2}},
    {"qwen35", false, false, true, {QWEN35}},
    {"gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 jina-es jina-de gigachat jina-v2-es "
     "jina-v2-de "
     "a.x-4.0 mellum modern-bert",
     false,
     false,
     false,
     {GPT2}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
     false,
     false,
     false,
     {"\\p{N}", GPT2}},
    {"tekken", true, true, false, {TEKKEN}},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", false, false, false, {GPT4O}},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     false,
     false,
     false,
     {"\\p{N}{1,3}", DEEPSEEK_CJK, DEEPSEEK3}},
    {"deepseek-coder",
     false,
     false,
     false,
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", DEEPSEEK_HAN, "\\p{N}"}},
    {"falcon", false, false, false, {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {"bailingmoe bailingmoe2 llada-moe", false, false, false, {BAILING}},
    {"seed-coder",
     false,
     false,
     false,
     {CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES}},
    {"poro-chat bloom gpt3-finnish", false, false, false, {BLOOM}},
    {"viking", false, false, false, {BLOOM, "\\p{N}"}},
    {"deepseek-llm",
     false,
     false,
     false,
     {"[\\r\\n]", "\\s?[" DEEPSEEK_LETTERS "]+",
      "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+", "\\s+$",
      DEEPSEEK_HAN, "\\p{N}+"}},
    {"minicpm5",
     true,
     false,
     false,
     {"\\p{N}{1,3}", CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}+|" WORDS_AND_REST}},
    {"spark2_5", false, false, false, {"\\p{N}{1,3}", DEEPSEEK_CJK, SPARK, "\\p{N}"}},
    {"youtu",
     true,
     false,
     false,
     {YOUTU_BLOCKS, CASED(CONTRACTIONS "?") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES}},
    {"jais-2",
     false,
     false,
     false,
     {CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" JAIS_SPACES}},
    {"ufakzeka", false, false, false, {LEAD "\\p{L}+|\\p{N}|" WORDS_AND_REST}},
    {"laguna", false, false, false, {"[^\\n]+|[\\n]+", QWEN2}},
    {"exaone-moe",
     false,
     false,
     false,
     {CONTRACTIONS "|" LEAD "(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| "
                   "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"granite-embed-multi-97m", true, false, false, {GPT4O}},
    {"chameleon",
     false,
     true,
     false,
     {"<sentinel:[0-9]+>", "(?:IMGIMG)[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]",
      GPT2}},
    {"kimi-k2", false, false, false, {KIMI}},
    {"default", false, false, false, {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
};

const struct pre_tokenizer *pre_tokenizer_find(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof pre_tokenizers / sizeof *pre_tokenizers; i++) {
        for (const char *at = pre_tokenizers[i].names; *at; at += strspn(at, " ")) {
            size_t n = strcspn(at, " ");
            if (n == length && memcmp(at, name, n) == 0)
                return &pre_tokenizers[i];
            at += n;
        }
    }
    return NULL;
}

/* One name of each kind: all of them would not fit a message. */
void pre_tokenizer_names(char *names, size_t names_bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof pre_tokenizers / sizeof *pre_tokenizers && n < names_bytes; i++) {
        const char *first = pre_tokenizers[i].names;
        n += (size_t)snprintf(names + n, names_bytes - n, "%s%.*s", i ? " " : "", (int)strcspn(first, " "),
                              first);
    }
}
