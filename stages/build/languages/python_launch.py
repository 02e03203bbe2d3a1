"""The program that starts a workload whose command needs variables or runs several programs, without a shell.

It is passed to Python with `-c`, so that nothing is added to the image. Its arguments are words in which `${NAME}`
stands for a variable, `${NAME...}`, alone or several times, for the words of what they hold together, `$$` for a dollar
sign, and which `$&&` and `$;` part into commands. The last command replaces it, so that signals reach the workload
itself; while an earlier one runs, signals are passed on to that.
"""

from __future__ import annotations

LAUNCHER = """\
import os, re, signal, subprocess, sys

def words(command):
    for word in command:
        if re.fullmatch(r"(?:\\$\\{\\w+\\.\\.\\.\\})+", word):
            yield from "".join(os.environ.get(name, "") for name in re.findall(r"\\w+", word)).split()
        else:
            yield re.sub(r"\\$(?:\\$|\\{(\\w+)\\})", lambda m: os.environ.get(m[1], "") if m[1] else "$", word)

def start(function, command):
    line = list(words(command))
    try:
        return function(line)
    except (OSError, IndexError) as error:
        sys.exit(f"cannot start {line[:1]}: {error}")

def stop(number, frame):
    stopped.append(128 + number)
    if running:
        running[-1].send_signal(number)

rest, stopped, running = sys.argv[1:], [], []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)
while "$&&" in rest or "$;" in rest:
    end = next(place for place, word in enumerate(rest) if word in ("$&&", "$;"))
    running.append(start(subprocess.Popen, rest[:end]))
    status = running[-1].wait()
    if stopped or status and rest[end] == "$&&":
        sys.exit(stopped[0] if stopped else status if status > 0 else 128 - status)
    rest = rest[end + 1:]
if stopped:
    sys.exit(stopped[0])
start(lambda line: os.execvp(line[0], line), rest)
"""
