"""Grammars without a model: random schemas, regular expressions and choices are walked through at random, and every whole
text must parse and pass a validator of another house (jsonschema, re). Last line: N passed, N failed, N skipped

    grammar_walks.py                      a few hundred random schemas on the tiny tokenizer
    grammar_walks.py --suite FOLDER       JSON-Schema-Test-Suite's draft 2020-12 found there: what is accepted and what not
    grammar_walks.py --rounds N --seed S --tokenizer FILE
"""
import argparse, json, os, random, re, subprocess, sys

import jsonschema

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
WALK = os.path.join(ROOT, "build", os.environ.get("BUILD", "release"), "tests", "sampling", "grammar_walk")
TINY = os.path.join(ROOT, "tests", "golden", "data", "models", "llama", "f32", "tokenizer.json")


def run(cases, tokenizer):
    out = subprocess.run([WALK, tokenizer], input=json.dumps(cases), capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"grammar_walk: {out.returncode} {out.stderr}")
    return json.loads(out.stdout)


class Maker:
    """Random schemas of what is supported."""

    def __init__(self, rng):
        self.rng = rng
        self.defs = {}

    def name(self):
        return self.rng.choice(["a", "ab", "b", "name", "é", 'say "x"', "n1", "items", "x_y", "-", "long name", "ab c"])

    def string(self):
        r = self.rng
        way = r.randrange(6)
        if way == 0:
            low = r.randrange(5)
            return {"type": "string", "minLength": low, "maxLength": low + r.randrange(6)}
        if way == 1:
            return {"type": "string", "pattern": r.choice(
                ["^[a-z]{2,5}$", "^x", "end$", "[0-9]+", "^(é|ü|\\u00df)+$", "^[^a-z]{1,4}$", "^\\w+ \\d\\S$", '^["\\\\/]{1,3}$',
                 "^(a|bc){2,3}|z$", "^.{3}$", "\\D\\W\\s"])}
        if way == 2:
            return {"type": "string", "format": r.choice(["date", "time", "date-time", "uuid", "ipv4", "ipv6", "email",
                                                          "hostname", "duration", "uri", "uri-reference", "iri", "idn-email",
                                                          "idn-hostname", "uri-template", "json-pointer", "relative-json-pointer"])}
        if way == 3:
            return {"enum": r.sample(["a", "ab", "abc", "é\n", '"', "\\", "", "x" * 20], r.randrange(1, 5))}
        return {"type": "string"}

    def number(self):
        r = self.rng
        s = {"type": r.choice(["integer", "number"])}
        low = r.choice([0, 1, -5, -120, 7.5, -0.25, 100, 1e9, 123456])
        high = low + r.choice([0, 1, 2.5, 9, 100, 1e6])
        if r.random() < 0.6:
            s[r.choice(["minimum", "exclusiveMinimum"])] = low
        if r.random() < 0.6:
            s[r.choice(["maximum", "exclusiveMaximum"])] = high + (1 if s["type"] == "integer" else 0.5) + 1
        return s

    def array(self, depth):
        r = self.rng
        s = {"type": "array", "items": self.schema(depth - 1)}
        if r.random() < 0.3:
            s["prefixItems"] = [self.schema(depth - 1) for _ in range(r.randrange(1, 3))]
            if r.random() < 0.5:
                s["items"] = False
        n = len(s.get("prefixItems", []))
        if r.random() < 0.5:
            s["minItems"] = r.randrange(n + 1 if s["items"] is False else 3)
        if r.random() < 0.7:
            s["maxItems"] = s.get("minItems", 0) + r.randrange(3)
        return s

    def object(self, depth):
        r = self.rng
        names = list({self.name() for _ in range(r.randrange(5))})
        s = {"type": "object", "properties": {n: self.schema(depth - 1) for n in names}}
        s["required"] = r.sample(names, r.randrange(len(names) + 1))
        more = r.randrange(4)
        if more == 0:
            s["additionalProperties"] = False
        elif more == 1:
            s["additionalProperties"] = self.schema(depth - 1)
        return s

    def schema(self, depth):
        r = self.rng
        way = r.randrange(10 if depth > 0 else 5)
        if way == 0:
            return self.number()
        if way == 1:
            return {"type": r.choice(["boolean", "null", ["null", "boolean"]])}
        if way == 2:
            return {"const": r.choice([1, "x", None, True, 1.5, [1, {"a": "b"}], {"k": []}])}
        if way in (3, 4):
            return self.string()
        if way in (5, 6):
            return self.object(depth)
        if way == 7:
            return self.array(depth)
        if way == 8:
            return {"anyOf": [self.schema(depth - 1) for _ in range(r.randrange(1, 4))]}
        name = f"d{len(self.defs)}"
        self.defs[name] = {}
        self.defs[name] = {"anyOf": [self.schema(depth - 1), {"type": "object", "properties": {
            "next": {"$ref": f"#/$defs/{r.choice(list(self.defs))}"}}, "additionalProperties": False}]}
        return {"$ref": f"#/$defs/{name}"}

    def small(self):
        """A condition: parts of the schemas around it."""
        r = self.rng
        n = r.choice(["a", "ab", "b"])
        return r.choice([
            {"type": r.choice(["integer", "string", "object", "null", ["array", "boolean"]])}, {"minimum": r.randrange(-3, 9)},
            {"const": r.choice([1, "a", "ab", None, True])}, {"enum": [1, 2, "a", False]}, {"maxLength": 1}, {"minItems": 2},
            {"required": [n]}, {"properties": {n: self.number()}}, {"properties": {n: {"const": 1}}, "required": [n]},
            {"multipleOf": 1}, {"maxProperties": 1}, {"not": {"required": [n]}}, {"anyOf": [{"type": "string"}, {"maximum": 4}]}])

    def logic(self):
        """What makes alternatives of a schema, counts or remainders."""
        r = self.rng
        s = r.choice([self.object, self.object, lambda d: self.number(), lambda d: self.string(), self.array,
                      lambda d: {"enum": [1, 2, "a", "ab", None, True, [1], {"a": 1}]}])(1)
        for _ in range(r.randrange(1, 3)):
            way, (a, b) = r.randrange(13), r.sample(["a", "ab", "b"], 2)
            if way == 0:
                s["not"] = self.small()
            elif way == 1:
                s.update({"if": self.small(), "then": self.small()})
                if r.random() < 0.5:
                    s["else"] = self.small()
            elif way == 2 and s.get("type") == "object":
                s["dependentRequired"] = {a: [b]}
            elif way == 3 and s.get("type") == "object":
                s["dependentSchemas"] = {a: self.small(), b: {"properties": {a: True}}}
            elif way == 4 and s.get("type") == "array":
                s["contains"] = self.small()
                s["minContains"] = r.randrange(3)
                if r.random() < 0.5:
                    s["maxContains"] = s["minContains"] + r.randrange(2)
            elif way == 5 and s.get("type") in ("integer", "number"):
                s["multipleOf"] = r.choice([1, 2, 3, 5, 7, 10, 12, 40, 0.5, 0.25, 1.5])
            elif way == 6:
                s["oneOf"] = [self.small(), self.small()]
            elif way == 7 and s.get("type") == "object":
                s.pop("additionalProperties", None)
                s["unevaluatedProperties"] = r.choice([False, {"type": "null"}])
                s["anyOf"] = [{"properties": {a: self.number()}}, {"properties": {b: True}, "required": [b]}]
            elif way == 8 and s.get("type") == "string":
                s.pop("format", None)
                s.update({"minLength": r.randrange(3), "maxLength": r.randrange(3, 9), "not": r.choice(
                    [{"pattern": "[0-9]"}, {"enum": ["aa", "", "é"]}, {"pattern": "^[a-z]{3}"}]),
                    "allOf": [{"pattern": r.choice(["[a-z]", "^.{2}", "\\W|a$"])}]})
            elif way == 9 and s.get("type") == "object":
                s["patternProperties"] = {"^a": self.number(), r.choice(["b$", "[0-9]", "^.$"]): {"type": ["integer", "string"]}}
            elif way == 10 and s.get("type") == "object":
                s["minProperties"] = r.randrange(len(s["properties"]) + 1)
                s["maxProperties"] = s["minProperties"] + r.randrange(3)
            elif way == 11 and s.get("type") == "object":
                s["propertyNames"] = r.choice([{"maxLength": 2}, {"pattern": "^[a-z]*$"}, {"not": {"enum": ["a", "zz"]}}])
            elif way == 12:
                s = {"type": "array", "items": {"enum": r.sample([1, 2, "a", "b", None, True, [1]], 4)}, "uniqueItems": True,
                     "minItems": r.randrange(4)}
            else:
                s["allOf"] = [self.small(), {"not": self.small()}]
        return s

    def whole(self):
        s = self.schema(3)
        return {**s, "$defs": self.defs} if self.defs else s


def walks(args):
    rng = random.Random(args.seed)
    schemas = [Maker(rng).whole() for _ in range(args.rounds)] + [Maker(rng).logic() for _ in range(args.rounds)]
    cases = [{"kind": "json_schema", "source": json.dumps(s, ensure_ascii=False), "walks": 6, "tokens": 1500, "seed": i}
             for i, s in enumerate(schemas)]
    passed = failed = unfinished = refused = unsupported = 0
    for schema, got in zip(schemas, run(cases, args.tokenizer)):
        bad = []
        if got["status"] == "INVALID" and "nothing matches" in got["error"]:
            refused += 1
            continue
        if got["status"] == "UNSUPPORTED" and any(k in json.dumps(schema) for k in ("not", "if", "oneOf", "contains", "allOf", "patternProp")):
            unsupported += 1
            continue
        if got["status"] != "OK":
            bad.append(f"{got['status']} {got['error']}")
        validator = jsonschema.Draft202012Validator(schema)
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        for w in got["walks"]:
            if w["stuck"]:
                bad.append(f"stuck after {w['text']!r}")
            if not w["whole"]:
                unfinished += 1
                continue
            try:
                value = json.loads(w["text"])
                validator.validate(value)
                for path, text in formats(schema, value):
                    checker.check(text, path)
            except Exception as e:
                bad.append(f"{w['text']!r}: {type(e).__name__} {str(e)[:200]}")
        passed += not bad
        failed += bool(bad)
        for b in bad[:2]:
            print(f"FAIL {json.dumps(schema, ensure_ascii=False)[:600]}\n     {b}")
    print(f"schemas: {passed} passed, {refused} that nothing matches, {unsupported} refused by name; {unfinished} of {6 * len(schemas)} walks unfinished")
    return passed, failed


def formats(schema, value):
    """The strings whose format is plain to see: at the top, or a property's."""
    if isinstance(schema, dict) and isinstance(value, str) and "format" in schema:
        yield schema["format"], value
    if isinstance(schema, dict) and isinstance(value, dict):
        for k, s in schema.get("properties", {}).items():
            if k in value:
                yield from formats(s, value[k])


def others(args):
    """Regular expressions against re, choices, numbers against arithmetic."""
    patterns = [r"[a-c]+\d{2,3}", r"(foo|ba[rz])(-\w+)?", r"\S{3}\s\S", r"[^\d\W]{4}", r".{5}", r"\D\W\w", r"(\+|-)?\d+(\.\d+)?",
                r"[\u00e0-\u00fc]{3}|\x41+", r"(a|b)*abb", r"[\s\S]{2}", r"x{2,}y{,3}", r"^start.{0,4}end$", r"\W{3}", r"[^\s]{3}",
                r"(?:[01]\d|2[0-3]):[0-5]\d"]
    cases = [{"kind": "regex", "source": p, "walks": 40, "tokens": 60, "seed": i} for i, p in enumerate(patterns)]
    passed = failed = 0
    for p, got in zip(patterns, run(cases, args.tokenizer)):
        bad = [w["text"] for w in got["walks"] if w["whole"] and not re.fullmatch(p, w["text"])]
        some = any(w["whole"] for w in got["walks"])
        passed += not bad and some
        failed += bool(bad) or not some
        if bad or not some:
            print(f"FAIL {p} {got['error']} {bad[:3]!r}")
    return passed, failed


def same_order(schema, value):
    """A value's keys in the order of the schema's properties, as answers have them."""
    if isinstance(value, dict) and isinstance(schema, dict):
        names = list(schema.get("properties", {})) + [k for k in schema.get("required", []) if isinstance(k, str)]
        keys = [k for k in dict.fromkeys(names) if k in value] + [k for k in value if k not in names]
        return {k: same_order(schema.get("properties", {}).get(k), value[k]) for k in keys}
    if isinstance(value, list) and isinstance(schema, dict):
        return [same_order(schema.get("items"), v) for v in value]
    return value


def suite(args):
    """The official cases. Accepting what is invalid is a failure; refusing what is valid is counted, with the reason that
    docs/GRAMMAR.md gives: answers are of one type, have no keys of their own, and one spelling."""
    folder = os.path.join(args.suite, "tests", "draft2020-12")
    table, wrong = [], []
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".json"):
            continue
        groups = json.load(open(os.path.join(folder, file), encoding="utf-8"))
        groups = [g for g in groups if isinstance(g["schema"], dict)]
        cases = [{"kind": "json_schema", "source": json.dumps(g["schema"], ensure_ascii=False),
                  "texts": [json.dumps(same_order(g["schema"], t["data"]), ensure_ascii=False, separators=(",", ":"))
                            for t in g["tests"]]} for g in groups]
        row = dict(file=file, schemas=len(groups), refused=0, nothing=0, valid=0, accepted=0, invalid=0, rejected=0)
        for g, case, got in zip(groups, cases, run(cases, args.tokenizer)):
            if got["status"] != "OK":
                row["nothing" if "nothing matches" in got["error"] else "refused"] += 1
                if args.verbose:
                    print(f"  {file}: {g['description']}: {got['status']} {got['error']}")
                continue
            for t, text, accepts in zip(g["tests"], case["texts"], got["accepts"]):
                row["valid" if t["valid"] else "invalid"] += 1
                row["accepted" if t["valid"] else "rejected"] += accepts == t["valid"]
                if not t["valid"] and accepts:
                    wrong.append(f"{file}: {g['description']}: {t['description']}: {text}")
                elif t["valid"] and not accepts and args.verbose:
                    print(f"  {file}: {g['description']}: {t['description']}: not accepted: {text}")
        table.append(row)
    for row in table:
        print("{file:28} schemas {schemas:3} refused {refused:3} nothing {nothing:3}  valid {accepted:3}/{valid:3}  "
              "invalid {rejected:3}/{invalid:3}".format(**row))
    total = {k: sum(r[k] for r in table) for k in table[0] if k != "file"}
    print("all", total)
    for w in wrong:
        print("ACCEPTED", w)
    return total["rejected"], len(wrong)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--suite")
    p.add_argument("--rounds", type=int, default=300)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--tokenizer", default=TINY)
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    subprocess.run(["make", "-s", "-C", ROOT, "MAKE_DEPS_DONE=1", os.path.relpath(WALK, ROOT)], check=True, stdout=subprocess.DEVNULL)
    parts = [suite(args)] if args.suite else [walks(args), others(args)]
    passed, failed = sum(p[0] for p in parts), sum(p[1] for p in parts)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed > 0


sys.exit(main())
