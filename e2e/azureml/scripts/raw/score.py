"""The sample of raw requests: an image in, a histogram or an image out."""
from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    print("This is init()")


@rawhttp
def run(request: AMLRequest):
    if request.method == "GET":
        return AMLResponse(str.encode(request.full_path), 200)
    if request.method == "POST":
        if request.content_type and request.content_type.startswith("multipart/form-data"):
            file = request.files["image"]
            return {"name": file.filename, "size": len(file.read()), "fields": request.form.to_dict()}
        if request.is_json:
            return {"json": request.get_json(), "agent": request.headers["User-Agent"]}
        if request.content_type == "application/x-www-form-urlencoded":
            return {"form": request.form.to_dict(flat=False)}
        body = request.get_data(False)
        return AMLResponse(body[::-1], 200, {"Content-Type": "application/octet-stream", "X-Length": str(len(body))})
    if request.method == "OPTIONS":
        answer = AMLResponse("", 200)
        answer.headers["Allow"] = "GET, POST, OPTIONS"
        answer.headers["X-From-Script"] = "yes"
        return answer
    return AMLResponse("bad request", 500)
