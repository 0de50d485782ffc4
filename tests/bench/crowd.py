"""Two servers that speak to a crowd, ours and llama-server, and the crowd: N clients at once, each with one streamed
request. Standard library only."""
import asyncio, json, os, random, signal, subprocess, sys, tempfile, time, urllib.request

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."), os.path.dirname(os.path.abspath(__file__))]
from harness import BINARY, free_port
from pieces import percentile


def status_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        fields = dict(line.split(":", 1) for line in f)
    return {name: int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM")}


class Program:
    """A server in a process of its own; `ready_s` is the time from its start to the first good answer of `probe`."""
    probe = "/readyz"

    def __init__(self, command, env=None):
        self.command, self.env = command, env

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        begin = time.perf_counter()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT, env=self.env)
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.probe}", timeout=5) as reply:
                    if reply.status == 200:
                        break
            except OSError:
                pass
            if self.process.poll() is not None or time.perf_counter() - begin > 110:
                self.stop()
                self.log.seek(0)
                raise SystemExit(f"{' '.join(self.command)} did not become ready:\n{self.log.read()[-2000:]}")
            time.sleep(0.005)
        self.ready_s = time.perf_counter() - begin
        self.prepare()
        return self

    def prepare(self):
        pass

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __exit__(self, *_):
        self.stop()
        self.log.close()

    def memory(self):
        return status_kib(self.process.pid)


class Ours(Program):
    name = "lorikeet"

    def __init__(self, model, adapters=(), threads=2, sequences=16, context=512, more=()):
        self.port, self.adapters = free_port(), list(adapters)
        command = [BINARY, "serve", "--model", model, "--name", "base", "--listen", f"127.0.0.1:{self.port}", "--admin-listen", "off",
                   "--threads", str(threads), "--sequences", str(sequences), "--context", str(context), "--log-level", "warn",
                   "--state", "off", "--effect-test", "off", *more]
        for i, path in enumerate(self.adapters):
            command += ["--adapter", f"v{i}={path}"]
        super().__init__(command)

    def request(self, voice, prompt, n_out):
        return "/v1/completions", {"model": "base" if voice is None else f"v{voice}", "prompt": prompt, "max_tokens": n_out, "temperature": 0,
                                   "ignore_eos": True, "stream": True, "return_token_ids": True}

    @staticmethod
    def tokens_of(event):
        return sum(len(c.get("token_ids") or ()) for c in event.get("choices", ())), None


class Peer(Program):
    name = "llama-server"
    probe = "/health"

    def __init__(self, folder, model, adapters=(), threads=2, sequences=16, context=512, more=()):
        self.port, self.adapters = free_port(), list(adapters)
        command = [os.path.join(folder, "llama-server"), "-m", model, "-t", str(threads), "-tb", str(threads), "-np", str(sequences),
                   "-c", str(context * sequences), "--host", "127.0.0.1", "--port", str(self.port), "--no-webui", "--offline",
                   "--cache-ram", "0", *more]
        if self.adapters:
            command += ["--lora", ",".join(self.adapters), "--lora-init-without-apply"]
        super().__init__(command, peer_env(folder))

    def prepare(self):
        """A request without "lora" gets the global scales, which are 1 even after --lora-init-without-apply."""
        body = json.dumps([{"id": i, "scale": 0.0} for i in range(len(self.adapters))]).encode()
        if self.adapters:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/lora-adapters", body,
                                                          {"Content-Type": "application/json"}), timeout=60).read()

    def request(self, voice, prompt, n_out):
        body = {"prompt": prompt, "n_predict": n_out, "temperature": 0, "ignore_eos": True, "stream": True, "cache_prompt": False,
                "return_tokens": True}
        if voice is not None:
            body["lora"] = [{"id": voice, "scale": 1.0}]
        return "/completion", body

    @staticmethod
    def tokens_of(event):
        """A token that ends within a character has no event: the last event has the number of all."""
        return (0, event["tokens_predicted"]) if event.get("stop") else (len(event.get("tokens") or ()), None)


def peer_env(folder):
    return dict(os.environ, LD_LIBRARY_PATH=folder + os.pathsep + os.environ.get("LD_LIBRARY_PATH", ""))


async def ask(server, voice, prompt, n_out):
    """When it was sent, [(time, tokens)] of its events, and how many tokens came."""
    path, body = server.request(voice, prompt, n_out)
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    begin, stamps, total = time.perf_counter(), [], None
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise SystemExit(f"{server.name}: {head.decode()}{(await reader.read(2000)).decode(errors='replace')}")
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            now = time.perf_counter()
            n, total = server.tokens_of(json.loads(line[6:]))
            if n:
                stamps.append((now, n))
    writer.close()
    return begin, stamps, total or sum(n for _, n in stamps)


def ids(seed, n, below):
    rng = random.Random(seed)
    return [rng.randrange(below // 100, below) for _ in range(n)]  # the first ones are special


async def crowd_run(server, voices, n_in, n_out, seed, below):
    begin = time.perf_counter()
    asked = await asyncio.gather(*(ask(server, v, ids(seed * 1000 + i, n_in, below), n_out) for i, v in enumerate(voices)))
    seconds = time.perf_counter() - begin
    n = sum(total for _, _, total in asked)
    waits = [1000 * (stamps[0][0] - sent) for sent, stamps, _ in asked]
    gaps = [1000 * (b[0] - a[0]) / b[1] for _, stamps, _ in asked for a, b in zip(stamps, stamps[1:]) for _ in range(b[1])]
    if n != len(voices) * n_out:
        raise SystemExit(f"{server.name}: {n} tokens came, {len(voices) * n_out} were asked for")
    return {"rate": n / seconds, "seconds": seconds, "ttft_p50": percentile(waits, 50), "ttft_max": max(waits),
            "gap_p50": percentile(gaps, 50), "gap_p99": percentile(gaps, 99)}


def crowd(server, voices, n_in, n_out, seed, below):
    """One request for each voice (None: the base), all at once."""
    return asyncio.run(crowd_run(server, voices, n_in, n_out, seed, below))
