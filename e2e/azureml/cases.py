"""The requests: what is asked of which script, and where the answers may differ."""

from __future__ import annotations

import json
from typing import Dict, List, NamedTuple, Optional

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PARTS = (
    b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG\x00\xff\r\n'
    b'--edge\r\nContent-Disposition: form-data; name="title"\r\n\r\nhello\r\n--edge--\r\n'
)
PAGE = "https://app.example.com"


class Ask(NamedTuple):
    """A request. differs names a difference of docs/compatibility.md; then status and text are what
    Zarpa answers."""

    body: bytes = b""
    method: str = "POST"
    path: str = "/score"
    headers: Dict[str, str] = JSON
    differs: str = ""
    status: int = 0
    text: str = ""


class Script(NamedTuple):
    """A script with its environment and the requests to it. sdk wants the environment that has the
    real azureml-core; models are folders NAME/VERSION below models/; replica wants the server that the
    worker alone does not have."""

    name: str
    asks: List[Ask]
    entry: str = "score.py"
    environ: Dict[str, str] = {}
    models: Optional[List[str]] = None
    sdk: bool = False
    replica: bool = False


class Broken(NamedTuple):
    """A script that does not load. says are pieces of what Zarpa tells."""

    entry: str
    says: List[str]


def post(value: object, **more: object) -> Ask:
    """A POST of a JSON value."""
    return Ask(json.dumps(value).encode(), **more)  # type: ignore[arg-type]


def get(query: str = "", path: str = "/score", **more: object) -> Ask:
    """A GET."""
    return Ask(method="GET", path=path + query, headers={}, **more)  # type: ignore[arg-type]


def other(method: str, **more: object) -> Ask:
    """A request of another method."""
    return Ask(method=method, headers={}, **more)  # type: ignore[arg-type]


def swaggers() -> List[Ask]:
    """Every version of the description."""
    versions = ("", "?version=2", "?version=2.0", "?version=3", "?version=3.0", "?version=3.1")
    return [get(v, "/swagger.json") for v in versions]


HTML_500 = {"differs": "html-500", "status": 500, "text": "An unexpected error occurred in scoring script"}
ALLOW_405 = {"differs": "allow", "status": 405, "text": "The method is not allowed for the requested URL."}
ALLOW_HEAD = {"differs": "allow", "status": 405}
FORM_BODY = {"differs": "form-body", "status": 200}

IDS = {"differs": "request-ids"}


def named(**ids: str) -> Ask:
    """A prediction whose request has ids."""
    return Ask(b"a", headers={name.replace("_", "-"): value for name, value in ids.items()})


SCRIPTS = [
    Script(
        "plain",
        [
            post({"data": [[1, 2, 3], [4, 5, 6]]}),
            post({"data": []}, headers={}),
            Ask(b"", headers={}),
            Ask(b"{", headers={"Content-Type": "text/plain"}),
            post({"other": 1}),
            get("?data=[[1,2,3]]"),
            get(),
            other("OPTIONS"),
            other("HEAD", **ALLOW_HEAD),
            other("PUT", **ALLOW_405),
            other("DELETE", **ALLOW_405),
            other("PATCH", **ALLOW_405),
            *swaggers(),
        ],
    ),
    Script(
        "echo",
        [
            Ask(b"plain text", headers={"Content-Type": "text/plain"}),
            Ask("\u00e9\U0001f600".encode(), headers={}),
            Ask(b"\xef\xbb\xbf{}"),
            Ask(b"\xff\xfe"),
            Ask(b"a\xc3"),
            Ask(b"a\x00b", headers={}),
            Ask(
                b'{"data": [1]}',
                headers=FORM,
                text='{"text": "{\\"data\\": [1]}", "length": 13}',
                **FORM_BODY,
            ),
            Ask(
                PARTS,
                headers={"Content-Type": "multipart/form-data; boundary=edge"},
                differs="form-body",
                status=400,
                text="UTF-8",
            ),
            get("?a=1&b=[1,2]&c=a&d=null"),
            get("?foo=bar1&foo=bar2&x=y&foo=3"),
            get("?a=NaN&b=1e400&c=-Infinity&d=%22q%22&e=true"),
            get("?a=%FF%41&b=%C3%A9&c=a+b%2Bc&d&e=&=f"),
            get("?a=1;b=2&&c"),
            get("?q=" + "9" * 3900),
        ],
    ),
    Script(
        "values",
        [
            post({"value": v})
            for v in (
                "none",
                "list",
                "tuple",
                "text",
                "json",
                "nan",
                "keys",
                "zero",
                "empty",
                "array",
                "tolist",
                "int64",
                "float64",
                "frame",
                "set",
                "bytes",
                "date",
                "decimal",
                "tuple_key",
                "generator",
                "circular",
                "unknown",
            )
        ],
    ),
    Script(
        "numpy",
        [
            post({"data": [[1, 2, 3, 4]]}),
            post({"data": [[1, 2, 3, 4], [1, 1, 1, 1], [0, 0, 0, 0]]}),
            post({"data": [[1.5, 2, 3, 4]]}),
            post({"data": [[1, 2, 3]]}),
            post({"data": "text"}),
            post({"data": None}),
            post({}),
            post([1]),
            post("text"),
            Ask(b""),
            Ask(b"{"),
            Ask(b'{"data": [[1,2,3,4]]}{'),
            Ask(b"\xff"),
            Ask(b"[" * 100000),
            Ask(b'{"data": ' + b"9" * 5000 + b"}"),
            Ask(b"\xef\xbb\xbf" + b'{"data": [[1,2,3,4]]}'),
            post({"data": [[1, 2, 3, 4]], "more": 1}),
            post({"data": [[1, 2, 3, 4]]}, headers={}),
            post({"data": [[1, 2, 3, 4]]}, headers={"Content-Type": "text/json"}),
            post({"data": [[1, 2, 3, 4]]}, headers={"Content-Type": "APPLICATION/Vnd.x+JSON; charset=utf-8"}),
            post({"data": [[1, 2, 3, 4]]}, headers=FORM),
            get("?data=[[1,2,3,4]]"),
            get("?data=1"),
            get(),
            other("OPTIONS"),
            other("HEAD", **ALLOW_HEAD),
            *swaggers(),
        ],
    ),
    Script(
        "pandas",
        [
            post(
                {
                    "Inputs": {"data": [{"age": 1, "job": "services"}, {"age": 2, "job": "x"}]},
                    "GlobalParameters": {"method": "predict"},
                }
            ),
            post(
                {
                    "Inputs": {"data": [{"age": 1, "job": "services"}]},
                    "GlobalParameters": {"method": "predict_proba"},
                }
            ),
            post({"Inputs": {"data": [{"age": 1, "job": "services"}]}}),
            post({"Inputs": {"data": [{"age": "x", "job": 1}]}}),
            post({"Inputs": [1]}),
            post({"data": [{"age": 1}]}),
            *swaggers(),
        ],
    ),
    Script(
        "frame",
        [
            post({"data": [{"x": 1.5, "flag": True}, {"x": 2.5, "flag": False}]}),
            post({"data": [{"x": 1.5}]}),
            post({"data": {"x": [1]}}),
            *swaggers(),
        ],
    ),
    Script(
        "standard",
        [
            post({"name": "a", "numbers": [1, 2.5], "scale": 3}, headers={**JSON, "User-Agent": "agent/1"}),
            post({"name": "a", "numbers": [1]}, headers={**JSON, "User-Agent": "agent/1"}),
            post({"name": "fail", "numbers": [1]}),
            post({"name": 1, "numbers": [1]}),
            post({"name": "a", "numbers": [True]}, headers={**JSON, "User-Agent": "agent/1"}),
            post({"name": "a"}),
            Ask(
                method="GET",
                path="/score?name=a&numbers=1.5&numbers=2.5&scale=2",
                headers={"User-Agent": "agent/1"},
            ),
            *swaggers(),
        ],
    ),
    Script(
        "output",
        [
            post({"a": 1, "b": 2}),
            post({"a": 1}),
            post({"b": 1}),
            post({"a": None}),
            Ask(b"1"),
            get("?a=5"),
            *swaggers(),
        ],
    ),
    Script(
        "mixed",
        [
            post({"data": [{"a": 1}, "b", 2.5]}),
            *swaggers(),
            get("?version=4", "/swagger.json"),
            get("?version=", "/swagger.json"),
        ],
    ),
    Script(
        "raw",
        [
            Ask(b"\x00\x01\xff", headers={"Content-Type": "image/png"}),
            Ask(b"abc", headers={}),
            Ask(PARTS, headers={"Content-Type": "multipart/form-data; boundary=edge"}),
            post({"a": [1]}, headers={**JSON, "User-Agent": "agent/2"}),
            Ask(b"{", headers=JSON),
            Ask(b"a=1&b=2&a=3", headers=FORM),
            get("?a=1&b=%20x"),
            get(),
            other("OPTIONS"),
            other("HEAD"),
            other("PUT", **ALLOW_405),
            *swaggers()[:2],
        ],
    ),
    Script(
        "contrib",
        [
            post({"a": 1}),
            Ask(
                b"text",
                path="/score?what=context&a=1&a=2",
                headers={"Cookie": "a=b; c=d", "Accept": "text/html;q=0.5, */*", "X-Under": "1"},
            ),
            Ask(b"", path="/score?what=after"),
            Ask(b"", path="/score?what=none"),
            Ask(b"", path="/score?what=abort"),
            Ask(b"", path="/score?what=raise"),
            Ask(b"", path="/score?what=array"),
            other("HEAD"),
            other("OPTIONS"),
            other("DELETE", **ALLOW_405),
        ],
    ),
    Script(
        "headers",
        [
            Ask(
                b"x",
                headers={
                    "Content-Type": "Text/Plain; Charset=x",
                    "User-Agent": "agent/3",
                    "x-custom": " a  b ",
                    "TraceId": "t",
                    "x-ms-client-request-id": "c",
                },
            ),
            Ask(b"", headers={"X-Custom": "", "User-Agent": ""}),
            Ask(b"x", headers={"X-Latin": "\u00e9\u00ff", "Accept": "a/b", "X_Custom": "dropped"}),
            get("?a=1"),
        ],
    ),
    Script(
        "stream",
        [
            post({"kind": "flask"}),
            post({"kind": "aml"}),
            post({"kind": "bytes"}),
            post({"kind": "context"}),
            post({"kind": "empty"}),
            post({"kind": "blank"}),
            post({"kind": "first"}, **HTML_500),
            post({"kind": "middle"}),
            post({"kind": "none"}),
        ],
    ),
    Script(
        "responses",
        [
            post({"kind": "aml", "status": 200, "message": "text"}),
            post({"kind": "aml", "status": 200, "message": None}),
            post({"kind": "aml", "status": 201, "message": {"a": 1}, "json": True}),
            post({"kind": "aml", "status": 400, "message": "bad"}),
            post({"kind": "aml", "status": 200, "message": "failed", "failed": True}),
            post({"kind": "aml", "status": 503, "message": "later", "headers": {"Retry-After": "5"}}),
            post(
                {
                    "kind": "aml",
                    "status": 200,
                    "message": "a",
                    "headers": {"Content-Type": "image/png", "X-A": "1,2"},
                }
            ),
            post({"kind": "aml", "status": 200, "message": {"a": 1}}),
            post({"kind": "flask", "status": 200, "message": "a"}),
            post({"kind": "flask", "status": 204}),
            post({"kind": "flask", "status": 304}),
            post({"kind": "flask", "status": 404, "message": "no"}),
            post({"kind": "flask", "status": 500, "message": "no"}),
            post({"kind": "flask", "status": 599, "message": "no", "mimetype": "text/plain"}),
            post(
                {
                    "kind": "flask",
                    "status": 200,
                    "message": "a",
                    "headers": {"X-Ms-Run-Function-Failed": "maybe"},
                }
            ),
            post({"kind": "jsonify"}),
            post({"kind": "make"}),
            post({"kind": "redirect"}),
            post({"kind": "tuple"}),
        ],
    ),
    Script(
        "errors",
        [
            post({"kind": "exception"}),
            post({"kind": "exit"}, **HTML_500),
            post({"kind": "base"}, **HTML_500),
            post({"kind": "recursion"}),
            post({"kind": "memory"}),
            post(
                {"kind": "timeout"},
                differs="own-timeout",
                status=500,
                text="An unexpected error occurred in scoring script",
            ),
            post({"kind": "sleep"}),
            post({"kind": "spin"}),
            post({"kind": "swallow"}),
            post({"kind": "fine"}),
        ],
        environ={"SCORING_TIMEOUT_MS": "400"},
    ),
    Script("model", [post(1)], models=["iris/3"], sdk=True),
    Script("models", [post(1)], models=["iris/3", "text/12", "text/9"], sdk=True),
    Script("folders", [post(1)], entry="src/scoring/score.py", environ={"AZUREML_SOURCE_DIRECTORY": "src"}),
    Script("driver", [post({"data": [1, 2]}), post({"input_data": 1}), *swaggers()]),
    Script(
        "context",
        [
            Ask(b"x", path="/score?a=1", headers={"X-Custom": "c"}),
            get("?a=1"),
            other("OPTIONS"),
            other("PATCH", **ALLOW_405),
        ],
    ),
    Script("described", swaggers()),
    Script("config", [post(1), *swaggers()]),
    Script(
        "echo",
        [
            Ask(b"a", headers={"Origin": PAGE}),
            Ask(b"a", headers={}),
            Ask(b"\xff", headers={"Origin": PAGE}),
            Ask(
                method="OPTIONS",
                headers={
                    "Origin": PAGE,
                    "Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Headers": "x-b, x-a",
                },
            ),
            Ask(method="OPTIONS", headers={"Origin": PAGE, "Access-Control-Request-Method": "PUT"}),
            Ask(method="OPTIONS", headers={"Origin": PAGE}),
            other("HEAD", **ALLOW_HEAD),
        ],
        environ={"AML_CORS_ORIGINS": "*"},
    ),
    Script(
        "echo",
        [
            Ask(b"a", headers={"Origin": PAGE}),
            Ask(b"a", headers={"Origin": PAGE.upper()}),
            Ask(b"a", headers={"Origin": "https://one.example.org"}),
            Ask(b"a", headers={"Origin": "https://elsewhere.net"}),
            Ask(b"a", headers={}),
            Ask(
                method="OPTIONS", headers={"Origin": "https://b.net", "Access-Control-Request-Method": "GET"}
            ),
        ],
        environ={
            "AML_CORS_ORIGINS": "https://b.net, https://app.example.com ,https://[a-z]+\\.example\\.org"
        },
    ),
    Script(
        "echo",
        [
            Ask(b"a", headers={"Origin": PAGE}),
            Ask(b"a", headers={"Origin": "https://b.net"}),
            Ask(b"a", headers={}),
        ],
        environ={"AML_CORS_ORIGINS": PAGE},
    ),
]

SCRIPTS.append(
    Script(
        "echo",
        [
            named(),
            named(x_request_id="A"),
            named(x_ms_request_id="B"),
            named(x_ms_client_request_id="C"),
            named(x_ms_request_id="B", x_ms_client_request_id="C"),
            named(x_request_id="A", x_ms_request_id="B", x_ms_client_request_id="C", TraceId="T"),
            named(x_request_id="A" * 100),
            named(x_request_id="A" * 101)._replace(status=431, text="x-request-id", **IDS),
            named(x_ms_request_id="A" * 101, TraceId="T")._replace(status=431, text="x-ms-request-id", **IDS),
            named(x_request_id="")._replace(status=200, **IDS),
            get(path="/", differs="healthy", status=200, text="Healthy"),
            get(path="/nowhere", differs="request-ids", status=404),
            get(path="/score/", differs="request-ids", status=404),
            Ask(path="/", differs="request-ids", status=405),
            Ask(path="/swagger.json", differs="request-ids", status=405),
            get("?q=" + "a" * 5000, differs="long-line", status=200),
            Ask(b"a" * (8 << 20)),
        ],
        replica=True,
    )
)

BROKEN = [
    Broken("no_init.py", ["it has no function init()", "def init()"]),
    Broken("no_run.py", ["it has no function run()"]),
    Broken("syntax.py", ["syntax.py, line 5", "expected ':'"]),
    Broken(
        "missing.py",
        ["missing.py, line 3", "no module sklearn", "add the line scikit-learn to requirements.txt"],
    ),
    Broken("raises.py", ["init() failed at raises.py, line 2", "the model is not here"]),
    Broken("exits.py", ["init() failed at exits.py, line 5", "sys.exit()"]),
    Broken("args.py", ["*args", "ordinary parameters"]),
    Broken("kwargs.py", ["**kwargs", "ordinary parameters"]),
    Broken("positional.py", ["ordinary parameters"]),
    Broken("only_headers.py", ["no parameter for the request"]),
    Broken("both.py", ["both @rawhttp and a schema decorator"]),
    Broken("name_error.py", ["name_error.py, line 1", "NameError"]),
    Broken("nowhere.py", ["nowhere.py is not in the code", "no_init.py"]),
]
