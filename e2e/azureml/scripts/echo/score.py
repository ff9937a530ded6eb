"""Gives back what it got, as the text that it is."""


def init():
    pass


def run(text):
    return {"text": text, "length": len(text)}
