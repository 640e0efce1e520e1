"""Runs the command in processes of its own."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest
from tests.cli import forked

PATIENCE = 30.0
COMMAND = [sys.executable, "-m", "revstore"]
STARTING = ("PYTHON", "LANG", "LC_")


class Started:
    """A command that runs beside the test; its lines of output can be waited for."""

    def __init__(self, arguments, env, ignored=""):
        # As a shell starts a command under nohup or in the background of a script.
        shell = ["sh", "-c", f'trap "" {ignored}; exec "$@"', "sh"] if ignored else []
        self.process = subprocess.Popen(
            [*shell, *COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        self._lines = queue.Queue()
        self._errors = []
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines.put)),
            threading.Thread(target=self._read, args=(self.process.stderr, self._errors.append)),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream, put):
        for line in stream:
            put(line.rstrip("\n"))

    def line(self):
        """The next line of output."""
        try:
            return self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no line came; errors: {self._errors}") from None

    def event(self):
        """The next line of ``watch -o json``: the event's type, and its object."""
        event = json.loads(self.line())
        return event["type"], event["object"]

    def wait_for_error(self, text):
        """Until a line on standard error holds ``text``."""
        deadline = time.monotonic() + PATIENCE
        while not any(text in line for line in self._errors):
            assert time.monotonic() < deadline, f"{text!r} not in {self._errors}"
            threading.Event().wait(0.01)

    def interrupt(self, number=signal.SIGINT):
        """Send what Ctrl-C sends, or that signal; the exit code and the lines on standard error."""
        self.process.send_signal(number)
        return self.end()

    def end(self):
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            for thread in self._threads:
                thread.join(PATIENCE)
            self.process.stdout.close()
            self.process.stderr.close()
        return code, self._errors


class Revstore:
    """The command over a store of the test's own, a sqlite file."""

    def __init__(self, folder):
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if "REVSTORE" not in name}
        self.env = {**clean, "REVSTORE_URL": f"sqlite:///{folder}/store.db"}
        self.started = []

    def __call__(self, *arguments, code=0, stdin=None, timeout=PATIENCE, **env):
        """Run to the end, which must be with ``code``; what it printed and complained of."""
        env = {**self.env, **env}
        # What Python reads when it starts needs a start.
        of_python = {name: value for name, value in env.items() if name.startswith(STARTING)}
        if any(os.environ.get(name) != value for name, value in of_python.items()):
            done = subprocess.run(
                [*COMMAND, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                env=env,
                cwd=self.folder,
                timeout=timeout,
                check=False,
            )
        else:
            done = forked.run(arguments, env, self.folder, stdin, timeout)
        assert "Traceback" not in done.stderr
        assert code == done.returncode, (done.stdout, done.stderr)
        return done

    def out(self, *arguments, **options):
        """The lines of a run that must succeed without complaint."""
        done = self(*arguments, **options)
        assert done.stderr == ""
        return done.stdout.splitlines()

    def error(self, *arguments, code, **options):
        """The one line that a run complains of."""
        (line,) = self(*arguments, code=code, **options).stderr.splitlines()
        return line

    def json(self, *arguments):
        return json.loads("\n".join(self.out(*arguments, "-o", "json")))

    def apply(self, *objects, **options):
        return self.out("apply", "-f", "-", stdin="\n".join(map(json.dumps, objects)), **options)

    def apply_in(self, namespace, *objects):
        stdin = "\n".join(map(json.dumps, objects))
        return self.out("apply", "-n", namespace, "-f", "-", stdin=stdin)

    def start(self, *arguments, ignored="", **env):
        """Start a command beside the test, with the signals ``ignored`` ("INT HUP") ignored."""
        self.started.append(Started(arguments, {**self.env, **env}, ignored))
        return self.started[-1]

    def doctor(self):
        return json.loads("\n".join(self.out("doctor", "--json")))


@pytest.fixture
def revstore(tmp_path):
    command = Revstore(tmp_path)
    yield command
    for started in command.started:
        if started.process.poll() is None:
            started.interrupt(signal.SIGKILL)


@pytest.fixture
def pod():
    def make(name, namespace=None, labels=None, **fields):
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {key: value for key, value in metadata.items() if value is not None},
            "spec": {"containers": [{"name": "main", "image": "nginx:1"}]},
            **fields,
        }

    return make
