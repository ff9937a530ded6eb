"""A Ray Serve deployment: python serve_ray.py PORT REPLICAS"""

import sys

import numpy as np
from onnxmodel import Model
from ray import serve
from starlette.requests import Request


@serve.deployment(ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=64)
class Score:
    def __init__(self):
        self.model = Model()

    async def __call__(self, request: Request):
        answers = self.model.run(np.array((await request.json())["data"], np.float32))
        return {name: answer.tolist() for name, answer in answers.items()}


if __name__ == "__main__":
    port, replicas = map(int, sys.argv[1:])
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Score.options(num_replicas=replicas).bind(), route_prefix="/score", blocking=True)
