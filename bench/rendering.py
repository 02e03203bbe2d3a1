"""How fast Score files are rendered: `.venv/bin/python bench/rendering.py [--files N] [--json]`.

Renders N different Score files (1,000) in one process, from their bytes to canonical manifests, and checks every object
against the Kubernetes schemas, as the gate does. bench/judgement.py takes its figure from `measure`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sekisho.model import IMAGE_HOST
from stages.judge_schema import schema_reasons
from stages.render import render

TARGET_SECONDS = 5.0
GOLDEN = Path(__file__).resolve().parents[1] / "tests/unit/golden/full.score.yaml"


def files(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` apps with different Score files: all that Score has in each, and its containers again in some."""
    text = GOLDEN.read_text(encoding="utf-8")
    for number in range(count):
        app = f"orders-{number}"
        body = text.replace("name: orders", f"name: {app}", 1).replace("team: blue", f"team: team-{number % 17}", 1)
        more = "".join(
            f"  more{index}: {{image: ., variables: {{INDEX: '{index}', HOST: '${{resources.db.host}}'}}}}\n"
            for index in range(number % 4)
        )
        yield app, body.replace("\nresources:\n", f"\n{more}resources:\n", 1).encode()


def measure(count: int = 1000) -> dict[str, float]:
    """Return the seconds that rendering, and checking against the schemas, of `count` files take."""
    given = list(files(count))
    render(given[0][1], app=given[0][0], image=_image(given[0][0]))  # what is loaded once for a process
    start = time.perf_counter()
    made = [render(data, app=app, image=_image(app)) for app, data in given]
    for manifests in made:
        manifests.canonical()
    rendered = time.perf_counter()
    failed = [reason for manifests in made for reason in schema_reasons(manifests.objects) if reason.result != "pass"]
    if failed:
        raise SystemExit(f"{len(failed)} objects do not fit: {failed[0].message}")
    return {"render_s": rendered - start, "schemas_s": time.perf_counter() - rendered}


def _image(app: str) -> str:
    return f"{IMAGE_HOST}/apps/{app}@sha256:{'a' * 64}"


def main() -> int:
    """Measure and print; exit code 1 when the figure misses its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cpu = time.process_time()
    figures = measure(options.files) | {"cpu_s": time.process_time() - cpu}
    rounded = {name: round(value, 3) for name, value in figures.items()}
    sys.stdout.write(json.dumps(rounded) + "\n" if options.json else f"{options.files} files: {rounded}\n")
    return 0 if figures["render_s"] <= TARGET_SECONDS * options.files / 1000 else 1


if __name__ == "__main__":
    raise SystemExit(main())
