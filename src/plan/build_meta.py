"""Builds wheels of pure Python, in the place of setuptools.

pip calls it (PEP 517) for what Patroni needs that is published as source only. The source says itself what it is,
in files that setuptools wrote when it was made; none of its code is run. Only pgherd's own list of requirements
comes here: whatever else is to be built ends with an error.
"""

import base64
import hashlib
import os
import sys
import zipfile

KNOWN = ("python-etcd", "ydiff")


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def _project():
    """The name and version as in files' names, the folder of the modules, and the notes on the project."""
    fields = {}
    for line in _read("PKG-INFO").decode().split("\n\n")[0].splitlines():
        key, _, value = line.partition(": ")
        fields.setdefault(key, value)
    name = fields["Name"]
    root = "src" if os.path.isdir("src") else "."
    notes = os.path.join(root, name.replace("-", "_") + ".egg-info")
    if name not in KNOWN or not os.path.isdir(notes):
        sys.exit("pgherd builds no " + name + ": only " + " and ".join(KNOWN))
    return name.replace("-", "_") + "-" + fields["Version"], root, notes


def _metadata(notes):
    files = {
        "METADATA": _read("PKG-INFO"),
        "WHEEL": b"Wheel-Version: 1.0\nGenerator: pgherd\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    for name in ("entry_points.txt", "top_level.txt"):
        path = os.path.join(notes, name)
        if os.path.exists(path):
            files[name] = _read(path)
    return files


def _modules(root, notes):
    for module in _read(os.path.join(notes, "top_level.txt")).decode().split():
        path = os.path.join(root, module)
        if os.path.isfile(path + ".py"):
            yield module + ".py", _read(path + ".py")
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if name != "tests"]
            for name in names:
                if name.endswith(".py"):
                    file = os.path.join(folder, name)
                    yield os.path.relpath(file, root), _read(file)


class _Backend:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []

    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        name, _, notes = _project()
        folder = name + ".dist-info"
        os.mkdir(os.path.join(metadata_directory, folder))
        for file, content in _metadata(notes).items():
            with open(os.path.join(metadata_directory, folder, file), "wb") as out:
                out.write(content)
        return folder

    @staticmethod
    def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
        name, root, notes = _project()
        files = dict(_modules(root, notes))
        for file, content in _metadata(notes).items():
            files[name + ".dist-info/" + file] = content
        record = ""
        wheel = name + "-py3-none-any.whl"
        with zipfile.ZipFile(os.path.join(wheel_directory, wheel), "w") as out:
            for path, content in files.items():
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                record += "%s,sha256=%s,%d\n" % (path, digest, len(content))
                out.writestr(path, content)
            path = name + ".dist-info/RECORD"
            out.writestr(path, record + path + ",,\n")
        return wheel


# By this name pip asks for the builder of a project that names none.
__legacy__ = _Backend
