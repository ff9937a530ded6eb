"""A LitServe API: python serve_litserve.py PORT WORKERS API_SERVERS"""

import sys

import litserve
import numpy as np
from onnxmodel import Model


class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = Model()

    def decode_request(self, request):
        return np.array(request["data"], np.float32)

    def predict(self, rows):
        return self.model.run(rows)

    def encode_response(self, answers):
        return {name: answer.tolist() for name, answer in answers.items()}


if __name__ == "__main__":
    port, workers, api_servers = map(int, sys.argv[1:])
    server = litserve.LitServer(Api(api_path="/score"), accelerator="cpu", workers_per_device=workers)
    server.run(
        host="127.0.0.1", port=port, num_api_servers=api_servers, generate_client_file=False, log_level="warning"
    )
