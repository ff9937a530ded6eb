"""Responses of every kind and status."""
import json

from azureml.contrib.services.aml_response import AMLResponse
from flask import Response, jsonify, make_response, redirect


def init():
    pass


def run(data):
    w = json.loads(data)
    kind = w["kind"]
    if kind == "aml":
        return AMLResponse(w.get("message"), w["status"], w.get("headers", {}), json_str=w.get("json", False), run_function_failed=w.get("failed", False))
    if kind == "flask":
        return Response(w.get("message", ""), w["status"], w.get("headers", {}), w.get("mimetype"))
    if kind == "jsonify":
        return jsonify(a=1, b=[2])
    if kind == "make":
        response = make_response("made", 202)
        response.set_cookie("a", "b")
        response.headers.add("X-Two", "1")
        response.headers.add("X-Two", "2")
        return response
    if kind == "redirect":
        return redirect("/elsewhere")
    if kind == "tuple":
        return "body", 404
    return None
