"""`python -m tests.fuzz --minutes 60 --seed 1`: damaged files for every reader, until the time is over."""

from __future__ import annotations

import argparse
import collections
import faulthandler
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.formats import FORMATS
from tests.fuzz.run import SECONDS, attempt, damage, write


def main() -> int:
    """Exit status 1 if something came that may not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--inputs", type=int, help="stop after so many, even if there is time left")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS), metavar="FORMAT")
    parser.add_argument("--number", type=int, help="replay this input of the one format, and say what comes of it")
    parser.add_argument("--output", type=Path, default=Path("fuzz"), help="folder for inputs that fail")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.number is not None:
        (name,) = options.formats
        folder = options.output / f"{name.replace(' ', '_')}-{options.seed}-{options.number}"
        write(damage(name, options.seed, options.number), folder)
        outcome = attempt(FORMATS[name], folder)
        print(f"{outcome.kind}: {outcome.text}\nThe input is in {folder}.")
        return not outcome.fine
    counts: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in options.formats}
    end, number, done, said, causes = time.monotonic() + 60 * options.minutes, 0, 0, 0.0, set()
    with tempfile.TemporaryDirectory() as scratch:
        while time.monotonic() < end and (options.inputs is None or done < options.inputs):
            for name in options.formats:
                form = FORMATS[name]
                if int(number * form.share) == int((number - 1) * form.share) and number:
                    continue
                folder = Path(scratch) / "input"
                write(files := damage(name, options.seed, number), folder)
                # C code that hangs or crashes hears no alarm: say at least which input it was.
                replay = f"python -m tests.fuzz --formats '{name}' --seed {options.seed} --number {number}"
                faulthandler.dump_traceback_later(6 * SECONDS, exit=True)
                (Path(scratch).parent / "fuzz-current.txt").write_text(replay)
                outcome = attempt(form, folder)
                faulthandler.cancel_dump_traceback_later()
                counts[name][outcome.kind] += 1
                done += 1
                if not outcome.fine or (number == 0 and outcome.kind != "accepted"):
                    counts[name]["failed"] += outcome.fine
                    cause = (name, outcome.kind, *outcome.text.splitlines()[-4:])
                    if cause not in causes:
                        causes.add(cause)
                        write(files, options.output / f"{name.replace(' ', '_')}-{options.seed}-{number}")
                        print(f"\n{name}: {outcome.kind}\n{outcome.text}\nReplay: {replay}", flush=True)
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    bad = sum(count for part in counts.values() for kind, count in part.items() if kind not in FINE)
                    print(
                        f"{done:,} inputs, {bad} failed, {max(0.0, end - said) / 60:.1f} minutes left", file=sys.stderr
                    )
            number += 1
    print(f"\n{'format':16} {'tried':>6}  outcomes")
    for name, part in counts.items():
        print(f"{name:16} {sum(part.values()):6}  {', '.join(f'{kind} {n}' for kind, n in sorted(part.items()))}")
    return any(kind not in FINE for part in counts.values() for kind in part)


FINE = ("accepted", "refused")

if __name__ == "__main__":
    sys.exit(main())
