#!/usr/bin/env python3
"""Results of bench_peer.py and bench_own.py as Markdown, CSV and a chart (SVG).

    report.py [--peer build/bench/peer.jsonl] [--own build/bench/own.jsonl] [--out build/bench] [--doc docs/performance.md]

Writes OUT/results.csv, OUT/results.svg, OUT/results.md; with --doc what stands between its two marks is replaced by the tables.
A ratio is the median of the rounds' ratios; in brackets the least and the largest. Standard library only."""
import argparse, csv, os, re, sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
from pieces import ROOT, good, median, read

# part, value, what it is, {model: (at least, aim)}: what was asked for, as ratios to llama.cpp
WORK = [
    ("single", "prefill", "prefill of 512, one stream", {"llama1b-q8_0": (2.3, 3.2), "llama1b-q4_0": (1.9, 2.5), "llama1b-q4_k_m": (1.8, 2.3),
                                                         "llama1b-bf16": (1.0, 1.2), "gemma3-270m-q4_k_m": (1.8, 2.5)}),
    ("single", "decode", "decode of 128, one stream", {"llama1b-q8_0": (1.35, 1.55), "llama1b-q4_0": (1.25, 1.5), "llama1b-q4_k_m": (1.15, 1.4),
                                                       "gemma3-270m-q4_k_m": (1.4, 2.0)}),
    ("batch", "n8", "decode, 8 streams", {"llama1b": (3, 4.5)}),
    ("batch", "n8_one", "decode, 8 streams, one adapter", {"llama1b": (3, 4.5)}),
    ("batch", "n16", "decode, 16 streams", {"llama1b": (3, 4.5)}),
    ("batch", "n16_one", "decode, 16 streams, one adapter", {"llama1b": (3, 4.5)}),
    ("crowd8", "rate", "8 clients on 8 adapters, 100 in, 64 out", {"llama1b-q8_0": (4.5, 6.5), "llama1b-q4_0": (3.8, 5.5), "qwen0.5b-q8_0": (6, 10)}),
    ("crowd16", "rate", "16 clients on 16 adapters, 100 in, 64 out", {"llama1b-q8_0": (4.5, 6.5), "llama1b-q4_0": (3.8, 5.5),
                                                                      "qwen0.5b-q8_0": (6.5, 11)}),
    ("crowd8-long", "rate", "8 clients on 8 adapters, 32 in, 128 out", {"llama1b-q8_0": (6, 8), "llama1b-q4_0": (5, 7)}),
    ("crowd16-long", "rate", "16 clients on 16 adapters, 32 in, 128 out", {"llama1b-q8_0": (6, 8), "llama1b-q4_0": (5, 7)}),
    ("crowd8-none", "rate", "8 clients, no adapter, 100 in, 64 out", {}),
    ("crowd16-none", "rate", "16 clients, no adapter, 100 in, 64 out", {}),
]
# Times to the first token: ours over theirs, the less the better: (at most, aim).
WAITS = [("ttft_p50", "median time to the first token", (1 / 4, 1 / 6)), ("ttft_max", "worst time to the first token", (1 / 6, 1 / 10))]


def short(model):
    return os.path.basename(model).removesuffix(".gguf")


def target(targets, model):
    return next((t for name, t in targets.items() if model.startswith(name)), None)


def number(v, digits=3):
    """Three digits that matter."""
    if v is None:
        return "–"
    if v == 0:
        return "0"
    whole = len(str(int(abs(v))))
    return f"{v:,.{max(0, digits - whole)}f}"


def span(values):
    values = [v for v in values if v is not None]
    if not values:
        return "–"
    return number(median(values)) + (f" ({number(min(values))}–{number(max(values))})" if len(values) > 1 else "")


def int8_rate(limits, model):
    """The machine's rate that bounds a model's products: weights of 8 bits are signed, as activations are."""
    return limits.get("int8_signed_gmacs", limits["int8_gmacs"]) if "q8_0" in model else limits["int8_gmacs"]


class Report:
    def __init__(self, peer, own):
        self.peer, self.own, self.rows, self.text = good(peer), good(own), [], []
        self.dropped = [line for line in peer + own if line["disturbed"] and line not in self.peer and line not in self.own]
        self.kept = [line for line in self.peer + self.own if line["disturbed"]]

    def say(self, *lines):
        self.text += lines

    def table(self, head, rows):
        self.say("| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in rows), "")

    def row(self, work, model, unit, ours, theirs, ratios, aims, less_is_better=False):
        least, aim = aims or (None, None)
        ratio = median(ratios)
        met = None if least is None else ("aim" if (ratio <= aim if less_is_better else ratio >= aim) else
                                          "yes" if (ratio <= least if less_is_better else ratio >= least) else "no")
        self.rows.append({"work": work, "model": model, "unit": unit, "ours": median(ours), "ours_min": min(ours), "ours_max": max(ours),
                          "theirs": median(theirs) if theirs else None, "theirs_min": min(theirs) if theirs else None,
                          "theirs_max": max(theirs) if theirs else None, "ratio": ratio, "ratio_min": min(ratios), "ratio_max": max(ratios),
                          "asked": least, "aim": aim, "met": met, "rounds": len(ratios), "less_is_better": less_is_better})

    def lines(self, source, part):
        out = {}
        for line in source:
            if line["part"] == part:
                out.setdefault(short(line["model"]), []).append(line)
        return out

    # ---- against llama.cpp ----

    def against(self):
        for part, value, work, targets in WORK:
            for model, lines in self.lines(self.peer, part).items():
                ours, theirs = [r["ours"][value] for r in lines], [r["peer"][value] for r in lines]
                self.row(work, model, "tokens/s", ours, theirs, [a / b for a, b in zip(ours, theirs)], target(targets, model))
        for part, _, work, targets in WORK:
            if not part.startswith("crowd") or not targets:
                continue
            for value, what, aims in WAITS:
                for model, lines in self.lines(self.peer, part).items():
                    ours, theirs = [r["ours"][value] for r in lines], [r["peer"][value] for r in lines]
                    self.row(f"{work}: {what}", model, "ms", ours, theirs, [a / b for a, b in zip(ours, theirs)], aims, True)
        self.say("### Against llama.cpp", "")
        self.show([r for r in self.rows])

    def show(self, rows, theirs="llama.cpp"):
        self.table(["work", "model", "ours", theirs, "ratio", "asked", "aim", "met"],
                   [[r["work"], r["model"], f"{number(r['ours'])} {r['unit']}", f"{number(r['theirs'])} {r['unit']}",
                     number(r["ratio"]) + (f" ({number(r['ratio_min'])}–{number(r['ratio_max'])})" if r["rounds"] > 1 else ""),
                     number(r["asked"]), number(r["aim"]), {None: "–", "no": "**no**"}.get(r["met"], r["met"])] for r in rows])

    def gaps(self):
        rows = []
        for part, _, work, _ in WORK:
            for model, lines in self.lines(self.peer, part).items() if part.startswith("crowd") else ():
                for side in ("ours", "peer"):
                    rows.append([work, model, {"ours": "ours", "peer": "llama-server"}[side],
                                 *(span([r[side][v] for r in lines]) for v in ("rate", "ttft_p50", "ttft_max", "gap_p50", "gap_p99"))])
        if rows:
            self.say("### The same, as clients see it", "")
            self.table(["work", "model", "server", "tokens/s", "first token ms: median", "worst", "between tokens ms: median", "99 %"], rows)

    def voices(self):
        first = len(self.rows)
        aims = {("crowd8", "llama1b"): (0.88, 0.95), ("crowd16", "llama1b"): (0.86, 0.95), ("crowd8", "qwen0.5b"): (0.82, 0.92),
                ("crowd8", "gemma"): (0.80, 0.90)}
        for part in ("crowd8", "crowd16"):
            for model, lines in self.lines(self.peer, part).items():
                ours, none = [r["ours"]["rate"] for r in lines], [r["ours"]["none"]["rate"] for r in lines]
                work = next(w for p, _, w, _ in WORK if p == part)
                asked = target({k[1]: v for k, v in aims.items() if k[0] == part}, model)
                self.row(work + ", over none", model, "tokens/s", ours, none, [a / b for a, b in zip(ours, none)], asked)
        for model, lines in self.lines(self.own, "step").items():
            for n, d, asked in ((1, 1, (0.96, 0.985)), (8, 8, None), (16, 16, None)):
                def rates(k):
                    return [g["rate"] for r in lines for g in r["runs"] if g["run"] == "pass" and g["rows"] == n and g["adapters"] == k]
                ours, none = rates(d), rates(0)
                if ours and none:
                    what = "one adapter over none, one stream, in-process" if n == 1 else f"{n} adapters over none, {n} streams, in-process"
                    self.row(what, model, "tokens/s", ours, none, [a / b for a, b in zip(ours, none)], asked)
        if len(self.rows) > first:
            self.say("### Different adapters against the base alone (ours over ours)", "")
            self.show(self.rows[first:], "without")

    # ---- against the machine ----

    def machine_limits(self):
        both = [line["limits"] for line in self.peer + self.own if "limits" in line]
        both += [line[k] for line in self.own for k in ("before", "after") if k in line]
        if not both:
            return
        self.say("### What the machine does at best", "", f"{len(both)} measurements, before, among and after the others: median (least–largest). "
                 f"int8 by {both[0]['int8_by']}.", "")
        self.table(["read GB/s", "int8 GMAC/s", "int8, both signed GMAC/s", "int8 in 16-bit sums GMAC/s", "f32 GMAC/s"],
                   [[span([b[k] for b in both if k in b]) for k in ("read_gbs", "int8_gmacs", "int8_signed_gmacs", "int8_pairs_gmacs", "f32_gmacs")]])

    def step(self):
        rows = []
        for model, lines in self.lines(self.own, "step").items():
            for i, g in enumerate(lines[0]["runs"]):
                if g["run"] != "pass":
                    continue
                runs = [r["runs"][i] for r in lines]
                ms = median([x["step_ms"] for x in runs])
                read_limit = median([r[k]["read_gbs"] for r in lines for k in ("before", "after")])
                mac_limit = median([int8_rate(r[k], model) for r in lines for k in ("before", "after")])
                gbs, gmacs = g["bytes"] / ms / 1e6, g["macs"] / ms / 1e6
                rows.append([model, str(g["rows"]), str(g["adapters"]), number(ms), number(g["bytes"] / 1e6), number(g["macs"] / 1e6),
                             f"{number(gbs)} ({100 * gbs / read_limit:.0f} %)", f"{number(gmacs)} ({100 * gmacs / mac_limit:.0f} %)"])
        if rows:
            self.say("### A step's bytes and operations against these limits", "", "The forward pass alone, a short context. In brackets the "
                     "share of the machine's read rate and of its int8 rate (both signed, where weights have 8 bits).", "")
            self.table(["model", "streams", "adapters", "step ms", "MB read", "MMAC", "GB/s", "GMAC/s"], rows)

    # ---- growth ----

    def growth(self):
        """Measured steps beside what the cost model says, and the part that it leaves out: keys and values read, or attention's
        products at the machine's f32 rate, whichever takes longer. The floor is what the step's bytes, or its products at the int8
        rate, take at least."""
        if any(self.lines(self.own, part) for part in ("rows", "ranks", "adapters", "context", "threads")):
            self.say("### How the cost grows", "", "Predicted: include/cost.h, measured in the same run, and attention's bytes or products. "
                     "Floor: all bytes at the read rate, or all products at the int8 rate. Both rates as measured in the same piece. "
                     "“Apart”: more than 15 %.", "")
        names = {"rows": "Streams", "ranks": "Rank (8 streams)", "adapters": "Different adapters (64 streams)", "context": "Context",
                 "threads": "Threads"}
        for part, title in names.items():
            for model, lines in self.lines(self.own, part).items():
                rows = []
                for i, g in enumerate(lines[0]["runs"]):
                    runs = [r["runs"][i] for r in lines]
                    if g["run"] == "prefill":
                        continue
                    ms, said = median([x["step_ms"] for x in runs]), median([x.get("predicted_ms") for x in runs])
                    top = lines[0]["limits"]
                    per = g["threads"] / top["threads"]  # one thread multiplies half as much as two, and may read more than half
                    if said:
                        said += max(g["kv_bytes"] / top["read_gbs"], g["attend_macs"] / top["f32_gmacs"] / per) / 1e6
                    floor = max(g["bytes"] / top["read_gbs"], g["macs"] / int8_rate(top, model) / per) / 1e6
                    off = (ms / said - 1) * 100 if said else None
                    rows.append([str(g["rows"]), str(g["adapters"]), str(g["rank"]), str(g["context"]), str(g["threads"]), number(ms),
                                 number(1000 * g["rows"] / ms), number(floor), number(said), "–" if off is None else f"{off:+.0f} %" + (" ← apart" if abs(off) > 15 else "")])
                    self.rows.append({"work": f"growth: {part}", "model": model, "unit": "ms a step", "ours": ms, "theirs": said,
                                      "ratio": ms / said if said else None, "rounds": len(runs), "streams": g["rows"], "adapters": g["adapters"],
                                      "rank": g["rank"], "context": g["context"], "threads": g["threads"]})
                self.say(f"#### {title}: {model}", "")
                self.table(["streams", "adapters", "rank", "context", "threads", "step ms", "tokens/s", "floor ms", "predicted ms", "measured − predicted"], rows)

    # ---- the rest ----

    def single_figures(self):
        rows = []
        for model, lines in self.lines(self.own, "share").items():
            step, outside, inside = (median([r[k] for r in lines]) for k in ("step_ms", "outside_ms", "inside_ms"))
            rows.append(["HTTP, JSON, tokenizer, sampling, scheduling: share of a step (8 streams)", model,
                         f"{100 * (max(0, outside) + max(0, inside)) / step:.1f} % (of {number(step)} ms a step over HTTP {number(outside)} ms outside "
                         f"the engine, client included, and {number(inside)} ms in it beside the forward pass)", "≤ 3 %, aim 1 %"])
        for model, lines in self.lines(self.own, "prefix").items():
            cold, warm = median([v for r in lines for v in r["cold_ms"]]), median([v for r in lines for v in r["warm_ms"]])
            rows.append(["first token, 1,000 tokens of the prompt known, against none", model,
                         f"{cold / warm:.1f}× ({number(warm)} ms, {number(cold)} ms)", "10×, aim 30×"])
        for model, lines in self.lines(self.own, "many").items():
            n, few = [v for r in lines for v in r["rates"]["all"]], [v for r in lines for v in r["rates"]["few"]]
            pairs = [a / b for r in lines for a, b in zip(r["rates"]["all"], r["rates"]["few"])]
            rows.append([f"{lines[0]['n']} adapters (rank 8, q/v) resident, Zipf, against 8", model,
                         f"{span(pairs)} ({number(median(n))} and {number(median(few))} tokens/s; "
                         f"{lines[0]['memory']['VmRSS'] / 2**20:.2f} GiB resident)", "0.95, aim 0.99"])
        for model, lines in self.lines(self.own, "start").items():
            r = lines[-1]
            rows.append(["start to ready: first, again, again with 32 adapters", model,
                         ", ".join(f"{median([x[k]['ready_s'] for x in lines]):.2f} s" for k in ("first", "again", "again_32")), "1 s warm, aim 0.2 s"])
            kib, floor = r["again_32"]["memory"]["VmRSS"], r["file_kib"]
            over = 100 * (kib - floor - r["adapters_kib"]) / floor
            rows.append(["resident memory with 32 adapters of rank 16", model,
                         f"file {over:+.1f} % + adapters ({kib / 1024:,.0f} MiB; file {floor / 1024:,.0f}, adapters' files {r['adapters_kib'] / 1024:,.0f}; "
                         f"without adapters {r['again']['memory']['VmRSS'] / 1024:,.0f})", "file + 15 %, aim + 5 %"])
        for model, lines in self.lines(self.peer, "start").items():
            r = lines[-1]
            rows.append(["the same with 32 adapters: ours, llama-server", model,
                         f"ready in {r['ours']['ready_s']:.2f} s, {r['peer']['ready_s']:.2f} s; {r['ours']['memory']['VmRSS'] / 1024:,.0f} MiB, "
                         f"{r['peer']['memory']['VmRSS'] / 1024:,.0f} MiB resident", "–"])
        if rows:
            self.say("### Single figures", "")
            self.table(["what", "model", "measured", "asked"], rows)

    def load(self):
        rows = []
        for model, lines in self.lines(self.own, "load").items():
            for i, g in enumerate(lines[0]["load"]):
                rows.append([model, str(g["clients"]), "own" if g["own"] else "none",
                             *(span([r["load"][i][k] for r in lines]) for k in ("rate", "ttft_p50", "ttft_max", "gap_p50", "gap_p99"))])
        if rows:
            self.say("### Under load, over HTTP (100 in, 32 out)", "")
            self.table(["model", "clients", "adapters", "tokens/s", "first token ms: median", "worst", "between tokens ms: median", "99 %"], rows)

    def how(self):
        lines = self.peer + self.own
        if not lines:
            raise SystemExit("no results")
        times = sorted(line["time"] for line in lines)
        commits = sorted({line["commit"] for line in lines})
        self.say(f"{lines[0]['machine']}; {times[0]} to {times[-1]}; commit {', '.join(commits)}. {len(lines)} pieces; "
                 f"{len(self.dropped)} were made again because others took more than 5 % of the processors meanwhile"
                 + (f", and {len(self.kept)} count all the same, since no better ones came: "
                    + "; ".join(f"{r['part']} {short(r['model'])} round {r['round']} ({100 * max(r['foreign'], r['steal']):.0f} %)" for r in self.kept)
                    if self.kept else "") + ".", "")

    def build(self):
        self.how()
        self.machine_limits()
        self.against()
        self.gaps()
        self.voices()
        self.single_figures()
        self.step()
        self.load()
        self.growth()
        return "\n".join(self.text)


def chart(rows):
    """Bars of ours over theirs (times: theirs over ours), with marks at what was asked and at the aim."""
    bars = [r for r in rows if r.get("asked")]
    if not bars:
        return ""
    def value(r, key):
        return 1 / r[key] if r["less_is_better"] else r[key]
    width, left, high, step = 1100, 540, 18, 24
    top = max(max(value(r, "ratio"), value(r, "aim")) for r in bars) * 1.05
    scale = (width - left - 70) / top
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{step * len(bars) + 60}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{left}" y="20">ours over theirs (times: theirs over ours); line: asked, dashed: aim</text>']
    for i, r in enumerate(bars):
        y = 35 + i * step
        colour = {"no": "#c0504d", "yes": "#4f81bd", "aim": "#3a9d5d"}[r["met"]]
        label = f"{r['work']}, {r['model']}".replace("&", "&amp;")
        out.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{label[:92]}</text>')
        out.append(f'<rect x="{left}" y="{y}" width="{value(r, "ratio") * scale:.1f}" height="{high}" fill="{colour}"/>')
        for key, dash in (("asked", ""), ("aim", ' stroke-dasharray="3,2"')):
            x = left + value(r, key) * scale
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 2}" y2="{y + high + 2}" stroke="black"{dash}/>')
        out.append(f'<text x="{left + max(value(r, "ratio"), value(r, "aim")) * scale + 6:.1f}" y="{y + 13}">{number(value(r, "ratio"))}×</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peer", default=os.path.join(ROOT, "build", "bench", "peer.jsonl"))
    p.add_argument("--own", default=os.path.join(ROOT, "build", "bench", "own.jsonl"))
    p.add_argument("--out", default=os.path.join(ROOT, "build", "bench"))
    p.add_argument("--doc")
    args = p.parse_args()
    report = Report(read(args.peer), read(args.own))
    text = report.build()
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "results.md"), "w") as f:
        f.write(text)
    names = ["work", "model", "unit", "ours", "ours_min", "ours_max", "theirs", "theirs_min", "theirs_max", "ratio", "ratio_min", "ratio_max", "asked",
             "aim", "met", "rounds", "streams", "adapters", "rank", "context", "threads"]
    with open(os.path.join(args.out, "results.csv"), "w", newline="") as f:
        w = csv.DictWriter(f, names, extrasaction="ignore", lineterminator="\n")
        w.writeheader()
        for r in report.rows:
            w.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()})
    with open(os.path.join(args.out, "results.svg"), "w") as f:
        f.write(chart(report.rows))
    if args.doc:
        with open(args.doc) as f:
            doc = f.read()
        begin, end = "<!-- measured: begin -->\n", "<!-- measured: end -->"
        new = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: begin + "\n" + text + "\n" + end, doc, count=1, flags=re.S)
        with open(args.doc, "w") as f:
            f.write(new)
    print(text)


if __name__ == "__main__":
    main()
