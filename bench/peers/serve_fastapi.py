"""FastAPI as its tutorial writes it: a model of the request, a plain function."""

import numpy as np
from fastapi import FastAPI
from onnxmodel import Model
from pydantic import BaseModel

app = FastAPI()
model = Model()


class Rows(BaseModel):
    data: list


@app.post("/score")
def score(rows: Rows):
    answers = model.run(np.array(rows.data, np.float32))
    return {name: answer.tolist() for name, answer in answers.items()}
