"""SIGKILL in the middle of changes: four clients publish, pin, split, roll back and remove, the server is killed, and the
next one must have every acknowledged change, and each unacknowledged one whole or not at all.

    kill_loop.py [--kills 40] [--seed N]        last line: N passed, N failed, N skipped
"""
import argparse, json, os, random, shutil, sqlite3, sys, tempfile, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import DATA, Server

LLAMA = os.path.join(DATA, "models", "llama", "f32")
ADAPTERS = os.path.join(DATA, "adapters", "llama")
API = "/admin/v1/adapters/"
LETTERS = "ABCD"
# What a restart must bring back of a name. An answer's other fields are about this run.
KEPT = ("generation", "digest", "previous", "shadow", "source", "blend", "scale", "pinned", "merge", "effect_test", "traffic")
ANY = object()


def kept(adapter):
    return {k: adapter.get(k) for k in KEPT}


class Op:
    """A change: how it is asked for, and what it does to what is kept of a name (None: the name isn't there)."""

    def __init__(self, kind, name, letter="A", pinned=False, merge="never", blend=""):
        self.kind, self.name, self.letter, self.pinned, self.merge, self.blend = kind, name, letter, pinned, merge, blend
        self.before = None

    def __repr__(self):
        return f"{self.kind} {self.letter} pinned={self.pinned} merge={self.merge} {self.blend}"

    def request(self):
        source = "shows_" + self.letter
        return {"put": ("PUT", "", {"source": source, "pinned": self.pinned}),
                "canary": ("PUT", "", {"source": source, "publish": "canary"}),
                "blend": ("PUT", "", {"blend": self.blend}),
                "settings": ("PATCH", "", {"merge": self.merge, "pinned": self.pinned}),
                "split": ("PUT", "/traffic", {"stable": 75, "canary": 25}),
                "whole": ("PUT", "/traffic", {"stable": 100}),
                "rollback": ("POST", "/rollback", {}),
                "promote": ("POST", "/promote", {}),
                "remove": ("DELETE", "", None)}[self.kind]

    def after(self, before, digests):
        """What the name is like after it; a field that can't be told is ANY. False: it would have been refused."""
        if self.kind == "remove":
            return None
        if self.kind == "blend":
            return {**(before or {k: ANY for k in KEPT}), "blend": self.blend, "source": ANY}
        if self.kind in ("put", "canary"):
            new = {k: ANY for k in KEPT}
            if self.kind == "put":
                new.update(digest=digests.get(self.letter, ANY), pinned=self.pinned)
            if before:
                new.update({k: before[k] for k in ("merge", "effect_test", "scale")})
            return new
        if before is None:
            return False
        new = dict(before)
        if self.kind == "settings":
            new.update(merge=self.merge, pinned=self.pinned)
        elif self.kind in ("split", "whole"):
            new.update(traffic=ANY)
        else:  # rollback, promote: two known versions change their places
            new.update(generation=ANY, digest=ANY, previous=ANY, shadow=ANY, traffic=ANY)
        return new


def fits(found, wanted):
    if wanted is False:
        return False
    if found is None or wanted is None:
        return found is wanted
    return all(wanted[k] is ANY or found[k] == wanted[k] for k in KEPT)


class Ledger:
    """What was acknowledged, by name, and what hangs. Each name has one client, but `shared`, which all change by
    compare-and-swap: there the acknowledged state with the highest revision counts."""

    def __init__(self):
        self.lock = threading.Lock()
        self.names = {}      # name → (revision, kept or None)
        self.blurred = {}    # name → a revision that is another client's, who has no answer yet
        self.hanging = {}    # name → ops without an answer
        self.digests = {}    # letter → digest
        self.generations = {}  # generation → digest, for good
        self.revision = 0    # the highest seen
        self.n_acknowledged = 0
        self.odd = []        # answers that make no sense

    def begin(self, op):
        with self.lock:
            self.hanging.setdefault(op.name, []).append(op)

    def end(self, op, status, answer):
        """The answer to an operation; only 2xx acknowledges, and any other one says that nothing changed."""
        with self.lock:
            self.hanging[op.name].remove(op)
            if status // 100 != 2:
                return
            self.n_acknowledged += 1
            adapter = answer.get("adapter", answer)
            if op.kind == "remove":
                if answer["revision"] >= self.names.get(op.name, (0, None))[0]:
                    self.names[op.name] = (answer["revision"], None)
            elif adapter is None:
                self.acknowledge_removed(op)
            else:
                self.acknowledge(op, answer, adapter)
            self.revision = max(self.revision, self.names.get(op.name, (0, None))[0])
            if adapter and op.kind != "remove":
                self.see(adapter)
            if op.kind == "put" and not answer["unchanged"]:
                self.digests[op.letter] = answer["report"]["digest"]

    def acknowledge(self, op, answer, adapter):
        """The state that the answer shows; another client's change may be in it already, which is in force but not on the
        disk before its own answer: then only what this operation did is acknowledged."""
        revision, own = adapter["revision"], kept(adapter)
        expected = op.after(op.before, self.digests)
        known = self.names.get(op.name, (0, None))[0]
        if op.name == "shared" and not fits(own, expected):
            own, known = expected, known + 1
            self.blurred[op.name] = revision
            if op.kind == "put":
                own["generation"] = answer["generation"]
        if revision >= known:
            self.names[op.name] = (revision, own)

    def acknowledge_removed(self, op):
        """Somebody else's removal is in force before this answer was written. Has it no answer yet, it may not be on the disk;
        this change is."""
        if any(o.kind == "remove" for o in self.hanging[op.name]):
            known = self.names.get(op.name, (0, None))[0]
            self.names[op.name] = (known, op.after(op.before, self.digests))
            self.blurred[op.name] = known

    def see(self, adapter):
        """A generation is one content, in this run and the next."""
        digest = self.generations.setdefault(adapter["generation"], adapter["digest"])
        if adapter["generation"] and digest != adapter["digest"]:
            self.odd.append(f"generation {adapter['generation']} was {digest}, and is {adapter['digest']}")

    def known(self, name):
        with self.lock:
            revision, state = self.names.get(name, (0, None))
            return revision, {k: ANY for k in KEPT} if state and self.blurred.get(name) == revision else state

    def possible(self, name):
        """All that may be found: the acknowledged state, and what hanging operations make of it, in any order."""
        states, ops = [self.names.get(name, (0, None))[1]], self.hanging.get(name, [])

        def go(state, left):
            for op in left:
                new = op.after(state, self.digests)
                if new is not False:
                    states.append(new)
                    go(new, [o for o in left if o is not op])
        go(states[0], ops)
        return states


def choose(rng, name, state):
    letter = rng.choice(LETTERS)
    if state is None or rng.random() < 0.35:
        return Op("put", name, letter=letter, pinned=rng.random() < 0.3)
    kind = rng.choice(("put", "canary", "settings", "settings", "split", "whole", "rollback", "promote", "remove", "blend"))
    if kind == "blend":
        return Op("blend", name + "-mix", blend=rng.choice(("left+0.5*right", "left", "0.25*right+left")))
    return Op(kind, name, letter=letter, merge=rng.choice(("never", "auto")), pinned=rng.random() < 0.5)


def client(server, ledger, index, seed, done):
    try:
        change(server, ledger, index, seed, done)
    except Exception as e:
        with ledger.lock:
            ledger.odd.append(f"client {index}: {e!r}")


def change(server, ledger, index, seed, done):
    rng = random.Random(seed)
    while not done.is_set():
        name = "shared" if rng.random() < 0.25 else f"c{index}-{rng.randrange(3)}"
        revision, state = ledger.known(name)
        op = choose(rng, name, state)
        op.before = state if op.name == name else None
        method, tail, body = op.request()
        headers = {"If-Match": f'"{revision if state else 0}"'} if op.name == "shared" else {}
        ledger.begin(op)
        try:
            status, answer, _ = server.admin(method, API + op.name + tail, body, headers=headers, timeout=30)
        except (OSError, IndexError, ValueError):
            return  # killed: the operation hangs
        if not isinstance(answer, dict):
            return  # an answer that was cut off
        ledger.end(op, status, answer)


def check_file(folder):
    """A copy of what the kill left, as SQLite sees it."""
    problems = []
    with tempfile.TemporaryDirectory() as copy:
        for f in os.listdir(folder):
            if f not in ("adapters.db", "adapters.db-wal", "adapters.db-shm", "adapters.db-journal", "adapters.db.lock"):
                problems.append(f"{f} lies beside the state file")
            elif not f.endswith((".lock", "-shm")):
                shutil.copy(os.path.join(folder, f), copy)
        db = sqlite3.connect(os.path.join(copy, "adapters.db"))
        found = [row[0] for row in db.execute("PRAGMA integrity_check")]
        if found != ["ok"]:
            problems.append(f"integrity: {found[:3]}")
        if db.execute("PRAGMA foreign_key_check").fetchall():
            problems.append("rows without their name")
        db.close()
    return problems


def check_names(server, ledger, fixed):
    """The restarted server against the ledger, which then goes on from what is there."""
    problems = []
    status, answer, _ = server.admin("GET", "/admin/v1/adapters")
    found = {a["name"]: a for a in answer["data"] if a["name"] not in fixed}
    for name in sorted(set(found) | set(ledger.names) | set(ledger.hanging)):
        now = kept(found[name]) if name in found else None
        possible = ledger.possible(name)
        if not any(fits(now, p) for p in possible):
            problems.append(f"{name}: found {now}, acknowledged {possible[0]}, hanging {ledger.hanging.get(name, [])}")
        ledger.names[name] = (found[name]["revision"] if now else 0, now)
        if now:
            ledger.see(now)
    if answer["revision"] < ledger.revision:
        problems.append(f"revision {answer['revision']} after {ledger.revision} was seen")
    ledger.hanging.clear()
    ledger.blurred.clear()
    return problems


def check_voices(server, ledger, rng):
    """Names speak as their digest says: a cold load after a restart brings the right bytes, or is refused."""
    problems = []
    letters = {d: letter for letter, d in ledger.digests.items()}
    names = [n for n, (_, s) in ledger.names.items() if s and s["digest"] in letters and not s["traffic"] and not s["blend"]]
    for name in rng.sample(names, min(3, len(names))):
        status, answer = server.post("/v1/completions", {"model": name, "prompt": "x", "max_tokens": 3, "temperature": 0})
        letter = letters[ledger.names[name][1]["digest"]]
        if status == 200 and answer["choices"][0]["text"] != letter * 3:
            problems.append(f"{name} says {answer['choices'][0]['text']}, its digest is that of {letter}")
        elif status != 200 and ledger.names[name][1]["source"] == "shows_" + letter:
            problems.append(f"{name}: {status} {answer}")
    return problems


def work_and_kill(server, ledger, rng):
    done = threading.Event()
    threads = [threading.Thread(target=client, args=(server, ledger, i, rng.random(), done)) for i in range(4)]
    for t in threads:
        t.start()
    time.sleep(rng.uniform(0.02, 0.5))
    if server.process.poll() is not None:
        ledger.odd.append("the server ended by itself:\n" + server.log()[-6000:])
    server.kill()
    done.set()
    for t in threads:
        t.join(60)


def run(kills, seed, say=print):
    """The problems found, and how many changes were acknowledged."""
    rng, ledger, problems = random.Random(seed), Ledger(), []
    folder = tempfile.mkdtemp(prefix="lorikeet-kill-")
    fixed = {"left": os.path.join(ADAPTERS, "shows_A"), "right": os.path.join(ADAPTERS, "shows_B")}
    extra = ["--adapter-root", ADAPTERS, "--threads", "1", "--state", os.path.join(folder, "adapters.db"), "--log-level", "warn"]
    try:
        for kill in range(kills + 1):
            with Server(LLAMA, fixed, extra, name="tiny") as server:
                new = check_names(server, ledger, fixed) + check_voices(server, ledger, rng)
                if kill < kills:
                    work_and_kill(server, ledger, rng)
                    new += check_file(folder)
            for p in new:
                say(f"start {kill + 1}: {p}")
            problems += new
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return problems + ledger.odd, ledger.n_acknowledged


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--kills", type=int, default=40)
    a.add_argument("--seed", type=int, default=int(time.time()))
    a = a.parse_args()
    begun = time.time()
    problems, n = run(a.kills, a.seed)
    print(f"seed {a.seed}: {a.kills} kills in {time.time() - begun:.0f} s, {n} changes acknowledged, {len(problems)} problems")
    print(f"{a.kills} passed, {len(problems)} failed, 0 skipped" if n else "0 passed, 1 failed, 0 skipped")
    sys.exit(1 if problems or not n else 0)


if __name__ == "__main__":
    main()
