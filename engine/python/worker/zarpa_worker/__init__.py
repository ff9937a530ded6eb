"""The program of Zarpa's Python workers: it runs a scoring script, or a model without one.

The server that carries it starts it, speaks to it over Unix sockets and ends it. It needs the
standard library of Python 3.8 alone; what scripts and models need is imported with them.
"""
