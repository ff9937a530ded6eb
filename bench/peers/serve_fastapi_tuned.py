"""FastAPI as fast as it gets: orjson both ways, no checks, no thread for a request."""

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from onnxmodel import Model

app = FastAPI()
model = Model()


@app.post("/score")
async def score(request: Request):
    rows = np.array(orjson.loads(await request.body())["data"], np.float32)
    answer = orjson.dumps(model.run(rows), option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(answer, media_type="application/json")
