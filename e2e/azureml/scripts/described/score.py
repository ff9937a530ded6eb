"""Descriptions of the user's own, one of them written by init()."""
import json


def init():
    with open("swagger3.json", "w") as file:
        json.dump({"openapi": "3.0.3", "info": {"title": "written by init"}}, file)


def run(data):
    return None
