"""A measurement as a list of short pieces, each in a process of its own and under a wrapper where the machine has one
(BENCH_WRAP="chrt -f 1" or whatever keeps others away), with results in a file that a later run goes on with.

A piece is (part, model, round). What it gives is one JSON line; a line of a disturbed piece stays, marked, and the piece
is made once more. Standard library only."""
import argparse, json, os, resource, shlex, statistics, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOREIGN_MAX = float(os.environ.get("BENCH_FOREIGN_MAX", "0.05"))  # what others may take of the processors before a piece counts as disturbed


def arguments(doc, parts, rounds, results):
    """What every list of pieces is asked with; --piece is how it calls itself."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="")
    p.add_argument("--parts", default=parts)
    p.add_argument("--rounds", type=int, default=rounds)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--results", default=os.path.join(ROOT, "build", "bench", results))
    p.add_argument("--minutes", type=float)
    p.add_argument("--piece", nargs=3, metavar=("PART", "MODEL", "ROUND"))
    return p


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def percentile(values, p):
    values = sorted(values)
    if not values:
        return None
    at = (len(values) - 1) * p / 100
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def cpu_ticks():
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, steal = v
    return {"busy": user + nice + system + irq + softirq, "steal": steal, "all": sum(v)}


def own_seconds():
    return sum(u.ru_utime + u.ru_stime for u in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))


class Watch:
    """What others took of the machine meanwhile; every child must have been waited for at the end."""

    def __enter__(self):
        self.ticks, self.own, self.begin = cpu_ticks(), own_seconds(), time.monotonic()
        return self

    def __exit__(self, *_):
        ticks = cpu_ticks()
        hertz = os.sysconf("SC_CLK_TCK")
        total = max(1, ticks["all"] - self.ticks["all"]) / hertz
        foreign = (ticks["busy"] - self.ticks["busy"]) / hertz - (own_seconds() - self.own)
        self.report = {"foreign": round(max(0.0, foreign) / total, 4), "steal": round((ticks["steal"] - self.ticks["steal"]) / hertz / total, 4),
                       "wall_s": round(time.monotonic() - self.begin, 1)}


def machine():
    with open("/proc/cpuinfo") as f:
        text = f.read()
    name = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown processor")
    flags = next((line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith(("flags", "Features"))), [])
    isa = [f for f in ("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm") if f in flags]
    with open("/proc/meminfo") as f:
        memory = int(f.readline().split()[1]) / 2**20
    return f"{os.cpu_count()} cores of {name} ({', '.join(isa)}), {memory:.0f} GiB, Linux {os.uname().release.split('-')[0]}"


def commit():
    try:
        done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=10"], capture_output=True, text=True)
        return done.stdout.strip() or "no commit"
    except OSError:
        return "no git"


def read(path):
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [json.loads(line) for line in f if line.strip()]


def append(path, line):
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "a") as f:
        f.write(json.dumps(line) + "\n")


def run_all(script, pieces, results, extra, seconds=None):
    """Runs what the file lacks, in rounds; stops beginning new ones after `seconds`. Returns how many failed."""
    wrap = shlex.split(os.environ.get("BENCH_WRAP", ""))
    failed, end = 0, time.monotonic() + seconds if seconds else None
    for part, model, turn in pieces:
        key = (part, model, turn)
        for attempt in range(2):
            had = [r for r in read(results) if (r["part"], r["model"], r["round"]) == key]
            if any(not r["disturbed"] for r in had) or len(had) >= 2:
                break
            if end and time.monotonic() > end:
                print(f"out of time before {part} {model} {turn}", flush=True)
                return failed
            command = [*wrap, sys.executable, script, "--piece", part, model, str(turn), "--results", results, *extra]
            done = subprocess.run(command)
            if done.returncode != 0:
                failed += 1
                print(f"FAILED ({done.returncode}): {part} {model} round {turn}", flush=True)
                break
    return failed


def run_piece(results, part, model, turn, measure):
    """measure() gives a dict of values; they are written with what the machine did meanwhile."""
    with Watch() as watch:
        values = measure()
    w = watch.report
    disturbed = w["foreign"] > FOREIGN_MAX or w["steal"] > FOREIGN_MAX
    line = {"part": part, "model": model, "round": turn, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": commit(),
            "machine": machine(), **w, "disturbed": disturbed, **values}
    append(results, line)
    note = f"  DISTURBED: others {100 * w['foreign']:.0f} %, stolen {100 * w['steal']:.0f} %" if disturbed else ""
    print(f"{part} {model} round {turn}: {w['wall_s']} s{note}", flush=True)


def good(lines):
    """The lines that count: undisturbed ones, or, where a piece has none, the least disturbed."""
    best = {}
    for line in lines:
        key = (line["part"], line["model"], line["round"])
        rank = (line["disturbed"], max(line["foreign"], line["steal"]))
        if key not in best or rank < (best[key]["disturbed"], max(best[key]["foreign"], best[key]["steal"])):
            best[key] = line
    return list(best.values())
