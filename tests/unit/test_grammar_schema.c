/* What JSON schemas say by more than types: opposites, conditions, counts, references by name. */
#include "grammar_rig.h"

#define OR "\x01"
#define K GRAMMAR_JSON_SCHEMA

static void opposites(void **state)
{
    (void)state;
    check(K, "{\"not\":{\"type\":[\"integer\",\"string\",\"null\"]}}", "true" OR "[]" OR "{}",
          "1" OR "\"a\"" OR "null");
    check(K, "{\"type\":\"string\",\"not\":{\"enum\":[\"ab\",\"abc\",\"\"]}}",
          "\"a\"" OR "\"abcd\"" OR "\"b\"", "\"ab\"" OR "\"abc\"" OR "\"\"" OR "1");
    check(K, "{\"type\":\"integer\",\"not\":{\"enum\":[0,5]}}", "1" OR "-1" OR "6" OR "50", "0" OR "5");
    check(K, "{\"type\":\"integer\",\"minimum\":0,\"maximum\":9,\"not\":{\"minimum\":3,\"maximum\":6}}",
          "2" OR "7" OR "0" OR "9", "3" OR "5" OR "6" OR "10");
    check(K, "{\"type\":\"boolean\",\"not\":{\"const\":true}}", "false", "true");
    check(K, "{\"type\":\"string\",\"not\":{\"minLength\":3}}", "\"\"" OR "\"ab\"", "\"abc\"");
    check(K, "{\"enum\":[1,2,\"x\"],\"not\":{\"type\":\"string\"}}", "1" OR "2", "\"x\"");
    check(K,
          "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}},"
          "\"not\":{"
          "\"required\":[\"a\",\"b\"]}}",
          "{}" OR "{\"a\":1}" OR "{\"b\":1}", "{\"a\":1,\"b\":1}");
    check(K, "{\"type\":\"array\",\"not\":{\"items\":{\"type\":\"integer\"}}}", "[true]" OR "[1,null]",
          "[]" OR "[1,2]");
    check(K, "{\"type\":\"number\",\"not\":{\"type\":\"integer\"},\"minimum\":1,\"maximum\":3}",
          "1.5" OR "2.001" OR "2.10001", "1" OR "2" OR "2.0" OR "3.5");
    check_refused(K, "{\"not\":{}}", STATUS_INVALID, "nothing matches");
    check_refused(K,
                  "{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{\"additionalProperties\":false}}}}",
                  STATUS_UNSUPPORTED, "#/properties/a: \"not\" of a schema with \"additionalProperties\"");
}

#define KINDS                                                                                                \
    "\"type\":\"object\",\"properties\":{\"kind\":{\"enum\":[\"a\",\"b\"]},\"n\":{\"type\":\"integer\"}},"   \
    "\"required\":["                                                                                         \
    "\"kind\"]"

static void conditions(void **state)
{
    (void)state;
    check(K,
          "{" KINDS
          ",\"if\":{\"properties\":{\"kind\":{\"const\":\"a\"}}},\"then\":{\"required\":[\"n\"]},\"else\":{"
          "\"properties\":{\"n\":false}}}",
          "{\"kind\":\"a\",\"n\":1}" OR "{\"kind\":\"b\"}", "{\"kind\":\"a\"}" OR "{\"kind\":\"b\",\"n\":1}");
    check(K, "{\"type\":\"integer\",\"if\":{\"minimum\":10},\"then\":{\"multipleOf\":5}}",
          "9" OR "10" OR "15", "11" OR "12");
    check(K, "{\"type\":\"integer\",\"if\":{\"minimum\":10}}", "3" OR "12", "\"a\"");
    check(K, "{\"type\":\"integer\",\"else\":false,\"then\":false}", "3", "\"a\"");
    check(K,
          "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}},"
          "\"dependentRequired\":{"
          "\"a\":[\"b\"]}}",
          "{}" OR "{\"b\":null}" OR "{\"a\":null,\"b\":null}", "{\"a\":null}");
    check(K,
          "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"integer\"}},"
          "\"dependentSchemas\":{"
          "\"a\":{\"properties\":{\"b\":{\"minimum\":5}}}}}",
          "{\"b\":1}" OR "{\"a\":null,\"b\":5}" OR "{\"a\":null}", "{\"a\":null,\"b\":4}");
    check(K, "{\"oneOf\":[{\"type\":\"integer\",\"minimum\":2},{\"type\":\"integer\",\"maximum\":5}]}",
          "1" OR "6", "2" OR "5");
    check_refused(K, "{\"if\":{\"patternProperties\":{\"a\":{}}},\"then\":{}}", STATUS_UNSUPPORTED,
                  "\"if\" of a schema with \"patternProperties\"");
}

static void elements(void **state)
{
    (void)state;
    check(K, "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"contains\":{\"minimum\":5}}",
          "[5]" OR "[1, 9, 2]", "[]" OR "[1]" OR "[\"a\"]");
    check(K,
          "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"contains\":{\"minimum\":5},\"minContains\":"
          "2,\"maxContains\":"
          "3,\"maxItems\":4}",
          "[5,6]" OR "[1,5,6,7]" OR "[5,1,6]", "[5]" OR "[5,6,7,8]" OR "[1,1,5,6,7]");
    check(K, "{\"contains\":{\"const\":1},\"minContains\":0,\"maxContains\":1}", "[]" OR "[2]" OR "[1,\"a\"]",
          "[1,1]");
    check(K,
          "{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\",\"c\",\"a\"]},\"uniqueItems\":true,"
          "\"minItems\":1}",
          "[\"a\"]" OR "[\"c\",\"a\"]" OR "[\"b\",\"a\",\"c\"]",
          "[]" OR "[\"a\",\"a\"]" OR "[\"a\",\"b\",\"a\"]");
    check(K, "{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"uniqueItems\":true,\"maxItems\":1}",
          "[]" OR "[\"a\"]", "[\"a\",\"b\"]");
    check(K,
          "{\"allOf\":[{\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"string\"}},{"
          "\"prefixItems\":[{"
          "\"minimum\":3},{\"minLength\":1}],\"items\":true}]}",
          "[3,\"a\",\"\"]" OR "[3]", "[2]" OR "[3,\"\"]" OR "[3,\"a\",1]");
    check_refused(K, "{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"uniqueItems\":true}",
                  STATUS_UNSUPPORTED, "uniqueItems");
    check_refused(K, "{\"contains\":{},\"minContains\":100000}", STATUS_TOO_LARGE, "contains");
}

static void multiples(void **state)
{
    (void)state;
    check(K, "{\"type\":\"integer\",\"multipleOf\":7}", "0" OR "7" OR "-14" OR "700000007",
          "1" OR "13" OR "07");
    check(K, "{\"type\":\"number\",\"multipleOf\":0.01}", "0" OR "1.5" OR "-3.14" OR "0.07",
          "0.001" OR "1e2");
    check(K, "{\"type\":\"number\",\"multipleOf\":2.5}", "2.5" OR "5" OR "10" OR "-7.5" OR "5.0",
          "1" OR "2.4" OR "7");
    check(K, "{\"type\":\"integer\",\"multipleOf\":1000,\"minimum\":-2000,\"maximum\":12000}",
          "-2000" OR "0" OR "1000" OR "12000", "-3000" OR "500" OR "13000" OR "10001");
    check(K, "{\"allOf\":[{\"type\":\"integer\",\"multipleOf\":4},{\"multipleOf\":6}]}", "0" OR "12" OR "24",
          "4" OR "6");
    struct grammar *g =
        compile(K, "{\"type\":\"integer\",\"multipleOf\":12,\"minimum\":-300,\"maximum\":500}");
    for (int i = -400; i < 600; i++) {
        char text[16];
        int n = snprintf(text, sizeof text, "%d", i);
        assert_int_equal(grammar_accepts(g, text, (size_t)n), i % 12 == 0 && i >= -300 && i <= 500);
    }
    grammar_release(g);
    check_refused(K, "{\"type\":\"integer\",\"multipleOf\":1234567}", STATUS_UNSUPPORTED, "multipleOf");
    check_refused(K, "{\"type\":\"integer\",\"multipleOf\":0}", STATUS_INVALID, "multipleOf");
}

static void unevaluated(void **state)
{
    (void)state;
    check(K,
          "{\"type\":\"object\",\"allOf\":[{\"properties\":{\"a\":{\"type\":\"null\"}}}],\"properties\":{"
          "\"b\":{\"type\":"
          "\"null\"}},\"unevaluatedProperties\":false}",
          "{}" OR "{\"b\":null}" OR "{\"b\":null,\"a\":null}", "{\"c\":1}");
    check(K,
          "{\"type\":\"object\",\"anyOf\":[{\"properties\":{\"a\":{\"type\":\"null\"}},\"required\":[\"a\"]},"
          "{\"properties\":{"
          "\"b\":{\"type\":\"null\"}}}],\"unevaluatedProperties\":{\"type\":\"integer\"}}",
          "{\"a\":null,\"x\":1}" OR "{\"b\":null}", "{\"a\":null,\"x\":null}");
    check(K, "{\"prefixItems\":[true],\"allOf\":[{\"prefixItems\":[true,true]}],\"unevaluatedItems\":false}",
          "[1]" OR "[1,2]", "[1,2,3]");
    /* it sees nothing of the schema around it */
    check_refused(K, "{\"allOf\":[{\"additionalProperties\":false},{\"patternProperties\":{\"a\":true}}]}",
                  STATUS_UNSUPPORTED, "additionalProperties");
    check_refused(K,
                  "{\"allOf\":[{\"properties\":{\"a\":true},\"unevaluatedProperties\":false}],\"properties\":"
                  "{\"b\":true}}",
                  STATUS_UNSUPPORTED, "unevaluatedProperties");
    check_refused(K, "{\"unevaluatedProperties\":false,\"not\":{\"properties\":{\"a\":{\"type\":\"null\"}}}}",
                  STATUS_UNSUPPORTED, "unevaluatedProperties");
}

static void references(void **state)
{
    (void)state;
    check(K, "{\"$ref\":\"#n\",\"$defs\":{\"x\":{\"$anchor\":\"n\",\"type\":\"integer\"}}}", "1", "\"a\"");
    check(K,
          "{\"$id\":\"http://h/dir/"
          "root.json\",\"properties\":{\"a\":{\"$ref\":\"b.json\"},\"c\":{\"$ref\":\"/dir/b.json#/$defs/"
          "d\"}},\"$defs\":{\"B\":{\"$id\":\"b.json\",\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
          "d\"},\"$defs\":{\"d\":{"
          "\"type\":\"integer\"}}}}}",
          "{\"a\":[1]}" OR "{\"c\":2}", "{\"a\":[\"x\"]}" OR "{\"c\":[]}");
    check(K,
          "{\"$id\":\"http://h/"
          "tree\",\"$dynamicAnchor\":\"node\",\"type\":\"object\",\"properties\":{\"next\":{\"$dynamicRef\":"
          "\"#node\"}}}",
          "{}" OR "{\"next\":{\"next\":{}}}", "{\"next\":1}");
    check(K, "{\"type\":\"object\",\"properties\":{\"$ref\":{\"const\":{\"$ref\":\"#a\"}}}}",
          "{\"$ref\":{\"$ref\":\"#a\"}}", "{\"$ref\":1}");
    check_refused(K, "{\"$ref\":\"other.json\"}", STATUS_UNSUPPORTED, "other.json");
    check_refused(K, "{\"$ref\":\"#nowhere\"}", STATUS_UNSUPPORTED, "#nowhere");
    check_refused(K, "{\"$ref\":\"\\u00017\"}", STATUS_UNSUPPORTED, "$ref");
    check_refused(K,
                  "{\"$dynamicRef\":\"#n\",\"$defs\":{\"a\":{\"$id\":\"a\",\"$dynamicAnchor\":\"n\"},\"b\":{"
                  "\"$dynamicAnchor\":"
                  "\"n\"}}}",
                  STATUS_UNSUPPORTED, "$dynamicRef");
}

static void patterns(void **state)
{
    (void)state;
    check(K, "{\"type\":\"string\",\"pattern\":\"^[a-z]+$\",\"minLength\":2,\"maxLength\":4}",
          "\"ab\"" OR "\"abcd\"", "\"a\"" OR "\"abcde\"" OR "\"aB\"");
    check(K, "{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}],\"maxLength\":3}", "\"ab\"" OR "\"bxa\"",
          "\"a\"" OR "\"b\"" OR "\"bxxa\"");
    check(K, "{\"type\":\"string\",\"not\":{\"pattern\":\"[0-9]\"}}", "\"\"" OR "\"ab\\n\xC3\xA9\"",
          "\"a1\"");
    check(K, "{\"type\":\"string\",\"pattern\":\"^a*$\",\"not\":{\"enum\":[\"aa\",\"b\"]}}",
          "\"a\"" OR "\"aaa\"", "\"aa\"" OR "\"b\"");
    check(K, "{\"type\":\"string\",\"format\":\"hostname\",\"maxLength\":3,\"pattern\":\"^a\"}", "\"a.b\"",
          "\"b\"" OR "\"a.bc\"");
    check(K, "{\"enum\":[\"a\",\"ab\",3],\"pattern\":\"b\"}", "\"ab\"" OR "3", "\"a\"");
    check_refused(K, "{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){14}\",\"maxLength\":40}",
                  STATUS_TOO_LARGE, "maxLength");
}

static void names(void **state)
{
    (void)state;
    check(K,
          "{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"integer\"},\"x\":{\"type\":\"null\"}},"
          "\"patternProperties\":{\"^a\":{\"minimum\":5},\"b$\":{\"maximum\":7}}}",
          "{\"ab\":6,\"x\":null}" OR "{\"a\":9}" OR "{\"bb\":1}" OR "{\"aab\":7}",
          "{\"ab\":4}" OR "{\"ab\":8}" OR "{\"a\":1}" OR "{\"aab\":8}" OR "{\"y\":1}" OR "{\"\\u0061b\":1}");
    check(K, "{\"patternProperties\":{\"^a\":true},\"additionalProperties\":{\"type\":\"null\"}}",
          "{\"a\":1,\"b\":null}", "{\"b\":1}");
    check(K,
          "{\"properties\":{\"a\":true,\"long\":true},\"propertyNames\":{\"maxLength\":2},"
          "\"additionalProperties\":true}",
          "{\"a\":1}" OR "{\"b\":1,\"cc\":2}", "{\"long\":1}" OR "{\"abc\":1}");
    check(K, "{\"required\":[\"ab\"],\"patternProperties\":{\"^a\":{\"type\":\"integer\"}}}", "{\"ab\":1}",
          "{}" OR "{\"ab\":null}");
    check(K,
          "{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"},\"c\":{\"type\":\"null\"}},"
          "\"minProperties\":2,\"maxProperties\":2}",
          "{\"a\":null,\"c\":null}" OR "{\"b\":null,\"c\":null}",
          "{\"a\":null}" OR "{\"a\":null,\"b\":null,\"c\":null}");
    check(K,
          "{\"properties\":{\"a\":{\"type\":\"null\"}},\"required\":[\"a\"],\"additionalProperties\":true,"
          "\"minProperties\":2,\"maxProperties\":3}",
          "{\"a\":null,\"x\":1}" OR "{\"a\":null,\"x\":1,\"y\":1}",
          "{\"a\":null}" OR "{\"x\":1,\"y\":1}" OR "{\"a\":null,\"x\":1,\"y\":1,\"z\":1}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opposites), cmocka_unit_test(conditions),  cmocka_unit_test(elements),
        cmocka_unit_test(multiples), cmocka_unit_test(unevaluated), cmocka_unit_test(references),
        cmocka_unit_test(patterns),  cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, rig_begin, rig_end);
}
