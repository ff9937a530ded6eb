"""Writes a conformance report as Markdown: report.py REPORT.json SERVER ZARPA NOTE"""

import collections
import json
import sys

GROUPS = ["REST", "binary", "gRPC", "errors", "streaming", "extensions"]


def cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def code(text):
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"


def short(text, models):
    for m in sorted(models, key=len, reverse=True):
        text = text.replace(m, "MODEL")
    return text


def main():
    path, name, zarpa, note = sys.argv[1:]
    with open(path) as f:
        report = json.load(f)
    results, models = report["results"], report["models"]
    server = report["server"]
    print(f"# How {name} keeps the Open Inference Protocol v2\n")
    print(f"Made by `{zarpa} conformance` on {report['time'][:10]}: {server['name']} {server['version']}, {note}.")
    print("What a check asks is in [conformance.md](conformance.md). A difference is one from the specification as that page")
    print("reads it; a `should` is no fault where the specification leaves a choice.\n")
    print(f"Models: {', '.join(models)}.\n")
    print("| group | kept | differ | skipped |\n|---|---|---|---|")
    for group in GROUPS:
        n = collections.Counter(r["outcome"] for r in results if r["group"] == group)
        print(f"| {group} | {n['pass']} | {n['fail']} | {n['skip']} |")
    total = collections.Counter((r["level"], r["outcome"]) for r in results)
    levels = ", ".join(f"{total[level, 'fail']} {level}" for level in ["must", "should", "extension"])
    print(f"\nDifferences by level: {levels}. A check of models counts once for each model.\n")

    print("## Differences\n")
    print("| check | level | models | expected | observed |\n|---|---|---|---|---|")
    rows = {}
    for r in results:
        if r["outcome"] == "fail":
            rows.setdefault(r["id"], []).append(r)
    for check, list_ in rows.items():
        first = list_[0]
        asked = sum(1 for r in results if r["id"] == check and r["outcome"] != "skip")
        share = "" if "model" not in first else f"{len(list_)} of {asked}"
        print(f"| `{check}` | {first['level']} | {share} | {cell(first['expected'])} | {code(first['observed'])} |")

    print("\n## Choices\n")
    print("| check | observed |\n|---|---|")
    told = set()
    for r in results:
        plain = not r["id"].startswith(("errors.", "grpc.errors."))
        if r.get("choices") and r["outcome"] == "pass" and plain and r["id"] not in told:
            told.add(r["id"])
            print(f"| `{r['id']}` | {code(short(r.get('observed', ''), models))} |")

    print("\n## Skipped everywhere\n")
    print("| check | why |\n|---|---|")
    made = {r["id"] for r in results if r["outcome"] != "skip"}
    for r in results:
        if r["id"] not in made and r["id"] not in told:
            told.add(r["id"])
            print(f"| `{r['id']}` | {cell(r.get('observed', ''))} |")


if __name__ == "__main__":
    main()
