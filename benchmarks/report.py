"""How the benchmarks say what they found: a table, where it was measured, and the numbers as JSON."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

PEERS = ("denoising-diffusion-pytorch", "diffusers")


def machine() -> dict[str, Any]:
    """Where and with what this ran."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "date": date.today().isoformat(),
        "processor": names[0] if names else platform.processor(),
        "cores": len(names) or None,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "peers": {name: version(name) for name in PEERS if find_spec(name.replace("-", "_"))},
        "bf16": torch.cpu._is_avx512_bf16_supported(),
        "command": shlex.join(["python", *sys.argv]),
    }


def heading(title: str, data: str = "") -> str:
    """The title of a table and the machine below it."""
    found = machine()
    device = found["gpu"] or f"{found['processor']}, {found['cores']} cores, {found['threads']} threads"
    bf16 = "avx512-bf16" if found["bf16"] else "no bf16 instructions"
    versions = ", ".join(f"{name} {number}" for name, number in {"torch": found["torch"], **found["peers"]}.items())
    where = f"{found['date']} · {device}, {bf16} · {versions}{f' · data: {data}' if data else ''}"
    return f"\n### {title}\n\n`{found['command']}`  \n{where}\n"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """In Markdown, columns aligned; the first is text, the others numbers."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def write_json(path: str | None, results: object) -> None:
    """The machine and the results, if a path was given."""
    if path:
        Path(path).write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
