"""An entry script that does nothing: what is left is the server's."""


def init():
    pass


def run(data):
    return {}
