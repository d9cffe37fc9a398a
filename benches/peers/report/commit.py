"""Prints commit.sh's table, from the rows of its rounds; writes the same as JSON.

commit.py FOLDER-OF-THE-RUN [JSON-FILE]
"""

import json
import statistics
import sys

from figures import closing_line, machine, servers, show, spread

run, json_path = sys.argv[1], sys.argv[2]

measured = servers(run)
for line in open(f"{run}/rounds"):
    key, messages, seconds, server_us, load_s, others_busy, syncs = line.split()
    messages, seconds = int(messages), float(seconds)
    measured[key].setdefault("rounds", []).append({
        "messages": messages,
        "seconds": seconds,
        "messages_per_second": messages / seconds,
        "cpu_us_per_message": int(server_us) / messages,
        "load_core_busy": float(load_s) / seconds,
        "others_cores_busy": float(others_busy),
        "syncs_per_message": None if syncs == "-" else int(syncs) / messages,
    })

base = measured.get("ringpost-disk", {}).get("rounds")
for server in measured.values():
    of = lambda name: [row[name] for row in server["rounds"]]
    server["messages_per_second"] = spread(of("messages_per_second"), 1)
    server["cpu_us_per_message"] = spread(of("cpu_us_per_message"), 1)
    server["load_core_busy"] = spread(of("load_core_busy"), 2)
    server["others_cores_busy"] = spread(of("others_cores_busy"), 2)
    traced = server.pop("traced_syncs")
    server["syncs_per_message"] = float(traced) if traced else round(statistics.median(of("syncs_per_message")), 4)
    if base:  # round by round, for they were measured side by side
        server["rate_ringpost_to_this"] = spread(
            [a["messages_per_second"] / b["messages_per_second"] for a, b in zip(base, server["rounds"])], 3)
        server["cpu_ringpost_to_this"] = spread(
            [a["cpu_us_per_message"] / b["cpu_us_per_message"] for a, b in zip(base, server["rounds"])], 3)

report = machine(run) | {"load": "smtp-source -s 64 -l 2048 -d", "servers": measured}

print("| server | version | 250 promises; then | messages/s | CPU µs a message | syncs a message "
      "| rate, ringpost : this | CPU, ringpost : this | load's core busy | others busy |")
print("|---|---|---|---|---|---|---|---|---|---|")
for s in measured.values():
    ratio = show(s["rate_ringpost_to_this"], 2) if base else "–"
    cpu_ratio = show(s["cpu_ringpost_to_this"], 3) if base else "–"
    print(f"| {s['title']} | {s['version']} | {s['promise']}; {s['after_250']} | {show(s['messages_per_second'])} "
          f"| {show(s['cpu_us_per_message'])} | {s['syncs_per_message']:.3f} | {ratio} | {cpu_ratio} "
          f"| {s['load_core_busy']['median']:.0%} | {show(s['others_cores_busy'], 2)} |")
print(f"""
Median of {len(next(iter(measured.values()))['rounds'])} rounds in turn (least–most); ratios to ringpost --durability \
disk, round by round. `{report['command']}`, load `{report['load']}`.
{closing_line(report)}""")
for note in report["notes"]:
    print(note)
if json_path:
    with open(json_path, "w") as file:
        json.dump(report, file, indent=2, ensure_ascii=False)
        file.write("\n")
