#!/usr/bin/env python3
"""Mutates model and adapter files and request bodies; the program must refuse or survive, never crash or hang.

Files go through `lorikeet inspect` (header, metadata, config and tensor table of bases and adapters) of the build with
AddressSanitizer: exit code 0 or 1 and one sentence are right; a signal, a sanitizer's report or 20 s without an end are
not. Bodies go to a running server: any HTTP answer below 500 is right, and the server must still answer afterwards.
Chat templates (those of the golden cases and of ../shared) go through test_jinja_goldens --lines: any answer is right.
Schemas, regular expressions and GBNF go through grammar_walk, which compiles each and walks a little way through it.
A failing input is kept under build/fuzz/.
"""
import argparse, glob, json, os, random, shutil, struct, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import DATA, ROOT, SHARED, Server

BINARY = os.path.join(ROOT, "build", "asan", "lorikeet")
TEMPLATES = os.environ.get("JINJA_LINES", os.path.join(ROOT, "build", "asan", "tests", "golden", "test_jinja_goldens"))
GRAMMARS = os.environ.get("GRAMMAR_WALK", os.path.join(ROOT, "build", "asan", "tests", "sampling", "grammar_walk"))
KEEP = os.path.join(ROOT, "build", "fuzz")
BODIES = [
    {"model": "base", "prompt": "hello", "max_tokens": 4},
    {"model": "base", "prompt": [[1, 2], [3]], "max_tokens": 2, "logprobs": 3, "n": 2, "stop": ["a", "b"], "seed": 5},
    {"model": "qv_r4", "messages": [{"role": "user", "content": [{"type": "text", "text": "é"}]}], "max_tokens": 3,
     "temperature": 0.7, "top_p": 0.9, "top_k": 5, "logit_bias": {"5": -100}, "stream": True,
     "stream_options": {"include_usage": True}},
    {"model": "base:0.5*qv_r4+0.25 * qv_r4@1", "prompt": "x", "max_tokens": 1},
    {"adapters": [{"name": "qv_r4", "scale": 0.5}, {"name": "qv_r4@1"}], "lora": [{"id": 0, "scale": 1.5}], "prompt": "x",
     "user": "u", "max_tokens": 1},
    {"model": "base", "prompt": "x", "max_tokens": 9, "guided_json": {"type": "object", "properties": {"a": {"enum": ["x", 1]},
     "b": {"$ref": "#/$defs/c"}}, "required": ["a"], "$defs": {"c": {"type": "array", "items": {"type": "integer", "maximum": 9}}}}},
    {"model": "base", "prompt": "x", "max_tokens": 9, "structured_outputs": {"regex": "(a|b)*[c-e]{2,3}"}},
    {"model": "base", "prompt": "x", "max_tokens": 9, "guided_choice": ["one", "two"], "n": 2},
    {"model": "base", "prompt": "x", "max_tokens": 9, "grammar": "root ::= \"a\" b?\nb ::= [0-9]+ root"},
]
GRAMMAR_SEEDS = [
    ("json_schema", json.dumps(BODIES[-4]["guided_json"])),
    ("json_schema", '{"anyOf":[{"type":"string","pattern":"^a+$","minLength":1},{"type":"number","exclusiveMinimum":-1.5,"maximum":1e9}],'
     '"nullable":true,"description":"x"}'),
    ("json_schema", '{"allOf":[{"type":"object","properties":{"t":{"const":"a"}},"required":["t"]},{"properties":{"u":{"type":["null",'
     '"string"],"format":"date-time","maxLength":40}},"additionalProperties":{"$ref":"#"}}],"minProperties":1}'),
    ("json_schema", '{"oneOf":[{"type":"array","prefixItems":[{"type":"boolean"},{}],"items":{"type":"string","maxLength":9},"minItems":1,'
     '"maxItems":5},{"type":"integer"}],"$defs":{"a":{"$ref":"#/$defs/a"}}}'),
    ("json_schema", '{"$id":"http://h/a","type":"object","properties":{"k":{"enum":["a","b"]},"n":{"type":"integer","multipleOf":12,"maximum":'
     '500}},"if":{"properties":{"k":{"const":"a"}}},"then":{"required":["n"]},"else":{"not":{"required":["n"]}},"dependentRequired":{"n":["k"]},'
     '"unevaluatedProperties":false,"minProperties":1,"maxProperties":3,"$defs":{"x":{"$anchor":"y","type":"string"}}}'),
    ("json_schema", '{"oneOf":[{"type":"array","items":{"type":"integer"},"contains":{"minimum":5},"minContains":2,"maxContains":3,"maxItems":6},'
     '{"type":"array","items":{"enum":["a","b",1,null]},"uniqueItems":true,"minItems":1},{"type":"string","pattern":"^a.*b$","minLength":3,'
     '"maxLength":9,"not":{"pattern":"c|\\\\d"},"format":"hostname"}]}'),
    ("json_schema", '{"allOf":[{"patternProperties":{"^a":{"type":"number","multipleOf":0.5},"b$":{"$ref":"#/$defs/s"}},"propertyNames":{"maxLength":4}},'
     '{"properties":{"ab":{"minimum":1}},"additionalProperties":{"$dynamicRef":"#n"}}],"$defs":{"s":{"$dynamicAnchor":"n","not":{"enum":["x",2,{}]}}}}'),
    ("regex", r"^(?:(a|b)*?c{2,5}|[^\d\s\u00e9-\uffff]+)\.\w?$"), ("regex", r"((\d{1,3}\.){3}\d|[\[\]a-f-])+|.x"),
    ("gbnf", 'root ::= (expr "=" term "\\n")+\nexpr ::= term ([-+*/] term)* # x\nterm ::= [0-9]{1,3} | "(" expr ")" | "é\\x41"'),
    ("gbnf", 'root ::= a b{2,} | [^\\]"a-]* .\na ::= "" | "x" a\nb ::= ( "y" | root )? "z"'), ("choice", '["a","ab","é",""]'),
]
VALUES = [None, True, -1, 0, 1, 2**31, 2**63, -2**63, 1e308, 1e-320, "", "\u0000", "é\ud83d", [], {}, [[[[]]]], "x" * 5000]


def mutate_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not data:
            break
        # Mostly near the start, where headers, counts and offsets are.
        at = min(int(rng.expovariate(1 / min(len(data), 2000))), len(data) - 1)
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff))
        elif kind == 2:
            data[at:at + 8] = struct.pack("<Q", rng.choice((0, 1, 2**31, 2**32, 2**63 - 1, 2**64 - 1, len(data))))
        elif kind == 3:
            del data[at:at + rng.randrange(1, 64)]
        elif kind == 4:
            data[at:at] = data[at:at + rng.randrange(1, 64)]
        elif kind == 5:
            del data[at:]
        else:
            data[at:at + 4] = struct.pack("<I", rng.choice((0, 8, 9, 2**31, 2**32 - 1)))
    return bytes(data)


def mutate_json(value, rng):
    if rng.random() < 0.25:
        return rng.choice(VALUES)
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return {**value, key: mutate_json(value[key], rng)}
    if isinstance(value, list) and value:
        i = rng.randrange(len(value))
        return value[:i] + [mutate_json(value[i], rng)] + value[i + 1:]
    return rng.choice(VALUES)


def keep(name, data):
    os.makedirs(KEEP, exist_ok=True)
    path = os.path.join(KEEP, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def stamped_adapter(target):
    """An adapter with all that may lie beside it."""
    shutil.copytree(os.path.join(DATA, "adapters", "llama", "qv_r4"), target)
    subprocess.run([BINARY, "stamp", target, "--model", os.path.join(DATA, "models", "llama", "f32")], check=True,
                   capture_output=True)
    with open(os.path.join(target, "probes.jsonl"), "w") as f:
        f.write('{"prompt": "hello"}\n{"tokens": [1, 2, 383]}\n')
    return target


def fuzz_files(rng, seconds):
    seeds = [os.path.join(DATA, "models", f, "f32") for f in ("llama", "gemma3")]
    seeds += [os.path.join(DATA, "adapters", f, a) for f, a in
              (("llama", "qv_r4"), ("llama", "patterns"), ("llama", "dora_embed_r3"), ("llama", "tokens_r2"), ("llama", "alora_r4"),
               ("gpt2", "bias_all_r2"), ("mixtral", "experts_r2"), ("mixtral", "per_expert_r2"), ("mistral", "tokens_both_r2"))]
    seeds += glob.glob(os.path.join(SHARED, "goldens", "gguf", "*.gguf"))
    n = bad = 0
    with tempfile.TemporaryDirectory() as folder:
        seeds += [stamped_adapter(os.path.join(folder, "stamped"))] * 4
        end = time.time() + seconds
        while time.time() < end:
            seed = rng.choice(seeds)
            target = os.path.join(folder, "x.gguf" if seed.endswith(".gguf") else "x")
            if os.path.isdir(seed):
                shutil.copytree(seed, target, dirs_exist_ok=True)
                victim = os.path.join(target, rng.choice(sorted(os.listdir(target))))
            else:
                shutil.copy(seed, target)
                victim = target
            with open(victim, "rb") as f:
                data = mutate_bytes(f.read(), rng)
            with open(victim, "wb") as f:
                f.write(data)
            try:
                r = subprocess.run([BINARY, "inspect", target], capture_output=True, timeout=20)
                why = None if r.returncode in (0, 1) and b"Sanitizer" not in r.stderr and b"runtime error" not in r.stderr \
                    else f"exit code {r.returncode}: {r.stderr[-600:].decode(errors='replace')}"
            except subprocess.TimeoutExpired:
                why = "hangs"
            n += 1
            if why:
                bad += 1
                print(f"FAIL {seed}: {os.path.basename(victim)}: {why}\n  kept: {keep(f'file-{n}-' + os.path.basename(victim), data)}")
            shutil.rmtree(target) if os.path.isdir(target) else os.remove(target)
    print(f"files: {n} mutants, {bad} bad")
    return n - bad, bad


def template_seeds():
    with open(os.path.join(DATA, "jinja.json")) as f:
        goldens = json.load(f)
    seeds = [case[0] for case in goldens["cases"]]
    for path in glob.glob(os.path.join(SHARED, "goldens", "chat", "*.json")):
        with open(path) as f:
            seeds += [json.load(f).get("template", "")] * 20
    return seeds, goldens["variables"]


def mutate_template(seeds, rng):
    """Pieces of others put in, taken out or said over and over, so that much of it still parses."""
    text = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 4))):
        other = rng.choice(seeds)
        at, start, length = rng.randrange(len(text) + 1), rng.randrange(len(other) + 1), rng.choice((1, 2, 4, 10, 40, 400))
        kind = rng.randrange(5)
        piece = other[start:start + length]
        if kind == 0:
            text = text[:at] + text[at + length:]
        elif kind == 1:
            text = text[:at] + piece + text[at:]
        elif kind == 2:
            text = text[:at] + piece + text[at + length:]
        elif kind == 3:
            text = text[:at] + piece[:40] * rng.choice((2, 50, 3000)) + text[at:]
        else:
            numbers = ("0", "-1", "99", "100000", "9223372036854775807", "1e308", "10**18", "'a' * 99999")
            text = text[:at] + rng.choice(numbers) + text[at + 1:]
    return text[:200000]


def fuzz_templates(rng, seconds):
    seeds, variables = template_seeds()
    n = bad = 0
    end = time.time() + seconds
    while time.time() < end:
        batch = [mutate_template(seeds, rng) for _ in range(50)]
        lines = "".join(json.dumps([text, variables]) + "\n" for text in batch)
        try:
            r = subprocess.run([TEMPLATES, "--lines"], input=lines.encode(), capture_output=True, timeout=120)
            done, why = r.stdout.count(b"\n"), None if r.returncode == 0 else r.stderr[-600:].decode(errors="replace")
        except subprocess.TimeoutExpired as late:
            done, why = (late.stdout or b"").count(b"\n"), "hangs"
        n += len(batch)
        if why or done < len(batch):
            bad += 1
            print(f"FAIL template: {why}\n  kept: {keep(f'template-{n}.jinja', batch[min(done, 49)].encode(errors='replace'))}")
    print(f"templates: {n} mutants, {bad} bad")
    return n - bad, bad


def fuzz_grammars(rng, seconds):
    tokenizer = os.path.join(DATA, "models", "llama", "f32", "tokenizer.json")
    n = bad = 0
    end = time.time() + seconds
    while time.time() < end:
        batch = []
        for _ in range(30):
            kind, text = rng.choice(GRAMMAR_SEEDS)
            if kind == "json_schema" and rng.random() < 0.5:
                text = json.dumps(mutate_json(json.loads(text), rng))
            for _ in range(rng.choice((0, 1, 2, 5))):
                other = rng.choice(GRAMMAR_SEEDS)[1]
                at, start, length = rng.randrange(len(text) + 1), rng.randrange(len(other)), rng.choice((1, 2, 8, 40))
                text = text[:at] + other[start:start + length] * rng.choice((1, 1, 1, 60)) + text[at + rng.choice((0, length)):]
            batch.append({"kind": kind, "source": text.replace("\0", ""), "texts": ["a", "{}"], "walks": 2, "tokens": 30, "seed": n})
        try:
            r = subprocess.run([GRAMMARS, tokenizer], input=json.dumps(batch).encode(), capture_output=True, timeout=300)
            why = None if r.returncode == 0 else f"exit code {r.returncode}: {r.stderr[-600:].decode(errors='replace')}"
        except subprocess.TimeoutExpired:
            why = "hangs"
        n += len(batch)
        if why:
            bad += 1
            print(f"FAIL grammars: {why}\n  kept: {keep(f'grammars-{n}.json', json.dumps(batch).encode())}")
    print(f"grammars: {n} mutants, {bad} bad")
    return n - bad, bad


def fuzz_bodies(rng, seconds):
    n = bad = 0
    os.environ["LORIKEET"] = BINARY
    import harness
    harness.BINARY = BINARY
    end = time.time() + seconds
    with Server(os.path.join(DATA, "models", "llama", "f32"), {"qv_r4": os.path.join(DATA, "adapters", "llama", "qv_r4")}) as s:
        while time.time() < end:
            body = rng.choice(BODIES)
            for _ in range(rng.choice((1, 1, 2, 3))):
                body = mutate_json(body, rng)
            path = rng.choice(("/v1/completions", "/v1/chat/completions", "/tokenize", "/apply-template"))
            n += 1
            try:
                status, answer = s.post(path, body, timeout=30)
                why = None if status < 500 or status == 503 else f"{status} {answer}"
            except (OSError, ValueError) as error:
                why = repr(error)
            if why or s.process.poll() is not None:
                bad += 1
                print(f"FAIL {path}: {why}\n  kept: {keep(f'body-{n}.json', json.dumps(body).encode())}")
                if s.process.poll() is not None:
                    break
        if s.post("/v1/completions", BODIES[0])[0] != 200:
            bad += 1
            print("FAIL the server no longer answers")
    print(f"bodies: {n} mutants, {bad} bad")
    return n - bad, bad


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=int, default=60)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", default="files,templates,grammars,bodies")
    a = p.parse_args()
    rng = random.Random(a.seed)
    known = {"files": fuzz_files, "templates": fuzz_templates, "grammars": fuzz_grammars, "bodies": fuzz_bodies}
    parts = [known[name] for name in a.only.split(",")]
    good, bad = (sum(x) for x in zip(*(part(rng, a.seconds) for part in parts)))
    print(f"{good} passed, {bad} failed, 0 skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
