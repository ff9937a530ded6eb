#!/usr/bin/env python3
"""Builds Zarpa, deploys two real models and calls them: make demo

It runs on a data directory of its own, ZARPA_DATA or .cache/demo, which may be there from an
earlier run. On a terminal the server stays up until ^C; elsewhere it stops, and the exit code says
whether every prediction was the one that the model's framework made. Python's standard library only.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
ZARPA = ROOT / "bin" / "zarpa"
SPECIES = ["setosa", "versicolor", "virginica"]
TOLERANCE = 1e-4  # float32 in another order of summing

TERMINAL = sys.stdout.isatty()
COLOUR = TERMINAL and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Failed(Exception):
    """What went wrong, for the person at the terminal."""


def paint(code, text):
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


def dim(text):
    return paint("2", text)


def bold(text):
    return paint("1", text)


def say(text=""):
    print(text, flush=True)


def took(seconds):
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


@contextlib.contextmanager
def phase(name):
    """Prints what a phase came to, what its list was given, and how long it took."""
    if TERMINAL:
        print(f"  {paint('36', '…')} {name}", end="", flush=True)
    began, notes = time.monotonic(), []
    try:
        yield notes
    except BaseException:
        say(f"{wipe()}  {paint('31', '✗')} {name:<10} {'':<52} {took(time.monotonic() - began):>9}")
        raise
    say(f"{wipe()}  {paint('32', '✓')} {name:<10} {', '.join(notes):<52} {took(time.monotonic() - began):>9}")


def wipe():
    return "\r\x1b[K" if TERMINAL else ""


def build():
    """Runs make build, showing what it says."""
    command = [*shlex.split(os.environ.get("MAKE") or "make"), "-s", "--no-print-directory", "-C", str(ROOT), "build"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as p:
        for line in p.stdout:
            say(f"{wipe()}    {dim(line.rstrip())}")
        if p.wait() != 0:
            raise Failed("the build failed; its output is above")


class Server:
    """A zarpa up of our own on a data directory, and the command line that talks to it."""

    def __init__(self, data):
        self.data, self.log, self.notes, self.process = data, data / "demo.log", [], None

    def start(self):
        self.data.mkdir(parents=True, exist_ok=True)
        args = [str(ZARPA), "up", "--data", str(self.data), "--on-exit", "stop"]
        for flag, usual in (("--api", 7070), ("--gateway", 8080)):
            port = free(usual)
            if port != usual:
                self.notes.append(f"port {usual} is taken, so {flag[2:]} is on {port}")
            args += [flag, f"127.0.0.1:{port}"]
        with open(self.log, "wb") as log:  # in a session of its own: ^C is ours to pass on
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(),
                                            start_new_session=True)
        for _ in range(600):
            if self.process.poll() is not None:
                raise Failed("zarpa up ended:\n" + indent(tail(self.log)))
            with contextlib.suppress(OSError, ValueError):
                info = json.loads((self.data / "server.json").read_text())
                if info["pid"] == self.process.pid:
                    self.zarpa("endpoint", "list")
                    return info["api"]
            time.sleep(0.05)
        raise Failed("zarpa up did not come up in 30 s:\n" + indent(tail(self.log)))

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=75)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed(f"zarpa up did not stop; its log is {relative(self.log)}") from None

    def zarpa(self, *args):
        """The JSON that a command answers."""
        command = [str(ZARPA), *args]
        done = subprocess.run([*command, "--data", str(self.data), "-o", "json"], capture_output=True, text=True,
                              check=False, env=environment())
        if done.returncode != 0:
            raise Failed(f"{shlex.join([relative(ZARPA), *args])}: exit code {done.returncode}\n" +
                         indent(done.stderr.strip()))
        return json.loads(done.stdout)


def environment():
    """This process's environment without what would lead commands to another server."""
    return {k: v for k, v in os.environ.items() if k not in ("ZARPA_SERVER", "ZARPA_TOKEN", "ZARPA_DATA")}


def free(port):
    """The port, or a free one when it is taken."""
    for wanted in (port, 0):
        with socket.socket() as s, contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", wanted))
            return s.getsockname()[1]
    raise Failed("no free port on 127.0.0.1")


def register(server, name):
    """The reference of a model, registered unless its newest version has the same content."""
    path = ROOT / "examples" / name / f"{name}.onnx"
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    versions = [m for m in server.zarpa("model", "list", name) or []]
    newest = max(versions, key=lambda m: m["version"], default=None)
    if newest and [f["digest"] for f in newest["content"]["files"]] == [digest]:
        return f"{name}:{newest['version']}", " was there"
    made = server.zarpa("model", "register", name, str(path))
    return f"{name}:{made['version']}", ""


def deploy(server, name, model):
    """The report of an endpoint that is ready."""
    server.zarpa("deploy", name, "--model", model)
    for _ in range(600):
        report = server.zarpa("endpoint", "show", name)
        if report["phase"] == "ready":
            return report
        time.sleep(0.1)
    raise Failed(f"{name} is {report['phase']} after a minute; {relative(ZARPA)} explain {name} says why")


def post(url, key, rows):
    """The answer to rows, and the seconds it took."""
    request = urllib.request.Request(url, data=json.dumps({"data": rows}).encode(),
                                     headers={"Content-Type": "application/json"})
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    began = time.monotonic()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=60) as answer:
            return json.load(answer), time.monotonic() - began
    except urllib.error.HTTPError as e:
        with e:
            raise Failed(f"{url} answered {e.code}: {e.read().decode(errors='replace').strip()}") from e
    except OSError as e:
        raise Failed(f"{url}: {e}") from e


def refuses(url):
    """Whether an endpoint turns away a call without a key."""
    try:
        post(url, None, [])
    except Failed as e:
        return isinstance(e.__cause__, urllib.error.HTTPError) and e.__cause__.code == 401
    return False


def heldout(name, label):
    """Rows that the model never saw, and what its framework says: one row of every class, at most five."""
    kept = json.loads((ROOT / "examples" / name / "heldout.json").read_text())
    first = {}
    for i, value in enumerate(kept[label]):
        first.setdefault(value, i)
    rows = sorted(first.values())[:5]
    return [kept["inputs"][i] for i in rows], [(kept[label][i], max(kept["probabilities"][i])) for i in rows]


def predictions(answer, label):
    """Label and probability of every row of an answer: probabilities come as maps or as lists."""
    both = zip(answer[label], answer["probabilities"], strict=True)
    return [(value, p[str(value)] if isinstance(p, dict) else p[value]) for value, p in both]


def compare(name, text, shown, got, wanted):
    """Prints predictions beside the expected ones; whether they agree."""
    label = SPECIES.__getitem__ if name == "iris" else str
    say()
    say(f"  {bold(name)}  {dim(text)}")
    say(dim(f"    {'row':<18} {'Zarpa answers':<22} the framework said"))
    agree = len(got) == len(wanted)
    for row, (value, p), (want, q) in zip(shown, got, wanted, strict=False):
        same = value == want and abs(p - q) <= TOLERANCE
        agree = agree and same
        verdict = paint("32", "OK") if same else paint("1;31", "DIFFERENT")
        say(f"    {row:<18} {label(value):<11} {p:<10.6f} {label(want):<11} {q:<10.6f} {verdict}")
    return agree


def pictures(rows):
    """Pictures of 8 by 8 side by side: every character is two pixels, one above the other."""
    say()
    dark = [[[v >= 8 for v in line] for line in row[0]] for row in rows]
    for y in range(0, 8, 2):
        say("    " + "   ".join("".join(" ▀▄█"[up + 2 * down] for up, down in zip(picture[y], picture[y + 1], strict=True))
                               for picture in dark))


def next_steps(server, reports, api):
    iris = reports["iris"]["urls"]["score"]
    zarpa = relative(ZARPA)
    body = '{"data": [[5.1, 3.5, 1.4, 0.2]]}'
    say()
    for name, url in (("iris", iris), ("digits", reports["digits"]["urls"]["score"]), ("API", api)):
        say(f"  {name:<10} {paint('36', url)}")
    say(f"  {'keys':<10} {zarpa} keys iris   {dim('kept encrypted in ' + relative(server.data))}")
    for note in server.notes:
        say(f"  {'note':<10} {note}")
    say()
    say(f"  {bold('Next')}" + (", from another terminal:" if TERMINAL else ":"))
    say(f"    export ZARPA_DATA={shlex.quote(relative(server.data))}")
    if not TERMINAL:
        say(f"    {zarpa} up &")
    say(f"    {zarpa} endpoint list")
    say(f"    {zarpa} invoke iris -d '{body}'")
    say(f"    {zarpa} explain iris")
    say(f"    KEY=$({zarpa} keys iris | sed -n 's/^primary *//p')")
    say(f"    curl -H \"Authorization: Bearer $KEY\" -d '{body}' {iris}")


def relative(path):
    with contextlib.suppress(ValueError):
        return str(path.relative_to(pathlib.Path.cwd()))
    return str(path)


def tail(path):
    return "\n".join(path.read_text(errors="replace").splitlines()[-20:])


def indent(text):
    return "\n".join("    " + line for line in text.splitlines())


def demo(server):
    say()
    with phase("build") as notes:
        build()
        notes.append(f"{relative(ZARPA)} and ONNX Runtime")
    with phase("start") as notes:
        api = server.start()
        notes.append("control plane and gateway")
    with phase("register") as notes:
        models = {}
        for name in ("iris", "digits"):
            models[name], known = register(server, name)
            notes.append(models[name] + known)
    with phase("deploy") as notes:
        reports = {name: deploy(server, name, model) for name, model in models.items()}
        notes.append("both ready, one process each")
    keys = {name: server.zarpa("keys", name)["primary"] for name in models}
    tables = []
    with phase("answer") as notes:
        for name, label in (("iris", "label"), ("digits", "digit")):
            rows, wanted = heldout(name, label)
            answer, seconds = post(reports[name]["urls"]["score"], keys[name], rows)
            tables.append((rows, predictions(answer, label), wanted))
            notes.append(f"{name} in {took(seconds)}")
        for report in reports.values():
            if not refuses(report["urls"]["score"]):
                raise Failed(f"{report['urls']['score']} answers without a key")
        notes.append("401 without key")
    (flowers, *iris), (images, *digits) = tables
    agree = [compare("iris", "scikit-learn: the species of a flower from four measurements in cm",
                     [" ".join(f"{v:.1f}" for v in row) for row in flowers], *iris),
             compare("digits", "a convolutional network: handwritten digits, as below",
                     [f"picture {i + 1}" for i in range(len(images))], *digits)]
    pictures(images)
    if not all(agree):
        raise Failed("predictions differ from the framework's")
    next_steps(server, reports, api)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    sys.stdout.reconfigure(errors="replace")
    server = Server(pathlib.Path(os.environ.get("ZARPA_DATA") or ROOT / ".cache" / "demo").absolute())
    try:
        demo(server)
        if TERMINAL:
            say(f"\n  Zarpa is up. {bold('^C')} stops it.")
            with contextlib.suppress(KeyboardInterrupt):
                server.process.wait()
                raise Failed("zarpa up ended by itself:\n" + indent(tail(server.log)))
            say("\r  stopping " + dim("(gateway and replicas too)"))
    except Failed as e:
        say(f"\n  {paint('1;31', 'demo:')} {e}")
        return 1
    except KeyboardInterrupt:
        say("\r  interrupted")
        return 130
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
