"""Servers that adapters may come from, on loopback: plain files over HTTP(S), S3's wire form with its signatures verified, the
Hugging Face hub's layout with a store on another port. Each path can be told to misbehave, once or more, in order."""
import base64, datetime, hashlib, hmac, http.server, os, re, socket, ssl, struct, subprocess, threading, time, urllib.parse


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        world = self.server.world
        self.clean = urllib.parse.unquote(self.path.partition("?")[0])
        world.requests.append((self.clean, {k.lower(): v for k, v in self.headers.items()}))
        with world.lock:
            todo = world.script.get(self.clean) or []
            act = todo.pop(0) if todo else None
        try:
            world.answer(self, act)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def reply(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for k, v in dict(headers).items():
            self.send_header(k, v)
        if length is not False:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def reset(self):
        """The connection ends with an RST, as when a machine dies."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


class World:
    """A server with files = {path: bytes}, script = {path: [action, …]}, requests = [(path, headers)].
    Actions: ("status", code, headers), ("cut", n): RST after n bytes, ("short", n): orderly end after n bytes, ("stall", n, s),
    ("redirect", url, headers), ("unframed",), ("headers", {…}), ("wait", s)."""

    def __init__(self, files=None, tls=None, etags=True):
        self.files, self.script, self.requests, self.lock = dict(files or {}), {}, [], threading.Lock()
        self.etags, self.user = etags, None
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads, self.http.world = True, self
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.host = f"127.0.0.1:{self.http.server_port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def asked(self, path):
        return [headers for p, headers in self.requests if p == path]

    def etag(self, path):
        return '"' + sha256(self.files[path])[:20] + '"'

    def check(self, h):
        """None, or (status, headers, body) of a refusal."""
        if self.user and h.headers.get("Authorization") != "Basic " + base64.b64encode(self.user.encode()).decode():
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return None

    def more_headers(self, h, path):
        return {}

    def missing(self, h):
        h.reply(404, b"not here")

    def answer(self, h, act):
        refusal = self.check(h)
        if refusal:
            return h.reply(refusal[0], refusal[2], refusal[1])
        kind = act[0] if act else ""
        if kind == "wait":
            time.sleep(act[1])
        if kind == "status":
            return h.reply(act[1], b"no", act[2] if len(act) > 2 else {})
        if kind == "redirect":
            return h.reply(302, b"elsewhere", {"Location": act[1], **(act[2] if len(act) > 2 else {})})
        if h.clean not in self.files:
            return self.missing(h)
        self.send_file(h, h.clean, kind, act)

    def send_file(self, h, path, kind="", act=None):
        data, status = self.files[path], 200
        headers = {"ETag": self.etag(path)} if self.etags else {}
        headers.update(self.more_headers(h, path))
        if kind == "headers":
            headers.update(act[1])
        if self.etags and h.headers.get("If-None-Match") == headers["ETag"]:
            h.send_response(304)
            h.send_header("ETag", headers["ETag"])
            return h.end_headers()
        wanted = re.fullmatch(r"bytes=(\d+)-", h.headers.get("Range", ""))
        if wanted and h.headers.get("If-Range") == headers.get("ETag"):
            start = int(wanted[1])
            if start >= len(data):
                return h.reply(416, b"")
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        if kind in ("cut", "short", "stall"):
            h.reply(status, data[:act[1]], headers, length=len(data))
            if kind == "cut":
                time.sleep(0.05)  # what was sent is read before the reset throws it away
                return h.reset()
            if kind == "stall":
                time.sleep(act[2])
            h.close_connection = True
            return
        if kind == "unframed":
            h.close_connection = True
            return h.reply(status, data, {**headers, "Connection": "close"}, length=False)
        h.reply(status, data, headers)


class S3(World):
    """Verifies each request's signature as the service does (AWS Signature Version 4, single chunk)."""

    def __init__(self, files=None, key="AKEXAMPLE", secret="se/cret+key", region="eu-test-1", session=None, **more):
        super().__init__(files, **more)
        self.key, self.secret, self.region, self.session, self.checksums = key, secret, region, session, {}
        self.lists = False

    def refuse(self, code):
        return 403, {"Content-Type": "application/xml"}, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()

    def check(self, h):
        given = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?"
                             r"Signature=([0-9a-f]{64})", h.headers.get("Authorization", ""))
        if not given:
            return self.refuse("AccessDenied")
        key, day, region, signed, signature = given.groups()
        if key != self.key:
            return self.refuse("InvalidAccessKeyId")
        if self.session and (h.headers.get("x-amz-security-token") != self.session or "x-amz-security-token" not in signed):
            return self.refuse("InvalidToken")
        names = signed.split(";")
        stamp = h.headers.get("X-Amz-Date", "")
        age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.strptime(stamp + "+0000", "%Y%m%dT%H%M%SZ%z")
        if names != sorted(names) or not {"host", "x-amz-date"} <= set(names) or region != self.region or abs(
                age.total_seconds()) > 900 or not stamp.startswith(day):
            return self.refuse("AuthorizationHeaderMalformed")
        payload = h.headers.get("x-amz-content-sha256", "")
        if payload not in (sha256(b""), "UNSIGNED-PAYLOAD"):
            return self.refuse("XAmzContentSHA256Mismatch")
        path, _, query = h.path.partition("?")
        query = "&".join(sorted(q if "=" in q else q + "=" for q in query.split("&") if q))
        path = urllib.parse.quote(urllib.parse.unquote(path), safe="/-_.~")
        canonical = "\n".join(["GET", path, query, *(f"{n}:{' '.join(h.headers[n].split())}" for n in names), "", signed, payload])
        scope = f"{day}/{region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, sha256(canonical.encode())])
        k = ("AWS4" + self.secret).encode()
        for part in (day, region, "s3", "aws4_request"):
            k = hmac.new(k, part.encode(), hashlib.sha256).digest()
        if not hmac.compare_digest(hmac.new(k, text.encode(), hashlib.sha256).hexdigest(), signature):
            return self.refuse("SignatureDoesNotMatch")
        return None

    def missing(self, h):
        """Who may not list is not told that an object isn't there."""
        if self.lists:
            return h.reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
        status, headers, body = self.refuse("AccessDenied")
        h.reply(status, body, headers)

    def more_headers(self, h, path):
        return {"x-amz-checksum-sha256": self.checksums[path]} if path in self.checksums else {}


class Hub(World):
    """repos = {"org/name": {"commits": {commit: {file: bytes}}, "main": commit}}: small files are answered here, weights are
    redirected to `store`, another server, with their digest."""

    def __init__(self, repos, store, token=None, **more):
        super().__init__({}, **more)
        self.repos, self.store, self.token, self.linked = repos, store, token, {}

    def check(self, h):
        if self.token and h.headers.get("Authorization") != "Bearer " + self.token:
            return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted"}, b""
        return None

    def answer(self, h, act):
        if act:
            return super().answer(h, act)
        refusal = self.check(h)
        if refusal:
            return h.reply(refusal[0], refusal[2], refusal[1])
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", h.clean)
        repo = self.repos.get(found[1]) if found else None
        if not repo:
            return h.reply(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        commit = repo.get(found[2], found[2])
        files = repo["commits"].get(commit)
        if files is None or found[3] not in files:
            return h.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = files[found[3]]
        if found[3].endswith((".safetensors", ".gguf")):
            digest = self.linked.get(found[3], sha256(data))
            self.store.files["/blobs/" + sha256(data)] = data
            return h.reply(302, b"", {"Location": f"{self.store.url}/blobs/{sha256(data)}?signature=secret", "X-Repo-Commit": commit,
                                      "X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(data))})
        etag = '"' + hashlib.sha1(data).hexdigest() + '"'
        if h.headers.get("If-None-Match") == etag:
            h.send_response(304)
            h.send_header("ETag", etag)
            h.send_header("X-Repo-Commit", commit)
            return h.end_headers()
        h.reply(200, data, {"ETag": etag, "X-Repo-Commit": commit})


def make_certificate(folder):
    """(certificate, key) for 127.0.0.1, which is its own authority."""
    certificate, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    return certificate, key
