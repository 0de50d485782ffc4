/* The chat template's language: what templates render, what white space does, where errors point, and that
 * bounds hold. The expected texts are what Python's Jinja renders in transformers' environment. */
#include "tests/test.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "text.h"

#define NOW INT64_C(1741523696789) /* 2025-03-09 12:34:56.789 UTC */

struct example {
    const char *template, *expected;
};

static const char variables_text[] =
    "{\"s\": \"Hello World\", \"u\": \"Stra\\u00dfe \\u03a3\\u0391\\u03a3\", \"n\": null, \"t\": true, "
    "\"f\": false, \"i\": 7,"
    " \"x\": 2.5, \"l\": [3, 1, 2], \"d\": {\"b\": 1, \"A\": 2, \"items\": 3}, \"lines\": \"a\\n\\nb\\n\","
    " \"users\": [{\"name\": \"Bob\", \"age\": 30}, {\"name\": \"alice\", \"age\": 25}, {\"name\": \"Carl\", "
    "\"age\": 30}],"
    " \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": "
    "null}]}";

static json_t *variables(void)
{
    json_t *v = json_loads(variables_text, 0, NULL);
    assert_non_null(v);
    return v;
}

static enum status render_with(const char *source, const struct template_limits *limits, struct buf *out,
                               struct error *err)
{
    struct chat_template *t;
    enum status status = chat_template_compile(source, strlen(source), "T", &t, err);
    if (status != STATUS_OK)
        return status;
    json_t *v = variables();
    status = chat_template_render(t, v, NOW, limits, out, err);
    json_decref(v);
    chat_template_destroy(t);
    return status;
}

static void check_all(const struct example *examples, size_t n)
{
    unsigned failed = 0;
    for (size_t i = 0; i < n; i++) {
        struct buf out;
        struct error err = {0};
        buf_init(&out, 0);
        if (render_with(examples[i].template, NULL, &out, &err) != STATUS_OK ||
            strcmp(out.data, examples[i].expected) != 0) {
            print_message("%s\n  expected %s\n  got      %s %s\n", examples[i].template, examples[i].expected,
                          out.data, err.text);
            failed++;
        }
        buf_fini(&out);
    }
    assert_int_equal(failed, 0);
}

#define CHECK_ALL(table) check_all(table, sizeof(table) / sizeof((table)[0]))

static void expressions_follow_python(void **state)
{
    (void)state;
    static const struct example table[] = {
        {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}",
         "3 -4 2 -2 3.5 1024 0.5"},
        {"{{ -7.5 // 2 }} {{ -7.5 % 2 }} {{ 1e16 }} {{ 1e15 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ 3.0 }}",
         "-4.0 0.5 1e+16 1000000000000000.0 0.30000000000000004 1e-05 3.0"},
        {"{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ 1 == '1' }} {{ true + 1 }} {{ [1] < [2] }}",
         "True False True False 2 True"},
        {"{{ 'a' in 'abc' }} {{ 'z' not in 'abc' }} {{ 'b' in d }} {{ 2 in l }} {{ 'x' in nothing }}",
         "True True True True False"},
        {"{{ 0 or 'x' }} {{ [] and 1 }} {{ not '' }} {{ 'a' if f else 'b' }} {{ 'a' if f }}|",
         "x [] True b |"},
        {"{{ 'a' ~ 1 ~ none ~ true }} {{ 'ab' * 2 }} {{ [1] + [2] }} {{ (1,) }} {{ () }} {{ {'a': 'q'} }}",
         "a1NoneTrue abab [1, 2] (1,) () {'a': 'q'}"},
        {"{{ s[0] }}{{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ l[1:] }} {{ l[::-2] }} {{ l[9] }}|{{ l.0 }}",
         "Hd ell dlroW olleH [1, 2] [2, 3] |3"},
        {"{{ [1.5, none, true, \"it's\", 'a\"', 'a\\n\\\\'] }}",
         "[1.5, None, True, \"it's\", 'a\"', 'a\\n\\\\']"},
        {"{{ 'a\\tb\\x41\\u00e9\\101\\q' 'c' }} {{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 1.5e3 }}",
         "a\tbA\xc3\xa9"
         "A\\qc 1000 31 3 1500.0"},
        {"{{ d.b }} {{ d['A'] }} {{ d.items is callable }} {{ d['items'] }} {{ d.zz is defined }} {{ n.x is "
         "defined }}",
         "1 2 True 3 False False"},
        {"{{ l.append is defined }} {{ s.__class__ is defined }} {{ nothing }}|{{ nothing == nothing2 }}",
         "False False |True"},
    };
    CHECK_ALL(table);
}

static void methods_follow_python(void **state)
{
    (void)state;
    static const struct example table[] = {
        {"{{ s.upper() }} {{ u.upper() }} {{ u.lower() }} {{ u|title }} {{ s.swapcase() }} {{ 'x "
         "y'.capitalize() }}",
         "HELLO WORLD STRASSE \xce\xa3\xce\x91\xce\xa3 stra\xc3\x9f"
         "e \xcf\x83\xce\xb1\xcf\x82 Stra\xc3\x9f"
         "e \xce\xa3\xce\xb1\xcf\x82 hELLO wORLD X y"},
        {"{{ ' a b '.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.rsplit(' ', "
         "1) }} "
         "{{ ' a  b '.split(none, 1) }}",
         "['a', 'b'] ['a', 'b', '', 'c'] ['a', 'b c'] ['a b', 'c'] ['a', 'b ']"},
        {"{{ ' x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'ab'.lstrip('a') }}|{{ 'ab'.rstrip('b') }}",
         "x|a|b|a"},
        {"{{ s.startswith(('x', 'He')) }} {{ s.endswith('ld') }} {{ s.find('o') }} {{ s.rfind('o') }} {{ "
         "s.count('l') }}",
         "True True 4 7 3"},
        {"{{ s.replace('l', 'L', 1) }} {{ 'a-b'.partition('-') }} {{ 'ab'.join(['1', '2']) }} {{ "
         "'7'.zfill(3) }}",
         "HeLlo World ('a', '-', 'b') 1ab2 007"},
        {"{{ 'ab'.center(5, '*') }} {{ 'pre-x'.removeprefix('pre-') }} {{ lines.splitlines() }} {{ "
         "'12'.isdigit() }}",
         "**ab* x ['a', '', 'b'] True"},
        {"{{ '{}-{x}-{:>3}|{:05.1f}'.format(1, 2, 2.25, x='y') }} {{ '%s %03d %.2f %r' % ('a', 7, x, 'q') }}",
         "1-y-  2|002.2 a 007 2.50 'q'"},
        {"{{ d.get('zz') }} {{ d.get('zz', 5) }} {{ d.keys()|list }} {{ d.values()|list }} {{ "
         "d.items()|first }}",
         "None 5 ['b', 'A', 'items'] [1, 2, 3] ('b', 1)"},
    };
    CHECK_ALL(table);
}

static void filters_follow_jinja(void **state)
{
    (void)state;
    static const struct example table[] = {
        {"{{ users|map(attribute='name')|join(', ') }} {{ users|selectattr('age', 'equalto', 30)|list|length "
         "}} "
         "{{ users|sort(attribute='age,name')|map(attribute='name')|list }}",
         "Bob, alice, Carl 2 ['alice', 'Bob', 'Carl']"},
        {"{% for age, who in users|groupby('age') %}{{ age }}:{{ who|map(attribute='name')|join('+') }};{% "
         "endfor %}",
         "25:alice;30:Bob+Carl;"},
        {"{{ [1,2,3,4,5]|batch(2, 'x')|list }} {{ [1,2,3]|slice(2)|list }} {{ l|sort }} {{ l|max }} {{ l|sum "
         "}}",
         "[[1, 2], [3, 4], [5, 'x']] [[1, 2], [3]] [1, 2, 3] 3 6"},
        {"{{ ['b','A','a']|unique|list }} {{ ['b','A']|sort }} {{ l|reverse|list }} {{ 'abc'|reverse }} {{ "
         "l|first }}",
         "['b', 'A'] ['A', 'b'] [2, 1, 3] cba 3"},
        {"{{ {'b': 1, 'a': ['\xc3\xa9<\"', none]}|tojson }} {{ [1, (2,)]|tojson(indent=1) }} {{ "
         "{'b':1,'a':2}|tojson(sort_keys=true) }}",
         "{\"b\": 1, \"a\": [\"\xc3\xa9<\\\"\", null]} [\n 1,\n [\n  2\n ]\n] {\"a\": 2, \"b\": 1}"},
        {"{{ '3.7'|int }} {{ 'x'|int(5) }} {{ '0x1f'|int(base=16) }} {{ 2.5|round }} {{ 2.675|round(2) }} {{ "
         "'1e3'|float }}",
         "3 5 31 2.0 2.67 1000.0"},
        {"{{ nothing|default('d') }} {{ ''|d('e', true) }} {{ '<&>'|e }} {{ ('<b>'|safe) + '<' }} {{ 'foo "
         "bar'|truncate(5, true, '..', 0) }}",
         "d e &lt;&amp;&gt; <b>&lt; foo.."},
        {"{{ lines|indent(2) }}|{{ 'a b'|wordcount }} {{ d|dictsort }} {{ 'a b'|urlencode }}",
         "a\n\n  b\n|2 [('A', 2), ('b', 1), ('items', 3)] a%20b"},
        {"{% if []|map('upper') %}a generator is true{% endif %} {% set g = l|map('string') %}{{ g|list }}{{ "
         "g|list }}",
         "a generator is true ['3', '1', '2'][]"},
        {"{{ [3]|map('nofilter') is defined }} {{ 3 is odd }} {{ 'x' is string }} {{ d is mapping }} {{ l is "
         "sequence }}",
         "True True True True True"},
        {"{% if f %}{{ s|from_json }}{% endif %}{{ (s|from_json) if f else 'late' }}", "late"},
    };
    CHECK_ALL(table);
}

static void statements_follow_jinja(void **state)
{
    (void)state;
    static const struct example table[] = {
        {"{% for x in l %}{{ loop.index }}/{{ loop.length }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last "
         "}}"
         "{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }};{% "
         "endfor %}",
         "1/32TrueFalse1aTrue;2/31FalseFalse32bTrue;3/30FalseTrue1aTrue;"},
        {"{% for x in l if x > 1 %}{{ x }}{{ loop.length }}{% else %}none{% endfor %}{% for x in [] %}{% "
         "else %}E{% endfor %}",
         "3222E"},
        {"{% for i in range(6) %}{% if i == 4 %}{% break %}{% elif i is odd %}{% continue %}{% endif %}{{ i "
         "}}{% endfor %}",
         "02"},
        {"{% for k, v in d.items() %}{{ k }}={{ v }} {% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a + "
         "b + c }}{% endfor %}",
         "b=1 A=2 items=3 6"},
        {"{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}", "4,2,3,1"},
        {"{% set ns = namespace(x=0) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {{ ns "
         "}}",
         "6 <Namespace {'x': 6}>"},
        {"{% macro m(a, b=2, c=a) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=5) }}{{ m() "
         "}}",
         "[1,2,1][1,2,5][,2,]"},
        {"{% macro m() %}{{ varargs }}{{ kwargs }}{{ caller(1) }}{% endmacro %}{% call(x) m(1, k=2) %}<{{ x "
         "}}>{% endcall %}",
         "(1,){'k': 2}<1>"},
        {"{% set x | upper %}a{{ s }}{% endset %}{{ x }} {% filter replace('a', 'b') %}aa{% endfilter %}",
         "AHELLO WORLD bb"},
        {"{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}{% set a, b = 5, 6 %}{{ a }}{{ b "
         "}}",
         "3False56"},
        {"{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}]}] recursive %}{{ n.v }}{{ loop.depth }}({{ "
         "loop(n.c) }}){% endfor %}",
         "11(22())"},
        {"{% generation %}{{ s }}{% set inside = 1 %}{% endgeneration %} {{ inside is defined }}",
         "Hello World False"},
        {"{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% for x in [7] %}{{ m() }}{% endfor "
         "%}",
         "11"},
        {"{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{% set j = joiner('|') "
         "%}{{ j() }}{{ j() }}",
         "aba|"},
        {"{{ strftime_now('%d %b %Y %H:%M:%S.%f') }} {{ range(1, 6, 2)|list }} {{ dict(a=1)['a'] }}",
         "09 Mar 2025 12:34:56.789000 [1, 3, 5] 1"},
    };
    CHECK_ALL(table);
}

/* A frame that sets a name before it reads it has it without a value from its beginning. */
static void names_begin_as_in_jinja(void **state)
{
    (void)state;
    static const struct example table[] = {
        {"{% for x in l %}{{ s }},{% endfor %}{% set s = 1 %}{{ s }}", ",,,1"},
        {"{{ s[0] }}{% for x in l %}{{ s[0] }}{% endfor %}{% set s = 1 %}{{ s }}", "HHHH1"},
        {"{% for x in l %}{{ i }}{% endfor %}{% if f %}{% set i = 1 %}{% endif %}{{ i }}", "7777"},
        {"{% for x in l %}{{ i }}{% endfor %}{% if f %}{% set i = 1 %}{% elif t %}{% set i = 2 %}{% else %}"
         "{% set i = 3 %}{% endif %}{{ i }}",
         "7772"},
        {"{% macro m() %}[{{ i }}]{% endmacro %}{{ m() }}{% set i = i + 1 %}{{ m() }}", "[7][8]"},
        {"{% macro m() %}[{{ i }}]{% endmacro %}{{ m() }}{% set i = 2 %}{{ m() }}", "[][2]"},
        {"{% for x in l %}{% for y in l %}{{ i }}{% endfor %}{% set i = x %}{{ i }}{% endfor %}", "312"},
        {"{% for x in l %}{% for y in l %}{{ i }}{% endfor %}{% set i = x %}{% endfor %}{{ i }}",
         "7777777777"},
        {"{% set q %}{% for x in l %}{{ i }}{% endfor %}{% set i = 1 %}{% endset %}{{ q }}|", "|"},
        {"{% for x in l %}{{ i }}{% endfor %}{% macro i() %}{% endmacro %}|", "|"},
        {"{% for x in [] %}{% else %}{% for y in l %}{{ i }}{% endfor %}{% set i = 1 %}{{ i }}{% endfor %}",
         "1"},
        {"{% with a, b = (1, i) %}{{ a }}{{ b }}{% endwith %}{{ self.x is defined }}{{ self }}",
         "17False<TemplateReference None>"},
    };
    CHECK_ALL(table);
}

static void white_space_follows_jinja(void **state)
{
    (void)state;
    static const struct example table[] = {
        {"  {% if t %}\n    x\n  {% endif %}\ny\n", "    x\ny"},
        {"a  {%- if t -%}  b  {%- endif -%}  c", "abc"},
        {"  {%+ if t +%}\n  b\n  {%+ endif +%}\n  c", "  \n  b\n  \n  c"},
        {"x {{ s }}\n{{- s -}}\n y", "x Hello WorldHello Worldy"},
        {"a\n  {# c #}\nb {#- c -#} d", "a\nbd"},
        {"{% raw %}{{ x }}{% y %}{% endraw %}|{%- raw -%} a {%- endraw -%} |", "{{ x }}{% y %}|a|"},
        {"a\r\nb\rc\n\n", "a\nb\nc\n"},
        {"x {% set y = 1 %}\nz", "x z"},
        {"{{ '}}' }}{{ {'a': {'b': 1}}.a.b }}{{ \"%}\" }}", "}}1%}"},
        {"\t {%- set y = 1 %} {# #}\n", " "},
    };
    CHECK_ALL(table);
}

static const struct {
    const char *template;
    enum status status;
    const char *text; /* whole, or its beginning */
} refusals[] = {
    {"{% if t %}x", STATUS_FORMAT,
     "T: line 1, column 12: unexpected end of template inside 'if', which needs 'elif'"},
    {"a\n{% nope %}", STATUS_FORMAT, "T: line 2, column 4: unknown tag 'nope'"},
    {"{% for x in l %}{% endif %}", STATUS_FORMAT, "T: line 1, column 20: unknown tag 'endif'; inside 'for'"},
    {"\xc3\xa9\n\xc3\xa9{{ s|nope }}", STATUS_UNSUPPORTED, "T: line 2, column 7: No filter named 'nope'."},
    {"{{ s is nope }}", STATUS_UNSUPPORTED, "T: line 1, column 9: No test named 'nope'."},
    {"{% if t %}{% for x in l %}{{ x|nope }}{% endfor %}{% endif %}", STATUS_UNSUPPORTED,
     "T: line 1, column 32: No filter named 'nope'."},
    {"{% if t %}{{ s|nope }}{% endif %}", STATUS_INVALID,
     "T: line 1, column 16: TemplateRuntimeError: No filter named 'nope' found."},
    {"a\n{{ foo(1) }}", STATUS_UNSUPPORTED,
     "T: line 2, column 4: no function or macro named 'foo'; expected"},
    {"{% for m in messages %}{{ foo(m) }}{% endfor %}", STATUS_UNSUPPORTED,
     "T: line 1, column 27: no function or macro named 'foo'"},
    {"{% call foo() %}{% endcall %}", STATUS_UNSUPPORTED, "T: line 1, column 9: no function or macro named"},
    {"{{ s(1) }}", STATUS_UNSUPPORTED, "T: line 1, column 4: no function or macro named 's'"},
    {"{{ s.shout() }}", STATUS_UNSUPPORTED, "T: line 1, column 6: no kind of value has a method 'shout'"},
    {"{{ x if s.shout() else x }}", STATUS_UNSUPPORTED,
     "T: line 1, column 11: no kind of value has a method 'shout'"},
    {"{{ s.encode() if t and s.shout() }}", STATUS_INVALID,
     "T: line 1, column 31: UndefinedError: 'str object'"},
    {"{% do l.append(1) %}", STATUS_FORMAT, "T: line 1, column 4: unknown tag 'do'"},
    {"{% extends 'x' %}", STATUS_UNSUPPORTED, "T: line 1, column 4: 'extends' is for templates of several"},
    {"{% import 'x' as y %}", STATUS_UNSUPPORTED,
     "T: line 1, column 4: 'import' is for templates of several"},
    {"{% from 'x' import y %}", STATUS_UNSUPPORTED,
     "T: line 1, column 4: 'from' is for templates of several"},
    {"{% block b %}{% endblock %}", STATUS_UNSUPPORTED, "T: line 1, column 4: 'block' is for templates of"},
    {"{% with a, b = 1 %}{% endwith %}", STATUS_INVALID, "T: line 1, column 9: TypeError: cannot unpack"},
    {"{% filter length %}x{% endfilter %}", STATUS_INVALID,
     "T: line 1, column 11: TypeError: a filter block's"},
    {"{% include 'x' %}", STATUS_UNSUPPORTED,
     "T: line 1, column 4: 'include' is for templates of several files"},
    {"{{ 'a }}", STATUS_FORMAT, "T: line 1, column 4: a string that doesn't end"},
    {"{{ '\\x4' }}", STATUS_FORMAT, "T: line 1, column 4: truncated \\xXX escape"},
    {"{{ 1 + }}", STATUS_FORMAT, "T: line 1, column 8: unexpected 'end of print statement'"},
    {"{{ (1] }}", STATUS_FORMAT, "T: line 1, column 6: unexpected ']', expected ')'"},
    {"{{ \xd9\xa1 }}", STATUS_FORMAT, "T: line 1, column 4: a character that can't be in a name"},
    {"{{ 1 ! 2 }}", STATUS_FORMAT, "T: line 1, column 6: unexpected character '!'"},
    {"{{ 99999999999999999999 }}", STATUS_FORMAT,
     "T: line 1, column 4: an integer that doesn't fit into 64 bits"},
    {"{{ f(a=1, 2) }}", STATUS_FORMAT, "T: line 1, column 11: this argument can't stand behind"},
    {"{% set 5 = 1 %}", STATUS_FORMAT, "T: line 1, column 8: can't assign to 'integer'"},
    {"{% for loop in l %}{% endfor %}", STATUS_FORMAT,
     "T: line 1, column 8: can't assign to the special variable 'loop'"},
    {"{% break %}", STATUS_FORMAT, "T: line 1, column 4: 'break' outside a loop"},
    {"{# open", STATUS_FORMAT, "T: line 1, column 1: missing end of comment"},
    {"{% raw %}x", STATUS_FORMAT, "T: line 1, column 1: missing end of raw block"},
    {"{{ x", STATUS_FORMAT, "T: line 1, column 3: '{{' is never closed"},
    {"x\xff", STATUS_FORMAT, "T: byte 1 of the chat template is not UTF-8"},
    {"{{ nothing.x }}", STATUS_INVALID, "T: line 1, column 12: UndefinedError: 'nothing' is undefined"},
    {"{{ d.x.y }}", STATUS_INVALID,
     "T: line 1, column 8: UndefinedError: 'dict object' has no attribute 'x'"},
    {"{{ n[0].x }}", STATUS_INVALID, "T: line 1, column 9: UndefinedError: None has no element 0"},
    {"\n {{ 'a' + n }}", STATUS_INVALID,
     "T: line 2, column 11: TypeError: can only concatenate str (not \"NoneType\") to str"},
    {"{% for x in n %}{% endfor %}", STATUS_INVALID,
     "T: line 1, column 13: TypeError: 'NoneType' object is not iterable"},
    {"{{ 'a' in n }}", STATUS_INVALID,
     "T: line 1, column 11: TypeError: argument of type 'NoneType' is not iterable"},
    {"{{ n|length }}", STATUS_INVALID,
     "T: line 1, column 6: TypeError: object of type 'NoneType' has no len()"},
    {"{{ l.append(1) }}", STATUS_INVALID,
     "T: line 1, column 12: SecurityError: access to attribute 'append' of 'list' object is unsafe."},
    {"{% if t %}{{ foo(1) }}{% endif %}", STATUS_INVALID,
     "T: line 1, column 17: UndefinedError: 'foo' is undefined"},
    {"{% if t %}{{ s(1) }}{% endif %}", STATUS_INVALID,
     "T: line 1, column 15: TypeError: 'str' object is not callable"},
    {"{{ 1 // 0 }}", STATUS_INVALID,
     "T: line 1, column 9: ZeroDivisionError: integer division or modulo by zero"},
    {"{{ 1 < 'a' }}", STATUS_INVALID,
     "T: line 1, column 8: TypeError: '<' not supported between instances of 'int' and 'str'"},
    {"{% set a, b = [1] %}", STATUS_INVALID,
     "T: line 1, column 8: ValueError: not enough values to unpack (expected 2, got 1)"},
    {"{% set d.x = 1 %}", STATUS_INVALID,
     "T: line 1, column 8: TemplateRuntimeError: cannot assign attribute on non-namespace object"},
    {"{{ 2 ** 64 }}", STATUS_INVALID,
     "T: line 1, column 9: OverflowError: the result doesn't fit into 64 bits"},
    {"{{ raise_exception('Roles must alternate: ' ~ i) }}", STATUS_INVALID, "Roles must alternate: 7"},
};

static void refusals_say_where_and_why(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct buf out;
        struct error err = {0};
        buf_init(&out, 0);
        buf_puts(&out, "before");
        enum status status = render_with(refusals[i].template, NULL, &out, &err);
        if (status != refusals[i].status || err.status != status ||
            strncmp(err.text, refusals[i].text, strlen(refusals[i].text)) != 0 ||
            strcmp(out.data, "before") != 0) {
            print_message("%s\n  expected %s\n  got %s: %s [%s]\n", refusals[i].template, refusals[i].text,
                          status_name(status), err.text, out.data);
            failed++;
        }
        buf_fini(&out);
    }
    assert_int_equal(failed, 0);
}

/* Each must end as TOO_LARGE, quickly, whatever it would take in Python. */
static const char *const too_large[] = {
    "{{ 'a' * 10000000000 }}",
    "{{ [1] * 10000000000 }}",
    "{{ range(100001) }}",
    "{{ '%1000000d' % 1 }}",
    "{{ '{:>1000000}'.format(1) }}",
    "{{ 'a'.center(1000000) }}",
    "{{ 'a'|indent(1000000, true) }}",
    "{{ ('a' * 10000).replace('', 'b' * 10000) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace() %}{% set ns.self = [ns] %}{{ ns }}",
    "{{ [1]|batch(1000000000, 'x')|list|length }}",
    "{{ 'a'.zfill(1000000) }}",
    "{{ 'a'.ljust(1000000) }}",
    "{{ 'a\tb'.expandtabs(1000000) }}",
    "{{ l|tojson(indent=1000000) }}",
    "{{ '{:.1000000f}'.format(1) }}",
    "{{ 'a' * 100000 ~ ('b' * 100000)|replace('b', 'c' * 100) }}",
    "{{ ('a ' * 100000)|wordwrap(1, wrapstring='b' * 100) }}",
    "{{ [l * 1000] * 1000 }}",
    "{% set ns = namespace(d={}) %}{% for i in range(60) %}{% set ns.d = {'a': ns.d, 'b': ns.d} %}{% endfor "
    "%}"
    "{{ ns.d|tojson }}",
};

static void bounds_hold(void **state)
{
    (void)state;
    const struct template_limits limits = {
        .memory_bytes = 4U << 20, .output_bytes = 1U << 20, .n_steps = 200000};
    for (size_t i = 0; i < sizeof too_large / sizeof too_large[0]; i++) {
        struct buf out;
        struct error err = {0};
        buf_init(&out, 0);
        enum status status = render_with(too_large[i], &limits, &out, &err);
        if (status != STATUS_TOO_LARGE)
            print_message("%s: %s %s\n", too_large[i], status_name(status), err.text);
        assert_int_equal(status, STATUS_TOO_LARGE);
        buf_fini(&out);
    }
}

static void nest(struct buf *b, const char *open, const char *close, int depth)
{
    for (int i = 0; i < depth; i++)
        buf_puts(b, open);
    buf_puts(b, "1");
    for (int i = 0; i < depth; i++)
        buf_puts(b, close);
}

static void deep_sources_are_refused_and_long_ones_are_not(void **state)
{
    (void)state;
    static const struct {
        const char *before, *open, *close, *after;
        int depth;
        enum status status;
    } table[] = {
        {"{{ ", "(", ")", " }}", 5000, STATUS_TOO_LARGE},
        {"{{ ", "[", "]", " }}", 5000, STATUS_TOO_LARGE},
        {"{{ ", "not ", "", " }}", 5000, STATUS_TOO_LARGE},
        {"{{ ", "-", "", " }}", 5000, STATUS_TOO_LARGE},
        {"{{ ", "", "|abs", " }}", 5000, STATUS_TOO_LARGE},
        {"{{ ", "", "[0]", " }}", 5000, STATUS_TOO_LARGE},
        {"", "{% if t %}", "{% endif %}", "", 5000, STATUS_TOO_LARGE},
        {"{{ ", "(", ")", " }}", 60, STATUS_OK},
        {"{{ ", "1 + ", "", " }}", 5000, STATUS_OK},
        {"{{ ", "t and ", "", " }}", 5000, STATUS_OK},
        {"{% if f %}", "{% elif f %}", "", "{% endif %}", 5000, STATUS_OK},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct buf source, out;
        struct error err = {0};
        buf_init(&source, 0);
        buf_init(&out, 0);
        buf_puts(&source, table[i].before);
        nest(&source, table[i].open, table[i].close, table[i].depth);
        buf_puts(&source, table[i].after);
        enum status status = render_with(source.data, NULL, &out, &err);
        if (status != table[i].status)
            print_message("%zu: %s %s\n", i, status_name(status), err.text);
        assert_int_equal(status, table[i].status);
        buf_fini(&source);
        buf_fini(&out);
    }
}

static void deep_variables_are_refused(void **state)
{
    (void)state;
    struct chat_template *t;
    struct buf out;
    struct error err = {0};
    buf_init(&out, 0);
    assert_int_equal(chat_template_compile("{{ v|length }}", 14, "T", &t, &err), STATUS_OK);
    json_t *deep = json_array(), *v = json_object();
    for (int i = 0; i < 100; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, deep);
        deep = outer;
    }
    json_object_set_new(v, "v", deep);
    assert_int_equal(chat_template_render(t, v, NOW, NULL, &out, &err), STATUS_TOO_LARGE);
    json_decref(v);
    chat_template_destroy(t);
    buf_fini(&out);
}

/* What transformers' apply_chat_template does to messages before the template sees them. */
static void reasoning_has_all_its_names(void **state)
{
    (void)state;
    static const char messages[] =
        "{\"messages\": [{\"role\": \"a\", \"reasoning\": \"r\", \"thinking\": null}, {\"role\": \"b\"},"
        " {\"thinking\": \"t\", \"reasoning_content\": \"c\"}, {\"reasoning_content\": null}, 5]}";
    struct chat_template *t;
    struct buf out;
    struct error err = {0};
    buf_init(&out, 0);
    json_t *v = json_loads(messages, 0, NULL);
    assert_int_equal(chat_template_compile("{{ messages }}", 14, "T", &t, &err), STATUS_OK);
    assert_int_equal(chat_template_render(t, v, NOW, NULL, &out, &err), STATUS_OK);
    assert_string_equal(
        out.data,
        "[{'thinking': None, 'role': 'a', 'reasoning': 'r', 'reasoning_content': 'r'}, {'role': 'b'}, "
        "{'thinking': 't', 'reasoning_content': 'c'}, {'reasoning_content': None}, 5]");
    json_decref(v);
    chat_template_destroy(t);
    buf_fini(&out);
}

static const char long_template[] =
    "{%- macro show(m) -%}<{{ m.role|upper }}>{{ (m.content or '')|trim }}{%- endmacro -%}"
    "{% set ns = namespace(n=0, l=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.l = ns.l + [m.role] %}{{ show(m) }}{% endfor %}{{ ns.l|join(',') }}{{ d|tojson(indent=2) }}"
    "{{ users|groupby('age')|length }}{{ users|map(attribute='name')|sort|list }}{{ '%s' % d }}";

/* Every allocation fails once: the error is memory, nothing leaks, and the buffer is as it was. */
static void a_fault_walk_ends_in_success(void **state)
{
    (void)state;
    json_t *v = variables();
    enum status status = STATUS_NO_MEMORY;
    uint64_t n = 1;
    for (; status == STATUS_NO_MEMORY && n < 10000; n++) {
        struct chat_template *t = NULL;
        struct buf out;
        struct error err = {0};
        buf_init(&out, 0);
        mem_fail_at(n);
        status = chat_template_compile(long_template, strlen(long_template), "T", &t, &err);
        if (status == STATUS_OK)
            status = chat_template_render(t, v, NOW, NULL, &out, &err);
        mem_fail_at(0);
        if (status != STATUS_OK && status != STATUS_NO_MEMORY)
            print_message("allocation %llu: %s\n", (unsigned long long)n, err.text);
        chat_template_destroy(t);
        buf_fini(&out);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 10);
    json_decref(v);
}

static void adding_in_a_loop_is_linear(void **state)
{
    (void)state;
    struct buf out;
    struct error err = {0};
    buf_init(&out, 0);
    const struct template_limits limits = {.memory_bytes = 24U << 20};
    assert_int_equal(render_with("{% set ns = namespace(s='', l=[], t='') %}{% for i in range(30000) %}"
                                 "{% set ns.s = ns.s + 'abcdefghij' %}{% set ns.t = ns.t ~ i %}"
                                 "{% endfor %}{{ ns.s|length }} {{ ns.t|length }}",
                                 &limits, &out, &err),
                     STATUS_OK);
    assert_string_equal(out.data, "300000 138890");
    buf_clear(&out);
    /* An older value doesn't see what was added to a newer one. */
    assert_int_equal(
        render_with("{% set a = 'x' + 'y' %}{% set b = a + '1' %}{% set c = a + '2' %}{{ a }}{{ b }}{{ c }}"
                    "{% set p = [1] + [2] %}{% set q = p + [3] %}{% set r = p + [4] %}{{ p }}{{ q }}{{ r }}",
                    NULL, &out, &err),
        STATUS_OK);
    assert_string_equal(out.data, "xyxy1xy2[1, 2][1, 2, 3][1, 2, 4]");
    buf_fini(&out);
}

struct worker {
    const struct chat_template *t;
    const json_t *variables;
    bool ok;
};

static void *render_many(void *data)
{
    struct worker *w = data;
    struct buf first;
    struct error err = {0};
    buf_init(&first, 0);
    w->ok = chat_template_render(w->t, w->variables, NOW, NULL, &first, &err) == STATUS_OK;
    for (int i = 0; i < 20 && w->ok; i++) {
        struct buf out;
        buf_init(&out, 0);
        w->ok = chat_template_render(w->t, w->variables, NOW, NULL, &out, &err) == STATUS_OK &&
                strcmp(out.data, first.data) == 0;
        buf_fini(&out);
    }
    buf_fini(&first);
    return NULL;
}

static void threads_share_one_template(void **state)
{
    (void)state;
    struct chat_template *t;
    struct error err = {0};
    json_t *v = variables();
    pthread_t threads[3];
    struct worker workers[3];
    assert_int_equal(chat_template_compile(long_template, strlen(long_template), "T", &t, &err), STATUS_OK);
    for (int i = 0; i < 3; i++) {
        workers[i] = (struct worker){.t = t, .variables = v};
        assert_int_equal(pthread_create(&threads[i], NULL, render_many, &workers[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_true(workers[i].ok);
    }
    chat_template_destroy(t);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_follow_python),
        cmocka_unit_test(methods_follow_python),
        cmocka_unit_test(filters_follow_jinja),
        cmocka_unit_test(statements_follow_jinja),
        cmocka_unit_test(names_begin_as_in_jinja),
        cmocka_unit_test(white_space_follows_jinja),
        cmocka_unit_test(refusals_say_where_and_why),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(deep_sources_are_refused_and_long_ones_are_not),
        cmocka_unit_test(deep_variables_are_refused),
        cmocka_unit_test(reasoning_has_all_its_names),
        cmocka_unit_test(a_fault_walk_ends_in_success),
        cmocka_unit_test(adding_in_a_loop_is_linear),
        cmocka_unit_test(threads_share_one_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
