"""Writes down what a client asks a server: a proxy that hands everything on, and keeps each request as a file.

    python3 tests/clients/record.py --listen 9000 --to http://127.0.0.1:8080 --into FOLDER [--model NAME] [--filler]

Requests become FOLDER/NN_PATH.json ({"method", "path", "headers", "body"}), as the tests that replay them read them. The model's
name becomes MODEL, a home folder HOME; secrets, and whatever names a machine or a session, become zeros. --filler: words of long texts become others of the
same length, markup and punctuation stay: prompts of somebody's product are not ours to pass on, but their form is what a server meets."""
import argparse, http.client, http.server, json, os, re, sys, threading, urllib.parse

SECRET = {"authorization", "x-api-key", "api-key", "cookie", "proxy-authorization"}
OF_THE_CONNECTION = {"host", "content-length", "connection", "transfer-encoding", "keep-alive", "expect"}
IDENTITY = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|\b[0-9a-f]{32,}\b")
HOME = re.compile(r"(?:/home|/Users|[A-Z]:\\Users)[/\\][\w.-]+|(?<!\w)/root(?=/)")
WORDS = ["a", "by", "fly", "wing", "perch", "parrot", "feather", "wingspan"]  # by length; replays know them as tokens
LONG = 60  # characters of a text that may be somebody's words


def zeros(text):
    return IDENTITY.sub(lambda m: re.sub("[0-9a-fA-F]", "0", m.group()), HOME.sub("HOME", text))


def other_words(text):
    """The same tags, line breaks, punctuation and lengths, in other words."""
    def another(match):
        word, most = match.group(1), len(WORDS)
        if word is None:
            return match.group()
        return WORDS[-1] * ((len(word) - 1) // most) + WORDS[(len(word) - 1) % most]
    return re.sub(r"</?[\w-]+>|([A-Za-z]+)", another, text)


def soften(value, filler, keep):
    if isinstance(value, dict):
        return {k: soften(v, filler, keep) for k, v in value.items()}
    if isinstance(value, list):
        return [soften(v, filler, keep) for v in value]
    if not isinstance(value, str):
        return value
    value = zeros(value)
    if value.startswith('{"'):  # an object as text, such as Claude Code's user_id
        try:
            return json.dumps(soften(json.loads(value), filler, keep), separators=(",", ":"), ensure_ascii=False)
        except ValueError:
            pass
    if filler and len(value) > LONG and not any(k in value and len(value) < len(k) + LONG for k in keep):
        head = re.match(r"x-anthropic-billing-header:[^;]*;|(#[a-z]+\b)?", value).group()  # what a server looks at
        tail = next((k for k in keep if value.endswith(k)), "")
        value = head + other_words(value[len(head):len(value) - len(tail)]) + tail
    return value


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lock, count, options, target = threading.Lock(), 0, None, None

    def log_message(self, *_):
        pass

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def keep(self, body, status):
        o = self.options
        try:
            value = json.loads(body) if body else None
        except ValueError:
            value = body.decode(errors="replace")
        value = soften(value, o.filler, o.keep)
        headers = {k: "none" if k.lower() in SECRET else zeros(v) for k, v in self.headers.items() if k.lower() not in OF_THE_CONNECTION}
        text = json.dumps({"method": self.command, "path": self.path, "headers": headers, "body": value}, ensure_ascii=False, indent=1)
        if o.model:
            text = text.replace(o.model, "MODEL")
        with self.lock:
            type(self).count += 1
            n = self.count
        name = re.sub(r"[^a-z0-9]+", "_", urllib.parse.urlsplit(self.path).path.lower()).strip("_") or "root"
        with open(os.path.join(o.into, f"{n:02}_{name}.json"), "w") as f:
            f.write(text + "\n")
        print(n, self.command, self.path, status, len(body), flush=True)

    def hand_on(self):
        body = self.read_body()
        to = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=600)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in OF_THE_CONNECTION}
        to.request(self.command, self.path, body or None, headers)
        answer = to.getresponse()
        self.keep(body, answer.status)
        self.send_response(answer.status)
        for k, v in answer.getheaders():
            if k.lower() not in OF_THE_CONNECTION | {"date", "server"}:
                self.send_header(k, v)
        self.send_header("Connection", "close")
        self.end_headers()
        seen = b""
        while piece := answer.read1(65536):
            self.wfile.write(piece)
            self.wfile.flush()
            seen += piece
        if answer.status >= 400 or self.options.show:
            print("   ", seen[:20000].decode(errors="replace"), flush=True)
        self.close_connection = True

    do_GET = do_POST = do_DELETE = do_PUT = do_HEAD = do_OPTIONS = do_PATCH = hand_on


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--listen", type=int, required=True, help="a port of 127.0.0.1")
    p.add_argument("--to", required=True, help="the server's address")
    p.add_argument("--into", required=True, help="a folder")
    p.add_argument("--model", help="the name that becomes MODEL")
    p.add_argument("--filler", action="store_true", help="long texts in other words")
    p.add_argument("--keep", action="append", default=[], help="a text that stays, with --filler")
    p.add_argument("--show", action="store_true", help="print answers, too")
    Recorder.options = o = p.parse_args()
    Recorder.target = urllib.parse.urlsplit(o.to)
    os.makedirs(o.into, exist_ok=True)
    http.server.ThreadingHTTPServer(("127.0.0.1", o.listen), Recorder).serve_forever()


if __name__ == "__main__":
    sys.exit(main())
