"""Embeddings against transformers + PEFT (tests/golden/make_embeddings.py), through three APIs, alone and in a crowd."""
import base64, concurrent.futures, json, math, os, struct

import ollama
import pytest

from harness import DATA, Server

with open(os.path.join(DATA, "embeddings.json")) as f:
    CASES = json.load(f)


def vectors(s, voice, given, **more):
    status, answer = s.post("/v1/embeddings", {"model": voice, "input": given, **more})
    assert status == 200, answer
    assert [d["index"] for d in answer["data"]] == list(range(len(answer["data"])))
    return [d["embedding"] for d in answer["data"]]


def check(s, family, names):
    for voice in {c["adapter"] for c in CASES if c["family"] == family}:
        cases = [c for c in CASES if c["family"] == family and c["adapter"] == voice]
        for pooling in ("mean", "last"):
            got = vectors(s, names[voice], [c["ids"] for c in cases], pooling=pooling)
            for c, v in zip(cases, got):
                assert max(abs(a - b) for a, b in zip(v, c[pooling])) < 2e-5, (family, voice, pooling, len(c["ids"]))
                assert abs(math.hypot(*v) - 1) < 1e-6


@pytest.mark.parametrize("family", sorted({c["family"] for c in CASES}))
def test_they_are_transformers(family):
    voices = [c["adapter"] for c in CASES if c["family"] == family and c["adapter"]]
    with Server(os.path.join(DATA, "models", family, "f32"),
                {v: os.path.join(DATA, "adapters", family, v) for v in voices}, ["--threads", "2", "--step-tokens", "16", "--sequences", "8"]) as s:
        check(s, family, {None: "base", **{v: v for v in voices}})


def test_the_openai_package(client, server):
    one = client.embeddings.create(model="qv_r4", input="The parrot")
    many = client.embeddings.create(model="qv_r4", input=["The parrot", "A bird"], encoding_format="float")
    assert len(one.data) == 1 and len(one.data[0].embedding) == 32 and one.model == "qv_r4"
    assert many.data[0].embedding == pytest.approx(one.data[0].embedding, abs=1e-7)
    assert many.usage.prompt_tokens == many.usage.total_tokens > one.usage.total_tokens > 0
    base = client.embeddings.create(model="tiny", input="The parrot")
    assert base.data[0].embedding != one.data[0].embedding
    ids = server.post("/tokenize", {"content": "The parrot", "add_special": True})[1]["tokens"]
    assert client.embeddings.create(model="qv_r4", input=ids).data[0].embedding == one.data[0].embedding


def test_base64_is_the_same_floats(server):
    plain = vectors(server, "tiny", "Hello")[0]
    packed = base64.b64decode(vectors(server, "tiny", "Hello", encoding_format="base64")[0])
    assert list(struct.unpack(f"<{len(plain)}f", packed)) == [struct.unpack("<f", struct.pack("<f", x))[0] for x in plain]


def test_fewer_dimensions_are_the_first_ones(server):
    whole, part = vectors(server, "tiny", "Hello")[0], vectors(server, "tiny", "Hello", dimensions=8)[0]
    n = math.hypot(*whole[:8])
    assert part == pytest.approx([x / n for x in whole[:8]], abs=1e-6) and len(part) == 8


def test_alone_and_in_a_crowd_they_are_the_same_bytes(server):
    texts = [f"bird {i} " * (1 + i % 9) for i in range(40)]
    alone = [vectors(server, ("tiny", "qv_r4")[i % 2], t)[0] for i, t in enumerate(texts)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        chats = [pool.submit(server.post, "/v1/completions", {"model": "shows_A", "prompt": "x", "max_tokens": 40,
                                                             "ignore_eos": True}) for _ in range(8)]
        crowd = list(pool.map(lambda i: vectors(server, ("tiny", "qv_r4")[i % 2], texts[i])[0], range(len(texts))))
    assert crowd == alone
    assert all(c.result()[1]["choices"][0]["text"] == "A" * 40 for c in chats)
    assert vectors(server, "tiny", texts[::2]) == alone[::2]


def test_many_inputs_wait_for_their_turn(server):
    got = vectors(server, "tiny", [f"a {i % 7}" for i in range(600)])
    assert len(got) == 600 and got[0] == got[7] and got[0] != got[1]
    status, answer = server.post("/v1/embeddings", {"model": "tiny", "input": ["x"] * 2049})
    assert status == 400 and "2048" in answer["error"]["message"]


def test_the_ollama_package(server):
    llama = ollama.Client(host=server.url)
    wanted = vectors(server, "qv_r4", ["The parrot", "A bird"])
    r = llama.embed(model="qv_r4:latest", input=["The parrot", "A bird"])
    assert r.embeddings == wanted and r.prompt_eval_count > 2 and r.model == "qv_r4:latest"
    assert llama.embed(model="qv_r4", input="A bird").embeddings == wanted[1:]
    old = llama.embeddings(model="qv_r4", prompt="A bird").embedding
    n = math.hypot(*old)
    assert [x / n for x in old] == pytest.approx(wanted[1], abs=1e-6)


@pytest.mark.parametrize("body, named", [
    ({"input": None}, "input"), ({"input": []}, "input"), ({"input": 3}, "input"), ({"input": ""}, "input"),
    ({"input": [[]]}, "input"), ({"input": [1, 100000]}, "input"), ({"input": ["x", 3]}, "input"),
    ({"input": "word " * 5000}, "context"),
    ({"encoding_format": "hex"}, "encoding_format"), ({"dimensions": 33}, "dimensions"), ({"dimensions": 0}, "dimensions"),
    ({"pooling": "max"}, "pooling"),
])
def test_what_is_wrong_is_named(server, body, named):
    body = {k: v for k, v in {"model": "tiny", "input": "x", "add_special_tokens": False, **body}.items() if v is not None}
    status, answer = server.post("/v1/embeddings", body)
    assert status == 400 and named in answer["error"]["message"], answer


def test_an_unknown_voice_is_not_found(server):
    assert server.post("/v1/embeddings", {"model": "nobody", "input": "x"})[0] == 404
