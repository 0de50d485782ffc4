/* Grammars: what each front end takes and refuses, masks token by token, bounds. */
#include "grammar_rig.h"

#define OR "\x01"

/* ---- regular expressions */

static void regex_takes_the_usual(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_REGEX;
    check(k, "abc", "abc", "ab" OR "abcd" OR "");
    check(k, "a|b|", "a" OR "b" OR "", "ab");
    check(k, "(a|b)*c", "c" OR "abac", "ab" OR "abcc");
    check(k, "a{2,4}", "aa" OR "aaa" OR "aaaa", "a" OR "aaaaa");
    check(k, "a{2}b{0,1}c{1,}", "aac" OR "aabccc", "ac" OR "aabbc");
    check(k, "(?:ab){3}", "ababab", "abab" OR "abababab");
    check(k, "a{,2}", "" OR "a" OR "aa", "aaa");
    check(k, "x{a}", "x{a}", "xxx");
    check(k, "[a-c]+[^a-c]", "abcd" OR "a\xC3\xA9", "abc" OR "dd");
    check(k, "[]a]+", "]a]", "b");
    check(k, "[a\\-z]+", "a-z", "b");
    check(k, "[-a]+[a-]+", "-a-", "b");
    check(k, "\\d+\\.\\d{2}", "12.50", "12.5" OR "12,50");
    check(k, "\\w\\W\\s\\S\\D", "a-\tb." OR "_+ \xC3\xA9z", "aa bb" OR "a- b1");
    check(k, ".", "a" OR "\xC3\xA9" OR "\xF0\x9F\xA6\x9C", "" OR "\n" OR "ab");
    check(k, "[\\d\\s]+", "1 2", "a");
    check(k, "[^\\d]+", "ab-", "1" OR "a1");
    check(k, "\\x41\\u00e9\\u{1F99C}\\ud83e\\udd9c\\t", "A\xC3\xA9\xF0\x9F\xA6\x9C\xF0\x9F\xA6\x9C\t", "A");
    check(k, "^abc$", "abc", "xabc");
    check(k, "^a|b$", "a" OR "b", "ab");
    check(k, "a+?b*?", "a" OR "aab", "b");
    check(k, "(?P<year>[0-9]{4})-(?<month>0[1-9])", "2024-05", "24-05");
    check(k, "\\[\\]\\(\\)\\{\\}\\.\\*\\+\\?\\|\\^\\$\\\\\\/", "[](){}.*+?|^$\\/", "x");
    check(k, "(a*)*b", "b" OR "aaab", "a");
    check(k, "((a|b)(c|d)){2}|e", "acbd" OR "e", "ac");
    check(k, "\xC3\xA9+", "\xC3\xA9\xC3\xA9", "\xC3\xA9\xC3");
    check(k, "[\xC3\xA0-\xC3\xBC]+", "\xC3\xA9\xC3\xA8", "e");
}

static void regex_refuses_by_name(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_REGEX;
    check_refused(k, "(a)\\1", STATUS_UNSUPPORTED, "backreference");
    check_refused(k, "a(?=b)", STATUS_UNSUPPORTED, "lookahead");
    check_refused(k, "(?<!b)a", STATUS_UNSUPPORTED, "lookbehind");
    check_refused(k, "\\bword", STATUS_UNSUPPORTED, "word borders");
    check_refused(k, "(?i)a", STATUS_UNSUPPORTED, "flags");
    check_refused(k, "\\p{L}", STATUS_UNSUPPORTED, "Unicode properties");
    check_refused(k, "a++", STATUS_UNSUPPORTED, "possessive");
    check_refused(k, "a^b", STATUS_UNSUPPORTED, "anchor");
    check_refused(k, "(a", STATUS_FORMAT, "not closed");
    check_refused(k, "a)", STATUS_FORMAT, "closes");
    check_refused(k, "[a", STATUS_FORMAT, "not closed");
    check_refused(k, "*a", STATUS_FORMAT, "nothing before");
    check_refused(k, "a{3,2}", STATUS_FORMAT, "above its maximum");
    check_refused(k, "[z-a]", STATUS_FORMAT, "backwards");
    check_refused(k, "a\\", STATUS_FORMAT, "backslash");
    check_refused(k, "[^\\d\\D]", STATUS_INVALID, "nothing matches");
    check_refused(k, "a{300000}", STATUS_TOO_LARGE, "automaton nodes");
}

/* ---- GBNF */

static void gbnf_takes_llama_cpps(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_GBNF;
    check(k, "root ::= \"a\" | \"b\"", "a" OR "b", "ab" OR "");
    check(k,
          "root ::= (expr \"=\" term \"\\n\")+\nexpr ::= term ([-+*/] term)*\nterm ::= num | \"(\" expr "
          "\")\"\nnum "
          "::= [0-9]+\n",
          "1+2=3\n" OR "(1+(2*3))=7\n1=1\n", "1+=3\n" OR "(1=2\n");
    check(k, "# a comment\nroot ::= item{2,3} # more\n  | \"x\"\nitem ::=\n  \"a\" # here\n  \"b\"\n",
          "abab" OR "ababab" OR "x", "ab" OR "a");
    check(k, "root ::= [^\"\\\\]* \"\\\"\" \"\\x41\\u00e9\"", "ab\"A\xC3\xA9", "a\"b");
    check(k, "root ::= ( \"a\"\n  | \"b\"\n)? . [a-]", "axa" OR "\xC3\xA9-", "ax");
    check(k, "root ::= a-b\na-b ::= \"\" | \"x\" a-b", "" OR "xxx", "y");
    check(k, "root ::= \"a\"{,2} \"b\"{1,}", "b" OR "aabb", "aaab");
}

static void gbnf_refuses_by_name(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_GBNF;
    check_refused(k, "root ::= other", STATUS_INVALID, "\"other\"");
    check_refused(k, "start ::= \"a\"", STATUS_INVALID, "root");
    check_refused(k, "root ::= root \"a\" | \"b\"", STATUS_UNSUPPORTED, "left recursion");
    check_refused(k, "root ::= a\na ::= b? a \"x\" | \"y\"\nb ::= \"z\"", STATUS_UNSUPPORTED,
                  "left recursion");
    check_refused(k, "root ::= \"a\" root", STATUS_INVALID, "nothing matches");
    check_refused(k, "root ::= \"a\nb", STATUS_FORMAT, "line 2, column 2: a text");
    check_refused(k, "root ::= \"a\"\nroot ::= \"b\"", STATUS_INVALID, "twice");
    check_refused(k, "root ::= (\"a\"", STATUS_FORMAT, "not closed");
    check_refused(k, "root ::= <think>", STATUS_UNSUPPORTED, "angle brackets");
    check_refused(k, "start: \"a\"", STATUS_FORMAT, "expected a rule");
    check_refused(k, "root ::= \"\\q\"", STATUS_FORMAT, "unknown escape");
}

/* ---- choices */

static void choices(void **state)
{
    (void)state;
    check(GRAMMAR_CHOICE, "[\"yes\",\"no\",\"yesterday\",\"\xC3\xA9\",\"no\"]",
          "yes" OR "no" OR "yesterday" OR "\xC3\xA9", "" OR "y" OR "yester" OR "noo");
    check_refused(GRAMMAR_CHOICE, "[]", STATUS_INVALID, "at least one");
    check_refused(GRAMMAR_CHOICE, "[1]", STATUS_INVALID, "choice[0]");
}

/* ---- JSON */

static void any_object(void **state)
{
    (void)state;
    check(GRAMMAR_JSON_OBJECT, "",
          "{}" OR "{\"a\":1}" OR
          "{ \"a\": [1, -2.5e+3, true, null, {\"b\": \"\\u00e9\\\"\\ud83e\\udd9c\"}]}" OR "{\n  \"a\": {}\n}",
          "[]" OR "1" OR "{\"a\"}" OR "{\"a\":01}" OR "{\"a\":1,}" OR "{a:1}" OR "{\"a\":\"\n\"}" OR
          "{\"a\":\"\\ud83e\"}" OR "{\"a\":1e999}" OR "{} ");
    check_refused(GRAMMAR_JSON_SCHEMA, "[1]", STATUS_INVALID, "object");
    check_refused(GRAMMAR_JSON_SCHEMA, "{", STATUS_FORMAT, "schema:1");
}

static void schema_types(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_JSON_SCHEMA;
    check(k, "{}", "1" OR "[]" OR "{\"a\":null}" OR "\"x\"", "x" OR "");
    check(k, "{\"type\":\"string\"}", "\"\"" OR "\"a\xC3\xA9\\n\"", "1" OR "\"" OR "\"\xC3\"");
    check(k, "{\"type\":\"integer\"}", "0" OR "-12" OR "999999999999999", "01" OR "1.0" OR "" OR "-");
    check(k, "{\"type\":\"number\"}", "0" OR "-1.5" OR "2e10" OR "1.25E-3", "1." OR ".5" OR "+1");
    check(k, "{\"type\":\"boolean\"}", "true" OR "false", "null");
    check(k, "{\"type\":\"null\"}", "null", "0");
    check(k, "{\"type\":[\"string\",\"null\"]}", "null" OR "\"a\"", "1");
    check(k, "{\"type\":\"string\",\"nullable\":true}", "null" OR "\"a\"", "1");
    check(k, "{\"type\":\"object\"}", "{}" OR "{\"a\":[1]}", "[]");
    check(k, "{\"type\":\"array\"}", "[]" OR "[1, \"a\", {}]", "{}" OR "[1,]");
    check_refused(k, "{\"type\":\"text\"}", STATUS_INVALID, "type");
    check_refused(k, "{\"type\":\"string\",\"madeUp\":1}", STATUS_UNSUPPORTED, "madeUp");
    check_refused(k, "{\"type\":\"array\",\"uniqueItems\":true}", STATUS_UNSUPPORTED, "uniqueItems");
}

static void schema_objects(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_JSON_SCHEMA;
    check(k,
          "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"},"
          "\"c\":true},"
          "\"required\":[\"b\"],\"additionalProperties\":false}",
          "{\"b\":\"\"}" OR "{\"a\":1,\"b\":\"x\"}" OR "{\"a\": 1, \"b\": \"x\", \"c\": []}" OR
          "{\n  \"b\": \"x\",\n  \"c\": 1\n}",
          "{}" OR "{\"a\":1}" OR "{\"b\":\"x\",\"a\":1}" OR "{\"b\":\"\",\"d\":1}" OR "{\"b\":1}" OR
          "{\"a\":1\"b\":\"\"}" OR "{,\"b\":\"\"}");
    check(k, "{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}}}",
          "{}" OR "{\"a\":null}" OR "{\"b\":null}" OR "{\"a\":null,\"b\":null}",
          "{\"a\":null,}" OR "{\"c\":null}");
    check(k,
          "{\"properties\":{\"a\":{\"type\":\"null\"},\"ab\":{\"type\":\"null\"}},\"additionalProperties\":{"
          "\"type\":"
          "\"integer\"}}",
          "{\"x\":1}" OR "{\"a\":null,\"abc\":1,\"\":2}" OR "{\"b\":1,\"aa\":2}" OR "{\"\xC3\xA9\":1}",
          "{\"a\":1}" OR "{\"ab\":1}" OR "{\"x\":1,\"a\":null}" OR "{\"x\":null}" OR "{\"\\u0061\":1}");
    check(k, "{\"additionalProperties\":{\"type\":\"boolean\"},\"minProperties\":1,\"maxProperties\":2}",
          "{\"a\":true}" OR "{\"a\":true,\"b\":false}",
          "{}" OR "{\"a\":1}" OR "{\"a\":true,\"b\":true,\"c\":true}");
    check(k,
          "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}},\"required\":[\"z\"],"
          "\"additionalProperties\":{\"type\":\"integer\"}}",
          "{\"z\":1}" OR "{\"a\":null,\"z\":1,\"y\":2}", "{\"a\":null}" OR "{\"z\":null}");
    check(
        k,
        "{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"x\",\"y\"]},\"additionalProperties\":{\"type\":"
        "\"integer\"}}",
        "{}" OR "{\"x\":1,\"y\":2}", "{\"z\":1}");
    check(k, "{\"type\":\"object\",\"patternProperties\":{\"^x_[a-z]+$\":{\"type\":\"integer\"}}}",
          "{}" OR "{\"x_a\":1,\"x_bc\":2}", "{\"y\":1}" OR "{\"x_a\":null}");
    check(k, "{\"properties\":{\"say \\\"hi\\\"\":{\"type\":\"null\"},\"\xC3\xA9\":{\"type\":\"null\"}}}",
          "{\"say \\\"hi\\\"\":null,\"\xC3\xA9\":null}", "{\"say hi\":null}");
    check_refused(k, "{\"type\":\"object\",\"minProperties\":3}", STATUS_UNSUPPORTED, "minProperties");
    check_refused(k, "{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}",
                  STATUS_INVALID, "nothing matches");
    check_refused(k, "{\"properties\":[]}", STATUS_INVALID, "properties");
}

static void schema_arrays(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_JSON_SCHEMA;
    check(k, "{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}", "[]" OR "[1]" OR "[1, 2,3]",
          "[\"a\"]" OR "[1 2]");
    check(k, "{\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}", "[1,2]" OR "[1,2,3]",
          "[]" OR "[1]" OR "[1,2,3,4]");
    check(k, "{\"items\":{\"type\":\"integer\"},\"minItems\":1}", "[1]" OR "[1,2,3,4]", "[]");
    check(k, "{\"items\":{\"type\":\"integer\"},\"maxItems\":0}", "[]", "[1]");
    check(k, "{\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"items\":false}",
          "[]" OR "[1]" OR "[1,\"a\"]", "[\"a\"]" OR "[1,\"a\",1]");
    check(k, "{\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"minItems\":2}", "[1,\"a\"]",
          "[1]" OR "[1,\"a\",1]");
    check(k,
          "{\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"},\"minItems\":2,"
          "\"maxItems\":3}",
          "[1,null]" OR "[1,null,null]", "[1]" OR "[1,1]" OR "[1,null,null,null]");
    check(k,
          "{\"type\":\"array\",\"items\":[{\"type\":\"null\"}],\"additionalItems\":{\"type\":\"integer\"}}",
          "[]" OR "[null,1,2]", "[1]");
}

static void schema_strings(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_JSON_SCHEMA;
    check(k, "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
          "\"ab\"" OR "\"\xC3\xA9\\n\xF0\x9F\xA6\x9C\"", "\"a\"" OR "\"abcd\"");
    check(k, "{\"type\":\"string\",\"pattern\":\"^[a-z]{2}$\"}", "\"ab\"", "\"abc\"" OR "\"A\"");
    check(k, "{\"type\":\"string\",\"pattern\":\"b+\"}", "\"b\"" OR "\"abbc\\n\"", "\"a\"");
    check(k, "{\"type\":\"string\",\"pattern\":\"^\\\"x\\\\\\\\$\"}", "\"\\\"x\\\\\"", "\"x\"");
    check(k, "{\"type\":\"string\",\"pattern\":\"^[a-z]{2,4}$\",\"minLength\":2,\"maxLength\":10}", "\"abc\"",
          "\"a\"");
    check_refused(k, "{\"type\":\"string\",\"pattern\":\"(\"}", STATUS_FORMAT, "pattern");
    check_refused(k, "{\"type\":\"string\",\"format\":\"regex\"}", STATUS_UNSUPPORTED, "regex");
    check(k, "{\"type\":\"string\",\"format\":\"date\"}", "\"2024-02-29\"" OR "\"1999-12-31\"",
          "\"2023-02-29\"" OR "\"2024-13-01\"" OR "\"2024-04-31\"" OR "\"1900-02-29\"" OR "\"0000-01-01\"");
    check(k, "{\"type\":\"string\",\"format\":\"time\"}", "\"12:30:00Z\"" OR "\"23:59:59.5+01:00\"",
          "\"24:00:00Z\"" OR "\"12:30\"" OR "\"12:30:00\"");
    check(k, "{\"type\":\"string\",\"format\":\"date-time\"}", "\"2024-02-29T12:30:00Z\"",
          "\"2024-02-29 12:30:00Z\"");
    check(k, "{\"type\":\"string\",\"format\":\"uuid\"}", "\"123e4567-e89b-12d3-a456-426614174000\"",
          "\"123e4567e89b12d3a456426614174000\"");
    check(k, "{\"type\":\"string\",\"format\":\"email\"}", "\"a.b@example.org\"", "\"a@b\"" OR "\"@x.y\"");
    check(k, "{\"type\":\"string\",\"format\":\"ipv4\"}", "\"127.0.0.1\"" OR "\"255.255.255.255\"",
          "\"256.0.0.1\"" OR "\"1.2.3\"" OR "\"01.2.3.4\"");
    check(k, "{\"type\":\"string\",\"format\":\"ipv6\"}",
          "\"::1\"" OR "\"2001:db8::1\"" OR "\"1:2:3:4:5:6:7:8\"",
          "\"1:2\"" OR "\"1:2:3:4:5:6:7:8:9\"" OR "\":::\"");
    check(k, "{\"type\":\"string\",\"format\":\"duration\"}",
          "\"P1D\"" OR "\"PT1H30M\"" OR "\"P1Y2M3DT4H\"" OR "\"P2W\"", "\"P\"" OR "\"PT\"" OR "\"1D\"");
    check(k, "{\"type\":\"string\",\"format\":\"uri\"}", "\"https://example.org/a/b?c=d#e\"", "\"example\"");
}

static void schema_numbers(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_JSON_SCHEMA;
    check(k, "{\"type\":\"integer\",\"minimum\":0,\"maximum\":120}", "0" OR "9" OR "99" OR "100" OR "120",
          "-1" OR "121" OR "200" OR "1000" OR "00");
    check(k, "{\"type\":\"integer\",\"minimum\":-15,\"maximum\":7}", "-15" OR "-9" OR "-1" OR "0" OR "7",
          "-16" OR "8" OR "-20" OR "-0");
    check(k, "{\"type\":\"integer\",\"exclusiveMinimum\":9,\"exclusiveMaximum\":12}", "10" OR "11",
          "9" OR "12" OR "1");
    check(k, "{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}", "2" OR "3", "1" OR "4");
    check(k, "{\"type\":\"integer\",\"minimum\":-3.5,\"exclusiveMaximum\":0}", "-3" OR "-1",
          "-4" OR "0" OR "1");
    check(k, "{\"type\":\"integer\",\"exclusiveMinimum\":0}", "1" OR "123456", "0" OR "-1");
    check(k, "{\"type\":\"integer\",\"minimum\":9223372036854775807}", "9223372036854775807",
          "9223372036854775806");
    check(k, "{\"type\":\"integer\",\"minimum\":5,\"exclusiveMinimum\":5,\"maximum\":6}", "6", "5");
    check(k, "{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
          "0" OR "1" OR "0.5" OR "1.0" OR "0.999" OR "0.0", "1.01" OR "-0.1" OR "2" OR "1e0" OR "-0");
    check(k, "{\"type\":\"number\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":1}", "0.5" OR "0.001",
          "0" OR "0.0" OR "1" OR "1.0");
    check(k, "{\"type\":\"number\",\"minimum\":-1.25,\"maximum\":2.5}",
          "-1.25" OR "-1.2" OR "-0.5" OR "2.5" OR "2" OR "2.49",
          "-1.26" OR "-1.251" OR "2.51" OR "-2" OR "3");
    check(k, "{\"type\":\"number\",\"exclusiveMaximum\":-10}", "-10.5" OR "-11" OR "-999999",
          "-10" OR "-9" OR "0");
    check(k, "{\"minimum\":3,\"maximum\":3}", "3" OR "3.0", "4" OR "2");
    check_refused(k, "{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", STATUS_INVALID, "nothing matches");
    check_refused(k, "{\"type\":\"integer\",\"minimum\":\"a\"}", STATUS_INVALID, "minimum");
}

/* Against every integer near the bounds. */
static void integer_ranges_are_exact(void **state)
{
    (void)state;
    static const int bounds[] = {-1234, -100, -99, -10, -1, 0, 1, 7, 10, 99, 100, 101, 345, 1000};
    char schema[128], text[16];
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        for (size_t j = i; j < sizeof bounds / sizeof *bounds; j++) {
            snprintf(schema, sizeof schema, "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}", bounds[i],
                     bounds[j]);
            struct grammar *g = compile(GRAMMAR_JSON_SCHEMA, schema);
            for (int v = -1400; v <= 1400; v++) {
                int n = snprintf(text, sizeof text, "%d", v);
                assert_int_equal(grammar_accepts(g, text, (size_t)n), v >= bounds[i] && v <= bounds[j]);
            }
            grammar_release(g);
        }
}

static void schema_constants(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_JSON_SCHEMA;
    check(k, "{\"enum\":[\"a\",\"ab\",1,1.5,null,true,[1,\"x\"],{\"k\":[]}]}",
          "\"a\"" OR "\"ab\"" OR "1" OR "1.5" OR "null" OR "true" OR "[1, \"x\"]" OR "{\"k\": []}",
          "\"b\"" OR "2" OR "[1]");
    check(k, "{\"const\":\"x\\\"y\\n\xC3\xA9\"}", "\"x\\\"y\\n\xC3\xA9\"", "\"x\"");
    check(k, "{\"type\":\"string\",\"enum\":[\"a\",1]}", "\"a\"", "1");
    check(k, "{\"const\":0.1}", "0.1", "0.2");
    check(k, "{\"enum\":[\"a\",\"ab\",7,[1]],\"minLength\":2,\"maximum\":6,\"minItems\":1}",
          "\"ab\"" OR "[1]", "\"a\"" OR "7");
    check_refused(k, "{\"enum\":[]}", STATUS_INVALID, "nothing matches");
}

static void schema_combinations(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_JSON_SCHEMA;
    check(k, "{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":1}]}", "1" OR "\"a\"",
          "\"ab\"" OR "null");
    check(k, "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}", "1" OR "\"ab\"", "null");
    check(k,
          "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"a\"}},\"required\":[\"t\"]},{"
          "\"type\":"
          "\"object\",\"properties\":{\"t\":{\"const\":\"b\"},\"n\":{\"type\":\"integer\"}},\"required\":["
          "\"t\",\"n\"]}]}",
          "{\"t\":\"a\"}" OR "{\"t\":\"b\",\"n\":1}", "{\"t\":\"b\"}" OR "{\"t\":\"a\",\"n\":1}");
    check(k, "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "1.5", "1");
    check(k,
          "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":["
          "\"a\"]},{"
          "\"properties\":{\"b\":{\"type\":\"null\"}},\"required\":[\"b\"]}]}",
          "{\"a\":1,\"b\":null}", "{\"a\":1}" OR "{\"b\":null}");
    check(k, "{\"allOf\":[{\"type\":\"integer\",\"minimum\":2},{\"minimum\":4,\"maximum\":9}]}", "4" OR "9",
          "3" OR "10");
    check(k,
          "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}},"
          "\"anyOf\":[{\"required\":"
          "[\"a\"]},{\"required\":[\"b\"]}]}",
          "{\"a\":null}" OR "{\"b\":null}" OR "{\"a\":null,\"b\":null}", "{}");
    check(k,
          "{\"$defs\":{\"x\":{\"type\":\"integer\"}},\"allOf\":[{\"$ref\":\"#/$defs/"
          "x\"}],\"maximum\":5,\"minimum\":1}",
          "1" OR "5", "6");
}

static void schema_references(void **state)
{
    (void)state;
    const enum grammar_kind k = GRAMMAR_JSON_SCHEMA;
    check(k, "{\"$ref\":\"#/$defs/p~1q\",\"$defs\":{\"p/q\":{\"type\":\"integer\"}}}", "1", "\"a\"");
    check(k,
          "{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"anyOf\":[{\"$ref\":"
          "\"#\"},{\"type\":"
          "\"null\"}]}},\"required\":[\"v\",\"next\"]}",
          "{\"v\":1,\"next\":null}" OR "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3,\"next\":null}}}",
          "{\"v\":1}" OR "{\"v\":1,\"next\":{\"v\":2}}");
    check(k,
          "{\"definitions\":{\"tree\":{\"type\":\"object\",\"properties\":{\"c\":{\"type\":\"array\","
          "\"items\":{\"$ref\":"
          "\"#/definitions/tree\"}}}}},\"$ref\":\"#/definitions/tree\"}",
          "{}" OR "{\"c\":[]}" OR "{\"c\":[{},{\"c\":[{}]}]}", "{\"c\":[1]}");
    check(k,
          "{\"$ref\":\"#/$defs/a\",\"description\":\"x\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/"
          "b\"},\"b\":{\"type\":\"null\"}}}",
          "null", "1");
    check_refused(k, "{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", STATUS_UNSUPPORTED, "$ref");
    check_refused(k, "{\"$ref\":\"#\"}", STATUS_INVALID, "nothing matches");
    check_refused(k, "{\"$ref\":\"#/$defs/none\"}", STATUS_INVALID, "#/$defs/none");
    check_refused(k, "{\"$ref\":\"http://example.org/x\"}", STATUS_UNSUPPORTED, "example.org");
    check_refused(k, "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
                  STATUS_INVALID, "nothing matches");
}

/* ---- bounds */

static void bounds_are_errors(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    for (int i = 0; i < 70000; i++)
        buf_putc(&b, 'a');
    check_refused(GRAMMAR_REGEX, b.data, STATUS_TOO_LARGE, "65536");
    buf_clear(&b);
    for (int i = 0; i < 80; i++)
        buf_putc(&b, '(');
    check_refused(GRAMMAR_REGEX, b.data, STATUS_TOO_LARGE, "nested deeper");
    buf_clear(&b);
    buf_puts(&b, "root ::= ");
    for (int i = 0; i < 80; i++)
        buf_putc(&b, '(');
    check_refused(GRAMMAR_GBNF, b.data, STATUS_TOO_LARGE, "nested deeper");
    buf_clear(&b);
    for (int i = 0; i < 70; i++)
        buf_puts(&b, "{\"items\":");
    buf_puts(&b, "{}");
    for (int i = 0; i < 70; i++)
        buf_putc(&b, '}');
    check_refused(GRAMMAR_JSON_SCHEMA, b.data, STATUS_TOO_LARGE, "nested deeper");
    buf_clear(&b);
    buf_puts(&b, "root ::= r0\n");
    for (int i = 0; i < 600; i++)
        buf_printf(&b, "r%d ::= \"(\" r%d \")\"\n", i, i + 1);
    buf_puts(&b, "r600 ::= \"x\"\n");
    check_refused(GRAMMAR_GBNF, b.data, STATUS_INVALID, "nested deeper");
    buf_fini(&b);
}

/* Deeper than a text may nest is never begun. */
static void nesting_of_a_text_is_bounded(void **state)
{
    (void)state;
    struct grammar *g = compile(GRAMMAR_GBNF, "root ::= \"[\" root \"]\" | \"x\"");
    char text[1024];
    for (size_t n = 1; n < 400; n++) {
        memset(text, '[', n);
        text[n] = 'x';
        memset(text + n + 1, ']', n);
        assert_int_equal(grammar_accepts(g, text, 2 * n + 1), n <= GRAMMAR_FRAMES_MAX);
    }
    grammar_release(g);
}

/* ---- masks */

static bool allows(const uint64_t *mask, int32_t token)
{
    return mask[token / 64] >> token % 64 & 1;
}

/* A mask says of every token what reading its bytes says. */
static void masks_are_exact(void **state)
{
    (void)state;
    static const struct {
        enum grammar_kind kind;
        const char *source;
    } sources[] = {{GRAMMAR_REGEX, "[a-c]{2,5}(true|12)*"},
                   {GRAMMAR_REGEX, "\xC3\xA9t.*"},
                   {GRAMMAR_REGEX, "(\\{\"name\":)?.?\xF0\x9F\xA6\x9C"},
                   {GRAMMAR_REGEX, "[^\"\\\\\\x00-\\x1f]{0,4}\"?"},
                   {GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"maxLength\":3}"},
                   {GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"minLength\":2}"},
                   {GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\"}"},
                   {GRAMMAR_JSON_OBJECT, ""}};
    uint64_t mask[8];
    for (size_t s = 0; s < sizeof sources / sizeof *sources; s++) {
        struct grammar *g = compile(sources[s].kind, sources[s].source);
        bool may_end;
        int32_t tokens[6];
        uint64_t seed = 1;
        for (int round = 0; round < 200; round++) {
            struct grammar_matcher m = {0};
            uint32_t n = 0;
            for (; n < 6; n++) {
                enum grammar_answer a = grammar_next(g, &m, tokens, n, mask, &may_end);
                assert_true(a == GRAMMAR_GOES_ON || a == GRAMMAR_COMPLETE);
                assert_false(allows(mask, MADE_EOS) || allows(mask, MADE_CALL));
                if (a == GRAMMAR_COMPLETE)
                    break;
                int32_t chosen = -1;
                for (int32_t t = 0; t < (int32_t)N_MADE; t++) {
                    struct grammar_matcher again = {0};
                    bool end_too;
                    tokens[n] = t;
                    enum grammar_answer b = grammar_next(g, &again, tokens, n + 1, NULL, &end_too);
                    assert_int_equal(allows(mask, t), b != GRAMMAR_STUCK);
                    seed = seed * 6364136223846793005U + 1442695040888963407U;
                    if (allows(mask, t) && (chosen < 0 || seed >> 60 == 0))
                        chosen = t;
                }
                tokens[n] = chosen;
            }
        }
        grammar_release(g);
    }
}

static void half_characters(void **state)
{
    (void)state;
    struct grammar *g = compile(GRAMMAR_CHOICE, "[\"\xC3\xA9t\",\"\xC3\xA8\"]");
    struct grammar_matcher m = {0};
    uint64_t mask[8];
    bool may_end;
    int32_t tokens[2] = {0xC3, 0xA8};
    assert_int_equal(grammar_next(g, &m, tokens, 0, mask, &may_end), GRAMMAR_GOES_ON);
    assert_true(allows(mask, 0xC3) && allows(mask, 256 + 12) && !allows(mask, 0xA9) && !may_end);
    assert_int_equal(grammar_next(g, &m, tokens, 1, mask, &may_end), GRAMMAR_GOES_ON);
    assert_true(allows(mask, 0xA9) && allows(mask, 0xA8) && !allows(mask, 't') && !may_end);
    assert_int_equal(grammar_next(g, &m, tokens, 2, mask, &may_end), GRAMMAR_COMPLETE);
    assert_true(may_end);
    tokens[1] = 'x';
    struct grammar_matcher other = {0};
    assert_int_equal(grammar_next(g, &other, tokens, 2, mask, &may_end), GRAMMAR_STUCK);
    grammar_release(g);
}

/* Parts behind each other, special tokens, and calls one after another. */
static void specs_are_composed(void **state)
{
    (void)state;
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"integer\"}}}";
    const struct grammar_part first[] = {{GRAMMAR_TOKEN, "<call>", 6},
                                         {GRAMMAR_LITERAL, "f:", 2},
                                         {GRAMMAR_JSON_SCHEMA, schema, sizeof schema - 1}};
    const struct grammar_part second[] = {{GRAMMAR_LITERAL, "none", 4}};
    const struct grammar_sequence ways[] = {{first, 3}, {second, 1}};
    const struct grammar_spec spec = {
        .alternatives = ways, .n_alternatives = 2, .n_min = 1, .n_max = 2, .separator = ";"};
    struct grammar *g;
    struct error err;
    if (grammar_compile(rig_vocab, &spec, &g, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    uint64_t mask[8];
    bool may_end;
    struct grammar_matcher m = {0};
    int32_t tokens[] = {MADE_CALL, 'f', ':', '{', '}', ';', 'n', 'o', 'n', 'e'};
    assert_int_equal(grammar_next(g, &m, tokens, 0, mask, &may_end), GRAMMAR_GOES_ON);
    assert_true(allows(mask, MADE_CALL) && allows(mask, 'n') && !allows(mask, '<') &&
                !allows(mask, MADE_EOS));
    assert_int_equal(grammar_next(g, &m, tokens, 5, mask, &may_end), GRAMMAR_GOES_ON);
    assert_true(may_end && allows(mask, ';') && !allows(mask, MADE_CALL));
    assert_int_equal(grammar_next(g, &m, tokens, 10, mask, &may_end), GRAMMAR_COMPLETE);
    grammar_release(g);
}

/* A grammar that needs more states than there is room for forgets, and says the same afterwards. */
static void forgetting_changes_nothing(void **state)
{
    (void)state;
    struct grammar *g = compile(GRAMMAR_REGEX, "[ab]*a[ab]{15}");
    int32_t tokens[64];
    uint64_t mask[8], seed = 7;
    bool may_end;
    for (int round = 0; round < 400; round++) {
        struct grammar_matcher m = {0};
        for (uint32_t n = 0; n < 64; n++) {
            enum grammar_answer a = grammar_next(g, &m, tokens, n, mask, &may_end);
            assert_int_equal(a, GRAMMAR_GOES_ON);
            assert_int_equal(may_end, n >= 16 && tokens[n - 16] == 'a');
            assert_true(allows(mask, 'a') && allows(mask, 'b') && !allows(mask, 'c'));
            seed = seed * 6364136223846793005U + 1442695040888963407U;
            tokens[n] = seed >> 63 ? 'a' : 'b';
        }
    }
    assert_true(grammar_bytes(g) < (size_t)32 << 20);
    grammar_release(g);
}

static void memory_faults_are_errors(void **state)
{
    (void)state;
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[\"x\",\"y\"]},\"b\":{\"type\":"
        "\"array\",\"items\":{\"type\":\"number\",\"minimum\":1}}}}";
    enum status s = STATUS_NO_MEMORY;
    for (uint64_t n = 1; s != STATUS_OK; n++) {
        struct grammar *g;
        struct error err;
        mem_fail_at(n);
        s = grammar_compile_part(rig_vocab, GRAMMAR_JSON_SCHEMA, schema, sizeof schema - 1, &g, &err);
        mem_fail_at(0);
        assert_true(s == STATUS_OK || s == STATUS_NO_MEMORY || s == STATUS_TOO_LARGE);
        grammar_release(g);
    }
    s = STATUS_NO_MEMORY;
    for (uint64_t n = 1; s != STATUS_OK; n++) {
        struct grammar_vocab *v;
        struct error err;
        mem_fail_at(n);
        s = grammar_vocab_create(rig_tokenizer, N_MADE, &v, &err);
        mem_fail_at(0);
        grammar_vocab_destroy(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regex_takes_the_usual),
        cmocka_unit_test(regex_refuses_by_name),
        cmocka_unit_test(gbnf_takes_llama_cpps),
        cmocka_unit_test(gbnf_refuses_by_name),
        cmocka_unit_test(choices),
        cmocka_unit_test(any_object),
        cmocka_unit_test(schema_types),
        cmocka_unit_test(schema_objects),
        cmocka_unit_test(schema_arrays),
        cmocka_unit_test(schema_strings),
        cmocka_unit_test(schema_numbers),
        cmocka_unit_test(integer_ranges_are_exact),
        cmocka_unit_test(schema_constants),
        cmocka_unit_test(schema_combinations),
        cmocka_unit_test(schema_references),
        cmocka_unit_test(bounds_are_errors),
        cmocka_unit_test(nesting_of_a_text_is_bounded),
        cmocka_unit_test(masks_are_exact),
        cmocka_unit_test(half_characters),
        cmocka_unit_test(specs_are_composed),
        cmocka_unit_test(forgetting_changes_nothing),
        cmocka_unit_test(memory_faults_are_errors),
    };
    return cmocka_run_group_tests(tests, rig_begin, rig_end);
}
