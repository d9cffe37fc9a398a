"""compare.sh's tables and JSON.

compare.py taken JSON-FILE
    Prints how many messages a comparison counted as taken; fails if it met an error, or if anything was refused.
compare.py FOLDER-OF-THE-RUN [JSON-FILE]
    Prints the tables of a run; writes all that was found as JSON.
"""

import json
import statistics
import sys

from figures import closing_line, machine, median, servers, show, spread


def taken(path):
    """Of one comparison; says on standard error what went wrong."""
    cases = json.load(open(path))["cases"]
    wrong = [f"{case['name']}: {kind}, {error['times']} times: {error['first']}"
             for case in cases for kind, error in case["errors"].items()]
    wrong += [f"{case['name']}: {case['failed']} messages failed" for case in cases if case["failed"]]
    wrong += [f"{case['name']}: nothing was taken" for case in cases if not case["messages"]]
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        sys.exit(1)
    return sum(case["messages"] for case in cases)


def key(case):
    """What makes cases of several rounds one."""
    return case["mode"], case["tickets"], "one" if case["messages_per_session"] == 1 else "many"


def rounds_of(cases):
    """The load generator's own rounds, of all comparisons."""
    return [one for case in cases for one in case["rounds"]]


def summed_up(cases):
    """One case of several comparisons."""
    handshakes = {name: sum(case["handshakes"][name] for case in cases) for name in ("full", "resumed")}
    of = lambda name: spread([one[name] for one in rounds_of(cases)], 1)
    # No session of many messages may have ended in a short round.
    p99s = [one["session_p99_us"] for one in rounds_of(cases)]
    return {
        "messages_per_session": cases[0]["messages_per_session"],
        "sessions_per_second": of("sessions_per_second"),
        "messages_per_second": of("messages_per_second"),
        "server_cpu_us_per_session": of("server_cpu_us_per_session"),
        "server_cpu_us_per_message": of("server_cpu_us_per_message"),
        "session_p99_ms": spread([us and us / 1000 for us in p99s], 1),
        "server_cores": spread([case["server"]["cores"] for case in cases], 2),
        "load_busiest_share": spread([case["generator"]["busiest_share"] for case in cases], 2),
        "handshakes": handshakes,
        "resumed_share": handshakes["resumed"] / (sum(handshakes.values()) or 1),
    }


def ratio(negotiated, implicit, name):
    """Pair by pair, for they were measured side by side."""
    pairs = zip(rounds_of(negotiated), rounds_of(implicit), strict=True)
    return spread([one[name] / other[name] for one, other in pairs if one[name] and other[name]], 3)


def gathered(run):
    """All that the run found, by server."""
    measured = servers(run)
    for server in measured.values():
        server["rounds"] = []
    for line in open(f"{run}/rounds"):
        name, number, kept, seconds, server_us, load_s, others_busy, syncs = line.split()
        measured[name]["rounds"].append({
            "messages_with_warm_up": int(kept),
            "load_core_busy": float(load_s) / float(seconds),
            "others_cores_busy": float(others_busy),
            "syncs_per_message": None if syncs == "-" else int(syncs) / int(kept),
            "compare": json.load(open(f"{run}/{name}.{number}.json")),
        })
    for server in measured.values():
        cases = {}
        for one in server["rounds"]:
            for case in one["compare"]["cases"]:
                cases.setdefault(key(case), []).append(case)
        server["cases"] = {" · ".join(name): summed_up(rounds) for name, rounds in cases.items()}
        server["negotiated_to_implicit"] = {
            f"{tickets} · {count}": {
                name: ratio(cases["starttls", tickets, count], cases["tls", tickets, count], name)
                for name in ("server_cpu_us_per_session", "server_cpu_us_per_message", "sessions_per_second")}
            for mode, tickets, count in cases if mode == "starttls"}
        of = lambda name: [one[name] for one in server["rounds"]]
        server["others_cores_busy"] = spread(of("others_cores_busy"), 2)
        traced = server.pop("traced_syncs")
        server["syncs_per_message"] = float(traced) if traced else round(statistics.median(of("syncs_per_message")), 4)
    return measured


def tables(report):
    """As Markdown."""
    for server in report["servers"].values():
        plain = server["cases"]["plain · none · many"]
        many = plain["messages_per_session"]
    yield (f"| server | TLS by | 250 promises; then | syncs a message | {many} messages a session in clear: messages/s "
           "| CPU µs a message | inside TLS: CPU µs a message | load's thread busy | others busy |")
    yield "|---|---|---|---|---|---|---|---|---|"
    for server in report["servers"].values():
        plain = server["cases"]["plain · none · many"]
        inside = server["cases"]["tls · full · many"]
        yield (f"| {server['title']}, {server['version']} | {server['tls_by']} | {server['promise']}; {server['after_250']} "
               f"| {server['syncs_per_message']:.2f} | {show(plain['messages_per_second'])} "
               f"| {show(plain['server_cpu_us_per_message'])} | {show(inside['server_cpu_us_per_message'])} | {plain['load_busiest_share']['median']:.0%} "
               f"| {show(server['others_cores_busy'], 2)} |")
    yield ""
    yield ("| server, one message a session | handshake | resumed | sessions/s negotiated | sessions/s implicit "
           "| CPU µs a session negotiated | CPU µs a session implicit | negotiated : implicit | session p99 ms, negotiated; implicit | server's core busy |")
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for server in report["servers"].values():
        clear = server["cases"]["plain · none · one"]
        yield (f"| {server['title']} | none: in clear | – | {show(clear['sessions_per_second'])} | – "
               f"| {show(clear['server_cpu_us_per_session'])} | – | – | {median(clear['session_p99_ms'], ',.1f')} | {clear['server_cores']['median']:.0%} |")
        for tickets in ("full", "resumed"):
            negotiated, implicit = (server["cases"][f"{mode} · {tickets} · one"] for mode in ("starttls", "tls"))
            share = "–"
            if tickets == "resumed":
                share = "; ".join(f"{case['resumed_share']:.0%}" for case in (negotiated, implicit))
            yield (f"| {server['title']} | {tickets} | {share} | {show(negotiated['sessions_per_second'])} "
                   f"| {show(implicit['sessions_per_second'])} | {show(negotiated['server_cpu_us_per_session'])} "
                   f"| {show(implicit['server_cpu_us_per_session'])} "
                   f"| {show(server['negotiated_to_implicit'][f'{tickets} · one']['server_cpu_us_per_session'], 2)} "
                   f"| {median(negotiated['session_p99_ms'], ',.1f')}; {median(implicit['session_p99_ms'], ',.1f')} "
                   f"| {negotiated['server_cores']['median']:.0%}; {implicit['server_cores']['median']:.0%} |")
    yield ""
    count = len(next(iter(report["servers"].values()))["rounds"])
    yield (f"Median of {count} rounds of two in turn (least–most); the ratio is of CPU a session, pair by pair. "
           f"`{report['command']}`. {closing_line(report)}")
    yield from report["notes"]


def main():
    """By the arguments."""
    if sys.argv[1] == "taken":
        print(taken(sys.argv[2]))
        return
    run, json_path = sys.argv[1], sys.argv[2]
    report = machine(run) | {"servers": gathered(run)}
    print("\n".join(tables(report)))
    if json_path:
        with open(json_path, "w") as file:
            json.dump(report, file, indent=2, ensure_ascii=False)
            file.write("\n")


main()
