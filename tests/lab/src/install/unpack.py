"""Unpacks the one tar.gz inside a wheel into an empty folder: unpack.py WHEEL FOLDER. Nothing but the standard library."""

import io
import sys
import tarfile
import zipfile

wheel, folder = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    (name,) = [name for name in archive.namelist() if name.endswith(".tar.gz")]
    with tarfile.open(fileobj=io.BytesIO(archive.read(name))) as tree:
        for member in tree.getmembers():
            first, _, rest = member.name.partition("/")
            if rest and ".." not in rest.split("/"):
                member.name = rest
                tree.extract(member, folder)
