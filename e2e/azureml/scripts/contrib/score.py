"""The older names of raw requests, and the places of a Flask request that scripts read."""
import flask
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse


def init():
    pass


@rawhttp
def run(request):
    what = request.args.get("what", "")
    if what == "context":
        return {
            "same": flask.request.path == request.path,
            "endpoint": request.endpoint,
            "url": request.url.partition("/score")[1],
            "host": request.host.partition(":")[0],
            "args": request.args.to_dict(flat=False),
            "length": request.content_length,
            "secure": request.is_secure,
            "values": request.values.to_dict(),
            "cookies": dict(request.cookies),
            "accept": str(request.accept_mimetypes),
            "remote": request.remote_addr,
            "instance": isinstance(request, flask.Request),
            "names": sorted(k for k in request.headers.keys() if k not in ("Accept-Encoding", "Connection")),
        }
    if what == "after":
        @flask.after_this_request
        def add(response):
            response.headers["X-After"] = "yes"
            return response
        return [1]
    if what == "none":
        return None
    if what == "abort":
        flask.abort(418)
    if what == "raise":
        raise KeyError("x")
    if what == "array":
        return {1, 2}
    return AMLResponse({"method": request.method, "data": request.get_data(as_text=True)}, 201, {"X-A": "1, 2", "X-B": "b"}, json_str=True)
