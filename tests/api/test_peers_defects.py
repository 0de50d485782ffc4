"""What other servers get wrong with adapters, one test each, named after what went wrong there."""
import concurrent.futures
import json
import threading
import time
import urllib.request

from harness import ask_ids
from test_blends import PROMPT, ask, ids_of, refused, speak

LONG = [1] + [(5 * k) % 370 + 4 for k in range(40)]  # long enough for whole pages of KV


def alone(server, voice, prompt=LONG):
    return ask_ids(server, voice, prompt, 12)


def by_numbers(server, scales, prompt=LONG):
    number = ids_of(server)
    status, answer, _ = ask(server, prompt=prompt, max_tokens=12, temperature=0, ignore_eos=True, return_token_ids=True,
                            lora=[{"id": number[n], "scale": s} for n, s in scales.items()])
    assert status == 200, answer
    return answer["choices"][0]["token_ids"]


def test_llama_server_loaded_without_apply_still_applied_all_of_them(server):
    # Adapters are loaded and no request has named one: the base answers.
    assert all(a["scale"] == 0 for a in server.get("/lora-adapters")[1])
    got, head, _ = speak(server)
    assert head["x-adapter"] == "none" and got == speak(server, model="tiny")[0]


def test_llama_server_base_after_an_adapter_reused_its_kv(server):
    clean = alone(server, "tiny")
    for _ in range(3):
        assert by_numbers(server, {"qv_r4": 1}) == alone(server, "qv_r4") != clean
        assert alone(server, "tiny") == clean
        assert by_numbers(server, {"qv_r4": 0}) == clean


def test_llama_server_prompt_cache_gave_one_adapter_anothers_state(server):
    p, q = LONG, [*LONG[:20], 77, *LONG[21:]]
    want = alone(server, "rslora_r8", p)
    by_numbers(server, {"qv_r4": 1}, p)
    by_numbers(server, {"rslora_r8": 1}, q)
    assert by_numbers(server, {"rslora_r8": 1}, p) == want


def test_two_weights_of_one_adapter_share_no_state(server):
    want = {w: by_numbers(server, {"qv_r4": w}) for w in (0.5, 1, -1)}
    assert len({tuple(v) for v in want.values()}) == 3
    for w in (1, 0.5, -1, 0.5):
        assert by_numbers(server, {"qv_r4": w}) == want[w]


def test_llama_server_unknown_ids_were_answered_by_the_base(server):
    refused(server, 400, "there is no adapter with id 4000", lora=[{"id": 4000, "scale": 1}])


def test_llama_server_said_success_to_a_path_and_loaded_nothing(server):
    before = server.get("/lora-adapters")[1]
    status, text = server.admin_request("POST", "/lora-adapters", [{"path": "/tmp/x.gguf", "scale": 1}])
    assert status == 400 and "path" in text and "success" not in text
    assert server.get("/lora-adapters")[1] == before


def test_llama_server_starved_other_adapters(server):
    """While one adapter's requests fill the server, another one's is served among them, not behind them."""
    ended, begun = {}, threading.Event()

    def stream(n):
        body = {"model": "qv_r4", "prompt": PROMPT, "max_tokens": 400, "ignore_eos": True, "stream": True}
        request = urllib.request.Request(server.url + "/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as reply:
            reply.readline()
            begun.set()
            reply.read()
        ended[n] = time.monotonic()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(stream, n) for n in range(16)]
        assert begun.wait(60)
        assert len(alone(server, "head_r4", PROMPT)) == 12
        here = time.monotonic()
        for job in jobs:
            job.result()
    assert here < sorted(ended.values())[8]  # long before they are through


def test_openvino_two_adapters_in_one_call_both_ran_as_the_first(server):
    voices = ["qv_r4", "rslora_r8", "tiny", "qv_r4+rslora_r8", "patterns"]
    want = [alone(server, v) for v in voices]
    assert len({tuple(w) for w in want}) == len(voices)
    with concurrent.futures.ThreadPoolExecutor(len(voices)) as pool:
        assert list(pool.map(lambda v: alone(server, v), voices)) == want


def test_openvino_streams_ignored_the_adapter(server):
    body = {"prompt": LONG, "max_tokens": 12, "temperature": 0, "ignore_eos": True, "return_token_ids": True, "stream": True,
            "adapters": [{"name": "qv_r4"}]}
    status, events = server.post("/v1/completions", body)
    chunks = [json.loads(l[6:]) for l in events.split("\n") if l.startswith("data: {")]
    assert status == 200 and [i for c in chunks for i in c["choices"][0].get("token_ids", [])] == alone(server, "qv_r4")


def test_fields_of_other_servers_that_name_an_adapter_are_never_ignored(server):
    for field in ("lora_path", "adapter_id", "lora_request", "adapter"):
        refused(server, 400, "leave " + field + " out", **{field: "qv_r4"})
