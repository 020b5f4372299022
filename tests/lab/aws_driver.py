#!/usr/bin/env python3
"""A client that writes all the time and is switched over meanwhile: with the AWS Advanced Python Wrapper's blue/green plugin,
unmodified, or with psycopg alone. It writes numbered rows through one connection, dials again at every error, and reports what
it met; with the wrapper also the phases that the plugin went through, by the plugin's own log.

    PGPASSWORD=... python3 aws_driver.py --client wrapper|plain --host NAME --port 5432 --user U --database D --seconds 60

Table: driver_load (client text, n bigint, primary key (client, n)). One JSON object a line goes to stdout: {"phase": ...} as the
plugin logs one, {"written": n} every half second, and {"report": ...} at the end, which is the deadline or the end of stdin.

Known of the plugin (3.1.0): a call that it suspends while the switchover is in progress never returns, and spins. Such a call is
ended here a second after the plugin itself has logged that the switchover is over, and counted as `stuck`.
"""

import argparse
import ctypes
import json
import logging
import os
import re
import sys
import threading
import time

import psycopg

OVER = ("POST", "COMPLETED")
PATIENCE = 1.0


class Stuck(BaseException):
    """Raised into a call that does not come back by itself."""


TELLING = threading.Lock()


def tell(**line):
    with TELLING:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class PluginLog(logging.Handler):
    """Reads phases and the final table from what the plugin logs."""

    def __init__(self, path):
        super().__init__(logging.DEBUG)
        self.phases, self.events, self.over_since = [], [], None
        self.file = open(path, "w") if path else None

    def emit(self, record):
        text = record.getMessage()
        if "Suspend" in text:  # logged again and again by a call that spins
            return
        if self.file:
            self.file.write(f"{record.created:.3f} {text}\n")
            self.file.flush()
        found = re.search(r"latest_status_phase: (?:BlueGreenPhase\.)?(\w+)", text)
        if found and (not self.phases or self.phases[-1] != found[1]):
            self.phases.append(found[1])
            if found[1] in OVER and self.over_since is None:
                self.over_since = time.monotonic()
            tell(phase=found[1], at=record.created)
        if "time offset (ms)" in text:
            rows = re.findall(r"^\s*\S+ \S+\s+(-?\d+) ms\s+(.+?)\s*$", text, re.MULTILINE)
            self.events = [[event, int(offset)] for offset, event in rows]
            tell(table=len(rows))


class Client:
    """The load: one thread that writes, and what it met."""

    def __init__(self, options, log):
        self.options, self.log = options, log
        self.stop = threading.Event()
        self.n, self.done = 0, 0
        self.unsure = []
        self.errors, self.stuck = {}, 0
        self.last, self.gap, self.gap_at = None, 0.0, None
        self.served = []
        self.call_since = None
        self.connection, self.thread = None, None

    def connect(self):
        o = self.options
        target = f"host={o.host} port={o.port} dbname={o.database} user={o.user} password={os.environ['PGPASSWORD']}"
        if o.client == "plain":
            return psycopg.connect(target, autocommit=True, connect_timeout=5)
        from aws_advanced_python_wrapper import AwsWrapperConnection
        return AwsWrapperConnection.connect(
            psycopg.Connection.connect, target, plugins="bg", bg_id=o.database,
            bg_interval_baseline_ms=500, bg_interval_increased_ms=200, bg_interval_high_ms=50,
            autocommit=True, connect_timeout=5)

    def write(self, connection):
        self.n += 1
        cursor = connection.cursor()
        cursor.execute("insert into driver_load (client, n) values (%s, %s) "
                       "returning pg_catalog.aurora_db_instance_identifier()", (self.options.client, self.n))
        served = cursor.fetchone()[0]
        cursor.close()
        now = time.monotonic()
        self.done = self.n
        if self.last is not None and now - self.last > self.gap:
            self.gap, self.gap_at = now - self.last, time.time() - (now - self.last)
        self.last = now
        if not self.served or self.served[-1] != served:
            self.served.append(served)

    def run(self):
        while not self.stop.is_set():
            # Raised from outside, it may also come a moment late, when the call has returned after all.
            try:
                self.turns()
            except Stuck:
                self.stuck += 1
                self.give_up()

    def turns(self):
        while not self.stop.is_set():
            try:
                self.call_since = time.monotonic()
                if self.connection is None:
                    self.connection = self.connect()
                    self.call_since = time.monotonic()
                self.write(self.connection)
                self.call_since = None
                time.sleep(0.005)
            except Exception as error:
                code = getattr(error, "sqlstate", None)
                name = f"{type(error).__name__}{' ' + code if code else ''}"
                self.errors[name] = self.errors.get(name, 0) + 1
                self.give_up()
                time.sleep(0.01)

    def give_up(self):
        """Leaves the connection, whose last write may or may not have been done."""
        self.call_since = None
        if self.n > self.done:
            self.unsure.append(self.n)
            self.done = self.n
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception:
                pass

    def end_a_stuck_call(self):
        since, over = self.call_since, self.log.over_since if self.log else None
        now = time.monotonic()
        if since is None or over is None or now - max(since, over) < PATIENCE:
            return
        self.call_since = None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident), ctypes.py_object(Stuck))

    @property
    def acknowledged(self):
        return self.done - len(self.unsure)

    def report(self):
        if self.n > self.done:
            self.unsure.append(self.n)
            self.done = self.n
        total = sum(self.errors.values())
        return {"client": self.options.client, "written": self.n, "acknowledged": self.acknowledged, "unsure": self.unsure,
                "errors": self.errors, "error_count": total, "stuck": self.stuck, "gap_ms": round(self.gap * 1000),
                "gap_at": self.gap_at, "served": self.served, "phases": self.log.phases if self.log else [],
                "events": self.log.events if self.log else []}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", choices=["wrapper", "plain"], required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--log", help="where the wrapper's log goes")
    options = parser.parse_args()
    log = None
    if options.client == "wrapper":
        log = PluginLog(options.log)
        logger = logging.getLogger("aws_advanced_python_wrapper")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(log)
    client = Client(options, log)
    client.thread = threading.Thread(target=client.run, daemon=True)
    client.thread.start()
    threading.Thread(target=lambda: (sys.stdin.read(), client.stop.set()), daemon=True).start()
    deadline, said = time.monotonic() + options.seconds, 0.0
    while time.monotonic() < deadline and not client.stop.is_set():
        client.end_a_stuck_call()
        if time.monotonic() - said > 0.5:
            said = time.monotonic()
            tell(written=client.acknowledged)
        client.stop.wait(0.02)
    client.stop.set()
    client.thread.join(2)
    tell(report=client.report())
    # A call that spins would keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
