"""What Python tests share: a `lorikeet serve` on a free loopback port, and small HTTP helpers (standard library only)."""
import json, os, shutil, signal, socket, subprocess, tempfile, time, urllib.error, urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.environ.get("LORIKEET", os.path.join(ROOT, "build", "lorikeet"))
DATA = os.path.join(ROOT, "tests", "golden", "data")
SHARED = os.path.join(os.path.dirname(ROOT), "shared")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """with Server(model, {"name": path}) as s: s.url, s.admin_path (unix socket), s.log()"""

    def __init__(self, model, adapters=None, extra=(), name="base", wait=True, env=None):
        self.port, self.dir, self.wait = free_port(), tempfile.mkdtemp(prefix="lorikeet-"), wait
        self.url, self.admin_path = f"http://127.0.0.1:{self.port}", os.path.join(self.dir, "admin.sock")
        self.command = [BINARY, "serve", "--model", model, "--name", name, "--listen", f"127.0.0.1:{self.port}",
                        "--admin-listen", "unix:" + self.admin_path, *extra]
        for adapter, path in (adapters or {}).items():
            self.command += ["--adapter", f"{adapter}={path}"]
        self.env, self.killed = dict(os.environ, **(env or {})), False

    def __enter__(self):
        self.file = open(os.path.join(self.dir, "log"), "w+")
        self.process = subprocess.Popen(self.command, stdout=self.file, stderr=subprocess.STDOUT, env=self.env)
        end = time.time() + 120
        while self.wait and time.time() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=2) as reply:
                    if reply.status == 200:
                        return self
            except OSError:
                time.sleep(0.05)
        if self.wait:
            text = self.log()
            self.__exit__()
            raise RuntimeError("the server did not become ready:\n" + text[-2000:])
        return self

    def log(self):
        with open(os.path.join(self.dir, "log")) as f:
            return f.read()

    def stop(self, timeout=30):
        """SIGTERM; the exit code. A sanitizer's complaint is an exit code, too."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self):
        """SIGKILL, as a crash would end it."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_):
        code = self.stop()
        self.file.close()
        text = self.log()
        shutil.rmtree(self.dir, ignore_errors=True)
        if _ == (None, None, None) and code != 0 and not self.killed:
            raise RuntimeError(f"the server ended with {code}:\n{text[-3000:]}")

    def post(self, path, body, timeout=120, headers=None):
        """(status, parsed body); errors are answers, not exceptions."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json", **(headers or {})})
        return self._open(request, timeout)

    def get(self, path, timeout=30):
        return self._open(urllib.request.Request(self.url + path), timeout)

    def _open(self, request, timeout):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                status, text = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode(errors="replace")

    def admin(self, method, path, body=None, timeout=60, headers=None):
        """(status, parsed body, headers with lower-case names) over the admin socket."""
        status, text, head = self._admin(method, path, body, timeout, headers)
        try:
            return status, json.loads(text), head
        except ValueError:
            return status, text, head

    def admin_request(self, method, path, body=None, timeout=60):
        """(status, text) over the admin socket."""
        return self._admin(method, path, body, timeout, None)[:2]

    def _admin(self, method, path, body, timeout, headers):
        data = json.dumps(body).encode() if body is not None else b""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(self.admin_path)
            more = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
            s.sendall(f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Type: application/json\r\n"
                      f"{more}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            answer = b""
            while chunk := s.recv(65536):
                answer += chunk
        head, _, text = answer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        named = dict((k.lower(), v) for k, v in (line.split(": ", 1) for line in lines[1:]))
        return int(lines[0].split()[1]), text.decode(), named


def unchunk(data):
    """The body of a reply in chunks, read from a socket as it came."""
    body, at = [], 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        body.append(data[end + 2:end + 2 + size])
        at = end + 4 + size
        if size == 0:
            break
    return b"".join(body)


def ask_ids(server, voice, prompt, n, **more):
    """Greedy token ids for a prompt of ids."""
    status, answer = server.post("/v1/completions", {"model": voice, "prompt": prompt, "max_tokens": n, "temperature": 0,
                                                     "ignore_eos": True, "return_token_ids": True, **more})
    if status != 200:
        raise RuntimeError(f"{voice}: {status} {answer}")
    return answer["choices"][0]["token_ids"]
