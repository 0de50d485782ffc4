"""TLS on the listeners: what clients see, and certificates that are renewed while streams run."""
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import warnings

import pytest

from conftest import LLAMA
from harness import BINARY, Server, free_port


def make_certificate(folder, name, days=30):
    """(certificate, key) for localhost, signed by itself"""
    cert, key = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", str(days), "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key


def connect(port, cert):
    context = ssl.create_default_context(cafile=cert)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)


def shown(port):
    """The certificate that a new connection gets."""
    return ssl.get_server_certificate(("127.0.0.1", port))


def wait_until(what, seconds=10):
    end = time.time() + seconds
    while not what() and time.time() < end:
        time.sleep(0.02)
    assert what()


@pytest.fixture
def secure(tmp_path):
    cert, key = make_certificate(tmp_path, "one")
    admin = free_port()
    with Server(LLAMA, {}, ["--threads", "2", "--tls-cert", cert, "--tls-key", key, "--admin-listen", f"127.0.0.1:{admin}"],
                wait=False) as s:
        s.cert, s.key, s.tls_admin = cert, key, admin
        wait_until(lambda: is_ready(s), 60)
        yield s


def is_ready(server):
    """Over the socket, which is there a moment before it answers."""
    try:
        return server.admin("GET", "/readyz")[0] == 200
    except OSError:
        return False


def read_all(path):
    with open(path) as f:
        return f.read()


def test_requests_and_streams(secure):
    for port in (secure.port, secure.tls_admin):
        c = connect(port, secure.cert)
        for _ in range(3):  # one connection
            c.request("GET", "/v1/models")
            r = c.getresponse()
            assert r.status == 200 and json.loads(r.read())["data"]
        c.close()
    c = connect(secure.port, secure.cert)
    body = json.dumps({"prompt": [1, 30, 31], "max_tokens": 200, "ignore_eos": True, "stream": True, "pad": "x" * 300000})
    c.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    r = c.getresponse()
    assert r.status == 200 and r.read().decode().rstrip().endswith("data: [DONE]")
    # Who speaks no TLS is not answered, and hurts nobody.
    with socket.create_connection(("127.0.0.1", secure.port)) as plain:
        plain.settimeout(20)
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            assert b"200" not in plain.recv(1000)
        except ConnectionError:
            pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", secure.port)) as old, pytest.raises(ssl.SSLError, match="alert|EOF"):
        context.wrap_socket(old)  # the server's word, not the client's
    c.request("GET", "/livez")
    assert c.getresponse().status == 200
    r = subprocess.run([BINARY, "tenants", "list", "--admin", f"tls:127.0.0.1:{secure.tls_admin}"], capture_output=True,
                       text=True, env={**os.environ, "SSL_CERT_FILE": secure.cert})
    assert r.returncode == 0 and r.stdout.startswith("NAME"), r.stderr


def test_a_client_that_leaves_is_noticed(secure):
    c = connect(secure.port, secure.cert)
    c.request("POST", "/v1/completions", json.dumps({"prompt": [1, 30], "max_tokens": 450, "ignore_eos": True, "n": 16,
                                                     "stream": True}))
    r = c.getresponse()
    r.readline()
    r.close()
    c.close()
    wait_until(lambda: "vllm:num_requests_running 0" in secure.admin_request("GET", "/metrics")[1])
    assert 'lorikeet_requests_cancelled_total{adapter=""} 1' in secure.admin_request("GET", "/metrics")[1]


def test_certificates_are_renewed(secure, tmp_path):
    first = read_all(secure.cert)
    assert shown(secure.port) == first
    stream, idle = connect(secure.port, secure.cert), connect(secure.port, secure.cert)
    idle.request("GET", "/livez")
    idle.getresponse().read()
    stream.request("POST", "/v1/completions", json.dumps({"prompt": [1, 30], "max_tokens": 400, "ignore_eos": True, "n": 8,
                                                          "stream": True}))
    r = stream.getresponse()
    begin = r.readline()

    def renew(cert_text, key_text, says):
        n = secure.log().count(says)
        with open(secure.cert, "w") as f:
            f.write(cert_text)
        with open(secure.key, "w") as f:
            f.write(key_text)
        secure.process.send_signal(signal.SIGHUP)
        wait_until(lambda: secure.log().count(says) > n)

    for k in range(5):
        cert, key = make_certificate(tmp_path, f"new{k}")
        renew(read_all(cert), read_all(key), "certificates read again")
        assert shown(secure.port) == shown(secure.tls_admin) == read_all(cert) != first
    renew("nonsense", read_all(key), "not taken")
    renew(read_all(cert), first, "not taken")
    other, _ = make_certificate(tmp_path, "other")
    renew(read_all(other), read_all(key), "not taken")  # another's key
    assert shown(secure.port) == read_all(cert)
    assert (begin + r.read()).decode().rstrip().endswith("data: [DONE]")  # with the certificate that it began with
    idle.request("GET", "/livez")
    assert idle.getresponse().status == 200
    c = connect(secure.port, str(tmp_path / "new4.crt"))
    c.request("GET", "/livez")
    assert c.getresponse().status == 200
    for old in (stream, idle, c):
        old.close()
    assert secure.stop() == 0


def test_both_files_are_needed(tmp_path):
    cert, key = make_certificate(tmp_path, "one")
    for words, says in ((["--tls-cert", cert], "tls-key is missing"), (["--tls-key", key], "tls-cert is missing"),
                        (["--tls-cert", cert, "--tls-key", cert], cert), (["--tls-cert", key + "x", "--tls-key", key], "key")):
        r = subprocess.run([BINARY, "serve", "--model", LLAMA, "--listen", "127.0.0.1:0", *words], capture_output=True,
                           text=True, timeout=60)
        assert r.returncode in (1, 2) and says in r.stderr, r.stderr
