#!/usr/bin/env python3
"""Measures what making load costs: ringpost-loadgen beside Postfix's smtp-source, against the same smtp-sink.

    benches/peers/load.py [--rounds N] [--messages N] [--loadgen FILE] [--server-core N] [--load-core N]

smtp-sink runs on one core, the load on another: 64 sessions, 2 KiB messages, in clear. In turn load is made by
smtp-source, by ringpost-loadgen in smtp-source's way (one command at a time, DATA), and by ringpost-loadgen as
it is (PIPELINING); each with sessions that stay open, and with one message a session. Written is a Markdown table:
CPU time of the load's process for each message, median of the rounds (least-most), and its ratio to smtp-source's
in the same round.

Both programs must say that every message was taken. smtp-source and smtp-sink are those that tests/run has
unpacked into target/test-programs.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = REPOSITORY / "target/test-programs/usr"
ENVIRONMENT = {**os.environ, "LD_LIBRARY_PATH": str(PROGRAMS / "lib/postfix")}


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--messages", type=int, default=30_000)
    flags.add_argument("--loadgen", default=REPOSITORY / "target/release/ringpost-loadgen")
    flags.add_argument("--server-core", type=int, default=0)
    flags.add_argument("--load-core", type=int, default=1)
    flags = flags.parse_args()
    for program in [flags.loadgen, PROGRAMS / "sbin/smtp-source", PROGRAMS / "sbin/smtp-sink"]:
        if not os.access(program, os.X_OK):
            sys.exit(f"load.py: no {program}: run cargo build --release --workspace and tests/run --no-run first")

    port = free_port()
    with Sink(port, flags.server_core):
        print("| sessions | load by | CPU µs a message | to smtp-source |")
        print("|---|---|---|---|")
        for title, each, stays in [("stay open", 0, ["-d"]), ("one a message", 1, [])]:
            source = [PROGRAMS / "sbin/smtp-source", "-s", "64", "-l", "2048", "-m", str(flags.messages), *stays,
                      "-f", "sender@loadgen.test", "-t", "you@localhost", f"127.0.0.1:{port}"]
            loadgen = [flags.loadgen, "run", "--target", f"127.0.0.1:{port}", "--closed", "--warmup", "0s",
                       "--messages", str(flags.messages), "--messages-per-session", str(each), "--json", "-"]
            one_by_one = [*loadgen, "--pipelining", "no", "--chunking", "no"]
            rows = {"smtp-source": source, "ringpost-loadgen, one command at a time": one_by_one,
                    "ringpost-loadgen": loadgen}
            costs = {name: [] for name in rows}
            for _ in range(flags.rounds):
                for name, command in rows.items():
                    costs[name].append(cost(command, flags))
            for name, measured in costs.items():
                ratios = [one / other for one, other in zip(measured, costs["smtp-source"])]
                print(f"| {title} | {name} | {spread(measured, '.1f')} | {spread(ratios, '.2f')} |")


def cost(command, flags):
    """CPU time of this load for each message, in microseconds; every message must have been taken."""
    pinned = ["taskset", "--cpu-list", str(flags.load_core), *map(str, command)]
    process = subprocess.Popen(pinned, env=ENVIRONMENT, stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"load.py: {pinned} ended with {process.returncode}")
    if output:
        taken = json.loads(output)["cases"][0]["messages"]
        if taken != flags.messages:
            sys.exit(f"load.py: {taken} of {flags.messages} messages were taken")
    return (usage.ru_utime + usage.ru_stime) * 1e6 / flags.messages


def spread(figures, form):
    return f"{statistics.median(figures):{form}} ({min(figures):{form}}–{max(figures):{form}})"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Sink:
    """smtp-sink on one core, from when it greets to the end."""

    def __init__(self, port, core):
        # Root has to say whom it becomes.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self.port = port
        self.command = ["taskset", "--cpu-list", str(core), str(PROGRAMS / "sbin/smtp-sink"), *user,
                        f"127.0.0.1:{port}", "1000"]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, env=ENVIRONMENT)
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                    if connection.recv(512).startswith(b"220"):
                        return self
            except OSError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit("load.py: smtp-sink does not greet")
            time.sleep(0.1)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


if __name__ == "__main__":
    main()
