"""What the reports of this folder share: spreads over rounds, and the machine that they were measured on."""

import datetime
import os
import platform
import re
import statistics


def spread(values, digits):
    """Median, and the least and the most of the rounds; None if no round has a value."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    low, middle, high = min(values), statistics.median(values), max(values)
    return {"median": round(middle, digits), "min": round(low, digits), "max": round(high, digits)}


def show(value, digits=0):
    """A spread as a cell of a table."""
    if value is None:
        return "–"
    form = f"{{:,.{digits}f}}"
    return f"{form.format(value['median'])} ({form.format(value['min'])}–{form.format(value['max'])})"


def median(value, form):
    """Its median alone."""
    return "–" if value is None else f"{value['median']:{form}}"


def machine(run):
    """When, where and by which command; the script leaves in the environment what it alone knows."""
    model = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} × {model.group(1) if model else platform.machine()}",
        "file_system": os.popen(f"findmnt --noheadings --output FSTYPE --target {run}").read().strip(),
        "commit": os.environ["COMMIT"],
        "command": os.environ["COMMAND"],
        "loadavg_before": os.environ["LOAD_BEFORE"],
        "loadavg_after": os.environ["LOAD_AFTER"],
        "notes": open(f"{run}/notes").read().split("\n")[:-1],
    }


def servers(run):
    """What the script tells of each server, by key, in the order of its list."""
    names = ["key", "title", "version", "promise", "after_250", "tls_by", "resumes", "traced_syncs"]
    rows = (dict(zip(names, line.rstrip("\n").split("|"), strict=True)) for line in open(f"{run}/servers"))
    return {row.pop("key"): row for row in rows}


def closing_line(machine):
    """Date, kernel, machine and what else was going on."""
    return (
        f"{machine['date']}, Linux {machine['kernel']}, {machine['cpu']}, {machine['file_system']}, "
        f"commit {machine['commit']}. Load average {machine['loadavg_before']} before, {machine['loadavg_after']} after."
    )
