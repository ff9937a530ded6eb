"""Runs real clients against a running server: main.py SUITE --rest HOST:PORT[/PATH] --grpc HOST:PORT [-H 'Name: value']"""

import argparse
import importlib
import sys

import check
from target import Target


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=["triton", "kserve", "commands"], help="one at a time: two of them bring the protocol's messages")
    parser.add_argument("--rest", required=True, help="HOST:PORT, with a path before /v2 behind it")
    parser.add_argument("--grpc", required=True, help="HOST:PORT")
    parser.add_argument("-H", "--header", action="append", default=[], help="'Name: value', of requests and calls")
    parser.add_argument("--only", default="", help="part of the names of the checks to run")
    args = parser.parse_args()
    sys.argv[1:] = []  # kserve reads them when it is imported
    importlib.import_module("check_" + args.suite)
    headers = dict(h.split(": ", 1) for h in args.header)
    check.CHECKS[:] = [f for f in check.CHECKS if args.only in f.__module__ + "." + f.__name__]
    sys.exit(check.run(Target(args.rest, args.grpc, headers)))


if __name__ == "__main__":
    main()
